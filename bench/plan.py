"""What a plan promises, measured on real pass rates: its centre, and how often its interval holds the truth.

python bench/plan.py [PART ...]: `known` (plan against simulation from known rates), `pilot` (from a
pilot of 16 and of 64 draws per query) and `held_out` (the same on made-up worlds that no number was
chosen on, and what `WIDEN` would be if one of the files had been held back); all when none is named.
They need the data folder (files of measured pass rates) and are skipped without it. Writes
bench/results/plan.json.
"""

import json
import os
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.sample.estimate import fit_prior
from dart_math_nb.sample.forecast import WIDEN, forecast, from_beta, from_counts, from_rates
from dart_math_nb.sample.plan import plan
from dart_math_nb.sample.play import pilot_quotas, play, success_times, times_for
from dart_math_nb.sample.strategy import StrategyCfg, pilot_size, stops_of

OUT = Path(__file__).parent / "results" / "plan.json"
CFGS = {
    "VRT 52": StrategyCfg("vrt", 52),
    "Uniform 40": StrategyCfg("uniform", 40),
    "Prop2Diff 192": StrategyCfg("prop2diff", 192),
}
FLOORED = {
    "Uniform 40, floor 5": StrategyCfg("uniform", 40, min_yield=5.0),
    "Prop2Diff 192, floor 5": StrategyCfg("prop2diff", 192, min_yield=5.0),
}
N_SEEDS = 100  # Pilots per file and size


def rate_files() -> dict[str, np.ndarray]:
    "Measured pass rates by set."
    files = sorted((data_folder() / "pass_rates").glob("*.jsonl.gz"))
    read = {f.name.split(".")[0]: read_rows(f, ["n", "n_correct"]) for f in files}
    return {name: np.array([r["n_correct"] / r["n"] for r in rows]) for name, rows in read.items()}


def runs(cfg: StrategyCfg, p: np.ndarray, n_runs: int, seed: int) -> dict[str, np.ndarray]:
    "Totals of simulated runs: every query of each is drawn until its own stop."
    rng = np.random.default_rng(seed)
    if cfg.name == "vrt":
        c = rng.binomial(cfg.k, p, (n_runs, len(p)))
        draws = np.full(n_runs, cfg.k * len(p))
        return {"n_draws": draws, "n_rows": c.sum(1), "n_covered": (c > 0).sum(1)}
    total = {"n_draws": np.zeros(n_runs), "n_rows": np.zeros(n_runs), "n_covered": np.zeros(n_runs)}
    rates, times = np.unique(p, return_counts=True)
    for i in range(len(rates)):  # the games of one rate; each run picks its queries' games
        t = success_times(
            rates[i : i + 1], times_for(cfg, [0.5]).shape[2] - 1, cfg.max_trials, seed + i
        )
        done = play(
            t, pilot_quotas(cfg, t), cfg.max_trials, pilot_size(cfg), stops_of(cfg, cfg.max_trials)
        )
        pick = rng.integers(0, t.shape[1], (n_runs, times[i]))
        total["n_draws"] += done.n_trials[0][pick].sum(1)
        total["n_rows"] += done.n_rows[0][pick].sum(1)
        total["n_covered"] += (done.n_rows[0] > 0)[pick].sum(1)
    return total


def known() -> dict:
    "Plan and forecast against simulated runs, from known rates."
    rows = []
    for name, p in rate_files().items():
        for label, cfg in (CFGS | FLOORED).items():
            truth, told, range_ = runs(cfg, p, 100, 7), plan(p, cfg), forecast(from_rates(p), cfg)
            row = {"set": name, "strategy": label, "n_queries": len(p)}
            for what in ("n_draws", "n_rows", "n_covered"):
                mean = float(truth[what].mean())
                row[what] = mean
                row[f"{what}_off"] = told[what] / mean - 1
                inside = (range_[f"{what}_low"] <= truth[what]) & (
                    truth[what] <= range_[f"{what}_high"]
                )
                row[f"{what}_covered"] = float(inside.mean())
            rows.append(row)
            print(row)
    off = [abs(r[f"{w}_off"]) for r in rows for w in ("n_draws", "n_rows", "n_covered")]
    return {"largest_off": max(off), "rows": rows}


def pilot() -> dict:
    "Forecasts from pilots against a run of the same queries."
    return {"n_seeds": N_SEEDS, "level": 0.95, "rows": pilot_rows(rate_files())[0]}


def pilot_rows(sets: dict[str, np.ndarray]) -> tuple[list[dict], dict]:
    "A row per set, pilot and strategy; and the widening with which each interval would just hold."
    rows, needed = [], {}
    for name, p in sets.items():
        truth = {label: runs(cfg, p, N_SEEDS, 11) for label, cfg in CFGS.items()}
        for n_pilot in (16, 64):
            found: dict = {label: {} for label in CFGS}
            start = time.time()
            for seed in range(N_SEEDS):
                c = np.random.default_rng(1000 + seed).binomial(n_pilot, p)
                drawn = from_counts(n_pilot - c, np.full(len(p), n_pilot), seed)
                beta = from_beta(*fit_prior(n_pilot - c, np.full(len(p), n_pilot)), len(p))
                for label, cfg in CFGS.items():
                    told = forecast(drawn, cfg, seed=seed, times=TIMES[label])
                    keep = found[label]
                    for what in ("n_draws", "n_rows", "n_covered"):
                        true, low, high = (
                            truth[label][what][seed],
                            told[f"{what}_low"],
                            told[f"{what}_high"],
                        )
                        row = (
                            told[what] / true - 1,
                            low <= true <= high,
                            (high - low) / told[what],
                        )
                        keep.setdefault(what, []).append(row)
                        edge = (high if true > told[what] else low) - told[what]
                        if low < high and edge:
                            wide = WIDEN * (true - told[what]) / edge
                            needed.setdefault((name, what), []).append(wide)
                    keep.setdefault("unseen", []).append(told["unseen_share"])
                    if seed < 5:
                        plain = forecast(beta, cfg, seed=seed, times=TIMES[label])
                        true = truth[label]["n_draws"][seed]
                        keep.setdefault("beta", []).append(plain["n_draws"] / true - 1)
            seconds = (time.time() - start) / N_SEEDS
            rows += [summary(name, label, n_pilot, found[label], seconds) for label in CFGS]
            for row in rows[-len(CFGS) :]:
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    return rows, needed


def worlds(n: int = 2000, seed: int = 5) -> dict[str, np.ndarray]:
    "Pass rates of sets that are unlike one another."
    rng = np.random.default_rng(seed)
    mixed = np.where(rng.random(n) < 0.3, 0.0, np.where(rng.random(n) < 0.3, 1.0, rng.random(n)))
    return {
        "Beta(0.3, 0.3)": rng.beta(0.3, 0.3, n),
        "Beta(1, 3)": rng.beta(1, 3, n),
        "Beta(3, 1)": rng.beta(3, 1, n),
        "Beta(20, 30)": rng.beta(20, 30, n),
        "30 % never, 21 % always, rest even": mixed,
        "log-uniform from 0.0001": 10 ** rng.uniform(-4, 0, n),
    }


def held_out() -> dict:
    "Worlds that nothing was chosen on; and the files, each held back from the choice of WIDEN."
    rows, _ = pilot_rows(worlds())
    _, needed = pilot_rows(rate_files())
    names, grid = list(rate_files()), [round(1 + 0.05 * i, 2) for i in range(9)]
    back = []
    for name in names:
        others = np.concatenate([v for (n, _), v in needed.items() if n != name])
        mine = np.concatenate([v for (n, _), v in needed.items() if n == name])
        chosen = next((w for w in grid if (others <= w).mean() >= 0.95), grid[-1])
        row = {"held back": name, "chosen on the others": chosen}
        row["held by then"] = float((mine <= chosen).mean())
        back.append(row | {"held with 1.1": float((mine <= 1.1).mean())})
        print(back[-1])
    held = {w: [r[f"{w}_held"] for r in rows] for w in ("n_draws", "n_rows", "n_covered")}
    least = {w: min(v) for w, v in held.items()}
    mean = {w: float(np.mean(v)) for w, v in held.items()}
    return {"mean held": mean, "least held": least, "rows": rows, "one file held back": back}


TIMES = {label: times_for(cfg, from_beta(1, 1, 1).pass_rates) for label, cfg in CFGS.items()}


def summary(name: str, label: str, n_pilot: int, found: dict, seconds: float) -> dict:
    "Means over the pilots."
    row = {"set": name, "n_pilot": n_pilot, "strategy": label, "seconds": round(seconds, 3)}
    for what in ("n_draws", "n_rows", "n_covered"):
        off, held, width = np.array(found[what], float).T
        row[f"{what}_off"], row[f"{what}_held"] = float(off.mean()), float(held.mean())
        row[f"{what}_largest_off"] = float(abs(off).max())
        row[f"{what}_width"] = float(width.mean())
    row["unseen_share"] = float(np.mean(found["unseen"]))
    return row | {"n_draws_off_of_a_beta": float(np.mean(found["beta"]))}


PARTS = {"known": known, "pilot": pilot, "held_out": held_out}


def main(names: list[str]) -> None:
    if not data_folder():
        print("skipped, no data folder")
        return
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names:
        start = time.time()
        part = PARTS[name]()
        found[name] = {"date": str(date.today()), "seconds": round(time.time() - start, 1)} | part
    found["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

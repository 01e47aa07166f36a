"""What the default stop for hopeless queries costs and saves, on measured pass rates and on worlds held out.

python bench/giveup.py: four files of measured pass rates from the data folder, each twice: the measured
ratios as the truth, and rates drawn from what the counts leave open (a query that was solved in none of 64
draws has not rate 0); then seven made-up spreads, harder and easier than the prior of the stop. Each query is
played 16 times with and without the stop, on the same draws. Writes bench/results/giveup.json.
"""

import json
import os
import platform
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.sample.estimate import fit_prior
from dart_math_nb.sample.giveup import GIVE_UP_PRIOR, GIVE_UP_SHARE, give_up_cost, give_up_draws
from dart_math_nb.sample.play import pilot_quotas, play, success_times, times_for
from dart_math_nb.sample.strategy import StrategyCfg, pilot_size, stops_of

OUT = Path(__file__).parent / "results" / "giveup.json"
CFGS = {
    "Uniform 40 of 2,048": StrategyCfg("uniform", 40),
    "Prop2Diff 192 of 2,048": StrategyCfg("prop2diff", 192),
    "Uniform 4 of 2,048": StrategyCfg("uniform", 4),
    "Uniform 8 of 256": StrategyCfg("uniform", 8, 256),
    "Prop2Diff 16 of 512": StrategyCfg("prop2diff", 16, 512),
    "Uniform 4 of 64": StrategyCfg("uniform", 4, 64),
    "Prop2Diff 8 of 64, pilot 8": StrategyCfg("prop2diff", 8, 64, 8),
    "4p(1-p) 40 of 2,048": StrategyCfg("4*p*(1-p)", 40),
}
WORLDS = [(0.1, 0.5), (0.1, 0.3), (0.05, 1), (0.3, 2), (0.2, 0.2), (0.5, 0.5), (1, 3)]  # Beta of p


def truths(seed: int = 0) -> dict[str, np.ndarray]:
    "Pass rates by set: as measured, and drawn from what the counts leave open."
    rng, found, folder = np.random.default_rng(seed), {}, data_folder()
    for file in sorted((folder / "pass_rates").glob("*.jsonl.gz")) if folder else ():
        rows = [(r["n"], r["n_correct"]) for r in read_rows(file, ["n", "n_correct"])]
        n, c = np.array(rows).T
        a, b = fit_prior(n - c, n)
        name = file.name.split(".")[0]
        found[f"{name}, ratios"] = c / n
        found[f"{name}, drawn"] = rng.beta(b + c, a + n - c)
    return found


def worlds(seed: int = 1, n: int = 4000) -> dict[str, np.ndarray]:
    "Made-up pass rates."
    rng = np.random.default_rng(seed)
    return {f"Beta({a}, {b})": rng.beta(a, b, n) for a, b in WORLDS}


def played(cfg: StrategyCfg, p: np.ndarray, seed: int) -> dict[str, float]:
    "Shares lost and saved over all queries, with and without the stop on the same draws."
    most, sums = times_for(cfg, [0.5]).shape[2] - 1, np.zeros((2, 3))
    how, stops = (cfg.max_trials, pilot_size(cfg)), stops_of(cfg, cfg.max_trials)
    for i in range(0, len(p), 256):
        times = success_times(p[i : i + 256], most, cfg.max_trials, seed + i)[:, :16]
        quota = pilot_quotas(cfg, times)
        for j, table in enumerate(((), stops)):
            done = play(times, quota, *how, table)
            sums[j] += done.n_rows.sum(), done.n_trials.sum(), (done.n_rows > 0).sum()
    rows, draws, queries = 1 - sums[1] / np.maximum(sums[0], 1)
    return {"rows_lost": rows, "draws_saved": draws, "queries_lost": queries}


def measure(sets: dict[str, np.ndarray]) -> list[dict]:
    "A row per set and strategy."
    found = []
    for name, p in sets.items():
        for label, plain in CFGS.items():
            cfg = replace(plain, give_up=give_up_draws(plain))
            row = {"set": name, "strategy": label, "n_queries": len(p), "give_up": cfg.give_up}
            row |= {k: float(v) for k, v in played(cfg, p, 7).items()}
            row |= {f"{k}_told": v for k, v in give_up_cost(cfg, p).items()}
            print(
                json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
            )
            found.append(row)
    return found


def main() -> None:
    start, measured = time.time(), measure(truths())
    made = measure(worlds())
    off = [
        abs(r[f"{k}_told"] - r[k]) for r in measured + made for k in ("rows_lost", "draws_saved")
    ]
    found = {
        "date": str(date.today()),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "prior": GIVE_UP_PRIOR,
        "share": GIVE_UP_SHARE,
        "largest_loss_measured": max((r["rows_lost"] for r in measured), default=None),
        "largest_loss_made_up": max(r["rows_lost"] for r in made),
        "largest_error_of_what_is_told": max(off),
        "measured": measured,
        "made_up": made,
        "seconds": round(time.time() - start),
    }
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    named_parts(__doc__)
    main()

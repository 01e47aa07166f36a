"""How far a search over temperatures can be believed: its intervals, its choice, and what the race saves.

python bench/temperature.py [PART ...]: `simulated` (counts at real pass rates, whose change with temperature follows a
known law: `engines.dice.temper`), `command` (the same law through engine, grader and pool) and `teacher` (the demo's
teacher, drawn by the search itself); all when none is named. The first two need the data folder (files of measured
pass rates) and are skipped without it. Writes bench/results/temperature.json.
"""

import json
import math
import os
import platform
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts
from plan import rate_files
from scipy import stats

from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Source, Verdict
from dart_math_nb.engines.dice import SimulatedEngine, simulated_world, temper
from dart_math_nb.sample.search import SearchCfg, race, search_order, search_settings
from dart_math_nb.sample.tuning import (
    MEASURES,
    TARGETS,
    UNITS,
    Drawn,
    cost_of,
    setting_row,
    settings_grid,
    times_range,
)

OUT = Path(__file__).parent / "results" / "temperature.json"
GRID = settings_grid([0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
REFERENCE = 4  # Place of the setting that pairs are compared with
K, N_FORMS, MOST, SIGMA = (
    8,
    20,
    2048,
    0.6,
)  # Draws; texts per answer; token limit; spread of lengths
COSTS = [f"{by}_per_{t}" for by in UNITS for t in TARGETS]
SIZES = (50, 200)  # Queries
N_RUNS = 200  # Repetitions of each file and size


class World:
    "A set of queries with all that is true of them at each setting."

    def __init__(self, rates: np.ndarray):
        heat = [[temper(p, N_FORMS, s.temperature) for p in rates] for s in GRID]
        self.p, self.lost, self.forms = np.array(heat).transpose(2, 0, 1)  # [settings, queries]
        self.mean = 200 * (1 + 1.5 * (1 - rates))  # Tokens: hard queries are longer
        mu = np.log(self.mean) - SIGMA**2 / 2
        top = (math.log(MOST) - mu) / SIGMA
        whole = stats.norm.cdf(top) * (1 - self.lost)  # Not cut
        short = self.mean * stats.norm.cdf(top - SIGMA) + MOST * stats.norm.sf(top)
        tokens = (1 - self.lost) * short + self.lost * MOST
        accepted = self.p * whole
        covered = 1 - (1 - accepted) ** K
        different = self.forms * (1 - (1 - accepted / self.forms) ** K)
        paid = {"draws": np.full(len(GRID), 1.0), "tokens": tokens.mean(1)}
        got = {"accepted": accepted.mean(1), "covered": covered.mean(1) / K}
        self.true = {f"{by}_per_{t}": paid[by] / got[t] for by in UNITS for t in TARGETS}
        self.true |= {"pass_rate": accepted.mean(1), "coverage": covered.mean(1)}
        self.true |= {"truncated": 1 - whole.mean(1)}
        self.true |= {"distinct": different.sum(1) / (K * accepted.sum(1))}

    def draw(self, n: int, seed: int) -> list[Drawn]:
        "Counts of n queries, taken with replacement, at every setting."
        rng = np.random.default_rng(seed)
        q, found = rng.integers(0, self.p.shape[1], n), []
        for i in range(len(GRID)):
            lens = rng.lognormal(np.log(self.mean[q]) - SIGMA**2 / 2, SIGMA, (K, n))
            cut = (lens > MOST) | (rng.random((K, n)) < self.lost[i, q])
            ok = ~cut & (rng.random((K, n)) < self.p[i, q])
            form = np.where(ok, rng.integers(0, self.forms[i, q].astype(int), (K, n)), -1)
            form.sort(0)
            new = (form[0] >= 0) + ((np.diff(form, axis=0) > 0) & (form[1:] >= 0)).sum(0)
            tokens = np.where(cut, MOST, np.ceil(lens)).sum(0)
            counts = (ok.sum(0), cut.sum(0), new, tokens)
            found.append(Drawn(K, *(c.astype(float) for c in counts)))
        return found


def hold(world: World, drawn: list[Drawn], kept: dict) -> None:
    "Note which intervals hold the truth."
    for i, (s, d) in enumerate(zip(GRID, drawn, strict=True)):
        row = setting_row(s, d)
        for name in (*COSTS, *MEASURES):
            true, low, high = world.true[name][i], row[f"{name}_low"], row[f"{name}_high"]
            if low == low:  # else there is no interval, as nothing was accepted
                kept[name].append(low <= true <= high)
        for by, t in ((by, t) for by in UNITS for t in TARGETS):
            true = world.true[f"{by}_per_{t}"]
            times = times_range(d, drawn[REFERENCE], t, by)
            if i != REFERENCE and times.value == times.value:
                inside = times.low <= true[i] / true[REFERENCE] <= times.high
                kept[f"times_{by}_per_{t}"].append(inside)


def choose(world: World, drawn: list[Drawn], kept: dict) -> None:
    "Note what is named the cheapest, with and without the race."
    n = len(drawn[0].n_accepted)
    for by, t in ((by, t) for by in UNITS for t in TARGETS):
        true = world.true[f"{by}_per_{t}"]
        for halve in (False, True):
            cfg = SearchCfg(K, t, by, halve)
            found, out, _ = race(
                len(GRID),
                n,
                cfg,
                lambda sizes: [d.first(m) for d, m in zip(drawn, sizes, strict=True)],
            )
            costs = [cost_of(d, t, by) for d in found]
            left = [math.inf if x else c.value for c, x in zip(costs, out, strict=True)]
            named, best = int(np.argmin(left)), int(np.argmin(true))
            note = kept[f"{by}_per_{t}", "race" if halve else "all"]
            note["within_5%"].append(true[named] <= 1.05 * true[best])
            note["loss"].append(true[named] / true[best] - 1)
            note["best_kept"].append(not out[best])
            note["n_left"].append(len(GRID) - sum(out))
            note["draws"].append(sum(len(d.n_accepted) for d in found) / (n * len(GRID)))
            note["tokens"].append(
                sum(d.tokens.sum() for d in found) / sum(d.tokens.sum() for d in drawn)
            )
            if halve:
                inside = [c.low <= x <= c.high for c, x in zip(costs, true, strict=True)]
                note["held"] += inside
                note["held_of_kept"] += [x for x, gone in zip(inside, out, strict=True) if not gone]


def simulated() -> dict:
    "Intervals and choices at real pass rates."
    intervals, choices, truth = [], [], []
    for name, rates in rate_files().items():
        world = World(rates)
        best = {c: GRID[int(np.argmin(world.true[c]))].temperature for c in COSTS}
        truth.append({"set": name, "n_queries": len(rates), "cheapest": best})
        for n in SIZES:
            kept, picked = defaultdict(list), defaultdict(lambda: defaultdict(list))
            for seed in range(N_RUNS):
                drawn = world.draw(n, seed)
                hold(world, drawn, kept)
                if seed < N_RUNS // 2 and n == max(SIZES):
                    choose(world, drawn, picked)
            head = {"set": name, "n_queries": n}
            intervals.append(head | {k: float(np.mean(v)) for k, v in kept.items()})
            print(intervals[-1])
            for (cost, how), note in picked.items():
                means = {k: float(np.mean(v)) for k, v in note.items()}
                choices.append(head | {"cost": cost, "how": how} | means)
                print(choices[-1])
    large = [r for r in intervals if r["n_queries"] == max(SIZES)]
    names = [k for k in large[0] if k not in ("set", "n_queries")]
    held = {k: float(np.mean([r[k] for r in large])) for k in names}
    return {
        "n_runs": N_RUNS,
        "n_draws": K,
        "temperatures": [s.temperature for s in GRID],
        "truth": truth,
        "held": held,
        "least_held": {k: min(r[k] for r in large) for k in names},
        "intervals": intervals,
        "choices": choices,
    }


def in_box(query, done) -> Verdict:
    "Verdict of a draw of the dice."
    ok = done.finish_reason == "stop" and f"boxed{{{query.ref_ans}}}" in done.text
    return Verdict(ok, None, "box", None if done.finish_reason == "stop" else "truncated")


def command() -> dict:
    "The law through engine, grader and pool: the share of costs that hold the truth."
    rates = next(iter(rate_files().values()))
    world, inside = World(rates), []
    queries, dice = simulated_world(len(rates))
    rate_of = dict(zip((q.query_id for q in queries), rates.tolist(), strict=True))
    dice = SimulatedEngine(rate_of, dice.ref_ans, sigma=0.0, tempered=True, n_forms=N_FORMS)
    how = {"grade": in_box, "progress": False}
    for seed in range(20):
        some = search_order(queries, 200, seed)
        with tempfile.TemporaryDirectory() as tmp:
            source = Source("dice", run_seed=seed)
            cfg = SearchCfg(K, by="draws")
            grid = GRID[1::2]
            found = search_settings(some, dice, tmp, grid, cfg, source=source, **how)
        true = 1 / np.mean(world.p * (1 - world.lost), axis=1)[1::2]
        inside += ((found.table.low <= true) & (true <= found.table.high)).tolist()
    return {"n_costs": len(inside), "held": float(np.mean(inside))}


def teacher() -> dict:
    "The demo's teacher at eight temperatures, with and without the race."
    from dart_math_nb.data.files import folder_revision
    from dart_math_nb.demo.pipeline import prompt_of, tiny_engine
    from dart_math_nb.demo.tiny import tiny_path, tiny_queries

    grid = settings_grid([0.0, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2])
    queries = search_order(tiny_queries(200, seed=11))
    folder, runs, tables = tiny_path("teacher"), [], {}
    source = Source("tiny-teacher", folder_revision(folder), template="plain", max_tokens=80)
    how = {"source": source, "prompt_of": prompt_of, "progress": False}
    asked = [(t, halve) for halve in (False, True) for t in TARGETS]
    with tempfile.TemporaryDirectory() as tmp, tiny_engine(folder) as engine:
        for target, halve in asked:  # all but the first find their draws in the pool
            start, cfg = time.time(), SearchCfg(8, target, halve=halve)
            found = search_settings(queries, engine, tmp, grid, cfg, **how)
            t, seconds = found.table, round(time.time() - start, 1)
            made = t.n_queries * np.where(t.temperature == 0, 1, t.n_draws)
            row = {"target": target, "race": halve, "by": found.by, "seconds": seconds}
            row |= {"n_draws": int(made.sum()), "n_tokens": int((made * t.tokens_per_draw).sum())}
            row["cheapest"] = float(t.loc[t.cheapest, "temperature"].item())
            row["not_distinguishable"] = t.loc[t.maybe_best, "temperature"].tolist()
            runs.append(row)
            print(row, flush=True)
            columns = ["temperature", "n_queries", "cost", "low", "high", "times", "times_low"]
            columns += ["times_high", *MEASURES, "tokens_per_draw", "maybe_best"]
            shown = t[columns].astype(object).where(t[columns].notna(), None)
            tables[f"{target}{' race' if halve else ''}"] = shown.to_dict("records")
    return {"n_queries": len(queries), "n_draws": 8, "runs": runs, "tables": tables}


PARTS = {"simulated": simulated, "command": command, "teacher": teacher}


def main(names: list[str]) -> None:
    for name in names:
        if name != "teacher" and not data_folder():
            print(f"{name}: skipped, no data folder")
            continue
        start = time.time()
        part = PARTS[name]()
        found = json.loads(OUT.read_text()) if OUT.exists() else {}
        found[name] = {"date": str(date.today()), "seconds": round(time.time() - start, 1)} | part
        found["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

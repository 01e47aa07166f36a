"""Do the intervals and tests keep their promises? `python bench/evaluate.py`.

Simulations with a known truth: coverage of the 95 % intervals (one draw per query, several correlated
draws, macro averages), false alarms and power of the tests of two models, bias of pass@k and maj@k.
Needs no data; seeded; about two minutes of one core. Writes `bench/results/evaluate.json`.
"""

import datetime
import platform
import time
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from parts import named_parts
from scipy import stats

from dart_math_nb.data.files import write_json
from dart_math_nb.evaluate.metrics import (
    clustered,
    n_needed,
    p_values,
    paired_test,
    pass_at_k,
    wilson,
)
from dart_math_nb.evaluate.votes import macro, maj_at_k

RESULTS = Path(__file__).parent / "results" / "evaluate.json"
RATES = np.linspace(0.02, 0.98, 97)


def wilson_coverage(n: int) -> dict:
    "Exact: sum the binomial probabilities of the counts whose interval holds p."
    c = np.arange(n + 1)
    low, high = wilson(c, n)
    p = RATES[:, None]
    held = (stats.binom.pmf(c, n, p) * ((low <= p) & (p <= high))).sum(1)
    return {"n": n, "mean": held.mean(), "min": held.min(), "max": held.max()}


def clustered_coverage(m: int, n_draws: int, rho: float, reps: int, rng) -> dict:
    "Queries with rates from Beta distributions of mean p and intra-class correlation rho."
    held = {"clustered": [], "as if independent": []}
    for p in RATES[::4]:
        a, b = p * (1 / rho - 1), (1 - p) * (1 / rho - 1)
        counts = rng.binomial(n_draws, rng.beta(a, b, (reps, m)))
        full = np.full(m, n_draws)
        ends = np.array([clustered(c, full) for c in counts])
        held["clustered"].append(((ends[:, 0] <= p) & (p <= ends[:, 1])).mean())
        low, high = wilson(counts.sum(1), m * n_draws)
        held["as if independent"].append(((low <= p) & (p <= high)).mean())
    out = {"queries": m, "draws": n_draws, "rho": rho, "reps": reps * len(RATES[::4])}
    worst = float(np.min(held["clustered"]))
    return out | {k: float(np.mean(v)) for k, v in held.items()} | {"worst p": worst}


def macro_coverage(sizes: list[int], reps: int, rng) -> dict:
    "Plain mean of benchmarks of different size, each with a rate of its own."
    held = []
    for _ in range(reps):
        p = rng.uniform(0.02, 0.98, len(sizes))
        c = rng.binomial(sizes, p)
        low, high = wilson(c, np.array(sizes))
        _, low, high = macro(pd.DataFrame({"accuracy": c / sizes, "low": low, "high": high}))
        held.append(low <= p.mean() <= high)
    return {"sizes": sizes, "reps": reps, "mean": float(np.mean(held))}


def mcnemar_alarms(n: int, share: float) -> dict:
    "Exact: sum over the number of queries that differ, and over how they split."
    alarms = np.zeros(2)
    for m in range(1, n + 1):
        if (weight := stats.binom.pmf(m, n, share)) < 1e-9:
            continue
        k = np.arange(m // 2 + 1 if m % 2 else m // 2)  # the even split is never an alarm
        p = np.array([p_values(np.repeat([1, -1], [x, m - x]), True) for x in k]).reshape(-1, 2)
        alarms += weight * 2 * stats.binom.pmf(k, m, 0.5) @ (p < 0.05)
    return {"queries": n, "share": share, "mid-P": alarms[0], "exact": alarms[1]}


def draws(correct: np.ndarray) -> pd.DataFrame:
    "Verdicts [queries, draws] as graded draws."
    m, n = correct.shape
    ids, trial = np.repeat(np.arange(m), n), np.tile(np.arange(n), m)
    return pd.DataFrame(
        {"query_id": ids, "trial": trial, "correct": correct.ravel(), "error": None}
    )


def paired_alarms(m: int, n_draws: int, reps: int, rng) -> dict:
    "Two models with the same rate on each query: p below 0.05, interval without 0."
    p, out = [], []
    for _ in range(reps):
        rates = rng.beta(0.7, 0.7, (m, 1))
        a, b = (draws(rng.random((m, n_draws)) < rates) for _ in range(2))
        found = paired_test(a, b, n_boot=1000)
        p.append(found.p_value < 0.05)
        out.append(not found.low <= 0 <= found.high)
    row = {"queries": m, "draws": n_draws, "reps": reps, "test": found.test}
    return row | {"p below 0.05": float(np.mean(p)), "interval without 0": float(np.mean(out))}


def power(gain: float, share: float, reps: int, rng) -> dict:
    "How often a true difference is found with as many queries as n_needed says."
    up, down = (share + gain) / 2, (share - gain) / 2
    sample = np.repeat(
        [1.0, -1.0, 0.0], np.round(10_000 * np.array([up, down, 1 - share])).astype(int)
    )
    n = n_needed(sample)
    won = 0
    for _ in range(reps):
        more, less, _ = rng.multinomial(n, [up, down, 1 - share])
        won += p_values(np.repeat([1.0, -1.0], [more, less]), True)[0] < 0.05
    return {"difference": gain, "share": share, "queries": n, "reps": reps, "power": won / reps}


def at_k_bias(k: int, n: int, reps: int, rng) -> dict:
    "Mean error of pass@k and maj@k against what the rates of 200 queries imply."
    p = rng.beta(0.7, 0.7, 200)
    wins = np.array(
        [stats.binom.sf(k // 2, k, x) + (k % 2 == 0) * stats.binom.pmf(k // 2, k, x) / 2 for x in p]
    )
    truth = {"pass": (1 - (1 - p) ** k).mean(), "maj": wins.mean()}
    errors = {"pass": [], "maj": []}
    for _ in range(reps):
        frame = draws(rng.random((200, n)) < p[:, None])
        frame["key"] = frame["correct"].map({True: "right", False: "wrong"})
        errors["pass"].append(pass_at_k(frame, [k])["pass_at_k"][0] - truth["pass"])
        errors["maj"].append(maj_at_k(frame, [k], n_subsets=100)["maj_at_k"][0] - truth["maj"])
    out = {"k": k, "n": n, "reps": reps, "subsets": "random" if comb(n, k) > 100 else "all"}
    for name, e in errors.items():
        out |= {f"{name}@k bias": float(np.mean(e)), f"{name}@k se": float(stats.sem(e))}
    return out


def measure() -> dict[str, list[dict]]:
    "Every simulation."
    rng = np.random.default_rng(0)
    sizes = [5000, 1319, 2818, 1000, 675, 800]
    return {
        "wilson": [wilson_coverage(n) for n in (500, 675, 1000, 1319, 5000)],
        "clustered": [
            clustered_coverage(m, n, rho, 400, rng)
            for (m, n), rho in product([(500, 4), (500, 16), (1000, 8)], [0.1, 0.4, 0.8])
        ],
        "macro": [macro_coverage(sizes, 4000, rng), macro_coverage([30, 40, 500], 4000, rng)],
        "mcnemar": [mcnemar_alarms(n, s) for n in (500, 1000) for s in (0.03, 0.1, 0.2, 0.4)],
        "paired": [paired_alarms(500, n, 3000, rng) for n in (1, 4)],
        "power": [power(0.02, 0.1, 2000, rng), power(0.05, 0.3, 2000, rng)],
        "at_k": [at_k_bias(4, 8, 40, rng), at_k_bias(8, 16, 40, rng)],
    }


def main() -> None:
    "Command line."
    start = time.process_time()
    found = measure()
    machine = f"{platform.machine()}, Python {platform.python_version()}, one core"
    head = {"date": str(datetime.date.today()), "machine": machine}
    head["cpu_seconds"] = round(time.process_time() - start, 1)
    write_json(RESULTS, head | found)
    for name, rows in found.items():
        print(f"\n{name}\n{pd.DataFrame(rows).round(4).to_string(index=False)}")
    print(f"\n{head}")


if __name__ == "__main__":
    named_parts(__doc__)
    main()

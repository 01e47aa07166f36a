"""How often a check of a difficulty record errs, and what it draws, on real pass rates.

python bench/drift.py [PART ...]: `true` (the record is true: how often it is rejected), `moved` (all rates
drifted), `level` (one level did), `mixed` (rates changed places), `form` (drifts of another form than the
test's model). Records of 8, 32 and 128 draws a query, and of draws that stop at the fourth success. Needs the
data folder (files of measured pass rates) and is skipped without it. Writes bench/results/drift.json.
"""

import json
import os
import platform
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts
from plan import rate_files
from scipy.special import expit, logit
from scipy.stats import norm

from dart_math_nb.data.load import data_folder
from dart_math_nb.sample.drift import DriftCfg, believe, check_drift

OUT = Path(__file__).parent / "results" / "drift.json"
CFG = DriftCfg()
RECORDS = {"8": 8, "32": 32, "128": 128, "uniform 4": None}  # Draws a query; None stops at 4
N_TRUE, N_DRIFT = 120, 25  # Checks of each kind


def levels_of(p: np.ndarray, rng: np.random.Generator, n_levels: int) -> np.ndarray:
    "Levels 1 to n that go with the rates as loosely as those of MATH do; the files have none."
    order = np.argsort(-(logit(np.clip(p, 0.02, 0.98)) + rng.normal(0, 1, len(p))))
    level = np.empty(len(p), int)
    level[order] = np.arange(len(p)) * n_levels // len(p) + 1
    return level


def record(p: np.ndarray, m: int | None, rng) -> tuple[np.ndarray, np.ndarray]:
    "Draws and correct ones of each query."
    if m:
        return np.full(len(p), m), rng.binomial(m, p)
    right = (rng.random((len(p), 64)) < p[:, None]).cumsum(1)
    n = np.where(right[:, -1] >= 4, (right >= 4).argmax(1) + 1, 64)
    return n, right[np.arange(len(p)), n - 1]


def by_points(p: np.ndarray, some: np.ndarray, points: float) -> np.ndarray | None:
    "Rates of which some moved in log-odds until their mean changed by so much; None: they cannot."
    low, high = (0.0, 6.0) if points > 0 else (-6.0, 0.0)
    odds = logit(np.clip(p[some], 1e-6, 1 - 1e-6))
    if not expit(odds + low).mean() <= p[some].mean() + points <= expit(odds + high).mean():
        return None
    for _ in range(50):
        middle = (low + high) / 2
        short = expit(odds + middle).mean() < p[some].mean() + points
        low, high = (middle, high) if short else (low, middle)
    out = p.copy()
    out[some] = expit(odds + low)
    return out


def swapped(p: np.ndarray, share: float, rng) -> np.ndarray:
    "Rates of which a share changed places."
    out, some = p.copy(), rng.permutation(len(p))[: round(share * len(p))]
    out[some] = rng.permutation(out[some])
    return out


def once(p: np.ndarray, m: int | None, seed: int, drift=None, n_levels: int = 5) -> dict | None:
    "One check; `drift` gives the rates of today from rates, levels and a generator."
    rng = np.random.default_rng(seed)
    level = levels_of(p, rng, n_levels)
    n, c = record(p, m, rng)
    today = p if drift is None else drift(p, level, rng)
    if today is None:
        return None
    beliefs = [
        believe(
            str(x),
            [f"{seed}/{i}" for i in np.flatnonzero(level == x)],
            n[level == x],
            c[level == x],
        )
        for x in range(1, n_levels + 1)
    ]
    got: dict[str, tuple[int, int]] = {}

    def draw(wanted):
        for q, k in wanted.items():
            had, right = got.get(q, (0, 0))
            got[q] = k, right + int(rng.binomial(k - had, today[int(q.partition("/")[2])]))
        return {q: got[q] for q in wanted}

    found = check_drift(beliefs, CFG, draw)
    row = found.table.iloc[-1]
    inside = row["low"] <= today.mean() <= row["high"]
    return {
        "verdict": found.verdict,
        "named": found.named,
        "draws": found.n_draws,
        "held": bool(inside),
    }


def summary(rows: list[dict | None], **about) -> dict:
    "Shares and means of checks."
    rows = [r for r in rows if r is not None]
    n, verdicts = len(rows), Counter(r["verdict"] for r in rows)
    out = about | {"n_checks": n} | {v: verdicts[v] / n for v in ("fits", "drifted", "undecided")}
    draws = [r["draws"] for r in rows]
    out |= {"draws": float(np.mean(draws)), "draws_90": float(np.quantile(draws, 0.9))}
    out |= {"interval_held": float(np.mean([r["held"] for r in rows]))}
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in out.items()}, flush=True)
    return out


def fixed_size(p: np.ndarray, n_levels: int = 5) -> dict[str, int]:
    """Draws of the usual test with the same errors and sizes, one from each of so many random queries:
    `fixed_means` compares means, `fixed_pairs` each draw with the rate of its query, known exactly."""
    level = levels_of(p, np.random.default_rng(0), n_levels)
    tests = n_levels + 1 if n_levels > 1 else 1
    z = norm.isf(CFG.alpha / 2 / tests) + norm.isf(CFG.beta)
    out = {}
    for name, spread in (
        ("fixed_means", lambda r: r.mean() * (1 - r.mean())),
        ("fixed_pairs", lambda r: (r * (1 - r)).mean()),
    ):
        each = sum(spread(p[level == x]) for x in range(1, tests)) / CFG.level_delta**2
        out[name] = round(z**2 * max(spread(p) / CFG.delta**2, each))
    return out


def true() -> dict:
    "How often a record that is true is rejected."
    rows = []
    for name, p in rate_files().items():
        for label, m in RECORDS.items():
            for n_levels in (5, 1):
                found = [
                    once(p, m, s, n_levels=n_levels) for s in range(N_TRUE // (1 + (n_levels < 5)))
                ]
                about = {"set": name, "record": label, "n_levels": n_levels}
                rows.append(summary(found, **about, **fixed_size(p, n_levels)))
    many = sum(r["n_checks"] for r in rows)
    wrong = sum(r["drifted"] * r["n_checks"] for r in rows)
    return {"alpha": CFG.alpha, "rejected": wrong / many, "n_checks": many, "rows": rows}


def moved() -> dict:
    "All rates moved."
    rows = []
    for name, p in rate_files().items():
        for points in (-0.1, -0.05, -0.02, 0.02, 0.05, 0.1):
            for label, n_levels in (("8", 5), ("32", 5), ("32", 1)):
                drift = lambda p, level, rng: by_points(p, level > 0, points)  # noqa: E731, B023
                found = [once(p, RECORDS[label], s, drift, n_levels) for s in range(N_DRIFT)]
                if any(found):
                    about = {"set": name, "points": points, "record": label, "n_levels": n_levels}
                    rows.append(summary(found, **about, **fixed_size(p, n_levels)))
    return {"rows": rows}


def level() -> dict:
    "Level 3 of five moved, the others did not."
    rows = []
    for name, p in rate_files().items():
        for points in (0.1, 0.2, 0.3):
            for label in ("8", "32"):
                drift = lambda p, level, rng: by_points(p, level == 3, points)  # noqa: E731, B023
                found = [once(p, RECORDS[label], s, drift) for s in range(N_DRIFT)]
                if not any(found):
                    continue
                named = [f["named"] for f in found]
                about = {"set": name, "points": points, "record": label}
                about |= {"named_it": float(np.mean(["3" in x for x in named]))}
                about |= {"named_another": float(np.mean([bool({*x} - {"3"}) for x in named]))}
                rows.append(summary(found, **about))
    return {"rows": rows}


def mixed() -> dict:
    "A share of the queries changed rates with one another; the mean is as it was."
    rows = []
    for name, p in rate_files().items():
        for share in (0.25, 0.5, 1.0):
            for label in ("8", "32"):
                drift = lambda p, level, rng: swapped(p, share, rng)  # noqa: E731, B023
                found = [once(p, RECORDS[label], s, drift) for s in range(N_DRIFT)]
                rows.append(summary(found, set=name, share=share, record=label))
    return {"rows": rows}


def half(p, level, rng):
    "A random half of the queries carries all of a drift of five points."
    return by_points(p, rng.random(len(p)) < 0.5, 0.10)


def hard(p, level, rng):
    "The harder half of the queries carries all of a drift of five points."
    return by_points(p, p <= np.median(p), 0.10)


def noisy(p, level, rng):
    "Five points on the mean, and each query moves by a standard deviation of 1 in log-odds besides."
    odds = logit(np.clip(p, 1e-6, 1 - 1e-6)) + rng.normal(0, 1, len(p))
    points = 0.05 - (expit(odds).mean() - p.mean())
    return by_points(expit(odds), level > 0, points)


def form() -> dict:
    "Drifts of five points that have another form than the one the test has in mind."
    rows = []
    for name, p in rate_files().items():
        for drift in (half, hard, noisy):
            found = [once(p, 32, s, drift) for s in range(N_DRIFT)]
            if any(found):
                rows.append(summary(found, set=name, form=drift.__name__, record="32"))
    return {"rows": rows}


PARTS = {"true": true, "moved": moved, "level": level, "mixed": mixed, "form": form}


def main(names: list[str]) -> None:
    if not data_folder():
        print("skipped, no data folder")
        return
    for name in names:
        start = time.time()
        part = PARTS[name]() | {"seconds": round(time.time() - start)}
        found = json.loads(OUT.read_text()) if OUT.exists() else {}
        machine = {"machine": platform.machine(), "n_cpus": os.cpu_count()}
        about = {"date": date.today().isoformat(), "python": platform.python_version()} | machine
        about |= {"alpha": CFG.alpha, "beta": CFG.beta, "delta": CFG.delta}
        OUT.write_text(
            json.dumps(found | about | {"level_delta": CFG.level_delta, name: part}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

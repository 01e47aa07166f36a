"""What the record of difficulty promises, measured: unbiased rates, intervals that cover, priors that help.

python bench/difficulty.py [PART ...]: `unbiased`, `coverage`, `published`, `shrinkage`; all when none
is named, others keep what was measured before. The shrinkage needs the data folder (files of measured
pass rates) and is skipped without it. Writes bench/results/difficulty.json.
"""

import contextlib
import io
import json
import math
import os
import platform
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from parts import named_parts

from dart_math_nb.app.exchange import export, import_responses
from dart_math_nb.app.sets import curate
from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.sample.boundary import path_counts, path_interval, rate_interval
from dart_math_nb.sample.difficulty import query_ends, rule_of, with_rate
from dart_math_nb.sample.estimate import fit_prior
from dart_math_nb.sample.freeze import freeze
from dart_math_nb.sample.prior import free_prior, posterior_mean
from dart_math_nb.sample.record import as_rates, published_info, read_record, write_table
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sets.published import POOL_SCHEMA, write_published

OUT = Path(__file__).parent / "results" / "difficulty.json"
P2D = StrategyCfg("prop2diff", k=192)
FLOOR = 20.0  # Correct per 1,000 draws, where a rule gives up


def drawn(p: np.ndarray, rule, rng) -> pd.DataFrame:
    "A record of queries of pass rates p, each drawn 2,048 times and read under a rule."
    rows = []
    for i, rate in enumerate(p):
        codes = np.where(rng.random(2048) < rate, np.uint8(2), np.uint8(1))
        rows.append(query_ends(codes, rule, str(i))._asdict() | {"query_id": str(i)})
    return with_rate(pd.DataFrame(rows).astype({"quota": "Int64", "max_trials": "Int64"}))


class Named:
    "As much of a query as `as_rates` looks at."

    def __init__(self, query_id: str):
        self.query_id = query_id


def unbiased(n: int = 40_000) -> dict:
    "Mean rates and mean quotas at k = 192 by the pool that they are read from, in two worlds."
    worlds = {"half solved, Beta(0.5, 0.5)": (0.5, 0.5), "mostly easy, Beta(2.2, 0.5)": (2.2, 0.5)}
    return {"n_queries": n, "worlds": {name: one_world(n, *ab) for name, ab in worlds.items()}}


def one_world(n: int, a: float, b: float) -> dict:
    "The same queries under every rule."
    rng = np.random.default_rng(0)
    p, rows = rng.beta(a, b, n), []
    ids = [Named(str(i)) for i in range(n)]
    exact = pd.DataFrame({"n_resp": 10**6, "n_wrong": ((1 - p) * 10**6).round().astype(int)})
    exact.index = pd.Index([q.query_id for q in ids], name="query_id")
    pools = {
        "Uniform k=4": StrategyCfg("uniform", k=4),
        "Uniform k=40": StrategyCfg("uniform", k=40),
        "Uniform k=4, floor of the yield": StrategyCfg("uniform", k=4, min_yield=FLOOR),
        "VRT k=32": StrategyCfg("vrt", k=32),
        "VRT k=52": StrategyCfg("vrt", k=52),
        "pilot of 32 (Prop2Diff)": StrategyCfg("prop2diff", k=16, n_pilot=32),
    }
    for name, cfg in {"known rates": None, **pools}.items():
        record = None if cfg is None else drawn(p, rule_of(cfg), rng)
        rates = exact if record is None else as_rates(record, ids)
        row = {"pool": name, "mean_pass_rate": float(p.mean())}
        if record is not None:
            row["mean_pass_rate"] = float(record.pass_rate.mean())
            row["correct_of_all"] = float((record.n_correct / record.n_trials).mean())
        row["ratio_to_truth"] = row["mean_pass_rate"] / float(p.mean())
        for rounding in ("floor", "ceil", "nearest"):
            cfg192 = StrategyCfg("prop2diff", k=192, rounding=rounding)
            row[f"mean_quota_{rounding}"] = float(np.mean([*freeze(cfg192, rates).quota.values()]))
        wrong = rates.assign(rate_trials=rates.n_resp, rate_correct=rates.n_resp - rates.n_wrong)
        row["quota_correct_of_all"] = float(np.mean([*freeze(P2D, wrong).quota.values()]))
        rows.append(row)
        print(row)
    return {"mean_true_pass_rate": float(p.mean()), "rows": rows, **spreads(rows)}


POOLS = ("Uniform k=4", "VRT k=32", "VRT k=52", "pilot of 32 (Prop2Diff)")


def spreads(rows: list[dict]) -> dict:
    "How far means lie apart."
    out = {"largest_rate_error": max(abs(r["ratio_to_truth"] - 1) for r in rows)}
    for rounding in ("floor", "ceil", "nearest"):
        mean = {r["pool"]: r[f"mean_quota_{rounding}"] for r in rows}
        pools = [mean[name] for name in POOLS]
        out[f"quota_spread_{rounding}"] = max(pools) / min(pools) - 1
        out[f"quota_spread_{rounding}_all"] = max(mean.values()) / min(mean.values()) - 1
    return out


def ends_of(name: str, p: float) -> tuple:
    "All ends of a rule with their chances at a pass rate, and their intervals."
    kind, *numbers = name.split()
    numbers = [float(x) for x in numbers]
    if kind == "fixed":
        n = int(numbers[0])
        ends = path_counts(n + 1, n)
        low, high = rate_interval(*np.array(list(ends)).T, [False] * len(ends))
    else:
        quota, limit = int(numbers[0]), int(numbers[1])
        floor = numbers[2] if len(numbers) > 2 else 0.0
        ends = path_counts(quota, limit, floor)
        n, c = np.array(list(ends)).T
        if floor:
            low, high = path_interval(n, c, quota, limit, floor)
        else:
            low, high = rate_interval(n, c, c == quota)
    return ends, low, high


def coverage() -> dict:
    "Exact coverage of 95 % intervals: the chances of all ends whose interval holds the rate."
    rates = np.round(np.linspace(0.01, 0.99, 99), 2)
    rules = ["fixed 8", "fixed 32", "fixed 128", "inverse 4 2048", "inverse 40 2048", "limit 4 32"]
    rules += ["limit 16 64", "yield 4 2048 20", "yield 16 2048 20", "yield 40 512 50"]
    rows = []
    for name in rules:
        ends, low, high = ends_of(name, 0.5)
        n, c = np.array(list(ends), float).T
        ways = np.array([math.log(w) for w, _ in ends.values()])
        chance = np.exp(ways + np.outer(np.log(rates), c) + np.outer(np.log1p(-rates), n - c))
        held = (low <= rates[:, None]) & (rates[:, None] <= high)
        covered = (chance * held).sum(1)
        begun = np.array([b / w for w, b in ends.values()])
        rows.append(
            {
                "rule": name,
                "least": float(covered.min()),
                "mean": float(covered.mean()),
                "at": float(rates[covered.argmin()]),
                "largest_bias": float(abs(chance @ begun - rates).max()),
            }
        )
        print(rows[-1])
    return {"rates": "0.01 to 0.99 by 0.01", "level": 0.95, "rows": rows}


def shrinkage(n_times: int = 20) -> dict | None:
    "Root mean square error of quotas at k = 192 by pilot and prior, on measured pass rates."
    if not data_folder():
        print("shrinkage: skipped, no data folder")
        return None
    rows = []
    for path in sorted((data_folder() / "pass_rates").glob("*.jsonl.gz")):
        fails = np.array([1 - r["n_correct"] / r["n"] for r in read_rows(path, ["n", "n_correct"])])
        true = np.maximum(np.floor(192 * fails + 1e-9), 1)
        for n_pilot in (8, 16, 32, 64, 128):
            rng, errors = np.random.default_rng(n_pilot), {"none": [], "fit": [], "free": []}
            for _ in range(n_times):
                w, n = rng.binomial(n_pilot, fails), np.full(len(fails), n_pilot)
                a, b = fit_prior(w, n)
                means = {"none": w / n, "fit": (w + a) / (n + a + b)}
                means["free"] = np.array(posterior_mean(free_prior(w, n), w, n), float)
                for how, mean in means.items():
                    quota = np.maximum(np.floor(192 * mean + 1e-9), 1)
                    errors[how].append(((quota - true) ** 2).mean())
            row = {"set": path.name.split(".")[0], "n_queries": len(fails), "n_pilot": n_pilot}
            rows.append(row | {how: float(np.sqrt(np.mean(e))) for how, e in errors.items()})
            print(rows[-1])
    return {"k": 192, "n_times": n_times, "rows": rows}


def hard_quotas(info: pd.DataFrame) -> pd.Series:
    "Responses wanted of each query at k = 192, in whole numbers."
    wrong = info.tot_n_samples - info.tot_n_corrects
    return (192 * wrong // info.tot_n_samples).clip(lower=1)


def published_files(folder: Path, n: int) -> tuple[Path, Path, pd.DataFrame]:
    "A pool of correct responses and the counts of its queries, in the released columns."
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 0.46, n)
    first, more = np.full(n, 52), rng.integers(0, 400, n)
    right = rng.binomial(first, p), rng.binomial(more, p)
    both, correct = first + more, right[0] + right[1]
    name = [f"MATH/train/made/{i}.json" for i in range(n)]
    rate = correct / both
    lists = {"n_samples_list": list(zip(first.tolist(), more.tolist(), strict=True))}
    lists["n_corrects_list"] = list(zip(right[0].tolist(), right[1].tolist(), strict=True))
    lists = {
        k: [list(x) if m else [x[0]] for x, m in zip(v, more, strict=True)]
        for k, v in lists.items()
    }
    info = pd.DataFrame(
        {"query_id": name, "level": np.arange(n) % 5 + 1, "domain": "made", **lists}
    )
    info = info.assign(tot_n_samples=both, tot_n_corrects=correct, pass_rate=rate)
    info["pass_rate_bernoulli_std"] = (rate * (1 - rate)) ** 0.5
    info = info.astype({"query_id": "str", "domain": "str", "level": "int64"})
    wanted = hard_quotas(info)

    def rows():
        for i in range(n):
            about = dict.fromkeys(POOL_SCHEMA.names) | {"query": f"{i}+{i}=?", "gt_ans": str(2 * i)}
            about |= {"query4test": False, "query_metadata": {"level": i % 5 + 1}, "domain": "made"}
            about |= {"ans_correct": True, "ans": str(2 * i), "query_id": name[i]}
            for t in range(min(correct[i], wanted[i] + 1)):  # one more than is asked for
                resp = f"Twice {i}, way {t}: \\boxed{{{2 * i}}}"
                yield about | {"resp": resp, "resp_id": f"{i}/{t}"}

    pool = write_published(folder / "pool.parquet", rows())
    return pool, write_table(folder / "info.parquet", info), info


def published(n: int = 7_500) -> dict:
    "Pool and counts in the released columns: in, a Prop2Diff set at k = 192 cut, out again."
    tmp = Path(tempfile.mkdtemp())
    pool, info, counts = published_files(tmp, n)
    run, times, start = str(tmp / "run"), {}, time.time()
    steps = {
        "import": lambda: import_responses([str(pool)], out=run, labels="correct", n_procs=1),
        "curate": lambda: curate(
            run, strategy=["prop2diff"], k=[192], partial=True, fail_rates_from=str(info)
        ),
        "export": lambda: export(run, out=str(tmp / "out.parquet"), form="published"),
    }
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name, step in steps.items():
            step()
            times[name], start = round(time.time() - start, 1), time.time()
    quotas = pd.read_parquet(tmp / "run/train_set/prop2diff/train.parquet").groupby("query").size()
    have = np.minimum(hard_quotas(counts), counts.tot_n_corrects)
    got = quotas.reindex([f"{i}+{i}=?" for i in range(n)]).fillna(0).astype(int).to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = write_table(tmp / "again.parquet", published_info(read_record(info)))
    a, b = pq.read_table(info), pq.read_table(again)
    c, d = pq.read_schema(pool), pq.read_schema(tmp / "out.parquet")
    first, last = (pq.read_table(f, columns=["query", "resp"]) for f in (pool, tmp / "out.parquet"))
    key = [("query", "ascending"), ("resp", "ascending")]
    return {
        "n_queries": n,
        "n_pool_rows": len(first),
        "n_set_rows": int(got.sum()),
        "n_quotas_off": int((got != have).sum()),
        "info_same": a.schema.remove_metadata().equals(b.schema.remove_metadata()) and a.equals(b),
        "pool_columns_same": c.names == d.names and c.types == d.types,
        "pool_texts_same": first.sort_by(key).equals(last.sort_by(key)),
        "seconds": times,
    }


PARTS = {"unbiased": unbiased, "coverage": coverage, "shrinkage": shrinkage, "published": published}


def main(names: list[str]) -> None:
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names:
        start = time.time()
        if (part := PARTS[name]()) is not None:
            found[name] = {
                "date": str(date.today()),
                "seconds": round(time.time() - start, 1),
            } | part
    found["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

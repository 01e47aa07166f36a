"""What the leaning of a train set says on real data, whether its intervals cover, and what it costs.

python bench/bias.py [PART ...]: `real`, `coverage`, `speed`; all when none is named, others keep what was
measured before. `real` needs the data folder: responses of many models as train sets, each counted
against the problems that were asked, with fail rates over those models. Writes bench/results/bias.json.
"""

import json
import os
import platform
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from parts import named_parts

from dart_math_nb.data.files import read_rows, write_jsonl
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import make_query
from dart_math_nb.grade import grade_response
from dart_math_nb.report.bias import (
    bias_queries,
    count_frame,
    count_set,
    group_table,
    measure_table,
    published_measures,
)
from dart_math_nb.sample.record import read_rates

OUT = Path(__file__).parent / "results" / "bias.json"
FILES = {  # Set -> file of responses
    "43 models on MATH level 5": "zeroeval_math_l5",
    "44 models on GSM8K": "zeroeval_gsm",
}


def real() -> dict:
    "Correct responses of many models as a set; and the same problems with quotas of Uniform."
    folder = data_folder()
    if folder is None:
        return {"skipped": "no data folder"}
    published = json.loads(published_measures().to_json(orient="records"))
    return {"published": published, **{n: one_set(folder, f) for n, f in FILES.items()}}


def one_set(folder: Path, responses: str) -> dict:
    "One file of responses, read as strangers' files are; half of the models give the fail rates."
    rows = [r for r in read_rows(folder / "responses" / f"{responses}.jsonl.gz") if r["resp"]]
    for r in rows:  # the files have no labels; the grader here gives them
        r["correct"] = grade_response(r["resp"], str(r["ref"])).correct
    models = sorted({(r["model"], r["config"]) for r in rows})
    rated = set(models[::2])
    first = {r["query"]: r for r in rows}
    queries = [
        make_query(responses, q, str(r["ref"]), level=r["level"] or 0) for q, r in first.items()
    ]
    n = pd.DataFrame([(r["query"], r["correct"], (r["model"], r["config"]) in rated) for r in rows])
    n.columns = ["query", "correct", "rated"]
    with tempfile.TemporaryDirectory() as tmp, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = {}
        for name, part in (("other models", n[n["rated"]]), ("the same models", n[~n["rated"]])):
            by = part.groupby("query")["correct"].agg(["size", "sum"])
            told = [{"query": q, "n": int(a), "n_correct": int(c)} for q, a, c in by.itertuples()]
            tables[name] = read_rates(write_jsonl(Path(tmp) / "counts.jsonl", told), queries)
        some = [r for r in rows if (r["model"], r["config"]) not in rated]
        for r in some:
            r.pop("label", None)
        source = write_jsonl(Path(tmp) / "set.jsonl", some)
        start = time.perf_counter()
        found = count_set(source, queries, correct_only=True)
        seconds = time.perf_counter() - start
    return {
        "n_models": len(models),
        "n_responses": len(some),
        "fates": dict(found.fates),
        "count_seconds": round(seconds, 2),
        "fail_rates": {name: leaning(queries, rates, found) for name, rates in tables.items()},
        "uniform_of_8": leaning(queries, tables["other models"], found, 8),
    }


def leaning(queries, rates, found, quota: int | None = None) -> dict:
    "Tables of a set, perhaps cut to a quota per query."
    asked = bias_queries(queries, rates)
    if quota:
        cut = found.counts["n_rows"].clip(upper=quota)
        found = count_frame("cut", pd.DataFrame({"query_id": cut.index.repeat(cut)}))
    bins = group_table(asked, found, "fail_bin").drop(columns="set").round(4)
    measures = measure_table(asked, found).drop(columns="set").round(4)
    measures = measures[measures["by"] != "level"]  # one level each
    return {
        "bins": json.loads(bins.to_json(orient="records")),
        "measures": json.loads(measures.to_json(orient="records")),
    }


def coverage(n_world: int = 200_000, n_rep: int = 300) -> dict:
    "How often the intervals hold the value of the world that queries are drawn from."
    out = {}
    for n in (20, 100, 500):
        for strategy in ("vrt", "prop2diff"):
            hits = pd.DataFrame([one_draw(strategy, n, i) for i in range(n_rep)])
            truth = pd.Series(one_draw(strategy, n_world, -1, True))
            out[f"{strategy}, {n} queries"] = {
                m: round(float(((hits[f"{m} low"] <= v) & (v <= hits[f"{m} high"])).mean()), 4)
                for m, v in truth.items()
            }
    return {
        "n_rep": n_rep,
        "standard_error": round((0.95 * 0.05 / n_rep) ** 0.5, 4),
        "share_covered": out,
    }


def one_draw(strategy: str, n: int, seed: int, truth: bool = False) -> dict:
    "Measures of a set of n queries; their ends, or the values alone."
    rng = np.random.default_rng(seed + 1)
    p = rng.beta(1.2, 0.9, n)
    rows = rng.binomial(16, p) if strategy == "vrt" else np.ceil(16 * (1 - p)).astype(int)
    ids = pd.Series(np.arange(n).astype(str))
    asked = pd.DataFrame({"query_id": ids, "level": None, "fail_rate": np.round(1 - p, 2)})
    asked["fail_bin"] = "unknown"
    found = count_frame("x", pd.DataFrame({"query_id": ids.repeat(rows)}))
    if truth:
        from dart_math_nb.report.bias import bias_statistics

        some = bias_statistics(asked, found)
        return {m: float(f(np.ones((1, n)))[0]) for (m, _), (f, _) in some.items()}
    table = measure_table(asked, found).set_index("measure")
    table = table.drop(index="uncovered")
    return {f"{m} {end}": r[end] for m, r in table.iterrows() for end in ("low", "high")}


def speed(n: int = 7500) -> dict:
    "Seconds for the tables of one set of 7,500 queries and 220,000 rows."
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 0.9, n)
    queries = [make_query("x", f"{i}+0", "0", level=1 + i % 5) for i in range(n)]
    ids = [q.query_id for q in queries]
    asked = bias_queries(queries, pd.DataFrame({"pass_rate": p.round(3)}, index=ids))
    found = count_frame("x", pd.DataFrame({"query_id": np.repeat(ids, rng.binomial(52, p))}))
    start = time.perf_counter()
    for by in ("level", "fail_bin"):
        group_table(asked, found, by)
    middle = time.perf_counter()
    measure_table(asked, found)
    return {
        "n_queries": n,
        "two_group_tables": round(middle - start, 2),
        "measures": round(time.perf_counter() - middle, 2),
    }


PARTS = {"real": real, "coverage": coverage, "speed": speed}


def main(names: list[str]) -> None:
    old = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names:
        start = time.perf_counter()
        old[name] = PARTS[name]()
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    old |= {"date": str(date.today()), "python": platform.python_version(), "n_cpu": os.cpu_count()}
    OUT.write_text(json.dumps(old, indent=1) + "\n")


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

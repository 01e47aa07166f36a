"""Grader, sampler and packing of two checkouts on the same work, in turns: `python bench/before_after.py FOLDER`.

FOLDER is the older checkout. Each round runs every job of both, each in a fresh process, and measures its CPU time
without start-up; the ratio is that of the medians, the spread that of the rounds. Results must be the same: each job also
gives a hash of what it computed. Needs the optional data folder for real responses and lengths.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HEAD = """
import hashlib, importlib, json, sys, time
def get(name, *modules):
    for m in modules:
        try:
            return getattr(importlib.import_module("dart_math_nb." + m), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"no {name} in {modules}")
def done(start, value):
    text = json.dumps(value, sort_keys=True, default=str)
    assert "PLACE" in importlib.import_module("dart_math_nb").__file__
    print(json.dumps({"s": time.process_time() - start, "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}))
"""
GRADER = """
import gzip
grade = get("grade_response", "grade.verdict", "grade")
data = get("data_folder", "data.load", "data.places", "benchmarks")()
rows = []
for name in ("zeroeval_math_l5", "zeroeval_gsm"):
    with gzip.open(data / "responses" / f"{name}.jsonl.gz", "rt") as f:
        rows += [json.loads(line) for i, line in enumerate(f) if i % 4 == 0]
start = time.process_time()
done(start, [(v.correct, v.ans, v.rule, v.error) for v in (grade(r["resp"], r["ref"], r["query"]) for r in rows)])
"""
SAMPLER = """
import tempfile
Source, Verdict = (get(n, "data.records", "records") for n in ("Source", "Verdict"))
world = get("simulated_world", "engines.dice", "engines.protocol", "engine")
Strategy = get("StrategyCfg", "sample.strategy", "dars")
open_pool = get("open_pool", "store.pool", "pool")
sample_pool = get("sample_pool", "sample.loop", "sample")
queries, dice = world(1500, seed=0)
grade = lambda q, c: Verdict(f"boxed{{{q.ref_ans}}}" in c.text, None, "box")
start = time.process_time()
with open_pool(tempfile.mkdtemp()) as pool:
    s = Strategy("prop2diff", 24, max_trials=128, n_pilot=8)
    t = sample_pool(queries, dice, pool, source=Source("dice"), strategy=s, grade=grade, progress=False)
done(start, t.reset_index()[["query_id", "quota", "n_accepted", "stop"]].values.tolist())
"""
PACKING = """
import random
pack_lengths = get("pack_lengths", "train.pack", "pack")
rng = random.Random(0)
lens = [min(4000, int(rng.lognormvariate(6, .6)) + 1) for _ in range(300_000)]
start = time.process_time()
done(start, [[len(p) for p in pack_lengths(lens, 4096, "best_fit", 0, e)] for e in range(5)])
"""
JOBS = {"grader": GRADER, "sampler": SAMPLER, "packing": PACKING}


def run(folder: Path, job: str) -> dict:
    "CPU seconds and hash of one job with the package of one checkout."
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    env.setdefault("DART_MATH_DATA", str(ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory() as away:  # of the current folder, Python would import first
        how = {"env": env, "cwd": away, "capture_output": True, "text": True}
        found = subprocess.run(
            [sys.executable, "-c", HEAD.replace("PLACE", str(folder)) + JOBS[job]], **how
        )
    if found.returncode:
        raise SystemExit(f"{folder}, {job}: {found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    "Measure, print, keep."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="folder of the older checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    args = parser.parse_args()
    folders = {"before": args.before.resolve(), "now": ROOT}
    seen: dict = {job: {name: [] for name in folders} for job in args.jobs}
    for i in range(args.rounds):
        for job in args.jobs:
            for name in list(folders)[:: 1 if i % 2 else -1]:
                seen[job][name].append(run(folders[name], job))
    result: dict = {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    result |= {"python": platform.python_version(), "rounds": args.rounds, "jobs": {}}
    for job, both in seen.items():
        s = {name: [r["s"] for r in found] for name, found in both.items()}
        ratios = [n / b for n, b in zip(s["now"], s["before"], strict=True)]
        hashes = {r["hash"] for found in both.values() for r in found}
        result["jobs"][job] = {
            "cpu_s_before": round(statistics.median(s["before"]), 3),
            "cpu_s_now": round(statistics.median(s["now"]), 3),
            "ratio": round(statistics.median(s["now"]) / statistics.median(s["before"]), 4),
            "ratio_of_rounds": [round(min(ratios), 3), round(max(ratios), 3)],
            "same_result": len(hashes) == 1,
        }
    print(json.dumps(result, indent=1))
    (ROOT / "bench" / "results" / "before_after.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()

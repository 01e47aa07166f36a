"""Measure the grader beside math-verify: `python bench/grader.py [--full]`.

Accuracy on other graders' own test cases and on real answer pairs, CPU time per response, hostile
answers. Needs the optional data folder (`DATA`, see `dart_math_nb.benchmarks.data_folder`) and
math-verify; writes `bench/results/grader.json`. `--full` also grades every real response.
"""

import argparse
import gc
import gzip
import json
import logging
import platform
import random
import statistics
import time
from collections import Counter
from pathlib import Path

from dart_math_nb.benchmarks import data_folder
from dart_math_nb.files import write_json
from dart_math_nb.grade import grade_answer, grade_response
from dart_math_nb.records import short_hash

RESULTS = Path(__file__).parent / "results" / "grader.json"
# Expectations of other graders that contradict the written policy or another grader: the reason.
CONFLICTS = {
    "percent": "percent without a percent sign, or 10% for 10 without a query",
    "ordered list": "expects an order of a bare list",
    "unordered tuple": "expects no order in brackets",
    "tolerance": "expects a tolerance that the benchmark does not state",
    "format": "refuses a right answer for its format alone",
    "empty": "expects an empty reference to be right",
}
# Which cases: hash of reference and answer -> kind of conflict.
_CONFLICT_CASES = {
    "6676a2f8750eb39f": "percent",
    "9acef67b04caf9e5": "percent",
    "db23153b59bcec1a": "percent",
    "dc35fbba469c6bc1": "percent",
    "6a98df3759e6ae50": "unordered tuple",
    "6dc442830f7fb235": "ordered list",
    "b518c94a1449f182": "ordered list",
    "0f2b7eef57e70ca4": "tolerance",
    "f101337f8aec11dc": "tolerance",
    "dc9810f89e194e3e": "tolerance",
    "1a293e261387fd87": "tolerance",
    "f46fd7390c9999ab": "tolerance",
    "7b32f674a40e619c": "tolerance",
    "0f65b52362c16e81": "format",
    "143fd9982a31c3a0": "format",
    "e74c250606cc33d9": "empty",
}


def read(path: Path) -> list[dict]:
    "Rows of a JSON lines file, compressed or not."
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def math_verify_grader():
    "math-verify as a function (response, reference) -> bool; it is a dev dependency."
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it logs every failure

    def grade(response: str, ref: str) -> bool:
        try:
            return bool(verify(parse(f"${ref}$"), parse(response)))
        except Exception:  # it raises on some inputs: counted as "wrong", as its own verify does
            return False

    return grade


def measure_cases(folder: Path, other) -> dict:
    "Agreement with other graders' own expectations, per file and over all."
    rows = [dict(c, file=f.stem) for f in sorted(folder.glob("*.jsonl")) for c in read(f)]
    conflicts, misses, right, theirs = Counter(), [], 0, 0
    for c in rows:
        ours = (grade_answer if c["kind"] == "answer" else grade_response)(
            c["pred"], c["ref"]
        ).correct
        kind = _CONFLICT_CASES.get(short_hash(c["ref"], c["pred"]))
        box = c["pred"] if c["kind"] == "text" else f"\\boxed{{{c['pred']}}}"
        theirs += other(box, c["ref"]) == c["expected"]
        right += ours == c["expected"]
        if ours != c["expected"]:
            conflicts[kind] += kind is not None
            if kind is None:
                misses.append([c["file"], c["expected"]])
    fair = len(rows) - sum(conflicts.values())
    return {
        "n": len(rows),
        "accuracy_all": right / len(rows),
        "accuracy_math_verify": theirs / len(rows),
        "n_conflicts": sum(conflicts.values()),
        "conflicts": {k: [n, CONFLICTS[k]] for k, n in conflicts.items() if n},
        "accuracy_without_conflicts": (fair - len(misses)) / fair,
    }


def measure_pairs(file: Path, other) -> dict:
    "Real answers: false negatives and false positives against the agreement of two graders."
    table, theirs, kinds = Counter(), Counter(), Counter()
    for p in read(file):
        verdict = grade_answer(p["pred"], p["ref"], p["query"])
        table[p["expected"], verdict.correct] += 1
        theirs[p["expected"], other(f"\\boxed{{{p['pred']}}}", p["ref"])] += 1
        if verdict.correct and not p["expected"]:
            kinds[verdict.rule] += 1
    n_true = table[True, True] + table[True, False]
    n_false = table[False, True] + table[False, False]
    return {
        "n": n_true + n_false,
        "false_negatives": table[True, False] / n_true,
        "false_positives": table[False, True] / n_false,
        "false_positives_by_rule": dict(kinds),
        "n_false_negatives": table[True, False],
        "math_verify_false_negatives": theirs[True, False] / n_true,
        "math_verify_false_positives": theirs[False, True] / n_false,
    }


def rate(rows: list[dict], grade) -> float:
    "Responses per CPU second of one core."
    start = time.process_time()
    for r in rows:
        grade(r)
    return len(rows) / (time.process_time() - start)


def measure_speed(rows: list[dict], other) -> dict:
    "Extract and grade, in one run with math-verify; modules are loaded before."
    rng = random.Random(0)
    rows = rng.sample(rows, 3_000)
    ours = [rate(rows, lambda r: grade_response(r["resp"], r["ref"], r["query"])) for _ in range(3)]
    theirs = rate(rows, lambda r: other(r["resp"], r["ref"]))
    return {
        "n": len(rows),
        "responses_per_cpu_second": statistics.median(ours),
        "math_verify_responses_per_cpu_second": theirs,
        "ratio": statistics.median(ours) / theirs,
    }


def measure_hostile(n: int = 10_000) -> dict:
    "Slowest verdict on random strings of fragments that break parsers."
    rng = random.Random(1)
    parts = [
        *"^{}()[]!,;:=<|_&%$9x\0\u202e",
        r"\frac",
        r"\sqrt",
        r"\ln",
        r"\binom",
        r"\pm",
        r"\cup",
        "\ud800",
    ]
    parts += [
        "10^{10^8}",
        "(10^7)!",
        "9^{9^{9^9}}",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        "\\\\",
        "1e999",
    ]
    parts += [
        "__import__('os')",
        "{0.__class__}",
        r"\boxed{",
        '"answer": "',
        "answer is ",
        "\\sin",
        "1,234",
    ]
    slowest = 0.0
    gc.freeze()  # rows read before are not this grader's memory
    for i in range(n):
        many = rng.choice([10, 1_000, 100_000]) if i % 10 == 0 else 1
        text = "".join(rng.choices(parts, k=rng.choice([3, 10, 40]) if many == 1 else 1)) * many
        start = time.process_time()
        grade_response(text, rng.choice(["1", "x^2+1", r"\{1,2\}", "[0,1)", r"\sqrt{2}", "no"]))
        slowest = max(slowest, time.process_time() - start)
    return {"n": n, "exceptions": 0, "slowest_ms": 1e3 * slowest}


def measure_runs(files: list[Path]) -> dict:
    "Every real response: accuracy of each model and benchmark, errors, slowest verdict."
    runs, errors, slowest = {}, Counter(), 0.0
    for file in files:
        rows = read(file)
        gc.freeze()
        for r in rows:
            start = time.process_time()
            v = grade_response(r["resp"], r["ref"], r["query"])
            slowest = max(slowest, time.process_time() - start)
            n, right = runs.get((r["set"], r["model"]), (0, 0))
            runs[r["set"], r["model"]] = n + 1, right + v.correct
            errors[str(v.error)] += 1
    accuracy = {f"{s} {m}": [n, round(c / n, 4)] for (s, m), (n, c) in sorted(runs.items())}
    n = sum(n for n, _ in runs.values())
    return {"n": n, "slowest_ms": 1e3 * slowest, "errors": dict(errors), "accuracy": accuracy}


def table(r: dict) -> list[dict]:
    "Rows for people: what was measured, this grader, math-verify."
    rows = [
        ("cases without conflicts, accuracy", r["cases"]["accuracy_without_conflicts"], None),
        ("cases, all, accuracy", r["cases"]["accuracy_all"], r["cases"]["accuracy_math_verify"]),
        *(
            (f"pairs, {k.replace('_', ' ')}", r["pairs"][k], r["pairs"][f"math_verify_{k}"])
            for k in ("false_negatives", "false_positives")
        ),
        (
            "responses per CPU second",
            round(r["speed"]["responses_per_cpu_second"]),
            round(r["speed"]["math_verify_responses_per_cpu_second"]),
        ),
        ("slowest hostile verdict, ms", round(r["hostile"]["slowest_ms"], 1), None),
    ]
    if "runs" in r:
        rows.append(("slowest real verdict, ms", round(r["runs"]["slowest_ms"], 1), None))
    digits = lambda x: x if x is None else round(x, 4)  # noqa: E731
    return [
        {"measure": m, "dart_math_nb": digits(a), "math-verify 0.9": digits(b)} for m, a, b in rows
    ]


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="grade all real responses too")
    args = parser.parse_args()
    data = data_folder()
    if data is None:
        raise SystemExit("no data folder; set DART_MATH_DATA to run the bench")
    other = math_verify_grader()
    responses = data / "responses"
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, one core, CPU time",
        "cases": measure_cases(data / "grader_cases", other),
        "pairs": measure_pairs(data / "grader_cases" / "answer_pairs.jsonl.gz", other),
        "speed": measure_speed(read(responses / "zeroeval_math_l5.jsonl.gz"), other),
        "hostile": measure_hostile(),
    }
    if args.full:
        result["runs"] = measure_runs(sorted(responses.glob("zeroeval_*.jsonl.gz")))
    result = {"table": table(result), **result}
    write_json(RESULTS, result)
    for row in result["table"]:
        print(*row.values(), sep=" | ")


if __name__ == "__main__":
    main()

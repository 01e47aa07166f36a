"""Measure the grader beside its peers: `python bench/grader.py [--full]`.

Accuracy on other graders' own test cases and on real answer pairs, CPU time per response, hostile
answers. Needs the optional data folder (`DART_MATH_DATA`, see `dart_math_nb.data.load.data_folder`)
and math-verify; a peer that is not installed is left out. Writes `bench/results/grader.json`.
`--full` also grades every real response and runs the slow peer.
"""

import argparse
import gc
import gzip
import json
import logging
import platform
import random
import re
import resource
import signal
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import short_hash
from dart_math_nb.grade.find.marks import find_box
from dart_math_nb.grade.proof import HOSTILE, Watch, hostile_rows
from dart_math_nb.grade.verdict import grade_answer, grade_response

RESULTS = Path(__file__).parent / "results" / "grader.json"
# Expectations of other graders that contradict the written policy or another grader: the reason.
CONFLICTS = {
    "percent": "percent without a percent sign, or 10% for 10 without a query",
    "ordered list": "expects an order of a bare list",
    "unordered tuple": "expects no order in brackets",
    "tolerance": "expects a tolerance that the benchmark does not state",
    "format": "refuses a right answer for its format alone",
    "empty": "expects an empty reference to be right",
    "unit": "refuses an answer without the unit of the reference",
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
    "2438123606d78852": "unit",
}
# Pairs judged otherwise than their two graders did, read one by one: (reference, answer) -> who is
# right, why. Choices are read by rule: each was held against the options of its query.
_READ_PAIRS = {
    (r"\frac{5}{143}", "0.034965"): ("policy", "five rounded digits for an exact fraction"),
    (r"\frac{27}{128}", "0.210938"): ("policy", "six rounded digits for an exact fraction"),
    ("A", "x+y=a"): ("ours", "option A of the query is another equation"),
    (r"$ \frac{\pi}{8} + \frac{1}{4}$.", "(pi + 2) / 8"): ("ours", "the same value"),
    ("-48*g", "-48g"): ("ours", "the same product"),
}
_READ_CHOICE = ("ours", "the letter or the text of the right option; the two compare text")

Grader = Callable[[str, str], bool]  # (response with a box, reference) -> right?


def read(path: Path) -> list[dict]:
    "Rows of a JSON lines file, compressed or not."
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


# ---- peers


def ours(response: str, ref: str) -> bool:
    return grade_response(response, ref).correct


def _plain(text: str) -> str:
    return re.sub(r"\\(?:left|right|[ ,;!])|[\s${}]", "", text.replace("dfrac", "frac")).rstrip(".")


def same_box(response: str, ref: str) -> bool:
    "The last box, letter for letter without spaces and braces."
    box = find_box(response)
    return box is not None and _plain(box.ans) == _plain(ref)


def last_number(response: str, ref: str) -> bool:
    "The last number, as early GSM8K graders took it."
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", response)
    try:
        return float(found[-1].replace(",", "")) == float(ref.replace(",", ""))
    except (ValueError, IndexError):
        return False


def math_verify_grader() -> Grader:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it logs every failure

    def grade(response: str, ref: str) -> bool:
        try:
            return bool(verify(parse(f"${ref}$"), parse(response)))
        except Exception:  # it raises on some inputs: counted as "wrong", as its own verify does
            return False

    return grade


def hendrycks_grader() -> Grader:
    "The grader of the MATH paper, as the package flaml has it (`pip install --no-deps flaml`)."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from flaml.autogen.math_utils import get_answer, is_equiv

    def grade(response: str, ref: str) -> bool:
        try:
            return bool(is_equiv(get_answer(response), ref))
        except Exception:  # it raises on broken LaTeX
            return False

    return grade


def sympy_grader() -> Grader:
    "SymPy's own LaTeX parser on the last box, then simplify, stopped after two seconds."
    from sympy import simplify
    from sympy.parsing.latex import parse_latex

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)

    def grade(response: str, ref: str) -> bool:
        box = find_box(response)
        if box is None or _plain(box.ans) == _plain(ref):
            return box is not None
        signal.alarm(2)
        try:
            return bool(simplify(parse_latex(box.ans) - parse_latex(ref)) == 0)
        except Exception:  # most texts that are no formula
            return False
        finally:
            signal.alarm(0)

    return grade


def load_peers(full: bool) -> dict[str, Grader]:
    "Graders by name, ours first; those not installed are named on the way and left out."
    peers = {"dart_math_nb": ours}
    makers = {"math-verify": math_verify_grader, "MATH paper (flaml)": hendrycks_grader}
    makers |= {"sympy parse_latex": sympy_grader} if full else {}
    for name, make in makers.items():
        try:
            peers[name] = make()
        except ImportError as e:
            print(f"{name} left out: {e}")
    return peers | {"same text in the box": same_box, "last number": last_number}


# ---- accuracy


def case_rows(folder: Path) -> list[dict]:
    "Cases of all peers, with their file, their conflict if any, and the response a peer sees."
    rows = [dict(c, file=f.stem) for f in sorted(folder.glob("*.jsonl")) for c in read(f)]
    for c in rows:
        c["conflict"] = _CONFLICT_CASES.get(short_hash(c["ref"], c["pred"]))
        c["box"] = c["pred"] if c["kind"] == "text" else f"\\boxed{{{c['pred']}}}"
    return rows


def measure_cases(rows: list[dict], peers: dict[str, Grader]) -> dict:
    "Agreement with other graders' own expectations: ours on all, every grader side by side."
    for c in rows:
        judge = grade_answer if c["kind"] == "answer" else grade_response
        c["ours"] = judge(c["pred"], c["ref"]).correct
    against = [c for c in rows if c["ours"] != c["expected"]]
    conflicts = [c for c in against if c["conflict"]]
    fair = [c for c in rows if c not in conflicts]
    others = {
        name: [sum(g(c["box"], c["ref"]) == c["expected"] for c in part) / len(part)]
        for part in (rows, fair)
        for name, g in peers.items()
        if g is not ours
    }
    missed = [c for c in against if not c["conflict"]]
    return {
        "n": len(rows),
        "accuracy_all": 1 - len(against) / len(rows),
        "n_conflicts": len(conflicts),
        "conflicts": [
            {k: c[k][:80] if isinstance(c[k], str) else c[k] for k in ("file", "ref", "pred")}
            | {"expected": c["expected"], "reason": CONFLICTS[c["conflict"]]}
            for c in conflicts
        ],
        "accuracy_without_conflicts": 1 - len(missed) / len(fair),
        "missed": [[c["file"], c["ref"][:80], c["pred"][-80:], c["expected"]] for c in missed],
        "others_without_conflicts": {name: v[0] for name, v in others.items()},
    }


def remaining_pair(p: dict, verdict) -> dict:
    "A pair judged otherwise, as a row for people."
    choice = verdict.rule == "choice" and verdict.correct
    right, reason = _READ_PAIRS.get(
        (p["ref"], p["pred"]), _READ_CHOICE if choice else ("not read", "")
    )
    kind = "false negative" if p["expected"] else "false positive"
    return {"kind": kind, "reference": p["ref"][:80], "answer": p["pred"][:80]} | {
        "rule": verdict.rule,
        "right": right,
        "reason": reason,
    }


def measure_pairs(rows: list[dict], peers: dict[str, Grader]) -> dict:
    "Real answers: false negatives and false positives against the agreement of two graders."
    n = Counter(p["expected"] for p in rows)
    left, table = [], {}
    for name, grade in peers.items():
        wrong = Counter()
        for p in rows:
            v = grade_answer(p["pred"], p["ref"], p["query"]) if grade is ours else None
            right = v.correct if v else grade(f"\\boxed{{{p['pred']}}}", p["ref"])
            wrong[p["expected"]] += right != p["expected"]
            if v and right != p["expected"]:
                left.append(remaining_pair(p, v))
        table[name] = {
            "false_negatives": wrong[True] / n[True],
            "false_positives": wrong[False] / n[False],
        }
    errors = Counter(r["kind"] for r in left if r["right"] != "ours")
    return {"n": len(rows), "n_same": n[True], "n_different": n[False]} | {
        **table["dart_math_nb"],
        "false_negatives_after_reading": errors["false negative"] / n[True],
        "false_positives_after_reading": errors["false positive"] / n[False],
        "remaining": left,
        "graders": table,
    }


# ---- speed


def rate(rows: list[dict], grade: Callable[[dict], object]) -> float:
    "Responses per CPU second of one core."
    start = time.process_time()
    for r in rows:
        grade(r)
    return len(rows) / (time.process_time() - start)


def measure_speed(rows: list[dict], peers: dict[str, Grader]) -> dict:
    """Extract and grade, all in one run; modules are loaded before, caches empty before each round.
    The slow peer takes a tenth."""
    rows = random.Random(0).sample(rows, 3_000)
    rounds = []
    for _ in range(3):
        forget()
        rounds.append(rate(rows, lambda r: grade_response(r["resp"], r["ref"], r["query"])))
    rates = {"dart_math_nb": statistics.median(rounds)}
    for name, grade in peers.items():
        if grade is not ours:
            part = rows[:300] if name.startswith("sympy") else rows
            rates[name] = rate(part, lambda r, g=grade: g(r["resp"], r["ref"]))
    fast = rates["dart_math_nb"]
    return {
        "n": len(rows),
        "responses_per_cpu_second": rates,
        "three_rounds": rounds,
        "ratio_to_math_verify": fast / rates["math-verify"],
    }


# ---- hostile answers


def rss() -> float:
    "Memory of this process now, MB."
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def caches() -> dict[str, list[int]]:
    "Every cache of the package: entries now, most entries."
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("dart_math_nb."):
            for key, f in vars(module).items():
                if hasattr(f, "cache_info") and f.__module__ == name:
                    info = f.cache_info()
                    found[f"{name.removeprefix('dart_math_nb.')}.{key}"] = [
                        info.currsize,
                        info.maxsize,
                    ]
    return found


def forget() -> None:
    "Empty every cache, so that a repeated verdict costs what the first one did."
    for module in [m for name, m in sys.modules.items() if name.startswith("dart_math_nb.")]:
        for f in vars(module).values():
            if hasattr(f, "cache_clear"):
                f.cache_clear()


def again(judge: Callable, text: str, ref: str) -> float:
    "Least time of two more tries, ms: a pause of the machine is no cost of the grader."
    times = []
    for _ in range(2):
        forget()
        start = time.process_time()
        judge(text, ref)
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def measure_hostile(n: int = 10_000, rounds: int = 5) -> dict:
    "Slowest verdict, exceptions, audit events and memory over rounds of hostile texts."
    watch, slowest, memory, exceptions, errors = Watch(), {}, [], [], Counter()
    slow = []  # tried again at the end, as that empties the caches
    for i in range(rounds):
        for kind, role, text, ref in hostile_rows(n // rounds, seed=i):
            judge = grade_response if role == "response" else grade_answer
            watch.on, start = True, time.process_time()
            try:
                errors[str(judge(text, ref).error)] += 1
            except Exception as e:  # the point of the bench
                exceptions.append(f"{kind}: {e!r}"[:200])
            spent, watch.on = 1e3 * (time.process_time() - start), False
            if spent > 40:
                slow.append((kind, spent, judge, text, ref))
            else:
                slowest[kind] = max(slowest.get(kind, 0), spent)
        gc.collect()
        memory.append(round(rss(), 1))
    kept = caches()
    for kind, spent, judge, text, ref in slow:
        slowest[kind] = max(slowest.get(kind, 0), min(spent, again(judge, text, ref)))
    return {
        "n": n,
        "n_kinds": len(HOSTILE),
        "exceptions": len(exceptions),
        "exception_texts": exceptions[:10],
        "slowest_ms": max(slowest.values()),
        "slowest_ms_by_kind": dict(sorted(slowest.items(), key=lambda kv: -kv[1])),
        "audit_events": dict(watch.seen),
        "rss_mb_after_rounds": memory,
        "rss_mb_peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "errors": dict(errors),
        "caches": kept,
    }


# ---- real responses


def measure_runs(files: list[Path]) -> dict:
    "Every real response: accuracy of each model and benchmark, errors, slowest verdict."
    runs, errors, slowest = {}, Counter(), 0.0
    for file in files:
        rows = read(file)
        gc.freeze()  # rows read before are not this grader's memory
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


# ---- tables


def table(r: dict) -> list[dict]:
    "Rows for people: what was measured, this grader, math-verify."
    pairs, speed = r["pairs"]["graders"], r["speed"]["responses_per_cpu_second"]
    us, them = "dart_math_nb", "math-verify"
    cases = r["cases"]
    rows = [
        (
            "cases without conflicts, accuracy",
            cases["accuracy_without_conflicts"],
            cases["others_without_conflicts"][them],
        ),
        ("cases in conflict", cases["n_conflicts"] / cases["n"], None),
        *(
            (f"pairs, {k.replace('_', ' ')}", pairs[us][k], pairs[them][k])
            for k in ("false_negatives", "false_positives")
        ),
        *(
            (f"pairs, {k.replace('_', ' ')}", r["pairs"][k], None)
            for k in ("false_negatives_after_reading", "false_positives_after_reading")
        ),
        ("responses per CPU second", round(speed[us]), round(speed[them])),
        ("slowest hostile verdict, ms", r["hostile"]["slowest_ms"], None),
    ]
    if "runs" in r:
        rows.append(("slowest real verdict, ms", r["runs"]["slowest_ms"], None))
    digits = lambda x: x if x is None else round(x, 4)  # noqa: E731
    return [{"measure": m, us: digits(a), "math-verify 0.9": digits(b)} for m, a, b in rows]


def graders(r: dict) -> list[dict]:
    "One row per grader: accuracy beside speed."
    accuracy = {"dart_math_nb": r["cases"]["accuracy_without_conflicts"]}
    accuracy |= r["cases"]["others_without_conflicts"]
    return [
        {
            "grader": name,
            "cases right": round(accuracy[name], 4),
            "pairs, false negatives": round(r["pairs"]["graders"][name]["false_negatives"], 4),
            "pairs, false positives": round(r["pairs"]["graders"][name]["false_positives"], 4),
            "responses per CPU second": round(per_second, 1),
        }
        for name, per_second in r["speed"]["responses_per_cpu_second"].items()
    ]


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all real responses and slow peers too")
    args = parser.parse_args()
    data = data_folder()
    if data is None:
        raise SystemExit("no data folder; set DART_MATH_DATA to run the bench")
    peers, responses, cases = load_peers(args.full), data / "responses", data / "grader_cases"
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, one core, CPU time",
        "hostile": measure_hostile(),
        "cases": measure_cases(case_rows(cases), peers),
        "pairs": measure_pairs(read(cases / "answer_pairs.jsonl.gz"), peers),
        "speed": measure_speed(read(responses / "zeroeval_math_l5.jsonl.gz"), peers),
    }
    if args.full:
        result["runs"] = measure_runs(sorted(responses.glob("zeroeval_*.jsonl.gz")))
    result = {"table": table(result), "graders": graders(result), **result}
    write_json(RESULTS, result)
    for row in [*result["table"], *result["graders"]]:
        print(*row.values(), sep=" | ")


if __name__ == "__main__":
    main()

"""Slow the grader down: `python bench/fuzz_grader.py [--n N]`.

N (20,000) hostile answers, half of them tokens of the vocabulary repeated without end, and as many mutations of real
responses and references (from the optional data folder, else of the project's own cases), each graded once; the CPU time of
every verdict, and for each token how the time grows when the text becomes twice as long. Writes
`bench/results/fuzz_grader.json`.
"""

import argparse
import gc
import gzip
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.grade.proof import (
    FRAMES,
    QUERIES,
    hostile_rows,
    mutated,
    repeated,
    repeated_rows,
    vocabulary,
)
from dart_math_nb.grade.verdict import grade_answer, grade_response

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "fuzz_grader.json"


def timed(role: str, text: str, ref: str, query: str) -> tuple[float, str]:
    "Milliseconds of CPU and the outcome of a verdict; a slow one is measured three times."
    judge = grade_response if role == "response" else grade_answer
    best, outcome = 1e9, ""
    for k in range(3):
        start = time.thread_time()
        try:
            verdict = judge(text, ref, query)
            outcome = verdict.error or verdict.rule
        except Exception as e:
            outcome = f"raised {type(e).__name__}"
        best = min(best, 1e3 * (time.thread_time() - start))
        if k == 0 and best < 20:
            break
    return best, outcome


def hostile(n: int) -> Iterator[tuple[str, str, str, str, str]]:
    rng = random.Random(1)
    for kind, role, text, ref in hostile_rows(n - n // 2):
        yield kind, role, text, ref, rng.choice(QUERIES)
    for token, role, text, ref, query in repeated_rows(n // 2):
        yield repr(token), role, text, ref, query


def real() -> list[tuple[str, str, str, str]]:
    "Role, text, reference and query of real responses, or of the project's cases."
    rows = []
    try:
        files = sorted((data_folder() / "responses").glob("*.jsonl.gz"))
    except (OSError, ValueError, LookupError):
        files = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as f:
            found = [json.loads(line) for _, line in zip(range(4_000), f, strict=False)]
        rows += [("response", r["resp"], r["ref"], r["query"] or "") for r in found if "resp" in r]
    for line in (ROOT / "nbs" / "cases" / "field.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        rows.append(("answer", case["ans"], case["ref_ans"], case.get("query") or ""))
    return rows


def mutations(n: int) -> Iterator[tuple[str, str, str, str, str]]:
    rng, tokens, rows = random.Random(2), vocabulary(), real()
    for _ in range(n):
        role, text, ref, query = rng.choice(rows)
        if rng.random() < 0.3:
            ref = mutated(ref, rng, tokens)
        else:
            text = mutated(text, rng, tokens)
        yield "mutation", role, text, ref, query


def run(rows: Iterator) -> dict:
    times, outcomes, slow = [], Counter(), []
    for kind, role, text, ref, query in rows:
        ms, outcome = timed(role, text, ref, query)
        times.append(ms)
        outcomes[outcome] += 1
        slow.append((round(ms, 1), kind, role, len(text), ref[:40], query[:40], outcome))
        slow = sorted(slow, reverse=True)[:5]
    times.sort()
    return {
        "n": len(times),
        "slowest_ms": round(times[-1], 1),
        "ms_of_999_in_1000": round(times[-1 - len(times) // 1_000], 1),
        "mean_ms": round(sum(times) / len(times), 2),
        "raised": sum(v for k, v in outcomes.items() if k.startswith("raised")),
        "outcomes": dict(outcomes.most_common()),
        "slowest": slow,
    }


def growth(lengths: tuple[int, ...] = (750, 1_500, 3_000, 5_900)) -> list[dict]:
    "For each token the frame in which the longest text takes longest, and its times."
    rng, rows = random.Random(3), []
    for token in vocabulary():
        frames = [
            (timed("answer", repeated(token, f, lengths[-1]), "1,2,3", QUERIES[-1])[0], f)
            for f in rng.sample(FRAMES, 6)
        ]
        frame = max(frames)[1]
        ms = [
            min(
                timed("answer", repeated(token, frame, n), r"\{1,2\}", QUERIES[-1])[0]
                for _ in range(2)
            )
            for n in lengths
        ]
        rows.append(
            {
                "token": repr(token),
                "frame": frame,
                **{f"ms at {n:,}": round(t, 2) for n, t in zip(lengths, ms, strict=True)},
                "growth": round(ms[-1] / max(ms[-2], 0.5), 2),
            }
        )
    return sorted(rows, key=lambda r: -r[f"ms at {lengths[-1]:,}"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20_000, help="verdicts of each kind (20,000)")
    n = parser.parse_args().n
    gc.disable()  # a collection belongs to no verdict
    found = {"hostile": run(hostile(n)), "mutations": run(mutations(n))}
    table = growth()
    out = {
        "measured": str(date.today()),
        "python": platform.python_version(),
        "slowest_ms": max(f["slowest_ms"] for f in found.values()),
        "largest_growth": max(r["growth"] for r in table),
        "n_tokens": len(table),
        **found,
        "growth": table[:40],
    }
    write_json(RESULTS, out)
    print({k: v for k, v in out.items() if k != "growth"}, *table[:12], sep="\n")


if __name__ == "__main__":
    main()

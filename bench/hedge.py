"""Try to buy the grader: `python bench/hedge.py [--seconds 60] [--seed 1]`.

Every hedge of the page `proof`, in both orders, with and without `strict`, and then nested hedges
under queries of every policy until the time is up. A response that satisfies both of two unequal
references is listed. Writes `bench/results/hedge.json`.
"""

import argparse
import random
import time
from datetime import date
from pathlib import Path

from dart_math_nb.data.files import write_json
from dart_math_nb.grade.proof import UNEQUAL, hedges
from dart_math_nb.grade.verdict import grade_response

QUERIES = (
    "",
    "What percent of them?",
    "Round to the nearest integer.",
    "Give the list in increasing order.",
    "Which? (A) 3 (B) 4 (C) 5",
    "How many dollars? $n!$",
    "Find the coordinates of the ordered pair.",
    "Is it true that $x^2=4$? Write it in base 8.",
)


def paid_twice(response: str, a: str, b: str, query: str = "", strict: bool = False) -> bool:
    "Does one response satisfy both?"
    return all(grade_response(response, ref, query, strict=strict).correct for ref in (a, b))


def main(seconds: float, seed: int) -> dict:
    "All hedges once, then nested ones until the time is up."
    rng, start, paid, n = random.Random(seed), time.monotonic(), [], 0
    for a, b in UNEQUAL.values():
        for strict in (False, True):
            for name, response in [*hedges(a, b), *hedges(b, a)]:
                n += 1
                if paid_twice(response, a, b, strict=strict):
                    paid.append([name, response, a, b])
    once = n
    while time.monotonic() - start < seconds:
        a, b = rng.sample(rng.choice([*UNEQUAL.values()]), 2)
        query = rng.choice(QUERIES)
        for name, response in hedges(a, b, rng):
            n += 1
            if paid_twice(response, a, b, query):
                paid.append([name, response, a, b, query])
    return {
        "date": f"{date.today()}",
        "seed": seed,
        "hedges": once,
        "nested": n - once,
        "paid twice": len(paid),
        "which": paid[:50],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    result = main(args.seconds, args.seed)
    write_json(Path(__file__).parent / "results" / "hedge.json", result)
    print({k: v for k, v in result.items() if k != "which"}, *result["which"][:10], sep="\n")

"""Where this grader and math-verify disagree on real responses: who was right?

`python bench/disagreements.py --draw N` grades every response with both (minutes), draws N of the
disagreements with a fixed seed and prints those that nobody has read yet. What a reader decides goes
into `bench/disagreements.jsonl`: a line on the draw, then one for each row with its hash, the kind, and
who was right ("ours", "math-verify", or "open" where the reference itself is incomplete). Without `--draw` the table is
made again from that file with the graders of now, and written to `bench/results/disagreements.json`.
Needs the optional data folder (`DART_MATH_DATA`) and math-verify; no text of a problem is stored.
"""

import argparse
import datetime
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from grader import math_verify_grader, read

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import short_hash
from dart_math_nb.grade.verdict import grade_response

HERE = Path(__file__).parent
RESULTS, JUDGED = HERE / "results" / "disagreements.json", HERE / "disagreements.jsonl"
FILES = ("zeroeval_math_l5", "zeroeval_gsm", "mathcoder_tool_integrated", "openai_gsm8k_solutions")
SEED = 20261120


def rows(folder: Path) -> Iterator[tuple[str, dict]]:
    "Hash and row of every response."
    for name in FILES:
        for r in read(folder / f"{name}.jsonl.gz"):
            yield short_hash(name, r["query"], r["ref"], r["resp"], str(r.get("model"))), r


def verdicts(row: dict, other) -> tuple[bool, bool]:
    "Ours and math-verify's."
    ours = grade_response(row["resp"], row["ref"], row["query"]).correct
    return ours, other(row["resp"], row["ref"])


def draw(folder: Path, other, n: int) -> list[tuple[str, dict]]:
    "Random disagreements of the graders of now."
    found = [(key, r) for key, r in rows(folder) if len(set(verdicts(r, other))) == 2]
    print(f"{len(found)} disagreements")
    return random.Random(SEED).sample(found, n)


def show(sample: list[tuple[str, dict]], judged: dict[str, dict]) -> None:
    "Rows that nobody has read yet."
    for key, r in sample:
        if key not in judged:
            v = grade_response(r["resp"], r["ref"], r["query"])
            print(
                key, repr(r["ref"]), v, repr(r["query"][-300:]), repr(r["resp"][-400:]), sep="\n  "
            )


def table(folder: Path, other, judged: dict[str, dict], meta: dict) -> dict:
    "Counts by kind and by who was right, with the verdicts of now."
    kinds, agree = {}, 0
    for key, r in rows(folder):
        if key not in judged:
            continue
        j, (ours, theirs) = judged[key], verdicts(r, other)
        agree += ours == theirs
        kinds.setdefault(j["kind"], Counter())[j["right"]] += 1
    counted = [
        {"kind": k, "n": sum(c.values()), **{w: c[w] for w in ("ours", "math-verify", "open")}}
        for k, c in sorted(kinds.items(), key=lambda kv: -sum(kv[1].values()))
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "n_responses": sum(1 for _ in rows(folder)),
        "n_disagreements": meta["n_disagreements"],
        "n_read": len(judged),
        "how": f"random.Random({SEED}).sample of the disagreements of commit {meta['grader']}",
        "n_agree_now": agree,
        "rows": counted,
    }


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=int, help="draw so many disagreements and show the unread")
    args = parser.parse_args()
    folder = data_folder()
    if folder is None:
        raise SystemExit("no data folder; set DART_MATH_DATA to run the bench")
    other = math_verify_grader()
    meta, *lines = read(JUDGED)
    judged = {j["row"]: j for j in lines}
    if args.draw:
        show(draw(folder / "responses", other, args.draw), judged)
        return
    result = table(folder / "responses", other, judged, meta)
    write_json(RESULTS, result)
    for row in result["rows"]:
        print(*row.values(), sep=" | ")


if __name__ == "__main__":
    main()

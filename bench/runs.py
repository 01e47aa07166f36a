"""Accuracy of real runs beside math-verify: `python bench/runs.py [--verdicts FILE]`.

Grades the stored responses of 87 runs of published models (43 on the level-5 queries of MATH, 44 on
GSM8K; needs the optional data folder, see `dart_math_nb.data.load.data_folder`) with this grader and
with math-verify: on the whole response, and on the bare answer field (the models were asked for JSON with
an "answer", which math-verify does not look for). Counts where they differ, and compares some pairs of
models on the same queries. Writes `bench/results/runs.json`. `--verdicts` is a pickle of math-verify's
verdicts, (file stem, row index) or (file stem, row index, "bare") to true, false or None; it is read,
completed and written.
"""

import argparse
import datetime
import gzip
import json
import logging
import pickle
import platform
import re
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.evaluate.metrics import accuracy, paired_test
from dart_math_nb.grade.batch import grade_responses

RESULTS = Path(__file__).parent / "results" / "runs.json"
FILES = {"zeroeval_math_l5": "MATH level 5", "zeroeval_gsm": "GSM8K"}
PAIRS = {  # Per benchmark: (model, its near neighbor)
    "MATH level 5": [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
        ("Qwen2.5-72B-Instruct", "Qwen2.5-32B-Instruct"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20240620"),
        ("o1-mini-2024-09-12", "o1-preview-2024-09-12"),
    ],
    "GSM8K": [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
        ("Meta-Llama-3.1-405B-Instruct@hyperbolic", "Llama-3.1-405B-Instruct-Turbo"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20240620"),
        ("gemma-2-27b-it@together", "gemma-2-9b-it"),
    ],
}
_FIELD = re.compile(
    r""""answer"\s*:\s*     # {"reasoning": "...", "answer": "42"}: the value of the field,
        (".*?"(?=\s*[,}])   # quoted, perhaps with quotes inside, up to the next , or }
        |[^",}\n]+)         # or bare: 42""",
    re.DOTALL | re.VERBOSE,
)


def read(path: Path) -> list[dict]:
    "Rows of a compressed JSON lines file."
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def bare_answer(response: str) -> str | None:
    "The last answer field of a response in JSON; None when it has none."
    found = _FIELD.findall(response)
    try:
        text = str(json.loads(found[-1])) if found else ""
    except ValueError:  # a backslash that JSON does not know
        text = found[-1].strip().strip('"')
    return text.strip() or None


def math_verify_verdicts(stem: str, rows: list[dict], known: dict) -> dict:
    "math-verify on every response and every bare answer; None where it raises or there is none."
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it logs every failure
    refs, found = {}, {}
    for i, r in enumerate(rows):
        if r["ref"] not in refs:
            refs[r["ref"]] = parse(f"${r['ref']}$")
        bare = bare_answer(r["resp"])
        texts = {(stem, i): r["resp"]}
        texts[stem, i, "bare"] = None if bare is None else f"\\boxed{{{bare}}}"
        for key, text in texts.items():
            if key in known or text is None:
                found[key] = known.get(key)
                continue
            try:
                found[key] = bool(verify(refs[r["ref"]], parse(text)))
            except Exception:  # it raises on some inputs, as on those that run out of time
                found[key] = None
    return found


def frame_of(stem: str, rows: list[dict], theirs: dict) -> pd.DataFrame:
    "One row per response: this grader's verdict, and math-verify's on the response and the answer."
    fields = {"response": "resp", "ref_ans": "ref"}
    texts = ({k: r[k] for k in ("resp", "ref", "query")} for r in rows)
    frame = pd.DataFrame([asdict(v) for v in grade_responses(texts, 1, fields=fields)])
    frame["model"], frame["query_id"] = [r["model"] for r in rows], [r["qid"] for r in rows]
    whole = [theirs[stem, i] for i in range(len(rows))]
    bare = [theirs[stem, i, "bare"] for i in range(len(rows))]
    frame["whole"] = [bool(v) for v in whole]
    frame["bare"] = [bool(v if b is None else b) for v, b in zip(whole, bare, strict=True)]
    frame["has_bare"] = [b is not None for b in bare]
    return frame


def run_table(frame: pd.DataFrame, name: str) -> list[dict]:
    "One row per model: accuracies, interval, counts by reason, and disagreements."
    found = accuracy(frame, "model").set_index("model")
    c = frame["correct"]
    sums = {f"n_math_verify_{k}": frame[k] for k in ("whole", "bare")}
    for k in ("whole", "bare"):
        sums |= {f"only_ours_{k}": c & ~frame[k], f"only_math_verify_{k}": ~c & frame[k]}
    sums["n_with_answer_field"] = frame["has_bare"]
    for column, mask in sums.items():
        found[column] = mask.groupby(frame["model"]).sum()
    for k in ("whole", "bare"):
        found[f"accuracy_math_verify_{k}"] = found[f"n_math_verify_{k}"] / found["n"]
    return found.reset_index().assign(benchmark=name).to_dict("records")


def kinds(frame: pd.DataFrame) -> dict:
    "How often they differ on whole responses, and how often still on bare answers."
    out = {}
    for k in ("whole", "bare"):
        ours, theirs = frame["correct"] & ~frame[k], ~frame["correct"] & frame[k]
        rules = Counter(frame.loc[ours, "rule"]).most_common()
        reasons = Counter(frame.loc[theirs, "error"].fillna("different")).most_common()
        found = {"agreement": float((frame["correct"] == frame[k]).mean())}
        found |= {"only_ours": int(ours.sum()), "only_math_verify": int(theirs.sum())}
        out[k] = found | {"only_ours_by_rule": dict(rules), "only_theirs_by_reason": dict(reasons)}
    return out


def compare_pairs(frame: pd.DataFrame, name: str) -> list[dict]:
    "The paired test on pairs of models."
    out = []
    for a, b in PAIRS[name]:
        both = frame[frame["model"] == a], frame[frame["model"] == b]
        theirs = paired_test(*(f.assign(correct=f["bare"]) for f in both))
        found = {"diff_math_verify": theirs.diff, "p_math_verify": theirs.p_value}
        out.append({"benchmark": name, "a": a, "b": b} | asdict(paired_test(*both)) | found)
    return out


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--verdicts", type=Path, help="pickle of math-verify's verdicts")
    args = parser.parse_args()
    data = data_folder()
    if data is None:
        raise SystemExit("no data folder; set DART_MATH_DATA to run the bench")
    known = args.verdicts is not None and args.verdicts.exists()
    verdicts = pickle.loads(args.verdicts.read_bytes()) if known else {}
    runs, pairs, why = [], [], {}
    for stem, name in FILES.items():
        rows = read(data / "responses" / f"{stem}.jsonl.gz")
        verdicts |= math_verify_verdicts(stem, rows, verdicts)
        frame = frame_of(stem, rows, verdicts)
        runs += run_table(frame, name)
        pairs += compare_pairs(frame, name)
        why[name] = kinds(frame)
    if args.verdicts:
        args.verdicts.write_bytes(pickle.dumps(verdicts))
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    head = {"date": str(datetime.date.today()), "machine": machine}
    head |= {"math_verify": version("math-verify"), "n_responses": sum(r["n"] for r in runs)}
    write_json(RESULTS, head | {"kinds": why, "pairs": pairs, "runs": runs})
    table = pd.DataFrame(runs)
    shown = ["accuracy", "accuracy_math_verify_whole", "accuracy_math_verify_bare"]
    print(table[["benchmark", "model", "n", *shown]].round(4).to_string())
    for name, found in why.items():
        print(name, {k: round(v["agreement"], 4) for k, v in found.items()})


if __name__ == "__main__":
    main()

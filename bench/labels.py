"""Majority labels and suspicious references on real responses.

`python bench/labels.py [votes references]`. Needs the optional data folder. `votes` learns how often a majority
is right on four fifths of the queries and asks the last fifth, in turn, and does the same for draws of the one
model of the miniature. `references` makes the list of suspects and compares its head with the reading kept in
`bench/references_read.jsonl`. Writes counts, no text, to bench/results/labels.json.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from parts import run_parts

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import make_query
from dart_math_nb.demo.pipeline import prompt_of, teacher_source, tiny_engine
from dart_math_nb.demo.tiny import tiny_path, tiny_queries
from dart_math_nb.evaluate.ask import evaluate_queries
from dart_math_nb.evaluate.labels import (
    calibrate,
    calibration_error,
    confidence_of,
    coverage_curve,
    error_limit,
    right_majorities,
    vote_table,
)
from dart_math_nb.evaluate.suspects import suspects
from dart_math_nb.evaluate.votes import vote_keys
from dart_math_nb.grade.verdict import grade_response

OUT = Path(__file__).parent / "results" / "labels.json"
FILES = {"gsm8k": "zeroeval_gsm", "math, level 5": "zeroeval_math_l5"}
READ = Path(__file__).parent / "references_read.jsonl"


def draws_of(name: str) -> tuple[pd.DataFrame, list, dict]:
    "Graded draws with keys, one of each model; queries; query_id to the file's id."
    rows, queries, ids = [], {}, {}
    for r in read_rows(data_folder() / f"responses/{FILES[name]}.jsonl.gz"):
        ref = r["ref"].removeprefix("# ")
        q = queries.setdefault(r["qid"], make_query(name, r["query"], ref))
        v = grade_response(r["resp"] or "", ref, r["query"])
        ids[q.query_id] = r["qid"]
        rows.append((q.query_id, r["model"], 0, v.ans, v.correct, v.error))
    columns = ["query_id", "source_id", "trial", "ans", "correct", "error"]
    some = list(queries.values())
    return vote_keys(pd.DataFrame(rows, columns=columns), some), some, ids


def asked(frame: pd.DataFrame, seed: int, folds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    "Confidence of each majority by a rule that has not seen its query, and whether it is right."
    table = vote_table(frame)
    right = right_majorities(table, frame)
    fold = pd.Series(np.random.default_rng(seed).permutation(len(table)) % folds, table.index)
    sure = []
    for i in range(folds):
        rule = calibrate(table[fold != i], frame[frame["query_id"].map(fold) != i])
        sure.append(confidence_of(table[fold == i], rule)["confidence"])
    sure = pd.concat(sure)[right.index].to_numpy()
    return sure, right.to_numpy()


def measured(frame: pd.DataFrame) -> dict:
    n = frame["query_id"].nunique()
    sure, right = asked(frame, 0)
    errors = [calibration_error(*asked(frame, seed)) for seed in range(20)]
    curve = coverage_curve(np.round(sure, 2), right, n)
    at = curve[curve["confidence"] >= 0.9].head(1).to_dict("records")
    return {
        "queries": n,
        "majorities": len(right),
        "right": round(float(right.mean()), 4),
        "error": round(calibration_error(sure, right), 4),
        "limit": round(error_limit(sure), 4),
        "error of 20 splits": round(float(np.mean(errors)), 4),
        "coverage at 0.9": round(at[0]["coverage"], 4) if at else 0.0,
        "accuracy at 0.9": round(at[0]["accuracy"], 4) if at else None,
        "curve": curve.round(4).to_dict("records"),
    }


def miniature() -> pd.DataFrame:
    "Sixteen draws of the small teacher on 600 queries."
    queries, source = tiny_queries(600, seed=11), teacher_source(0)
    how = {"n_draws": 16, "prompt_of": prompt_of, "progress": False}
    with tempfile.TemporaryDirectory() as tmp, tiny_engine(tiny_path("teacher")) as engine:
        frame = evaluate_queries(queries, engine, tmp, source, **how)
    return vote_keys(frame, queries)


def votes() -> dict:
    found = {f"{n}: one draw of each model": measured(draws_of(n)[0]) for n in FILES}
    return found | {"miniature: 16 draws of one model": measured(miniature())}


def references() -> dict:
    out, read = {}, pd.DataFrame(read_rows(READ))
    for name in FILES:
        frame, queries, ids = draws_of(name)
        found = suspects(frame, queries, least=-1.0)
        head = found[found["why"].str.contains("votes")].head(50)
        known = read[read["benchmark"] == name].set_index("qid")["verdict"]
        verdicts = head["query_id"].map(ids).map(known)
        counts = verdicts.value_counts()
        out[name] = {
            "queries": len(queries),
            "never solved": int((~frame.groupby("query_id")["correct"].any()).sum()),
            "score above 0": int((found["score"] > 0).sum()),
            "read of the first 50": int(verdicts.notna().sum()),
        } | {k: int(counts.get(k, 0)) for k in ("wrong", "ambiguous", "fine")}
    return out


if __name__ == "__main__":
    run_parts(__doc__, {"votes": votes, "references": references}, OUT)

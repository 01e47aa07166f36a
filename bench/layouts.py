"""The same problems in more than thirty layouts, through every stage that can use them.

A few made-up sums and their responses are written in each form that people bring: formats, folders,
a hub (a server of bench/hub.py), conversations, and the columns of published sets. Every stage then
runs on each file as a command, and what it kept is compared with what was written. Run alone:
python bench/layouts.py [LAYOUT ...]. Writes bench/results/layouts.json.
"""

import contextlib
import io
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from datetime import date
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from parts import named_parts

sys.path.insert(0, str(Path(__file__).parent))
OUT = Path(__file__).parent / "results" / "layouts.json"
N = 40  # Problems; every fourth has a wrong response
TURNS = (("role", "content", "user", "assistant"), ("from", "value", "human", "gpt"))


def base_rows() -> list[dict]:
    "The problems: query, ref, level, resp, right."
    from dart_math_nb.demo.tiny import tiny_queries, worked_solution

    rows, rng = [], random.Random(7)
    for i, q in enumerate(tiny_queries(N, seed=7)):
        right, text = i % 4 > 0, worked_solution(q.query, rng)
        text = text if right else "\\boxed{" + str(int(q.ref_ans) + 1) + "}"
        rows.append({"query": q.query, "ref": q.ref_ans, "level": q.meta["level"]})
        rows[-1] |= {"resp": text, "right": right}
    return rows


def turns(row: dict, form: int = 0, answer: bool = True) -> list[dict]:
    "A conversation."
    who, what, user, model = TURNS[form]
    pair = [{who: user, what: row["query"]}, {who: model, what: row["resp"]}]
    return pair if answer else pair[:1]


def as_rows(form: Callable[[dict], dict]) -> Callable[[list[dict]], list[dict]]:
    "A form row by row."
    return lambda rows: [form(r) for r in rows]


# ---- How a list of rows is written -------------------------------------------------------------


def lines(rows: Iterable, path: Path, packed: str | None = None) -> Path:
    "JSON lines."
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with pa.output_stream(str(path), compression=packed) as f:
        f.write(text)
    return path


def whole(value, path: Path) -> Path:
    "One JSON value."
    path.write_text(json.dumps(value, indent=1))
    return path


def table(rows: list[dict], path: Path) -> Path:
    "A table, by the ending of its name."
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".csv", ".tsv"):
        sep = "," if path.suffix == ".csv" else "\t"
        pd.DataFrame(rows).to_csv(path, index=False, sep=sep)
    elif path.suffix == ".arrow":
        feather.write_feather(pa.Table.from_pylist(rows), str(path))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def saved(rows: list[dict], folder: Path, splits: bool = False) -> Path:
    "What `save_to_disk` writes."
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(rows)
    both = datasets.DatasetDict(train=data, test=data.select([0]))
    (both if splits else data).save_to_disk(folder)
    return folder


def sharded(rows: list[dict], folder: Path, where: str = "data") -> Path:
    "Two files of one split, as on the hub."
    half = len(rows) // 2
    for i, part in enumerate((rows[:half], rows[half:])):
        table(part, folder / where / f"train-{i:05}-of-00002.parquet")
    return folder


def one_each(rows: list[dict], folder: Path) -> Path:
    "A file for each problem, as MATH was published."
    for i, row in enumerate(rows, 1):
        path = folder / "train" / f"level_{i % 3}" / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole(row, path)
    return folder


def hub(rows: list[dict], folder: Path) -> str:
    "A data set of the hub, served by bench/hub.py."
    from hub import Hub, data_set

    Hub.sets["someone/sums"] = data_set({"main": rows}, "train")
    return "someone/sums;split=train"


# ---- Layouts -----------------------------------------------------------------------------------

PLAIN = as_rows(lambda r: {"query": r["query"], "ref_ans": r["ref"], "response": r["resp"]})
MINE = as_rows(lambda r: {"problem": r["query"], "answer": r["ref"], "completion": r["resp"]})
MATH = as_rows(
    lambda r: {
        "problem": r["query"],
        "level": f"Level {r['level']}",
        "type": "Sums",
        "solution": f"So it is $\\boxed{{{r['ref']}}}$.",
    }
)
ALL, ASKS, LEARNS = "qrt", "q", "t"  # Queries with references; responses; pairs to learn
LAYOUTS = {  # Name -> what it holds, file or folder, rows in the form, how they are written
    "JSON lines": (ALL, "a.jsonl", PLAIN, lines),
    "JSON lines, gzip": (ALL, "a.jsonl.gz", MINE, lambda r, p: lines(r, p, "gzip")),
    "JSON lines, zstd": (ALL, "a.jsonl.zst", PLAIN, lambda r, p: lines(r, p, "zstd")),
    "JSON array": (
        ALL,
        "a.json",
        as_rows(lambda r: {"question": r["query"], "gt": int(r["ref"]), "generation": r["resp"]}),
        whole,
    ),
    "JSON object that holds a list": (
        ALL,
        "a.json",
        MINE,
        lambda rows, path: whole({"version": 2, "data": rows}, path),
    ),
    "CSV": (ALL, "a.csv", MINE, table),
    "TSV": (ALL, "a.tsv", PLAIN, table),
    "Parquet": (ALL, "a.parquet", PLAIN, table),
    "Arrow file": (ALL, "a.arrow", MINE, table),
    "save_to_disk": (ALL, "saved", PLAIN, saved),
    "DatasetDict folder": (ALL, "dict;split=train", MINE, lambda r, p: saved(r, p, True)),
    "hub layout": (ALL, "clone", PLAIN, sharded),
    "hub layout, configurations": (
        ALL,
        "clone;config=main;split=train",
        MINE,
        lambda r, p: sharded(r, sharded(r[:2], p, "other"), "main"),
    ),
    "hub id": (ALL, "hub", PLAIN, hub),
    "messages": (
        ALL,
        "a.jsonl",
        as_rows(lambda r: {"messages": turns(r), "answer": r["ref"]}),
        lines,
    ),
    "conversations": (
        ALL,
        "a.json",
        as_rows(lambda r: {"conversations": turns(r, 1), "gt": r["ref"]}),
        whole,
    ),
    "prompt and completion turns": (
        ALL,
        "a.parquet",
        as_rows(
            lambda r: {
                "prompt": turns(r, answer=False),
                "completion": turns(r)[1:],
                "ground_truth": r["ref"],
            }
        ),
        table,
    ),
    "list of responses": (
        ALL,
        "a.jsonl",
        as_rows(lambda r: {"query": r["query"], "ref": r["ref"], "resps": [r["resp"]]}),
        lines,
    ),
    "dotted paths": (
        ALL,
        "a.jsonl",
        as_rows(
            lambda r: {"doc": {"problem": r["query"], "answer": r["ref"]}, "output": r["resp"]}
        ),
        lines,
    ),
    "samples of lm-evaluation-harness": (
        ALL,
        "a.jsonl",
        lambda rows: [
            {
                "doc": {"question": r["query"], "answer": f"So:\n#### {r['ref']}"},
                "target": f"So:\n#### {r['ref']}",
                "resps": [[r["resp"]]],
                "filter": name,
            }
            for r in rows
            for name in ("strict", "flexible")
        ],
        lines,
    ),
    "alpaca": (
        ALL,
        "a.json",
        as_rows(
            lambda r: {
                "instruction": r["query"],
                "input": "",
                "output": r["resp"],
                "answer": r["ref"],
            }
        ),
        whole,
    ),
    "MATH, JSON lines": (ASKS, "a.jsonl", MATH, lines),
    "MATH, a file for each problem": (ASKS, "MATH", MATH, one_each),
    "GSM8K": (
        ASKS,
        "a.jsonl",
        as_rows(lambda r: {"question": r["query"], "answer": f"It is so.\n#### {r['ref']}"}),
        lines,
    ),
    "DART pool": (
        ALL,
        "a.parquet",
        as_rows(
            lambda r: {
                "query": r["query"],
                "query4test": False,
                "gt_ans": r["ref"],
                "query_metadata": {"level": r["level"]},
                "resp": r["resp"],
                "ans_correct": r["right"],
                "ans": "0",
                "query_id": 3,
                "resp_metadata": {"temperature": 1.6},
            }
        ),
        table,
    ),
    "DART-Math set": (
        LEARNS,
        "a.parquet",
        as_rows(lambda r: {"query": r["query"], "response": r["resp"]}),
        table,
    ),
    "Big-Math": (
        ASKS,
        "a.parquet",
        as_rows(
            lambda r: {
                "problem": r["query"],
                "answer": r["ref"],
                "domain": ["Sums"],
                "llama8b_solve_rate": 0.5,
            }
        ),
        table,
    ),
    "DeepMath": (
        ASKS,
        "a.parquet",
        as_rows(lambda r: {"question": r["query"], "final_answer": r["ref"], "difficulty": 5.5}),
        table,
    ),
    "NuminaMath-1.5": (
        ASKS,
        "a.parquet",
        lambda rows: [
            {
                "problem": f"{r['query']}+0" if mark else r["query"],
                "solution": "...",
                "answer": mark or r["ref"],
                "problem_is_valid": valid,
            }
            for i, r in enumerate(rows)
            for mark, valid in [
                ("", "Yes"),
                *[("proof", "Yes")] * (i % 3 == 0),
                *[("notfound", "Yes")] * (i % 3 == 1),
                *[("7", "Incomplete")] * (i % 3 == 2),
            ]
        ],
        table,
    ),
    "OpenR1-Math": (
        ALL,
        "a.parquet",
        as_rows(
            lambda r: {
                "problem": r["query"],
                "solution": "...",
                "answer": r["ref"],
                "generations": [r["resp"]],
                "correctness_math_verify": [r["right"]],
                "correctness_llama": None,
                "correctness_count": int(r["right"]),
                "messages": turns(r),
            }
        ),
        table,
    ),
    "DAPO (verl columns, each row three times)": (
        ASKS,
        "a.parquet",
        lambda rows: [
            {
                "data_source": "math_dapo",
                "prompt": turns(r, answer=False),
                "ability": "MATH",
                "reward_model": {"ground_truth": r["ref"], "style": "rule"},
                "extra_info": {"index": "i"},
            }
            for r in rows * 3
        ],
        table,
    ),
    "Skywork-OR1 (verl columns, JSON in a text)": (
        ASKS,
        "a.parquet",
        as_rows(
            lambda r: {
                "data_source": "train-math",
                "prompt": turns(r, answer=False),
                "reward_model": {"ground_truth": json.dumps([r["ref"]]), "style": "rule"},
                "extra_info": {"model_difficulty": {"a": 3}},
            }
        ),
        table,
    ),
    "Open-Reasoner-Zero": (
        ASKS,
        "a.json",
        lambda rows: [
            [
                {"from": "human", "value": r["query"]},
                {"from": "assistant", "ground_truth": {"value": r["ref"], "pass_at_n": None}},
            ]
            for r in rows
        ],
        whole,
    ),
    "Open-Reasoner-Zero as a table": (
        ASKS,
        "a.parquet",
        as_rows(
            lambda r: {
                "0": {"from": "human", "value": r["query"]},
                "1": {"from": "assistant", "ground_truth": {"value": r["ref"], "pass_at_n": 0.5}},
            }
        ),
        table,
    ),
    "Polaris": (
        ASKS,
        "a.parquet",
        as_rows(lambda r: {"problem": r["query"], "answer": r["ref"], "difficulty": "6/8"}),
        table,
    ),
}


# ---- Stages ------------------------------------------------------------------------------------


def command(*words) -> str:
    "What a command wrote on standard error. Raises RuntimeError when it failed."
    from dart_math_nb.app.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    if code:
        raise RuntimeError(err.getvalue().strip().splitlines()[-1])
    return err.getvalue()


def asked(path: Path) -> list[tuple[str, str]]:
    "Text and reference of the queries of a run."
    from dart_math_nb.data.queries import read_saved_queries

    return sorted((q.query, q.ref_ans) for q in read_saved_queries(path))


def sampled(source: str, out: Path, rows: list[dict]) -> bool:
    "Are the queries of a run with dice those that were written?"
    dice = ("--engine", "simulated", "--strategy", "vrt", "--k", 1)
    command("sample", "--queries", source, *dice, "--out", out)
    return asked(out / "queries.jsonl") == sorted((r["query"], r["ref"]) for r in rows)


def evaluated(source: str, out: Path, rows: list[dict]) -> bool:
    "Are the queries of an evaluation with dice those that were written?"
    command("evaluate", "--benchmarks", source, "--engine", "simulated", "--out", out)
    (path,) = (out / "eval" / "simulated").glob("*/queries.jsonl")
    return asked(path) == sorted((r["query"], r["ref"]) for r in rows)


def cleaned(source: str, out: Path, rows: list[dict]) -> bool:
    "Is a set without what was written what is left of a run?"
    from dart_math_nb.sets.card import read_train_set

    more = [{"query": f"{i}+{i}+{i}+{i}+{i}", "ref_ans": 5 * i} for i in range(3)]
    rows = [{"query": r["query"], "ref_ans": r["ref"]} for r in rows]
    dice = ("--engine", "simulated", "--strategy", "uniform", "--k", 1, "--max-trials", 4096)
    command("sample", "--queries", lines(rows + more, out / "run.jsonl"), *dice, "--out", out / "r")
    command("curate", out / "r", "--decontaminate", source, "--partial")
    left = read_train_set(out / "r" / "train_set" / "uniform")["query"]
    return {r["query"] for r in more} >= set(left) and len(left) > 0


def graded(source: str, out: Path, rows: list[dict]) -> bool:
    "Are the verdicts those of what was written?"
    from dart_math_nb.data.files import read_rows

    command("grade", source, "--out", out, "--n-procs", 1)
    found = [row["correct"] for row in read_rows(out / "verdicts.jsonl.gz")]
    return found == [r["right"] for r in rows]


def imported(source: str, out: Path, rows: list[dict]) -> bool:
    "Does the pool hold what was written?"
    from dart_math_nb.data.queries import read_saved_queries
    from dart_math_nb.store.pool import read_pool

    command("import", source, "--out", out, "--n-procs", 1)
    texts = {q.query_id: (q.query, q.ref_ans) for q in read_saved_queries(out / "queries.jsonl")}
    pool = read_pool(out / "pool", ["query_id", "response", "correct"])
    found = [
        (*texts[q], r, c)
        for q, r, c in zip(pool["query_id"], pool["response"], pool["correct"], strict=True)
    ]
    return sorted(found) == sorted((r["query"], r["ref"], r["resp"], r["right"]) for r in rows)


def replayed(source: str, out: Path, rows: list[dict]) -> bool:
    "Does a replay draw what was written?"
    from dart_math_nb.store.pool import read_pool

    replay = ("--engine", "replay", "--responses", source, "--strategy", "vrt", "--k", 1)
    command("sample", *replay, "--out", out)
    pool = read_pool(out / "pool", ["response", "correct"])
    found = zip(pool["response"], pool["correct"], strict=True)
    return sorted(found) == sorted((r["resp"], r["right"]) for r in rows)


def trained(source: str, out: Path, rows: list[dict]) -> bool:
    "Does a training of one epoch learn what was written?"
    from dart_math_nb.demo.tiny import tiny_path
    from dart_math_nb.train.config import TrainCfg
    from dart_math_nb.train.rows import read_train_rows

    recipe = out / "recipe.yaml"
    text = {"model": str(tiny_path("base")), "out": str(out / "m"), "train_set": [source]}
    text |= {"template": "plain", "room": 256, "batch_size": 64, "n_epochs": 1}
    whole(text, recipe)  # JSON is YAML
    command("train", recipe)
    cfg = TrainCfg("m", "o", train_set=(source,))
    found = [(r["query"], r["response"]) for r in read_train_rows(cfg)]
    return found == [(r["query"], r["resp"]) for r in rows]


STAGES = {  # Name -> what a file must hold, what is done
    "sample": ("q", sampled),
    "evaluate": ("q", evaluated),
    "curate --decontaminate": ("q", cleaned),
    "grade": ("r", graded),
    "import": ("r", imported),
    "replay": ("r", replayed),
    "train": ("t", trained),
}


def try_all(tmp: Path, names: Iterable[str]) -> list[dict]:
    "A row for each layout: what each stage made of it."
    found, rows = [], base_rows()
    for i, name in enumerate(names):
        holds, place, form, write = LAYOUTS[name]
        base, _, said = place.partition(";")
        (tmp / f"{i}").mkdir()
        path = write(form(rows), tmp / f"{i}" / base)
        source = path if base == "hub" else ";".join([str(path), *filter(None, [said])])
        row = {"layout": name, "file": place}
        for stage, (needs, run) in STAGES.items():
            if needs not in holds:
                continue
            (out := tmp / f"{i}-{stage.split()[0]}").mkdir()
            try:
                row[stage] = "same rows" if run(source, out, rows) else "OTHER ROWS"
            except Exception as e:
                row[stage] = f"{type(e).__name__}: {e}"[:300]
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def main() -> None:
    "Measure, print and store."
    from hub import Hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as tmp:
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
        os.environ["HF_HOME"] = f"{tmp}/home"
        start, names = time.perf_counter(), named_parts(__doc__, LAYOUTS)
        rows = try_all(Path(tmp), names)
    tries = [row[s] for row in rows for s in STAGES if s in row]
    good = sum(t == "same rows" for t in tries)
    summary = f"{good} of {len(tries)}: {len(rows)} layouts through each stage that can use them"
    print(summary)
    if names == list(LAYOUTS):
        result = {"date": date.today().isoformat(), "machine": platform.machine()}
        result |= {"summary": summary, "seconds": round(time.perf_counter() - start), "rows": rows}
        OUT.write_text(json.dumps(result, indent=2) + "\n")
    raise SystemExit(good < len(tries))


if __name__ == "__main__":
    main()

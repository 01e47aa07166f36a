"""Students from one budget in the miniature: the threshold form, the greedy form, VRT, Prop2Diff with a stop.

python bench/budget_students.py [--quick]: three seeds; for each, a pool of the shipped teacher, four sets of
30,000 draws (20 for each of 1,500 queries), four students on 1.8 million tokens each (rows are repeated), and
their greedy answers to 3,000 fresh queries. About 16 minutes a seed on two idle cores; a seed that is done is
kept. `--quick` tries the script in a minute and writes nothing. Writes bench/results/budget_students.json.
"""

import json
import os
import platform
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import budget as rules
import numpy as np
import pandas as pd

from dart_math_nb.data.files import folder_revision
from dart_math_nb.data.records import Source
from dart_math_nb.demo.pipeline import prompt_of, teacher_source, tiny_engine
from dart_math_nb.demo.tiny import tiny_path, tiny_queries
from dart_math_nb.evaluate.ask import EvalCfg, PlainPrompt, evaluate_benchmarks
from dart_math_nb.sample.loop import sample_pool
from dart_math_nb.sample.standing import graded_prefix
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sample.worth import query_lot
from dart_math_nb.sets.cut import cut_train_set
from dart_math_nb.store.pool import open_pool, read_narrow
from dart_math_nb.train.config import TrainCfg
from dart_math_nb.train.loop import train

OUT = Path(__file__).parent / "results" / "budget_students.json"
FULL = {"n_queries": 1500, "per_query": 20, "tokens": 1_800_000, "n_test": 3000, "seeds": 3}
QUICK = {"n_queries": 60, "per_query": 20, "tokens": 20_000, "n_test": 50, "seeds": 1}
LIMIT, ENOUGH = (
    64,
    20,
)  # Most draws of a query; correct responses after which it is drawn no further


class Drawn:
    "A pool as the rules of bench/budget.py read it."

    def __init__(self, rows: pd.DataFrame, query_ids: list[str]):
        self.known = rows.groupby("query_id").size().reindex(query_ids, fill_value=0).to_numpy()
        right = np.zeros((len(query_ids), LIMIT), int)
        at = rows.query_id.map({q: i for i, q in enumerate(query_ids)}).to_numpy()
        right[at, rows.trial.to_numpy()] = rows.ok.to_numpy()
        self.c = np.concatenate([np.zeros((len(query_ids), 1), int), right.cumsum(1)], 1)
        self.p = self.c[np.arange(len(query_ids)), self.known] / np.maximum(self.known, 1)
        self.lot = np.array([query_lot(q) for q in query_ids])

    def correct(self, n: np.ndarray) -> np.ndarray:
        return self.c[np.arange(len(n)), n]


def draw_pool(folder: Path, queries: list, seed: int) -> tuple[Drawn, pd.DataFrame]:
    "The teacher's draws of each query, until enough are correct or the limit."
    source = teacher_source(seed)
    enough = StrategyCfg("uniform", ENOUGH, LIMIT)
    with open_pool(folder) as pool, tiny_engine(tiny_path("teacher")) as engine:
        how = {"source": source, "strategy": enough, "prompt_of": prompt_of, "progress": False}
        sample_pool(queries, engine, pool, **how)
    rows = graded_prefix(read_narrow(folder, ["correct", "finish_reason"]))
    return Drawn(rows, [q.query_id for q in queries]), rows


def spendings(world: Drawn, amount: int) -> dict[str, np.ndarray]:
    "Draws of each query under each rule."
    found = rules.fixed_rules(world, amount)
    return {
        "threshold": rules.threshold(world, amount, 1, 4)[0],
        "greedy": rules.greedy(world, amount, 1, 4, 10),
        "VRT": found["VRT"],
        "Prop2Diff with a stop": found["Prop2Diff with a stop"],
    }


def rows_of(rows: pd.DataFrame, world: Drawn, n: np.ndarray, folder: Path, queries) -> pd.DataFrame:
    "The train set of a spending: all correct draws in it."
    if (n > world.known).any():
        raise ValueError(f"{(n > world.known).sum()} queries need draws that the pool has not")
    upto = dict(zip([q.query_id for q in queries], n, strict=True))
    keep = rows.ok & (rows.trial < rows.query_id.map(upto))
    return cut_train_set(folder, queries, rows.loc[keep, ["query_id", "trial", "source_id"]])


def repeated(frame: pd.DataFrame, tokens: int, seed: int) -> pd.DataFrame:
    "Rows in random order, again and again, until there are so many tokens."
    rng, picked, n = random.Random(seed), [], 0
    lens = (frame.n_tokens + frame["query"].str.len() + 2).tolist()
    while n < tokens:
        order = rng.sample(range(len(frame)), len(frame))
        for i in order:
            if n >= tokens:
                break
            picked.append(i)
            n += lens[i]
    return frame.iloc[picked].reset_index(drop=True)


def student(out: Path, rows: pd.DataFrame, test: list, seed: int) -> dict:
    "Accuracy of a student, in all and per level, in percent."
    how = {"lr": 1e-3, "n_epochs": 1, "room": 2048, "batch_size": 2, "packing": "next_fit"}
    recipe = TrainCfg(
        str(tiny_path("base")), str(out / "model"), template="plain", seed=seed, threads=2, **how
    )
    with ThreadPoolExecutor(1) as own_thread:
        own_thread.submit(train, recipe, rows, progress=False).result()
    source = Source(
        "student", folder_revision(out / "model"), template="plain", temperature=0.0, max_tokens=80
    )
    with tiny_engine(out / "model") as engine:
        how = {"queries": {"tiny": test}, "prompts": {"tiny": PlainPrompt(prompt_of, "plain")}}
        frame = evaluate_benchmarks(
            EvalCfg(["tiny"], source), engine, out / "eval", progress=False, **how
        )
    level = {q.query_id: q.meta["level"] for q in test}
    right = frame.correct.astype(bool).groupby(frame.query_id.map(level)).mean()
    return {
        "accuracy": 100 * float(frame.correct.mean()),
        "levels": (100 * right).round(1).tolist(),
    }


def one_seed(seed: int, sizes: dict) -> dict:
    "All students of one seed."
    queries = tiny_queries(sizes["n_queries"], seed)
    test = tiny_queries(
        sizes["n_test"], seed + 1000, exclude={q.query_id for q in queries}, benchmark="tiny"
    )
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        world, rows = draw_pool(Path(tmp) / "pool", queries, seed)
        for name, n in spendings(world, sizes["per_query"] * len(queries)).items():
            chosen = rows_of(rows, world, n, Path(tmp) / "pool", queries)
            about = {
                "draws": int(n.sum()),
                "rows": len(chosen),
                "tokens_once": int(chosen.n_tokens.sum()),
            }
            here = Path(tmp) / name.replace(" ", "-")
            made = student(here, repeated(chosen, sizes["tokens"], seed), test, seed)
            found[name] = about | made
            print(seed, name, found[name], flush=True)
    return found


def main(quick: bool) -> None:
    rules.LIMIT, sizes = LIMIT, QUICK if quick else FULL
    kept = json.loads(OUT.read_text()) if OUT.exists() and not quick else {"seeds": {}}
    for seed in range(sizes["seeds"]):
        if str(seed) not in kept["seeds"]:
            start = time.perf_counter()
            kept["seeds"][str(seed)] = one_seed(seed, sizes)
            kept["seeds"][str(seed)]["seconds"] = round(time.perf_counter() - start)
            kept |= {"date": date.today().isoformat(), "sizes": sizes, "cpus": os.cpu_count()}
            kept["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
            names = [n for n in kept["seeds"]["0"] if n != "seconds"]
            each = {n: [s[n]["accuracy"] for s in kept["seeds"].values()] for n in names}
            kept["mean_accuracy"] = {n: float(np.mean(x)) for n, x in each.items()}
            if not quick:
                OUT.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept["mean_accuracy"]))


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])

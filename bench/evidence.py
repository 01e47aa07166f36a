"""What difficulty-aware sampling buys at equal cost, in the miniature: students of many rules, budgets and seeds.

python bench/evidence.py run [--study main] [--seeds 0 1] [--budgets 6 12 20] [--rules ...] [--minutes 55]
python bench/evidence.py run --study sensitivity
python bench/evidence.py plan [--study ...]
python bench/evidence.py run --study worlds
python bench/evidence.py again --cell equations/main/20/VRT/0
python bench/evidence.py worlds
python bench/evidence.py table

A cell is one student: a world (sums or equations), a variant of it, a budget in raw draws a query, a rule that spends
it, and a seed (queries, draws, training). Teacher and base of sums ship with the package, those of equations are
trained once into the folder of pools. A pilot takes half of a budget at most; a rule that a budget does not fit has no student. All
students of a variant see the same number of tokens, in the same number of steps; rows are repeated. `run` works on
cells that are not in bench/results/evidence.jsonl yet, most wanted first, two at a time with one thread each, and
begins no cell after so many minutes; a cell done twice gives the same numbers. A cell that fails is a line that says
why, and is tried again by the next start. Pools lie in a folder (`--work`) and are drawn again when they are gone.
`--study sensitivity` changes one thing of the world or of the rules at a time, with the rules that it changes alone;
`plan` lists what a study lacks. `table` writes means and paired contrasts with their intervals over seeds to
bench/results/evidence.json. `run --tiny` tries everything small and keeps nothing.
`again` makes a kept cell anew, in an empty folder (pool, models, student), and fails unless every number is the same;
with `--tiny` it makes a small one twice. `worlds` writes the teachers' and bases' pass rates to
bench/results/worlds.json.
"""

import argparse
import fcntl
import json
import math
import os
import platform
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import budget as rules
import numpy as np
import pandas as pd

from dart_math_nb.data.files import folder_revision, read_json, write_json
from dart_math_nb.data.records import Source
from dart_math_nb.demo.equations import (
    EQUATION_TEMPERATURE,
    EQUATION_TOKENS,
    equation_queries,
    make_equations,
)
from dart_math_nb.demo.pipeline import prompt_of
from dart_math_nb.demo.tiny import TEACHER_TEMPERATURE, tiny_path, tiny_queries
from dart_math_nb.engines.hf import TransformersEngine
from dart_math_nb.evaluate.ask import EvalCfg, PlainPrompt, evaluate_benchmarks
from dart_math_nb.evaluate.metrics import accuracy
from dart_math_nb.report.frontier import contrasts, read_cells, sensitivity, t_interval
from dart_math_nb.sample.loop import sample_pool
from dart_math_nb.sample.respend import (
    HOPELESS,
    Prefixes,
    Spent,
    Unfit,
    check_known,
    count_prefixes,
    largest,
    level_draws,
    prop2diff_of,
    spent_rows,
    uniform_of,
    vrt_of,
)
from dart_math_nb.sample.standing import graded_prefix
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sample.worth import query_lot
from dart_math_nb.sets.cut import cut_train_set
from dart_math_nb.store.pool import open_pool, read_narrow
from dart_math_nb.store.pool import read_pool as whole_pool
from dart_math_nb.train.config import TrainCfg
from dart_math_nb.train.loop import train

RESULTS = Path(__file__).parent / "results"
LIMIT, ENOUGH = 64, 20  # Most draws of a query; correct responses after which a pool draws no more
rules.LIMIT = LIMIT
FULL = {"n_queries": 1500, "n_test": 3000, "tokens": 1_800_000, "n_rows": None}
TINY = {"n_queries": 60, "n_test": 50, "tokens": 20_000, "n_rows": 3_000}


def shipped(work: str, name: str, n_rows: int | None = None) -> Path:
    "A checkpoint of the package."
    return tiny_path(name)


def trained(work: str, name: str, n_rows: int | None = None) -> Path:
    "A checkpoint of the world of equations, trained when it is not there yet."
    folder = Path(work) / f"equations-{name}{f'-{n_rows}' if n_rows else ''}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            start, load = time.process_time(), os.getloadavg()[0]
            with tempfile.TemporaryDirectory(dir=work) as tmp:
                make_equations(Path(tmp) / name, name, n_rows)
                took = {"cpu_seconds": round(time.process_time() - start), "load": round(load, 1)}
                write_json(folder.with_suffix(".json"), took)
                (Path(tmp) / name).rename(folder)
    return folder


@dataclass(frozen=True)
class World:
    "A family of problems, and the models that know it."

    queries: Callable  # n, seed, exclude, benchmark
    checkpoint: Callable[..., Path]  # Folder of pools, "teacher" or "base", rows of its training
    prefix: str  # Of names of models
    max_tokens: int  # Of a response
    max_len: int  # Of prompt and response
    row: float = 1.0  # Tokens of a row, beside those of sums


WORLDS = {
    "sums": World(tiny_queries, shipped, "tiny", 80, 96),
    "equations": World(equation_queries, trained, "equations", EQUATION_TOKENS, 128, 1.0),
}
TEMPERATURES = {"sums": TEACHER_TEMPERATURE, "equations": EQUATION_TEMPERATURE}


def engine_of(world: World, folder: Path) -> TransformersEngine:
    "Engine with room for the longest responses of a world."
    return TransformersEngine(folder, max_in_flight=384, max_len=world.max_len)


def source_of(world: World, name: str, folder: Path, temperature: float, seed: int = 0) -> Source:
    "What draws of a model depend on."
    how = {"template": "plain", "temperature": temperature, "max_tokens": world.max_tokens}
    return Source(name, folder_revision(folder), run_seed=seed, **how)


@dataclass(frozen=True)
class Variant:
    "What a variant changes in the world, or in the rules."

    teacher: str = "teacher"  # A checkpoint of the world
    base: str = "base"  # The same
    temperature: float = 1.4  # Of the teacher's draws
    n_pilot: int = 8  # Of Prop2Diff
    false_rate: float = 0.0  # Share of complete wrong responses that the grader calls right
    cover: bool = True  # Prop2Diff: at least one response of each query
    levels: bool = False  # Prop2Diff: fail rates of levels in place of those of queries
    n_epochs: int = 0  # Passes over the set; 0 for the same number of tokens for all


VARIANTS = {
    "main": Variant(),
    "stronger teacher": Variant(temperature=1.0),
    "weaker teacher": Variant(temperature=1.7),
    "stronger base": Variant(base="teacher"),
    "pilot of 4": Variant(n_pilot=4),
    "pilot of 16": Variant(n_pilot=16),
    "0.5 % false": Variant(false_rate=0.005),
    "1 % false": Variant(false_rate=0.01),
    "2 % false": Variant(false_rate=0.02),
    "difficulty of levels": Variant(levels=True),
    "no cover": Variant(cover=False),
    "three epochs": Variant(n_epochs=3),
}


@dataclass(frozen=True)
class Drawn(Prefixes):
    "A pool with its levels, as the rules of bench/budget.py ask for it."

    level: np.ndarray = None  # Of each query

    @property
    def p(self) -> np.ndarray:  # They ask for its length
        return self.c[np.arange(len(self.c)), self.known] / np.maximum(self.known, 1)


def counts(rows: pd.DataFrame, queries: list) -> Drawn:
    "A pool of graded draws as counts."
    found = count_prefixes(rows, [q.query_id for q in queries], LIMIT)
    return Drawn(**vars(found), level=np.array([q.meta["level"] for q in queries]))


def fail_counts(drawn: Drawn, variant: Variant) -> np.ndarray:
    "Fail rate of each query in the pilot, or of its level."
    fail = 1 - drawn.c[:, variant.n_pilot] / variant.n_pilot
    if variant.levels:
        fail = pd.Series(fail).groupby(drawn.level).transform("mean").to_numpy()
    return fail


def prop2diff(drawn: Drawn, variant: Variant, stop: int) -> Callable[[int], Spent]:
    fail = fail_counts(drawn, variant)
    return partial(prop2diff_of, drawn, fail, variant.n_pilot, stop, variant.cover)


def greedy(drawn: Drawn, amount: int) -> Spent:
    "Always the query whose next draw is worth most, one by one, with ten looks at the pool as a whole."
    return Spent(rules.greedy(drawn, amount, 1, 4, 10), np.full(len(drawn.c), LIMIT))


def reshaped(drawn: Drawn, amount: int, variant: Variant) -> Spent:
    "VRT's draws, cut to the shape of Prop2Diff with a stop and to as many rows, those of hard queries lacking."
    shape = prop2diff(drawn, variant, HOPELESS)
    made = largest(drawn, amount, shape)
    n = largest(drawn, amount, partial(vrt_of, drawn)).n
    size = np.minimum(made.quota, drawn.correct(made.n)).sum()

    def of_k(k: int) -> np.ndarray:
        return np.minimum(shape(k).quota, drawn.correct(n))

    k = next(k for k in range(1, LIMIT * LIMIT) if of_k(k + 1).sum() > size)
    low, high = of_k(k), of_k(k + 1)
    order = np.argsort(drawn.lot)
    fits = order[low.sum() + (high - low)[order].cumsum() <= size]
    return Spent(n, np.where(np.isin(np.arange(len(n)), fits), high, low))


def allocated(drawn: Drawn, amount: int, gamma: float, n_pilot: int = 4) -> Spent:
    "The package's budget: one level of worth for all queries."
    n, _ = level_draws(drawn, amount, gamma, n_pilot)
    return Spent(n, np.full(len(n), LIMIT))


def spend(rule: str, drawn: Drawn, amount: int, variant: Variant) -> Spent:
    "What a rule makes of a budget. Raises Unfit; ValueError when the pool lacks draws."
    fit = partial(largest, drawn, amount)
    how = {
        "VRT": lambda: fit(partial(vrt_of, drawn)),
        "VRT, reshaped": lambda: reshaped(drawn, amount, variant),
        "Uniform": lambda: fit(partial(uniform_of, drawn, 0)),
        "Uniform, stop": lambda: fit(partial(uniform_of, drawn, HOPELESS)),
        "Prop2Diff": lambda: fit(prop2diff(drawn, variant, 0)),
        "Prop2Diff, stop": lambda: fit(prop2diff(drawn, variant, HOPELESS)),
        "budget": lambda: allocated(drawn, amount, 1),
        "budget, greedy": lambda: greedy(drawn, amount),
        "budget, gamma 2": lambda: allocated(drawn, amount, 2),
    }
    return check_known(drawn, how[rule.removesuffix(", distinct")]())


RULES = [
    "VRT",
    "budget",
    "Uniform",
    "Prop2Diff",
    "VRT, reshaped",
    "Prop2Diff, stop",
    "budget, greedy",
    "budget, gamma 2",
    "VRT, distinct",
    "Uniform, stop",
    "budget, distinct",
]


def quiet() -> None:
    "One thread, and no progress of loading."
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


def pool_name(cell: dict, sizes: dict) -> str:
    "Cells with the same name share a pool; that of sums goes without its world."
    v, world = VARIANTS[cell["variant"]], cell["world"]
    name = f"{v.teacher}-{v.temperature}-{sizes['n_queries']}-{cell['seed']}"
    return name if world == "sums" else f"{world}-{name}"


def draw_pool(work: str, cell: dict, sizes: dict) -> Path:
    "The teacher's draws of each query, until enough are correct or the limit; folder of the pool."
    quiet()
    folder, seed = Path(work) / pool_name(cell, sizes), cell["seed"]
    if (folder / "done").exists():
        return folder
    world, variant = WORLDS[cell["world"]], VARIANTS[cell["variant"]]
    queries = world.queries(sizes["n_queries"], seed)
    model = world.checkpoint(work, variant.teacher, sizes["n_rows"])
    source = source_of(world, f"{world.prefix}-teacher", model, variant.temperature, seed)
    enough = StrategyCfg("uniform", ENOUGH, LIMIT)
    with open_pool(folder) as pool, engine_of(world, model) as engine:
        how = {"source": source, "strategy": enough, "prompt_of": prompt_of, "progress": False}
        sample_pool(queries, engine, pool, **how)
    (folder / "done").touch()
    return folder


def read_pool(folder: Path, variant: Variant) -> pd.DataFrame:
    "Draws up to each query's end: key, ok as the grader says it, right as it is, tokens."
    rows = graded_prefix(read_narrow(folder, ["correct", "finish_reason", "n_tokens"]))
    rows = rows.assign(right=rows.ok)
    if variant.false_rate:
        keys = zip(rows.query_id, rows.trial, strict=True)
        lot = np.array([query_lot(f"{q} {t} grader") for q, t in keys])
        rows["ok"] |= (rows.finish_reason != "length") & (lot < variant.false_rate)
    return rows


def set_rows(folder: Path, rows: pd.DataFrame, queries: list, drawn, spent: Spent) -> pd.DataFrame:
    "The train set of a spending, in order of queries and trials."
    mine = spent_rows(rows, drawn, spent)
    key = ["query_id", "trial", "source_id"]
    true = cut_train_set(folder, queries, mine.loc[mine.right, key])
    if not mine.right.all():
        false = cut_train_set(folder, queries, mine.loc[~mine.right, key], correct=False)
        true = pd.concat([true, false], ignore_index=True)
    return true


def repeated(frame: pd.DataFrame, tokens: int, seed: int) -> pd.DataFrame:
    "Rows in random order, again and again, until there are so many tokens."
    rng, picked, n = random.Random(seed), [], 0
    lens = (frame.n_tokens + frame["query"].str.len() + 2).tolist()
    while n < tokens:
        for i in rng.sample(range(len(frame)), len(frame)):
            if n >= tokens:
                break
            picked.append(i)
            n += lens[i]
    return frame.iloc[picked].reset_index(drop=True)


def student(rows: pd.DataFrame, test: list, seed: int, world: World, base: Path) -> dict:
    "Accuracy of a student, in all and per level, in percent."
    how = {"lr": 1e-3, "n_epochs": 1, "room": 2048, "batch_size": 1, "packing": "next_fit"}
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp)
        recipe = TrainCfg(
            str(base),
            str(out / "model"),
            template="plain",
            seed=seed,
            threads=1,
            **how,
        )
        train(recipe, rows, progress=False)
        source, name = source_of(world, "student", out / "model", 0.0), world.prefix
        with engine_of(world, out / "model") as engine:
            asked = {
                "queries": {name: test},
                "prompts": {name: PlainPrompt(prompt_of, "plain")},
            }
            frame = evaluate_benchmarks(
                EvalCfg([name], source), engine, out / "eval", progress=False, **asked
            )
    level = {q.query_id: q.meta["level"] for q in test}
    right = frame.correct.astype(bool).groupby(frame.query_id.map(level)).mean()
    found = {"accuracy": 100 * float(frame.correct.mean())}
    return found | {"levels": [round(100 * x, 2) for x in right]}


def one_cell(work: str, cell: dict, sizes: dict) -> dict:
    "A student of a world, a variant, a budget, a rule and a seed."
    quiet()
    start, seed, variant = time.perf_counter(), cell["seed"], VARIANTS[cell["variant"]]
    folder, world = Path(work) / pool_name(cell, sizes), WORLDS[cell["world"]]
    queries = world.queries(sizes["n_queries"], seed)
    known = {q.query_id for q in queries}
    test = world.queries(sizes["n_test"], seed + 1000, exclude=known, benchmark=world.prefix)
    rows = read_pool(folder, variant)
    drawn = counts(rows, queries)
    small = replace(variant, n_pilot=min(variant.n_pilot, max(1, cell["budget"] // 2)))
    try:
        spent = spend(cell["rule"], drawn, cell["budget"] * len(queries), small)
    except Unfit as e:
        return cell | {"unfit": str(e)}
    chosen = set_rows(folder, rows, queries, drawn, spent)
    if cell["rule"].endswith(", distinct"):
        chosen = chosen.drop_duplicates(["query_id", "response"])
    about = {
        "draws": int(spent.n.sum()),
        "tokens_drawn": int(drawn.tokens[np.arange(len(spent.n)), spent.n].sum()),
        "rows": len(chosen),
        "distinct_rows": len(chosen.drop_duplicates(["query_id", "response"])),
        "queries": int(chosen.query_id.nunique()),
        "set_tokens": int((chosen.n_tokens + chosen["query"].str.len() + 2).sum()),
    }
    models = {
        n: world.checkpoint(work, getattr(variant, n), sizes["n_rows"]) for n in ("teacher", "base")
    }
    about["models"] = {n: folder_revision(path) for n, path in models.items()}
    tokens = variant.n_epochs * about["set_tokens"] or int(world.row * sizes["tokens"])
    made = student(repeated(chosen, tokens, seed), test, seed, world, models["base"])
    return cell | about | made | {"seconds": round(time.perf_counter() - start)}


def tried(work: str, cell: dict, sizes: dict) -> dict:
    "A cell, or why it failed."
    try:
        return one_cell(work, cell, sizes)
    except Exception as e:  # whatever it is, the other cells go on
        return cell | {"failed": f"{type(e).__name__}: {e}"}


def code_of() -> str:
    "The commit whose code runs; `none` outside a repository."
    git = ["git", "-C", str(RESULTS.parent)]
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "none"
    code = [":/dart_math_nb", ":/bench/*.py"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code]).returncode
    return head.stdout.strip() + (" and changes" if changed else "")


def kept() -> list[dict]:
    "Cells that were tried, the last line of each."
    file = RESULTS / "evidence.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [{"world": "sums"} | json.loads(line) for line in lines]
    return list({tuple(r[c] for c in CELL): r for r in rows}.values())


def keep(row: dict, code: str) -> None:
    "Add a cell to the file."
    about = {"date": date.today().isoformat(), "python": platform.python_version(), "code": code}
    with open(RESULTS / "evidence.jsonl", "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(json.dumps(row | about | {"machine": platform.machine()}) + "\n")


CELL = ("world", "variant", "budget", "rule", "seed")


STUDIES = ("main", "sensitivity", "worlds")
MAIN = ("VRT", "budget", "Uniform", "Prop2Diff, stop", "VRT, reshaped", "Prop2Diff")
COMPARED = ("VRT", "Prop2Diff, stop", "budget")  # In a world that differs
ELSEWHERE = ("VRT", "budget", "Uniform", "Prop2Diff, stop")  # In the second world
ALONE = ("Prop2Diff, stop",)  # Where nothing else differs; VRT is that of the main world
CHANGED = {  # Variant -> the rules that it changes; most wanted first
    "no cover": ALONE,
    "difficulty of levels": ALONE,
    "pilot of 4": ALONE,
    "pilot of 16": ALONE,
    "2 % false": COMPARED,
    "three epochs": COMPARED,
    "stronger teacher": COMPARED,
    "weaker teacher": COMPARED,
    "stronger base": COMPARED,
    "1 % false": COMPARED,
    "0.5 % false": COMPARED,
}


def studied(args: argparse.Namespace) -> list[tuple]:
    "Cells of a study, most wanted first."
    worlds = args.worlds or (["equations"] if args.study == "worlds" else ["sums"])
    if args.study == "sensitivity":
        seeds, budgets = args.seeds or range(3), args.budgets or [20]
        chosen = [(w, v, CHANGED[v]) for w in worlds for v in args.variants or CHANGED]
        return [(w, v, b, r, s) for w, v, rs in chosen for b in budgets for s in seeds for r in rs]
    main = args.study == "main"
    seeds, budgets = (
        args.seeds or range(5 if main else 3),
        args.budgets or ([20, 6, 12] if main else [20]),
    )
    variants, rs = args.variants or ["main"], args.rules or (MAIN if main else ELSEWHERE)
    chosen = [(w, v) for w in worlds for v in variants]
    return [(w, v, b, r, s) for w, v in chosen for s in seeds for b in budgets for r in rs]


def wanted(args: argparse.Namespace) -> list[dict]:
    "Cells of a study that are not done."
    done = {tuple(r[c] for c in CELL) for r in kept() if "failed" not in r}
    return [dict(zip(CELL, c, strict=True)) for c in studied(args) if args.tiny or c not in done]


def plan(args: argparse.Namespace) -> None:
    "List the cells that a study lacks."
    cells = wanted(args)
    for world, variant in dict.fromkeys((c["world"], c["variant"]) for c in cells):
        mine = [c for c in cells if (c["world"], c["variant"]) == (world, variant)]
        many = {n: list(dict.fromkeys(c[n] for c in mine)) for n in ("budget", "seed", "rule")}
        print(f"{world}, {variant}: {len(mine)} cells", json.dumps(many))
    print(f"{len(cells)} cells to do")


def run(args: argparse.Namespace) -> None:
    "Work on cells until none is left, or the time is up."
    sizes, end = TINY if args.tiny else FULL, time.monotonic() + 60 * args.minutes
    cells, args.code = wanted(args), code_of()
    print(f"{len(cells)} cells to do, code {args.code}", flush=True)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as workers:
        pools = {}
        for c in cells:
            pools.setdefault(pool_name(c, sizes), c)
        jobs = {}
        for c in cells:
            if time.monotonic() > end:
                break
            if pool_name(c, sizes) in pools:
                draw_all(workers, args, pools, sizes)
            jobs[workers.submit(tried, args.work, c, sizes)] = c
            if len(jobs) >= args.workers:
                collect(jobs, args, 1)
        collect(jobs, args, len(jobs))


def draw_all(workers: ProcessPoolExecutor, args, pools: dict, sizes: dict) -> None:
    "Draw the next pools, as many at a time as there are workers."
    names = list(pools)[: args.workers]
    jobs = [workers.submit(draw_pool, args.work, pools.pop(n), sizes) for n in names]
    for job in jobs:
        print("pool", job.result().name, flush=True)


def collect(jobs: dict, args: argparse.Namespace, n: int) -> None:
    "Keep the next n students that are done."
    for job in as_completed(list(jobs)):
        row = job.result()
        del jobs[job]
        print(row, flush=True)
        if not args.tiny:
            keep(row, args.code)
        if (n := n - 1) <= 0:
            return


WHEN = {"seconds", "date", "python", "code", "machine"}  # What of a cell may differ


def named_cell(text: str) -> dict:
    "A cell from its name, such as `sums/main/20/VRT/0`."
    parts = text.split("/")
    if len(parts) != len(CELL) or not (parts[2].isdigit() and parts[4].isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}; need {'/'.join(CELL)}")
    cell = dict(zip(CELL, parts, strict=True)) | {"budget": int(parts[2]), "seed": int(parts[4])}
    for name, known in (("world", WORLDS), ("variant", VARIANTS), ("rule", RULES)):
        if cell[name] not in known:
            raise argparse.ArgumentTypeError(f"{name} {cell[name]!r}; need one of {list(known)}")
    return cell


def from_scratch(cell: dict, sizes: dict) -> dict:
    "A cell in a folder of its own: models that are not shipped, pool and student."
    with tempfile.TemporaryDirectory() as work:
        draw_pool(work, cell, sizes)
        return one_cell(work, cell, sizes)


def again(args: argparse.Namespace) -> None:
    "Make a cell anew, and compare each of its numbers."
    start, load, cell = time.process_time(), os.getloadavg()[0], args.cell
    if args.tiny:
        first = from_scratch(cell, TINY)
    else:
        done = [r for r in kept() if all(r[c] == cell[c] for c in CELL) and "accuracy" in r]
        if not done:
            raise SystemExit(f"{cell}: not among the cells that are done")
        first = done[0]
    second = json.loads(json.dumps(from_scratch(cell, TINY if args.tiny else FULL)))
    names = (first.keys() & second.keys()) - WHEN
    differ = {n: [first[n], second[n]] for n in sorted(names) if first[n] != second[n]}
    print(json.dumps({n: second[n] for n in sorted(names)}), flush=True)
    about = {"size": "tiny" if args.tiny else "full", "compared": sorted(names), "differ": differ}
    about |= {"first_code": first.get("code"), "code": code_of(), "load": round(load, 1)}
    about |= {"cpu_seconds": round(time.process_time() - start), "date": date.today().isoformat()}
    file = RESULTS / "again.json"
    found = read_json(file) if file.exists() else {"machine": platform.machine(), "cells": {}}
    found["cells"]["/".join(str(cell[c]) for c in CELL) + (" tiny" if args.tiny else "")] = about
    write_json(file, found)
    if differ:
        raise SystemExit(f"{len(differ)} of {len(names)} numbers differ: {differ}")
    print(f"{len(names)} fields, all the same")


PROFILE = {
    "n_queries": 200,
    "n_draws": {"teacher": 16, "base": 4},
    "seed": 77,
}  # Of the pass rates in worlds.json


def profile(work: str, world: str, name: str, temperature: float) -> dict:
    "Pass rates of a model by level and by query."
    quiet()
    w, n_draws = WORLDS[world], PROFILE["n_draws"][name]
    model = w.checkpoint(work, name)
    queries = w.queries(PROFILE["n_queries"], PROFILE["seed"])
    source = source_of(w, f"{w.prefix}-{name}", model, temperature, PROFILE["seed"])
    with tempfile.TemporaryDirectory() as folder:
        how = {"source": source, "strategy": StrategyCfg("vrt", n_draws), "prompt_of": prompt_of}
        with open_pool(folder) as pool, engine_of(w, model) as engine:
            sample_pool(queries, engine, pool, progress=False, **how)
        rows = whole_pool(folder)
    ok = rows.correct.fillna(False).astype(bool)
    level = rows.query_id.map({q.query_id: q.meta["level"] for q in queries})
    graded = rows[["query_id", "trial", "error"]].assign(level=level, correct=ok)
    found = [
        {"level": int(r["level"]), "n": int(r["n"]), "n_correct": int(r["n_correct"])}
        | {k: round(float(r[k]), 4) for k in ("low", "high")}
        for _, r in accuracy(graded, "level").iterrows()
    ]
    of_query = ok.groupby(rows.query_id).sum().to_numpy()
    return {
        "revision": folder_revision(model),
        "temperature": temperature,
        "levels": found,
        "queries": np.bincount(of_query, minlength=n_draws + 1).tolist(),
        "tokens_per_draw": round(float(rows.n_tokens.mean()), 1),
        "cut": int((rows.finish_reason == "length").sum()),
        "unreduced": sum(map(unreduced, rows.response[ok])),
    }


def unreduced(response: str) -> bool:
    "Does the last fraction in a box have a common divisor?"
    box = response.rpartition("boxed")[2]
    fraction = re.search(r"(\d+)(?:\}\{|/)(\d+)", box)
    return bool(fraction) and math.gcd(*map(int, fraction.groups())) > 1


def worlds(args: argparse.Namespace) -> None:
    "Write what the models of worlds can do; other worlds in the file stay."
    file = RESULTS / "worlds.json"
    for world in args.worlds or WORLDS:
        made = {}
        for name in PROFILE["n_draws"]:
            took = Path(args.work) / f"{world}-{name}.json"
            made[name] = profile(args.work, world, name, TEMPERATURES[world])
            made[name] |= read_json(took) if took.exists() else {}
            print(world, name, json.dumps(made[name]), flush=True)
        about = {"date": date.today().isoformat(), "machine": platform.machine(), "code": code_of()}
        found = read_json(file) if file.exists() else {"worlds": {}}
        found["worlds"][world] = made | about
        write_json(file, PROFILE | found)


def rounded(*x: float) -> list[float | None]:
    "Two digits; None where there is no number."
    return [None if np.isnan(v) else round(float(v), 2) for v in x]


def table(args: argparse.Namespace) -> None:
    "Means of each cell, its contrasts to three rules of the same seed, and what variants change."
    frame, rest = read_cells(RESULTS / "evidence.jsonl")
    by, others = ["world", "variant", "budget"], ("VRT", "budget", "Uniform")
    less = {o: contrasts(frame, o, by).set_index([*by, "rule"]) for o in others}
    found = []
    for key, mine in frame.groupby([*by, "rule"], sort=False):
        row = dict(zip([*by, "rule"], key, strict=True)) | {"seeds": len(mine)}
        row |= {"budget": int(row["budget"]), "accuracy": rounded(*t_interval(mine.accuracy))}
        for other, each in less.items():
            if each.loc[key, "n_pairs"]:
                row[f"less {other}"] = rounded(*each.loc[key, ["diff", "half"]])
        row["levels"] = np.mean(mine.levels.tolist(), 0).round(1).tolist()
        numbers = ("draws", "tokens_drawn", "rows", "distinct_rows", "queries")
        found.append(row | {k: int(mine[k].mean()) for k in numbers})
        print(json.dumps(found[-1]))
    about = {"date": date.today().isoformat(), "cpus": os.cpu_count()}
    about |= {"machine": platform.machine(), "sizes": FULL, "limit": LIMIT, "enough": ENOUGH}
    about |= {"stop": HOPELESS, "cells": len(frame), "no student": len(rest), "rows": found}
    about["sensitivity"] = changed(frame)
    (RESULTS / "evidence.json").write_text(json.dumps(about, indent=1) + "\n")


def changed(frame: pd.DataFrame) -> list[dict]:
    "What became of the main contrasts in each variant."
    some = frame[(frame.world == "sums") & (frame.budget == 20) & frame.rule.isin(COMPARED)]
    alone = [v for v, rs in CHANGED.items() if rs == ALONE]
    found = sensitivity(some, alone) if len(some) else pd.DataFrame()
    numbers = found.select_dtypes("number").columns
    found = found.round(dict.fromkeys(numbers, 2)).astype(object)
    return found.where(found.notna(), None).to_dict("records")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(required=True)
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--study", default="main", choices=STUDIES)
    which.add_argument("--worlds", nargs="+", choices=list(WORLDS), help="those of the study")
    which.add_argument(
        "--seeds", type=int, nargs="+", help="those of the study, when none is named"
    )
    which.add_argument("--budgets", type=int, nargs="+", help="draws a query; the same")
    which.add_argument("--rules", nargs="+", choices=RULES, help="of the main study")
    which.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="those of the study")
    which.add_argument("--tiny", action="store_true", help="small, nothing kept")
    lacks = stages.add_parser("plan", parents=[which], help="list the cells that are not done")
    lacks.set_defaults(do=plan)
    pools = argparse.ArgumentParser(add_help=False)
    pools.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "evidence"))
    about = "train students of cells that are not done"
    work = stages.add_parser("run", parents=[which, pools], help=about)
    work.add_argument("--minutes", type=float, default=55, help="begin no cell after these")
    work.add_argument("--workers", type=int, default=2)
    work.set_defaults(do=run)
    twice = stages.add_parser("again", help="make a cell anew and compare")
    twice.add_argument("--cell", type=named_cell, required=True, help="/".join(CELL))
    twice.add_argument("--tiny", action="store_true", help="make a small one twice")
    twice.set_defaults(do=again)
    rates = stages.add_parser("worlds", parents=[pools], help="pass rates of teachers and bases")
    rates.add_argument("--worlds", nargs="+", choices=list(WORLDS), help="all when none is named")
    rates.set_defaults(do=worlds)
    stages.add_parser("table", help="means and contrasts").set_defaults(do=table)
    args = parser.parse_args()
    if getattr(args, "study", "main") == "sensitivity":
        if args.rules:
            parser.error("--rules: a study of sensitivity has those that a variant changes")
        if unknown := set(args.variants or ()) - set(CHANGED):
            parser.error(f"--variants: nothing is changed in {min(unknown)!r}")
    args.do(args)


if __name__ == "__main__":
    main()

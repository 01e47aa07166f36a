"""What one budget for all queries promises, measured: utility, spending, speed, and one set whatever happens.

python bench/budget.py [PART ...]: `utility` (against VRT, Uniform, Prop2Diff and a greedy hand, on measured
pass rates), `pilot` (by size of the pilot), `small` (small budgets, on halves of the queries), `tokens` (worth
per draw and per token, on real responses with their lengths), `miniature` (both forms on draws of the shipped
teacher), `speed` (decisions with 100,000 queries), `kills` (real processes, kill -9, shares); all when none is
named, others keep what was measured before. The first four need the data folder and are skipped without it.
Writes bench/results/budget.json.
"""

import heapq
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.queries import save_queries
from dart_math_nb.data.records import Source
from dart_math_nb.engines.dice import simulated_world
from dart_math_nb.engines.retry import RetryPolicy
from dart_math_nb.sample.budget import (
    fitting_pilot,
    next_level,
)
from dart_math_nb.sample.estimate import fit_prior
from dart_math_nb.sample.freeze import read_strategy
from dart_math_nb.sample.queue import queue_of
from dart_math_nb.sample.respend import level_draws, quota_draws
from dart_math_nb.sample.rounds import read_rounds
from dart_math_nb.sample.stage import sample_strategy
from dart_math_nb.sample.state import State, mark, settle
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sample.worth import (
    PER,
    Budget,
    Level,
    draw_worth,
    length_classes,
    relative_cost,
)
from dart_math_nb.sets.card import read_card
from dart_math_nb.sets.stage import cut_sets
from dart_math_nb.store.folder import alone_in
from dart_math_nb.store.shards import parse_shard

OUT = Path(__file__).parent / "results" / "budget.json"
LIMIT, PER_QUERY, SEEDS = 512, (6, 12, 20, 32), range(3)
HOPELESS = 24  # Draws without success after which Uniform and Prop2Diff end a query, "with a stop"


def rate_files() -> dict[str, np.ndarray]:
    "Measured pass rates by set."
    files = sorted((data_folder() / "pass_rates").glob("*.jsonl.gz"))
    read = {f.name.split(".")[0]: read_rows(f, ["n", "n_correct"]) for f in files}
    return {name: np.array([r["n_correct"] / r["n"] for r in rows]) for name, rows in read.items()}


class World:
    "All draws that could be made, and the counts after each."

    def __init__(self, p: np.ndarray, seed: int):
        rng = np.random.default_rng(seed)
        self.p, self.lot = p, rng.random(len(p))
        right = rng.random((len(p), LIMIT)) < p[:, None]
        self.c = np.concatenate([np.zeros((len(p), 1), int), right.cumsum(1)], 1)

    def correct(self, n: np.ndarray) -> np.ndarray:
        return self.c[np.arange(len(n)), n]


def greedy(world: World, amount: float, gamma: float, n_pilot: int, refits: int) -> np.ndarray:
    "Draws of each query when always the query whose next draw is worth most is drawn, one by one."
    budget, n = Budget(amount, gamma=gamma), np.full(len(world.p), n_pilot)
    left = int(amount - n.sum())
    for part in np.array_split(np.arange(left), refits):
        c = world.correct(n)
        a, b = fit_prior(n - c, n)
        level = Level(b, a)
        worths = draw_worth(n, c, budget, level)
        queue = [(-w, world.lot[i], i) for i, w in enumerate(worths) if n[i] < LIMIT]
        heapq.heapify(queue)
        table = {}
        for _ in part:
            _, lot, i = heapq.heappop(queue)
            n[i] += 1
            if n[i] < LIMIT:
                key = (int(n[i]), int(world.c[i, n[i]]))
                if key not in table:
                    table[key] = float(draw_worth([key[0]], [key[1]], budget, level)[0])
                heapq.heappush(queue, (-table[key], lot, i))
    return n


def exactly(world: World, amount: float, draws_at) -> np.ndarray | None:
    "The largest k that fits, and k + 1 for as many queries as still fit; None when k = 1 does not."
    k = 1
    if draws_at(1).sum() > amount:
        return None
    while k < LIMIT and draws_at(k + 1).sum() <= amount:
        k += 1
    n, more, order = draws_at(k), draws_at(k + 1), np.argsort(world.lot)
    room = n.sum() + (more - n)[order].cumsum() <= amount
    return np.where(np.isin(np.arange(len(n)), order[room]), more, n)


def fixed_rules(world: World, amount: float) -> dict[str, np.ndarray | None]:
    "Draws of each query under the fixed strategies at the same spending."
    n, size = np.full(len(world.p), 8), len(world.p)
    fail = 1 - world.correct(n) / 8
    found = {"VRT": exactly(world, amount, lambda k: np.full(size, k))}
    for stop, name in ((0, ""), (HOPELESS, " with a stop")):
        found[f"Uniform{name}"] = exactly(
            world, amount, lambda k, stop=stop: quota_draws(world, np.full(size, k), 0, stop)
        )
        found[f"Prop2Diff{name}"] = exactly(
            world,
            amount,
            lambda k, stop=stop: quota_draws(world, np.maximum(1, k * fail).astype(int), 8, stop),
        )
    return found


def gains(world: World, n: np.ndarray) -> dict[str, float]:
    "What draws brought: utilities at known rates, coverage of hard queries, draws that never helped."
    c, weight = world.correct(n), 1 - world.p
    hard = (world.p > 0) & (world.p < 0.1)
    return {
        "gamma 1": float((weight * np.log1p(c)).sum()),
        "gamma 2": float((weight * (1 - 1 / (1 + c))).sum()),
        "covered": float((weight * (c > 0)).sum()),
        "hard_covered": float((c[hard] > 0).mean()),
        "rows": float(c.sum()),
        "hopeless_share": float(n[c == 0].sum() / n.sum()),
    }


def utility() -> dict:
    "Utility and coverage at equal draws, on each file."
    rows = []
    for name, p in rate_files().items():
        for per in PER_QUERY:
            rows += one_budget(name, p, per)
            print(name, per, flush=True)
    return {"limit": LIMIT, "seeds": len(SEEDS), "n_pilot": 4, "hopeless": HOPELESS, "rows": rows}


def one_budget(name: str, p: np.ndarray, per: int) -> list[dict]:
    "Each rule at one budget, means over seeds."
    amount, found, went = per * len(p), {}, []
    for seed in SEEDS:
        world = World(p, seed)
        rules = fixed_rules(world, amount)
        for gamma in (1, 2, 8):
            rules[f"budget, gamma {gamma}"], told = level_draws(world, amount, gamma, 4)
            went.append(told)
        for gamma in (1, 2):
            rules[f"greedy, gamma {gamma}"] = greedy(world, amount, gamma, 4, 10)
        for rule, n in rules.items():
            got = gains(world, n) if n is not None else None
            found.setdefault(rule, []).append(got)
    head = {"set": name, "per_query": per}
    rows = []
    for rule, each in found.items():
        each = [e for e in each if e is not None]
        row = head | {"rule": rule, "fits": len(each)}
        rows.append(
            row | {k: float(np.mean([e[k] for e in each])) for k in (each[0] if each else ())}
        )
    spent = {k: [t[k] for t in went] for k in went[0]}
    most = {
        "rule": "spending",
        "drawn_least": min(spent["drawn"]),
        "drawn_most": max(spent["drawn"]),
    }
    most |= {"counted_least": min(spent["counted"]), "counted_most": max(spent["counted"])}
    most |= {"first_off": float(np.abs(spent["first_off"]).mean()), "rounds": max(spent["rounds"])}
    return [*rows, head | most]


def pilot() -> dict:
    "Utility (gamma 1) by the size of the pilot, as a share of the best."
    rows = []
    for name, p in rate_files().items():
        for per in PER_QUERY:
            row = {"set": name, "per_query": per}
            for size in (1, 2, 4, 8, 16):
                if size < per:
                    worlds = [World(p, seed) for seed in range(5)]
                    got = [
                        gains(w, level_draws(w, per * len(p), 1, size)[0])["gamma 1"]
                        for w in worlds
                    ]
                    row[str(size)] = float(np.mean(got))
            rows.append(row)
            print(row, flush=True)
    return {"seeds": 5, "rows": rows}


SMALL = (6,)  # Draws of each query


def small() -> dict:
    "By the size of the pilot at small budgets, on halves of the queries: utility and coverage."
    rows = []
    for name, p in rate_files().items():
        for half in (0, 1):
            mine = np.random.default_rng(7).permutation(p)[half::2]
            for per in SMALL:
                rows += [{"set": name, "half": half, **r} for r in small_budget(mine, per)]
            print(name, half, flush=True)
    return {"seeds": 2, "rows": rows}


def small_budget(p: np.ndarray, per: int) -> list[dict]:
    "Each pilot at one budget, means over seeds."
    found = {}
    for seed in range(2):
        world, amount = World(p, seed), per * len(p)
        rules = fixed_rules(world, amount)
        for gamma in (1, 2, 8):
            for size in range(1, min(5, per)):
                rules[f"gamma {gamma}, pilot {size}"] = level_draws(world, amount, gamma, size)[0]
        for rule, n in rules.items():
            if n is not None:
                found.setdefault(rule, []).append(gains(world, n))
    return [
        {"per_query": per, "rule": rule}
        | {k: float(np.mean([e[k] for e in each])) for k in each[0]}
        for rule, each in found.items()
    ]


LENGTHS = ("zeroeval_math_l5", "zeroeval_gsm")  # Responses of many models to each query


class Replayed(World):
    "Draws with lengths: real responses to each query, with replacement."

    def __init__(self, responses: list[np.ndarray], seed: int):
        rng = np.random.default_rng(seed)
        picked = [r[rng.integers(0, len(r), LIMIT)] for r in responses]
        self.p, self.lot = np.array([r[:, 0].mean() for r in responses]), rng.random(len(picked))
        self.length = np.array([r[:, 1].mean() for r in responses])
        start = np.zeros((len(picked), 1), int)
        self.c, self.tokens = (
            np.concatenate([start, np.cumsum([p[:, i] for p in picked], 1)], 1) for i in (0, 1)
        )


def responses_of(name: str) -> list[np.ndarray]:
    "Verdict and tokens of each response, by query."
    from tokenizers import Tokenizer

    from dart_math_nb.grade import grade_response

    rows = [r for r in read_rows(data_folder() / "responses" / f"{name}.jsonl.gz") if r["resp"]]
    read, found = Tokenizer.from_file(str(data_folder() / "tokenizers" / "dolma2.json")), {}
    for i in range(0, len(rows), 1000):
        part = rows[i : i + 1000]
        for r, done in zip(part, read.encode_batch_fast([r["resp"] for r in part]), strict=True):
            ok = grade_response(r["resp"], str(r["ref"])).correct
            found.setdefault(r["query"], []).append((int(ok), len(done.ids)))
    return [np.array(x) for x in found.values()]


def at_tokens(world: Replayed, amount: float, levels: np.ndarray, n_pilot: int) -> np.ndarray:
    "Draws of each query down to the level at which so many tokens are spent."
    low, high, rows = 0.0, float(levels.max()), np.arange(len(levels))
    for _ in range(60):
        middle = (low + high) / 2
        n = n_pilot + (levels > middle).sum(1)
        low, high = (middle, high) if world.tokens[rows, n].sum() > amount else (low, middle)
    return n_pilot + (levels > high).sum(1)


def by_worth(world: Replayed, amount: float, gamma: float, per: str, n_pilot: int) -> np.ndarray:
    "Draws of each query by worth per draw or per token, to the last token."
    n, c = np.full(len(world.p), n_pilot), world.c[:, n_pilot]
    a, b = fit_prior(n - c, n)
    cost = relative_cost(length_classes(world.tokens[:, n_pilot], n, c)) if per == "token" else 1.0
    at, right = np.broadcast_to(np.arange(n_pilot, LIMIT), (len(n), LIMIT - n_pilot)), world.c
    worth = draw_worth(at, right[:, n_pilot:LIMIT], Budget(1, gamma=gamma), Level(b, a))
    levels = np.minimum.accumulate(worth / np.reshape(cost, (-1, 1)), axis=1)
    levels = levels * (1 + 1e-7 * world.lot[:, None])  # draws of equal worth go by lot
    return at_tokens(world, amount, levels, n_pilot)


def tokens() -> dict:
    "Worth per draw and per token, and VRT, at the same tokens of real responses."
    rows = []
    for name in LENGTHS:
        responses = responses_of(name)
        for per in PER_QUERY:
            rows += [{"set": name, "per_query": per, **r} for r in token_budget(responses, per)]
        print(name, flush=True)
    return {"limit": LIMIT, "seeds": len(SEEDS), "rows": rows}


def token_budget(responses: list[np.ndarray], per: int) -> list[dict]:
    "Each rule at one budget of tokens, means over seeds."
    found = {}
    for seed in SEEDS:
        world = Replayed(responses, seed)
        amount = per * world.length.sum()
        vrt = -np.arange(1, LIMIT + 1) - np.argsort(np.argsort(world.lot))[:, None] / len(world.p)
        rules = {"VRT": at_tokens(world, amount, np.exp(vrt / LIMIT), 0)}
        for gamma in (1, 2, 8):
            size = fitting_pilot(Budget(per * len(world.p), gamma=gamma), len(world.p))
            for each in PER:
                rules[f"gamma {gamma}, per {each}"] = by_worth(world, amount, gamma, each, size)
        for rule, n in rules.items():
            spent = world.tokens[np.arange(len(n)), n].sum() / amount
            got = gains(world, n) | {"draws": float(n.sum()), "spent": float(spent)}
            found.setdefault(rule, []).append(got)
    return [
        {"rule": rule} | {k: float(np.mean([e[k] for e in each])) for k in each[0]}
        for rule, each in found.items()
    ]


def miniature(n_queries: int = 200) -> dict:
    "The threshold form beside the greedy hand on draws of the shipped teacher, 64 of each query."
    global LIMIT
    import evidence as tiny

    from dart_math_nb.demo.pipeline import prompt_of, teacher_source, tiny_engine
    from dart_math_nb.demo.tiny import tiny_path, tiny_queries
    from dart_math_nb.sample.loop import sample_pool
    from dart_math_nb.sample.standing import graded_prefix
    from dart_math_nb.store.pool import open_pool, read_narrow

    kept, LIMIT = LIMIT, tiny.LIMIT
    queries, rows = tiny_queries(n_queries, 0), []
    with tempfile.TemporaryDirectory() as tmp:
        with open_pool(tmp) as pool, tiny_engine(tiny_path("teacher")) as engine:
            how = {"source": teacher_source(0), "prompt_of": prompt_of, "progress": False}
            sample_pool(queries, engine, pool, strategy=StrategyCfg("vrt", LIMIT), **how)
        drawn = graded_prefix(read_narrow(tmp, ["correct", "finish_reason", "n_tokens"]))
    world = tiny.counts(drawn, queries)
    for per in PER_QUERY:
        rows += forms(world, per)
    LIMIT = kept
    return {"n_queries": n_queries, "n_draws": len(drawn), "orders": ORDERS, "rows": rows}


ORDERS = 24  # Of the draws of each query, all equally likely; one alone says little


def reordered(world: World, seed: int) -> World:
    "The same draws in another order, with other lots."
    rng = np.random.default_rng(seed)
    right = rng.permuted(np.diff(world.c, axis=1), axis=1)
    c = np.concatenate([np.zeros((len(right), 1), int), right.cumsum(1)], 1)
    return replace(world, c=c, lot=rng.random(len(right)))


def forms(world: World, per: int) -> list[dict]:
    "Both forms at one budget, at the same draws, by the order of draws."
    rows, amount = [], per * len(world.p)
    for gamma in (1, 2):
        size, name, both, tolds = (
            fitting_pilot(Budget(amount, gamma=gamma), len(world.p)),
            f"gamma {gamma}",
            [],
            [],
        )
        for seed in range(ORDERS):
            one = reordered(world, seed)
            n, told = level_draws(one, amount, gamma, size)
            hand = greedy(one, amount * told["counted"], gamma, size, 10)
            both.append([gains(one, x)[name] for x in (n, hand)])
            tolds.append(told)
        shares = np.divide(*np.array(both).T)
        row = {"per_query": per, "gamma": gamma, "n_pilot": size}
        row |= {"threshold": np.mean(both, 0)[0], "greedy": np.mean(both, 0)[1]}
        row |= {"share": shares.mean(), "share_error": shares.std(ddof=1) / ORDERS**0.5}
        row |= {"share_least": shares.min(), "counted": np.mean([t["counted"] for t in tolds])}
        rows.append({k: v if isinstance(v, int) else float(v) for k, v in row.items()})
    return rows


def speed(n_queries: int = 100_000, per: int = 12) -> dict:
    "Decisions per second of one core: launch, mark, settle, next, without engine and grader."
    queries, dice = simulated_world(n_queries)
    rng = random.Random(0)
    s = StrategyCfg(
        "budget", 256, 256, 4, budget=Budget(per * n_queries), level=Level(0.5, 0.5, 0.02, 0.5)
    )
    states = {q.query_id: State(q) for q in queries}
    for state in states.values():
        settle(state, s)
    queue, n = queue_of(states, s, RetryPolicy()), 0
    rates = [dice.pass_rates[q.query_id] for q in queries]
    rate = dict(zip(states, rates, strict=True))
    start = time.process_time()
    while (state := queue.next_state()) is not None:
        trial = queue.launch(state)
        mark(state, trial, rng.random() < rate[state.query.query_id])
        queue.landed(state)
        n += 1
    seconds = time.process_time() - start
    assert queue.n_open == 0
    return {
        "n_queries": n_queries,
        "n_draws": n,
        "draws_per_s": n / seconds,
        **decisions(n_queries),
    }


def decisions(n_queries: int) -> dict:
    "CPU seconds to decide the first and the second level with many queries."
    import pandas as pd

    rng = np.random.default_rng(0)
    ids, p = [f"q{i}" for i in range(n_queries)], rng.beta(0.5, 0.5, n_queries)
    s = StrategyCfg("budget", 256, 256, 4, budget=Budget(12 * n_queries))

    def frame(n):
        at = np.repeat(np.arange(n_queries), n)
        trial = np.concatenate([np.arange(m) for m in n])
        right = rng.random(len(at)) < p[at]
        rows = {"query_id": np.array(ids, object)[at], "trial": trial, "correct": right}
        return pd.DataFrame(rows).assign(finish_reason="stop")

    start = time.process_time()
    s = next_level(s, frame(np.full(n_queries, 4)), ids)
    first = time.process_time() - start
    every = frame(np.full(n_queries, 40))
    every = every[every.query_id.isin(set(ids))]
    start = time.process_time()
    next_level(s, every, ids)
    return {
        "first_level_s": first,
        "later_level_s": time.process_time() - start,
        "later_rows": len(every),
    }


def worker(out: str, share: str, n_queries: str, amount: str) -> None:
    "One process of a run: sample a share, and cut the set when the budget is spent."
    queries, dice = simulated_world(int(n_queries), mean_latency=0.05, max_in_flight=24)
    run, shard = Path(out), parse_shard(share)
    s = StrategyCfg("budget", 128, 128, 4, budget=Budget(float(amount)))
    how = {"source": Source("dice"), "progress": False, "store": {"sync_every": 0.0}, "wait": 20.0}
    folder = run / "sample" / "budget"
    sample_strategy(folder, run / "pool", queries, dice, s, shard=shard, **how)
    s = read_strategy(folder)
    if s.level is not None and s.level.final:
        with alone_in(folder, "cut"):
            save_queries(run / "queries.jsonl", queries)
            cut_sets(run, {"budget": s})


def started(out: Path, share: str, n_queries: int, amount: int) -> subprocess.Popen:
    "One process of a run."
    command = [sys.executable, __file__, "worker", out, share, n_queries, amount]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen([str(word) for word in command], **quiet)


def run_killed(
    out: Path, n_queries: int, n_shares: int, amount: int, n_kills: int, seed: int
) -> dict:
    "Run all shares to the end, killing all of them at random moments on the way."
    rng, kills, starts = random.Random(seed), 0, 0
    stage = out / "sample" / "budget"
    while not (out / "train_set" / "budget" / "card.json").exists():
        starts += 1
        assert starts < n_kills + 20, "the run does not end"
        each = [started(out, f"{i}/{n_shares}", n_queries, amount) for i in range(n_shares)]
        if kills < n_kills:
            time.sleep(rng.uniform(1.0, 4.5))
            for process in each:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
        for process in each:
            said = process.communicate()[1].decode()
            assert process.returncode in (0, -signal.SIGKILL), said[-2000:]
    card, rounds = read_card(out / "train_set" / "budget"), read_rounds(stage)
    return {
        "shares": n_shares,
        "kills": kills,
        "starts": starts,
        "content_sha256": card["content_sha256"],
        "rows": card["rows"],
        "counted": card["cost"]["n_trials"],
        "drawn": int(rounds[-1]["drawn"]),
        "predicted": rounds[1]["predicted"],
        "rounds": len(rounds) - 1,
    }


def kills(n_queries: int = 200, per: int = 12) -> dict:
    "The set of one undisturbed process, and of 1, 2 and 4 shares killed twenty times each."
    tmp = Path(tempfile.mkdtemp())
    plain = run_killed(tmp / "plain", n_queries, 1, per * n_queries, 0, 0)
    found = [plain]
    for n in (1, 2, 4):
        found.append(run_killed(tmp / f"killed{n}", n_queries, n, per * n_queries, 20, n))
        print(found[-1], flush=True)
    shutil.rmtree(tmp)
    same = all(f["content_sha256"] == plain["content_sha256"] for f in found)
    return {"n_queries": n_queries, "budget": per * n_queries, "same": same, "rows": found}


PARTS = {"utility": utility, "pilot": pilot, "small": small, "tokens": tokens}
PARTS |= {"miniature": miniature, "speed": speed, "kills": kills}


def main(names: list[str]) -> None:
    for name in names:
        if name in ("utility", "pilot", "small", "tokens") and not data_folder():
            print(f"{name}: skipped, no data folder")
            continue
        start = time.perf_counter()
        found = PARTS[name]()
        about = {
            "date": date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
        }
        about |= {"cpus": os.cpu_count(), "seconds": round(time.perf_counter() - start, 1)}
        kept = json.loads(OUT.read_text()) if OUT.exists() else {}
        kept[name] = found | about
        OUT.write_text(json.dumps(kept, indent=1) + "\n")
        print(name, json.dumps({k: v for k, v in kept[name].items() if k != "rows"}))


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main(named_parts(__doc__, PARTS))

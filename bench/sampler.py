"""Measure the sampling loop: `python bench/sampler.py [PART ...]`, all parts when none is named.

overdraw  draws beyond the sequential minimum, share of time the engine is full, wall time against
          rounds with a barrier: a simulated engine with log-normal lengths in virtual time
null      draws per second of one core, 100,000 queries, journal and batched grading included
memory    peak memory of a run over a million queries
kill      one run killed (SIGKILL) at 50 random moments, simulated and replay engines
shards    1, 2 and 4 draws in flight or processes; 1 and 3 shards
early     what stopping early saves and costs on measured pass rates
beside    grading in a thread against processes: time of a run, delays of the event loop

Each part writes its entry of bench/results/sampler.json. Pass rates of real models come from the
optional data folder (see `dart_math_nb.data.load.data_folder`); without it, Beta(.5, .5) alone.
"""

import argparse
import asyncio
import gc
import hashlib
import heapq
import os
import platform
import random
import resource
import selectors
import signal
import sys
import tempfile
import time
from array import array
from concurrent.futures import Executor, Future
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from dart_math_nb.data.files import read_json, read_rows, write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Source, Verdict, make_query
from dart_math_nb.data.workers import Workers
from dart_math_nb.engines.dice import SimulatedEngine, simulated_world
from dart_math_nb.engines.protocol import Completion
from dart_math_nb.engines.replay import ReplayEngine
from dart_math_nb.sample.estimate import yield_stops
from dart_math_nb.sample.grading import grade_completion
from dart_math_nb.sample.loop import make_run, sample_pool
from dart_math_nb.sample.standing import quotas, strategy_draws
from dart_math_nb.sample.state import load_states, result_table
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sets.card import write_train_set
from dart_math_nb.sets.cut import strategy_set
from dart_math_nb.store.pool import KeySet, open_pool, read_pool
from dart_math_nb.store.shards import shard_name, shard_queries
from dart_math_nb.store.trials import Trials

RESULTS = Path(__file__).parent / "results" / "sampler.json"
RATES = (
    "bigmath5000_llama31_8b_n64",
    "oneshot_rlvr_dsr_sub_history",
    "zeroeval_gsm8k_44models",
    "zeroeval_math_l5_43models",
)
RIGHT, WRONG = Verdict(True, "1", "box"), Verdict(False, "0", "box")
PLACES = 256  # Draws in flight


def in_box(query, done) -> Verdict:
    "A grader that looks for the reference in a box."
    if done.finish_reason == "length":
        return Verdict(False, None, "box", "truncated")
    return RIGHT if f"boxed{{{query.ref_ans}}}" in done.text else WRONG


def measured_rates() -> dict[str, list[float]]:
    "Pass rates of each source; no text is read."
    found, folder = {}, data_folder()
    for name in RATES if folder else ():
        rows = read_rows(folder / "pass_rates" / f"{name}.jsonl.gz", ["n", "n_correct"])
        found[name] = [r["n_correct"] / r["n"] for r in rows]
    rng = random.Random(0)
    found["beta"] = [rng.betavariate(0.5, 0.5) for _ in range(5000)]
    return found


def mixed_world(n: int, **options) -> tuple[list, SimulatedEngine]:
    "Queries with pass rates drawn in equal parts from all sources."
    rng, found = random.Random(1), measured_rates()
    rates = [p for name in found for p in rng.sample(found[name], -(-n // len(found)))][:n]
    rng.shuffle(rates)
    queries = [make_query("simulated", f"{i}+{i}=?", str(2 * i)) for i in range(n)]
    pass_rates = {q.query_id: p for q, p in zip(queries, rates, strict=True)}
    return queries, SimulatedEngine(pass_rates, {q.query_id: q.ref_ans for q in queries}, **options)


# Virtual time: a loop whose clock jumps to the next timer instead of waiting.
class VirtualSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("nothing is scheduled: the run would wait for ever")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


class VirtualThread(Executor):
    "Runs a call some virtual seconds later, on the loop itself."

    def __init__(self, delay: float):
        self.delay = delay

    def submit(self, fn, *args):
        future = Future()

        def call():
            try:
                future.set_result(fn(*args))
            except BaseException as e:
                future.set_exception(e)

        asyncio.get_running_loop().call_later(self.delay, call)
        return future


class NullPool:
    "A pool that keeps nothing."

    def __init__(self, folder):
        self.folder, self.shard = Path(folder), "0"
        self.opened, self.keys = Trials(), KeySet()

    def append(self, rows) -> None: ...


class Meter:
    "An engine that measures how many of its places are taken."

    def __init__(self, engine):
        self.engine, self.max_in_flight = engine, engine.max_in_flight
        self.flying = self.started = self.cancelled = 0
        self.last = self.full_time = self.full_area = 0.0
        self.lat: dict[str, array] = {}
        self.run = None

    def tick(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.run.queue.need >= self.max_in_flight:
            self.full_time += now - self.last
            self.full_area += (now - self.last) * self.flying
        self.last = now

    async def draw(self, draw, params):
        self.tick()
        self.flying += 1
        self.started += 1
        begin = self.last
        try:
            done = await self.engine.draw(draw, params)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.tick()
            self.flying -= 1
        taken = self.lat.setdefault(draw.query_id, array("d"))
        if draw.trial >= len(taken):
            taken.extend([0.0] * (draw.trial + 1 - len(taken)))
        taken[draw.trial] = self.last - begin
        return done

    async def close(self) -> None: ...


def rounds_time(lat: dict[str, array], n_trials: dict[str, int], places: int) -> float:
    "Time of one draw per unfinished query per round, a barrier between rounds, same places."
    rows = [list(lat[q][:n]) for q, n in n_trials.items() if n]
    total, trial = 0.0, 0
    while rows:
        if len(rows) <= places:
            total += max(r[trial] for r in rows)
        else:
            heap = [0.0] * places
            for r in rows:
                heapq.heapreplace(heap, heap[0] + r[trial])
            total += max(heap)
        trial += 1
        rows = [r for r in rows if len(r) > trial]
    return total


def virtual_run(queries, engine, strategy: StrategyCfg, grading: float) -> dict:
    "One run in virtual time, and what it drew."
    loop = VirtualLoop()
    source, meter = Source("dice"), Meter(engine)
    with tempfile.TemporaryDirectory() as tmp:
        pool = NullPool(tmp)
        states = load_states(queries, pool, source.source_id, strategy)
        run = make_run(states, meter, pool, source, strategy, grade=in_box)
        run.grader.thread, meter.run = VirtualThread(grading), run
        loop.run_until_complete(run.go())
        seconds = loop.time()
        loop.close()
    table = result_table(states, strategy)
    least, drawn = int(table.n_trials.sum()), int(table.n_drawn.sum())
    work = sum(map(sum, meter.lat.values()))
    room = meter.full_time * meter.max_in_flight
    barrier = rounds_time(meter.lat, table.n_trials.to_dict(), meter.max_in_flight)
    return {
        "n_queries": len(queries),
        "n_least": least,
        "n_drawn": drawn,
        "n_started": meter.started,
        "overdraw": drawn / least - 1,
        "overdraw_with_cancelled": meter.started / least - 1,
        "n_rows": int(table.n_accepted.sum()),
        "reached": float((table.stop == "quota").mean()),
        "busy": meter.full_area / room if room else None,
        "busy_share_of_time": meter.full_time / seconds,
        "time": seconds,
        "barrier_time": barrier,
        "wall_ratio": seconds / barrier,
        "ideal_time": work / meter.max_in_flight,
    }


def overdraw(sizes=(500, 2000), grading: float = 0.01) -> dict:
    "Overdraw, occupancy and wall time; the mean draw takes one virtual second."
    kinds = {
        "Uniform 4": ("uniform", 4),
        "Uniform 40": ("uniform", 40),
        "Prop2Diff 192": ("prop2diff", 192),
    }
    found = []
    for n in sizes:
        for label, (name, k) in kinds.items():
            begin = time.process_time()
            queries, engine = mixed_world(n, mean_latency=1.0, max_in_flight=PLACES)
            row = virtual_run(queries, engine, StrategyCfg(name, k=k, max_trials=2048), grading)
            row = {"strategy": label} | row | {"cpu_s": round(time.process_time() - begin, 1)}
            print(
                {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True
            )
            found.append(row)
    return {"places": PLACES, "grading_s": grading, "max_trials": 2048, "sigma": 0.6, "rows": found}


class Null:
    "An engine that does nothing."

    max_in_flight = PLACES

    async def draw(self, draw, params):
        return Completion("\\boxed{1}", "stop", 1)

    async def close(self): ...


def null(n: int = 100_000, k: int = 4) -> dict:
    "Draws per second of processor time and of wall time."
    queries, folder = simulated_world(n)[0], tempfile.TemporaryDirectory()
    how = {"source": Source("null"), "grade": lambda q, c: RIGHT, "progress": True}
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    with folder as tmp, open_pool(tmp) as pool:
        table = sample_pool(queries, Null(), pool, strategy=StrategyCfg("uniform", k=k), **how)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n_drawn = int(table.n_drawn.sum())
    found = {"n_queries": n, "n_drawn": n_drawn, "wall_s": wall, "cpu_s": cpu}
    return found | {"draws_per_cpu_s": n_drawn / cpu, "draws_per_wall_s": n_drawn / wall}


def memory(n: int = 1_000_000, k: int = 1) -> dict:
    "Peak memory of a run over a million queries, in a process of its own."
    if (pid := os.fork()) == 0:
        try:
            found = null(n, k)
            found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
            write_json(RESULTS.with_suffix(".memory"), found)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    path = RESULTS.with_suffix(".memory")
    found = read_json(path)
    path.unlink()
    return found


def forked(fn, *args) -> int:
    "Run a call in a forked process; its id."
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        fn(*args)
        code = 0
    finally:
        os._exit(code)


def set_digest(folder, queries, strategy) -> tuple[str, int]:
    "SHA-256 of the train set as it is written, and its rows."
    frame = strategy_set(folder, queries, strategy)
    with tempfile.TemporaryDirectory() as tmp:
        write_train_set(tmp, frame, {"strategy": strategy.name})
        return hashlib.sha256((Path(tmp) / "train.parquet").read_bytes()).hexdigest(), len(frame)


class Watch:
    "An engine that refuses to draw what is in the journal already."

    def __init__(self, engine, folder):
        self.engine, self.max_in_flight = engine, engine.max_in_flight
        keys = read_pool(folder, ["query_id", "trial"]) if Path(folder).exists() else None
        self.known = set() if keys is None else set(keys.itertuples(index=False, name=None))

    async def draw(self, draw, params):
        if (draw.query_id, draw.trial) in self.known:
            raise ValueError(f"{draw.query_id}, {draw.trial}: drawn again")
        return await self.engine.draw(draw, params)

    async def close(self): ...


def sample_here(folder, queries, engine, strategy, shard="0") -> None:
    "Sample with an engine that refuses what is journalled."
    how = {"source": Source("dice"), "grade": in_box, "progress": False, "status_every": 0}
    watch = Watch(engine, folder)
    with open_pool(folder, shard) as pool:
        sample_pool(queries, watch, pool, strategy=strategy, **how)


def kill_engines(n: int) -> dict:
    "A simulated engine and one that replays stored responses."
    queries, dice = simulated_world(n, mean_latency=0.02, max_in_flight=32)
    rng, stored = random.Random(3), {}
    for q in queries:
        p = rng.betavariate(0.5, 0.5)
        texts = [f"way {i}: \\boxed{{{q.ref_ans if rng.random() < p else -1}}}" for i in range(64)]
        stored[q.query_id] = texts
    replay = ReplayEngine(stored, max_in_flight=32)

    class SlowReplay:
        max_in_flight = 32

        async def draw(self, draw, params):
            await asyncio.sleep(0.01)
            return await replay.draw(draw, params)

        async def close(self): ...

    return queries, {"simulated": dice, "replay": SlowReplay()}


def journal_bytes(folder: Path) -> int:
    "Size of the journals of a pool."
    return sum(f.stat().st_size for f in folder.glob("journal-*"))


def kill_often(
    rng: random.Random, n_kills: int, n_bytes: int, pause: float, folder: Path, *run
) -> int:
    "Start a run and kill it, again and again, as its journals grow. Returns how often it was killed."
    killed = 0
    for target in sorted(rng.uniform(0, 0.98) for _ in range(n_kills)):
        pid = forked(sample_here, folder, *run)
        while journal_bytes(folder) < target * n_bytes:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, pause))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    return killed


def kill(n_kills: int = 50, n: int = 400) -> dict:
    "Kill one run at random moments; then compare its set with that of an uninterrupted run."
    strategy, rng = StrategyCfg("prop2diff", k=12, n_pilot=8, max_trials=64), random.Random(0)
    queries, engines = kill_engines(n)
    found = {}
    for name, engine in engines.items():
        with tempfile.TemporaryDirectory() as tmp:
            tmp = Path(tmp)
            whole = forked(sample_here, tmp / "whole", queries, engine, strategy)
            begin = time.perf_counter()
            assert os.waitpid(whole, 0)[1] == 0
            seconds = time.perf_counter() - begin
            n_bytes, folder = journal_bytes(tmp / "whole"), tmp / "killed"
            killed = kill_often(rng, n_kills, n_bytes, 0.2, folder, queries, engine, strategy)
            n_before = len(read_pool(tmp / "killed", ["trial"]))
            last = forked(sample_here, tmp / "killed", queries, engine, strategy)
            ended = os.waitpid(last, 0)[1]
            a, b = (set_digest(tmp / f, queries, strategy) for f in ("whole", "killed"))
            raw = [len(read_pool(tmp / f, ["trial"])) for f in ("whole", "killed")]
            found[name] = {"kills": killed, "rows": a[1], "same_set": a == b, "ended": ended}
            found[name] |= {"draws_when_last_killed": n_before, "draws": raw, "seconds": seconds}
            print(name, found[name], flush=True)
    return found


def shards(n: int = 200) -> dict:
    "The same set for any number of draws in flight, processes and shards."
    strategy = StrategyCfg("prop2diff", k=12, n_pilot=8, max_trials=64)
    queries, engine = simulated_world(n, mean_latency=0.002, max_in_flight=64)
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        for in_flight in (1, 2, 4, 64):
            for n_shards in (1, 2, 3, 4):
                folder, pids = Path(tmp) / f"{in_flight}-{n_shards}", []
                engine.max_in_flight = in_flight
                for i in range(n_shards):
                    part = shard_queries(queries, i, n_shards)
                    args = (folder, part, engine, strategy, shard_name(i, n_shards))
                    pids.append(forked(sample_here, *args))
                assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
                digest, rows = set_digest(folder, queries, strategy)
                draws = read_pool(folder)
                size = strategy_draws(draws, strategy).query_id.value_counts()
                over = (size - quotas(draws, strategy).reindex(size.index)).clip(lower=0).sum()
                found[f"{in_flight} in flight, {n_shards} shards"] = digest[:16]
                assert over == 0, f"{over} responses beyond the quotas"
    same = len(set(found.values())) == 1
    return {"rows": rows, "extra_in_set": int(over), "sets": found, "same": same}


def early(n_limit: int = 2048, k: int = 40) -> dict:
    "Draws saved and responses lost on measured pass rates, by two rules of stopping early."
    rng = np.random.default_rng(0)
    p = np.array([x for name, rates in measured_rates().items() if name != "beta" for x in rates])
    n, rows = np.arange(1, n_limit + 1), []
    correct = (rng.random((len(p), n_limit)) < p[:, None]).cumsum(1, dtype=np.int32)
    full = np.where(correct[:, -1] >= k, (correct < k).sum(1) + 1, n_limit)

    def row(rule, floor, stop):
        stop = np.minimum(stop, full)
        c, c0 = (correct[np.arange(len(p)), s - 1] for s in (stop, full))
        hard = (p > 0) & (p < 0.05)
        lost = {
            "rows_lost": int((c0 - c).sum()),
            "hard_rows_lost": float((c0 - c)[hard].sum() / c0[hard].sum()),
        }
        lost["queries_left_without"] = int(((c == 0) & (c0 > 0)).sum())
        saved = int((full - stop).sum())
        cost = {
            "draws_saved": saved / int(full.sum()),
            "draws_per_lost_row": saved / max(1, lost["rows_lost"]),
        }
        rows.append({"rule": rule, "floor": floor} | cost | lost)

    for floor in (1.0, 2.0, 3.0, 5.0, 10.0, 20.0):
        stops = np.array([*yield_stops(floor, n_limit), *[10**9] * (k + 1)])
        hit = n >= stops[np.minimum(correct, len(stops) - 1)]
        row("surely below the floor", floor, np.where(hit.any(1), hit.argmax(1) + 1, n_limit))
        smooth = ((correct + 0.5) / (n + 1) * 1000 < floor) & (n >= 32)
        row(
            "smoothed mean below the floor",
            floor,
            np.where(smooth.any(1), smooth.argmax(1) + 1, n_limit),
        )
    hopeless = ((correct + 0.5) / (n + 1) * (n_limit - n) < k - correct) & (n >= 32)
    row("full quota out of reach", None, np.where(hopeless.any(1), hopeless.argmax(1) + 1, n_limit))
    base = {"n_queries": len(p), "k": k, "max_trials": n_limit, "n_draws": int(full.sum())}
    return base | {"n_rows": int(np.minimum(correct[:, -1], k).sum()), "rows": rows}


def beside(n: int = 6000) -> dict:
    "Grade real responses in a thread and in processes while the event loop draws."
    folder = data_folder()
    if folder is None:
        return {"skipped": "no data folder"}
    stored, queries = {}, {}
    for r in read_rows(folder / "responses" / "zeroeval_math_l5.jsonl.gz"):
        q = queries.setdefault(r["qid"], make_query("bench", r["query"], r["ref"]))
        stored.setdefault(q.query_id, []).append(r["resp"] or "")
        if sum(map(len, stored.values())) >= n:
            break
    stored = {q: texts for q, texts in stored.items()}
    least = min(map(len, stored.values()))
    names, found = {q.query_id: q for q in queries.values()}, {}
    for label, procs in (("thread", 0), ("1 process", 1), ("2 processes", 2)):
        found[label] = beside_one(list(names.values()), ReplayEngine(stored), least, procs)
        print(label, found[label], flush=True)
    return found


def beside_one(queries, replay, k: int, procs: int) -> dict:
    "One run with real grading, 1,280 draws/s at most; late timers tell how busy the loop is."
    delays = []

    class Timed:
        max_in_flight = 256

        async def draw(self, draw, params):
            begin = time.perf_counter()
            await asyncio.sleep(0.2)
            delays.append(time.perf_counter() - begin - 0.2)
            return await replay.draw(draw, params)

        async def close(self): ...

    how = {"source": Source("replay"), "strategy": StrategyCfg("vrt", k=k), "progress": False}
    executor = Workers(procs) if procs else None
    if executor:
        list(executor.map(abs, range(procs)))
    with tempfile.TemporaryDirectory() as tmp, open_pool(tmp) as pool:
        begin = time.perf_counter()
        table = sample_pool(
            queries, Timed(), pool, grade=grade_completion, grade_in=executor, **how
        )
        seconds = time.perf_counter() - begin
    if executor:
        executor.shutdown()
    n, d = int(table.n_drawn.sum()), np.array(delays) * 1000
    found = {"n_drawn": n, "seconds": seconds, "draws_per_s": n / seconds}
    return found | {
        "delay_ms_median": float(np.median(d)),
        "delay_ms_p99": float(np.quantile(d, 0.99)),
    }


PARTS = {f.__name__: f for f in (overdraw, null, memory, kill, shards, early, beside)}


def main() -> None:
    "Run the parts named, print and keep what they found."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    names = parser.parse_args().parts or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"unknown {sorted(unknown)}; need some of {', '.join(PARTS)}")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in names:
        found = PARTS[name]()
        print(name, {k: v for k, v in found.items() if k not in ("rows", "sets")})
        if isinstance(found.get("rows"), list):
            print(pd.DataFrame(found["rows"]).round(4).to_string())
        kept = read_json(RESULTS) if RESULTS.exists() else {}
        kept[name] = {"date": date.today().isoformat(), "machine": machine} | found
        write_json(RESULTS, kept)


if __name__ == "__main__":
    main()

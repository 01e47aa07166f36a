"""Leases beside fixed shares: who waits at the end, and is the set the same?

python bench/lease.py [idle] [kill]: 64 workers of the real sampler in virtual time, with real lease files, on measured
pass rates where the data folder is there; then real processes, two killed, one stopped and woken. Writes
bench/results/lease.json.
"""

import argparse
import asyncio
import os
import platform
import random
import signal
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from sampler import (
    VirtualLoop,
    VirtualThread,
    forked,
    in_box,
    measured_rates,
    sample_here,
    set_digest,
)

from dart_math_nb.data.files import read_json, write_json
from dart_math_nb.data.records import Source, make_query
from dart_math_nb.engines.dice import SimulatedEngine, simulated_world
from dart_math_nb.sample import leased
from dart_math_nb.sample.loop import make_run
from dart_math_nb.sample.state import State, enter_codes, settle
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.lease import lease_shard, lease_table
from dart_math_nb.store.pool import KeySet, open_pool, read_pool
from dart_math_nb.store.shards import shard_name, shard_queries
from dart_math_nb.store.trials import Trials

OUT = Path(__file__).parent / "results" / "lease.json"
WORKERS, BINS = 64, 200
LATENCY, EXPIRE = 30.0, 360.0  # Virtual seconds: a response on average; silence, so looks are rare
SCALE = 32  # Of k, max_trials and places, against a real run: same latencies, fewer draws
FILES = {
    "bigmath": "bigmath5000_llama31_8b_n64",
    "one-shot": "oneshot_rlvr_dsr_sub_history",
    "gsm8k": "zeroeval_gsm8k_44models",
    "math-l5": "zeroeval_math_l5_43models",
}


class Memory:
    "What all workers drew, in place of the files of a pool."

    def __init__(self):
        self.codes, self.n_rows, self.n_draws = {}, 0, 0

    def add(self, rows) -> None:
        for r in rows:
            known = self.codes.setdefault(r["query_id"], bytearray())
            known.extend(bytes(max(0, r["trial"] + 1 - len(known))))
            self.n_rows += 1
            self.n_draws += known[r["trial"]] == 0
            known[r["trial"]] = 3 if r["finish_reason"] == "length" else 1 + r["correct"]

    def known(self, query_id: str, source_id: str, limit: int = 2**31) -> np.ndarray:
        return np.frombuffer(bytes(self.codes.get(query_id, b"")[:limit]), np.uint8)


class MemoryPool:
    "The pool of one worker."

    def __init__(self, folder, shard: str, memory: Memory):
        self.folder, self.shard, self.memory = Path(folder), shard, memory
        self.opened, self.keys, self.own = Trials(), KeySet(), set()

    def append(self, rows) -> None:
        keys = {(r["query_id"], r["trial"]) for r in rows}
        assert len(keys) == len(rows) and self.own.isdisjoint(keys), "a worker drew a key twice"
        self.own |= keys
        self.memory.add(rows)

    def sync(self) -> None: ...


class Places:
    "An engine that notes how many of its places are taken, over time."

    def __init__(self, engine, places: int):
        self.engine, self.max_in_flight = engine, places
        self.flying, self.last, self.steps = 0, 0.0, [(0.0, 0)]

    def step(self, by: int) -> None:
        self.flying += by
        self.steps.append((asyncio.get_running_loop().time(), self.flying))

    async def draw(self, draw, params):
        self.step(1)
        try:
            return await self.engine.draw(draw, params)
        finally:
            self.step(-1)

    async def close(self) -> None: ...


def busy(places: Places, end: float) -> tuple[float, float, np.ndarray]:
    "Place-seconds, time of the last draw, and places taken in each of BINS parts of the run."
    t, n = (np.array(x, float) for x in zip(*places.steps, strict=True))
    until = np.append(t[1:], end)
    area = np.concatenate([[0], np.cumsum(n * (until - t))])
    edges = np.linspace(0, end, BINS + 1)
    at = np.interp(edges, np.append(t, end), area)
    last = float(until[n > 0].max()) if (n > 0).any() else 0.0
    return float(area[-1]), last, np.diff(at) / np.diff(edges)


def play(queries, engine, strategy, places: int, lease: bool, seed: int = 0) -> dict:
    "64 workers in virtual time."
    loop, memory, source = VirtualLoop(), Memory(), Source("dice")
    engines = [Places(engine, places) for _ in range(WORKERS)]
    leased.fresh_trials = lambda folder, ids=None, shards=None: (memory, memory.n_rows)
    order = list(queries)
    random.Random(seed).shuffle(order)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        runs, feeders = [], []
        for i, one in enumerate(engines):
            name = lease_shard(str(i)) if lease else shard_name(i, WORKERS)
            pool = MemoryPool(tmp, name, memory)
            mine = {} if lease else {q.query_id: State(q) for q in shard_queries(order, i, WORKERS)}
            for state in mine.values():
                settle(state, strategy)
            run = make_run(mine, one, pool, source, strategy, grade=in_box)
            run.grader.thread = VirtualThread(0.01 * LATENCY)
            if lease:
                how = {"expire": EXPIRE, "clock": loop.time}
                feeder = leased.feeder_of(
                    Path(tmp) / "leases", order, pool, source, strategy, **how
                )
                feeder.rng = random.Random(i)
                run.feed = feeder.feed
                feeders.append(feeder)
            runs.append(run)

        async def all_of_them():
            await asyncio.gather(*(run.go() for run in runs if run.feed or run.queue.n_open))

        begin = time.process_time()
        loop.run_until_complete(all_of_them())
        loop.close()
        n_files = sum(1 for _ in Path(tmp).rglob("*.json"))
        given = len(feeders[0].leases.parents) if lease else 0
    found = [e.steps[-1][0] for e in engines]
    end = max(found)
    rows = [busy(e, end) for e in engines]
    states = {}
    for q in queries:
        state = states[q.query_id] = State(q)
        enter_codes(state, memory.known(q.query_id, ""))
        settle(state, strategy)
    work = np.array([r[0] for r in rows])
    least = sum(s.n for s in states.values())
    return {
        "end_s": round(end),
        "idle_workers": round(1 - sum(r[1] for r in rows) / (WORKERS * end), 4),
        "idle_places": round(1 - work.sum() / (WORKERS * places * end), 4),
        "heaviest": round(work.max() / work.mean(), 3),
        "draws": memory.n_draws,
        "double": memory.n_rows - memory.n_draws,
        "overdraw": round(memory.n_rows / least - 1, 4),
        "files": n_files,
        "given": given,
        "cpu_s": round(time.process_time() - begin, 1),
        "taken": [round(float(x) / (WORKERS * places), 3) for x in sum(r[2] for r in rows)],
        "all_stopped": all(s.stop for s in states.values()),
        "set": {q: (s.n, s.n_ok, s.stop) for q, s in states.items()},
    }


def idle(names=("bigmath", "all"), k: int = 64, max_trials: int = 2048, places: int = 256) -> list:
    "Shares and leases on measured pass rates."
    rates, found = measured_rates(), read_json(OUT).get("idle", []) if OUT.exists() else []
    found = [row for row in found if row["rates"] not in names]
    known = {n: rates.get(f, rates["beta"]) for n, f in FILES.items()}
    known["all"] = [p for n in FILES for p in known[n]]
    for name in names:
        p = known[name]
        queries = [make_query("simulated", f"{i}+{i}=?", str(2 * i)) for i in range(len(p))]
        by_id = {q.query_id: x for q, x in zip(queries, p, strict=True)}
        refs = {q.query_id: q.ref_ans for q in queries}
        engine = SimulatedEngine(by_id, refs, mean_latency=LATENCY)
        strategy, ways = StrategyCfg("uniform", k // SCALE, max_trials // SCALE), {}
        for way in ("shares", "leases"):
            ways[way] = play(queries, engine, strategy, places // SCALE, way == "leases")
            print(name, way, {x: v for x, v in ways[way].items() if x != "set"}, flush=True)
        same = ways["shares"].pop("set") == ways["leases"].pop("set")
        row = {"rates": name, "n_queries": len(queries), "workers": WORKERS, "scale": SCALE}
        row |= {"latency_s": LATENCY, "expire_s": EXPIRE, "sigma": engine.sigma}
        row |= {"k": k, "max_trials": max_trials, "places": places}
        found.append(row | {"same_set": same} | ways)
        keep("idle", found)
    return found


def keep(part: str, found) -> None:
    "Write one part of the results."
    kept = read_json(OUT) if OUT.exists() else {}
    kept |= {"date": str(date.today()), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    write_json(OUT, kept | {part: found})


KILLED = StrategyCfg("prop2diff", k=8, n_pilot=4, max_trials=64)


def lease_here(folder, queries, engine, name: str) -> None:
    "One process that leases, with an expiry of two seconds."
    how = {"source": Source("dice"), "grade": in_box, "progress": False, "status_every": 0}
    with open_pool(folder / "pool", lease_shard(name)) as pool:
        how |= {"strategy": KILLED, "folder": folder / "leases", "expire": 2.0}
        leased.sample_leased(queries, engine, pool, **how)


def held(folder) -> dict:
    "Blocks that each process holds."
    for plan in folder.glob("leases/*/plan.json"):
        table = lease_table(plan.parent).iloc[:-1]
        return table.set_index("process").holds.to_dict()
    return {}


def killed(seed: int, n: int = 100) -> dict:
    "Four processes: two killed while they hold blocks, one stopped until others have its blocks, and woken."
    queries, engine = simulated_world(n, mean_latency=0.1, max_in_flight=16)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        assert os.waitpid(forked(sample_here, tmp / "one", queries, engine, KILLED), 0)[1] == 0
        pids = {x: forked(lease_here, tmp / "four", queries, engine, x) for x in "abcd"}
        while not all(held(tmp / "four").get(x) for x in "abc"):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        os.kill(pids["c"], signal.SIGSTOP)
        while not (before := held(tmp / "four"))["c"]:  # it had just ended its blocks
            os.kill(pids["c"], signal.SIGCONT)
            time.sleep(0.02)
            os.kill(pids["c"], signal.SIGSTOP)
        for name in "ab":
            os.kill(pids[name], signal.SIGKILL)
        begin = time.time()
        while held(tmp / "four")["c"] >= before["c"] > 0:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))  # others draw for them now
        slept = time.time() - begin
        os.kill(pids["c"], signal.SIGCONT)
        ends = {x: os.waitpid(pid, 0)[1] for x, pid in pids.items()}
        one, four = (set_digest(tmp / f, queries, KILLED) for f in ("one", "four/pool"))
        table = lease_table(next((tmp / "four/leases").iterdir())).set_index("process")
        n_rows = sum(f.read_bytes().count(b"\n") for f in tmp.glob("four/pool/journal-*"))
        n_keys = len(read_pool(tmp / "four/pool", ["trial"]))
        row = {
            "same_set": one == four,
            "rows_in_set": four[1],
            "ends": ends,
            "held": before,
            "slept_s": round(slept, 1),
        }
        row |= {"lost_by_c": int(table.lost["c"]), "late_of_c": int(table.late["c"])}
        return row | {"rows": n_rows, "double": n_rows - n_keys, "blocks": table.state["all"]}


def kill(n_runs: int = 5) -> list:
    "Real processes."
    found = []
    for seed in range(n_runs):
        found.append(killed(seed))
        print(found[-1], flush=True)
        keep("kill", found)
    return found


if __name__ == "__main__":
    parts = {"idle": idle, "kill": kill}
    raw = argparse.RawDescriptionHelpFormatter
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    ask.add_argument("part", nargs="*", default=list(parts), help="idle[:FILE,FILE], kill; or both")
    for part in ask.parse_args().part:
        name, _, rest = part.partition(":")
        parts[name](*([rest.split(",")] if rest else []))

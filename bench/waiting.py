"""What waiting costs at scale: `python bench/waiting.py [PART ...] [--pool FOLDER]`, all parts when none is named.

start     a pool of 100 million rows without texts in 16,000 parts: the first start (which writes the index),
          the next ones, each in a process of its own, up to the first draw
fleet     how long places of a fleet of 8, 64 and 512 replicas stand empty at the end of a run, on measured pass
          rates and response lengths where the data folder is there (a made-up world else)
loop      draws per second of processor time with 256 and 16,384 in flight, an engine that answers at once

Each part writes its entry of bench/results/waiting.json. FOLDER is where the large pool is made, or found
from before; it needs 3 GB and stays there.
"""

import argparse
import heapq
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from dart_math_nb.data.files import read_json, read_rows, write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Source, short_hash
from dart_math_nb.store.journal import PoolFile, write_part
from dart_math_nb.store.schema import POOL_COLUMNS, POOL_SCHEMA, files_of

RESULTS = Path(__file__).parent / "results" / "waiting.json"
N_PARTS, PER_PART, N_QUERIES = 16_000, 6_250, 200_000

START = """import json, os, sys, time
begin = time.perf_counter()
from dart_math_nb.data.records import Query, Source, short_hash
from dart_math_nb.sample.stage import sample_strategy
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.journal import pool_files
class First:
    max_in_flight = 1
    async def close(self): ...
    async def draw(self, draw, params):
        wall, cpu = time.perf_counter() - begin, time.process_time()
        peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
        print(json.dumps({"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak),
            "list_s": round(listed, 3)}), flush=True)
        os._exit(0)
folder, n = sys.argv[1], int(sys.argv[2])
at = time.perf_counter(); pool_files(folder); listed = time.perf_counter() - at
ids = [short_hash("bench", i) for i in range(n)]
queries = [Query(q, "bench", q, "1", {}) for q in ids]
sample_strategy(sys.argv[3], folder, queries, First(), StrategyCfg("uniform", k=400, max_trials=2048),
    source=Source("null"), progress=False, status_every=0)"""


def make_pool(folder: Path) -> None:
    "A pool as one long run leaves it, in order of time; queries of very unequal numbers of draws."
    rng = np.random.default_rng(0)
    share = rng.lognormal(0, 1.5, N_QUERIES)
    n = N_PARTS * PER_PART
    draws = np.maximum(1, np.ceil(share / share.sum() * n)).astype(np.int64)
    query = np.repeat(np.arange(N_QUERIES, dtype=np.int32), draws)
    trial = np.concatenate([np.arange(k, dtype=np.int32) for k in draws])
    order = np.argsort(trial.astype(np.float32) + rng.random(len(trial), np.float32) * 30)[:n]
    query, trial = query[order], trial[order]
    rate, ids = rng.random(N_QUERIES), pa.array([short_hash("bench", i) for i in range(N_QUERIES)])
    for i in range(N_PARTS):
        rows = slice(i * PER_PART, (i + 1) * PER_PART)
        write_part(
            PoolFile("0", i).path(folder, "part"),
            some_rows(rng, query[rows], trial[rows], rate, ids),
        )


def some_rows(
    rng, query: np.ndarray, trial: np.ndarray, rate: np.ndarray, ids: pa.Array
) -> pa.Table:
    "Rows of a part, without texts."
    n = len(query)
    correct, none = rng.random(n) < rate[query], pa.nulls(n, pa.string())
    columns = {name: none for name in ("response", "reasoning", "ans", "error")}
    columns |= {"query_id": ids.take(pa.array(query)), "trial": pa.array(trial)}
    columns |= {"source_id": pa.array([Source("null").source_id] * n), "correct": pa.array(correct)}
    columns |= {"finish_reason": pa.array(np.where(rng.random(n) < 0.02, "length", "stop"))}
    columns |= {
        "n_tokens": pa.array(rng.integers(20, 900, n)),
        "rule": pa.array(np.where(correct, "exact", "different")),
    }
    columns |= {"seed": pa.array(rng.integers(0, 2**63 - 1, n))}
    return pa.table({name: columns[name] for name in POOL_COLUMNS}).cast(POOL_SCHEMA)


def one_start(folder: Path) -> dict:
    "Seconds and memory from an empty process to its first draw."
    with tempfile.TemporaryDirectory() as stage:
        command = [sys.executable, "-c", START, str(folder), str(N_QUERIES), stage]
        return json.loads(subprocess.check_output(command).splitlines()[-1])


def start(folder: Path) -> dict:
    "Starts on the large pool: without an index, and with one."
    if len(files_of(folder, "part") if folder.is_dir() else []) != N_PARTS:
        make_pool(folder)
    for name in files_of(folder, "index"):
        (folder / name).unlink()
    facts = {"rows": N_PARTS * PER_PART, "parts": N_PARTS, "queries": N_QUERIES}
    facts["first"] = one_start(folder)  # reads all parts, writes the index
    facts["next"] = [one_start(folder) for _ in range(3)]
    names = files_of(folder, "index")
    facts |= {
        "index_files": len(names),
        "index_mb": round(sum((folder / n).stat().st_size for n in names) / 1e6),
    }
    return facts | {"load": os.getloadavg()[0]}


def made_of() -> tuple[str, list[float], list[int]]:
    "A world: where it comes from, pass rates, and lengths of responses in tokens."
    rng, folder = random.Random(0), data_folder()
    if folder is None:
        rates = [rng.betavariate(0.5, 0.5) for _ in range(10_000)]
        return "made up", rates, [round(rng.lognormvariate(6.2, 0.7)) + 1 for _ in range(10_000)]
    rows = [
        r
        for p in sorted(folder.glob("pass_rates/*.jsonl.gz"))
        for r in read_rows(p, ["n", "n_correct"])
    ]
    texts = read_rows(folder / "responses" / "zeroeval_math_l5.jsonl.gz", ["resp"])
    lengths = [len(r["resp"] or "") // 3 + 1 for r in texts]  # about three characters a token
    return (
        "four pass-rate files, 43 models on MATH level 5",
        [r["n_correct"] / r["n"] for r in rows],
        lengths,
    )


def emptying(
    places: int, rates: list[float], lengths: list[int], k: int = 4, limit: int = 256
) -> dict:
    "A run on so many places: never more draws of a query in flight than it is expected to need."
    rng, now, events, busy = random.Random(1), 0.0, [], 0.0
    good, done, flying, line = (
        [0] * len(rates),
        [0] * len(rates),
        [0] * len(rates),
        deque(range(len(rates))),
    )
    full_until, n_drawn = 0.0, 0

    def room(q: int) -> bool:
        if good[q] >= k or done[q] + flying[q] >= limit:
            return False
        return flying[q] < max(1, int((k - good[q]) * (done[q] + 1) / (good[q] + 0.5)))

    while line or events:
        while line and len(events) < places:
            q = line.popleft()
            if room(q):
                flying[q] += 1
                seconds = rng.choice(lengths) / 30  # tokens per second of one place
                busy, n_drawn = busy + seconds, n_drawn + 1
                heapq.heappush(events, (now + seconds, q))
                line.append(q)
        full_until = now if len(events) == places else full_until
        now, q = heapq.heappop(events)
        flying[q], done[q], good[q] = (
            flying[q] - 1,
            done[q] + 1,
            good[q] + (rng.random() < rates[q]),
        )
        if room(q):
            line.append(q)
    idle = 1 - busy / (places * now)
    return {
        "places": places,
        "draws": n_drawn,
        "draws_per_place": round(n_drawn / places, 1),
        "hours": round(now / 3600, 2),
        "idle_share": round(idle, 4),
        "full_share_of_time": round(full_until / now, 3),
        "mean_s": round(busy / n_drawn, 1),
    }


def fleet() -> dict:
    "Fleets of three sizes, 32 places a replica (the queries are few, so places are few too)."
    name, rates, lengths = made_of()
    rows = [{"replicas": n} | emptying(32 * n, rates, lengths) for n in (8, 64, 512)]
    return {"world": name, "queries": len(rates), "rows": rows}


def loop() -> dict:
    "Processor time of driver, grading thread and journal together, per draw."
    from sampler import RIGHT, Null, open_pool, sample_pool, simulated_world
    from sampler import StrategyCfg as Cfg

    rows, queries = [], simulated_world(25_000)[0]
    for n in (256, 16_384):
        engine, how = (
            Null(),
            {"source": Source("null"), "grade": lambda q, c: RIGHT, "progress": False},
        )
        engine.max_in_flight = n
        with tempfile.TemporaryDirectory() as tmp, open_pool(tmp) as pool:
            wall, cpu = time.perf_counter(), time.process_time()
            table = sample_pool(queries, engine, pool, strategy=Cfg("uniform", k=4), **how)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        drawn = int(table.n_drawn.sum())
        row = {
            "in_flight": n,
            "draws": drawn,
            "per_cpu_s": round(drawn / cpu),
            "per_wall_s": round(drawn / wall),
        }
        rows.append(
            row | {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
        )
    return {"rows": rows, "load": os.getloadavg()[0]}


def main() -> None:
    "Measure what is named, keep the rest of the results."
    parts = {"start": start, "fleet": fleet, "loop": loop}
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("parts", nargs="*", help=", ".join(parts))
    ask.add_argument("--pool", type=Path, default=Path(tempfile.gettempdir()) / "dart_large_pool")
    args = ask.parse_args()
    for name in args.parts or parts:
        begin = time.perf_counter()
        found = parts[name](args.pool) if name == "start" else parts[name]()
        machine = (
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        )
        found |= {"date": date.today().isoformat(), "machine": machine}
        old = read_json(RESULTS) if RESULTS.exists() else {}
        write_json(RESULTS, old | {name: found})
        print(name, json.dumps(found), f"{time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""What waiting costs at scale: `python bench/waiting.py [PART ...] [--pool FOLDER]`, all parts when none is named.

start     a pool of 100 million rows without texts in 16,000 parts: the first start (which writes the index),
          the next ones, and one that reads every part, each in a process of its own, up to the first draw

Each part writes its entry of bench/results/waiting.json. FOLDER is where the large pool is made, or found
from before; it needs 3 GB and stays there.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from dart_math_nb.data.files import read_json, write_json
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


def main() -> None:
    "Measure what is named, keep the rest of the results."
    parts = {"start": start}
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

"""Measure the pool: `python bench/pool.py [resume large append keep_wrong]`; writes bench/results/pool.json.

`resume`: 20 million synthetic draws in 400 parts (takes 0.3 GB of disk, a minute). `large`: 160
million in 3,200 parts (1.8 GB, some minutes). `append`: rows per
second by batch and fsync policy. `keep_wrong`: bytes on disk with and without the texts of wrong
responses, on real ones; needs the optional data folder (`dart_math_nb.data.load.data_folder`).
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from parts import named_parts

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import short_hash
from dart_math_nb.sets.intake import import_pool
from dart_math_nb.store.journal import PoolFile, write_part
from dart_math_nb.store.pool import NARROW, open_pool
from dart_math_nb.store.rows import iter_pool
from dart_math_nb.store.schema import POOL_COLUMNS, POOL_SCHEMA

RESULTS = Path(__file__).parent / "results" / "pool.json"
N_ROWS, N_QUERIES, PER_PART = 20_000_000, 15_000, 50_000
# What is measured in a process of its own: name -> code that works on the folder `f`.
JOBS = {
    "pool_counts": "from dart_math_nb.store.pool import pool_counts as c; n = c(f)['n_trials'].sum()",
    "open_pool": "from dart_math_nb.store.pool import open_pool as o; p = o(f); n = len(p.keys); p.close()",
    "table of all keys (pandas)": "from dart_math_nb.store.pool import read_narrow as r; n = len(r(f))",
    "DuckDB, repeats counted": """import duckdb; duckdb.sql("set threads=1"); n = duckdb.sql(
"select sum(n), sum(good) from (select query_id, source_id, count(*) n, sum((correct and finish_reason!='length')"
f"::int) good from read_parquet('{f}/part-*.parquet') group by all)").fetchall()[0][0]""",
    "DuckDB, each key once": """import duckdb; duckdb.sql("set threads=1"); n = duckdb.sql(
"select count(*), sum(good) from (select query_id, source_id, trial, first((correct and finish_reason!='length')"
f"::int) good from read_parquet('{f}/part-*.parquet') group by all)").fetchall()[0][0]""",
}
LARGE = """from dart_math_nb.store.pool import open_pool; from dart_math_nb.sample.state import load_states
from dart_math_nb.sample.strategy import StrategyCfg; from dart_math_nb.data.records import Query, short_hash
p = open_pool(f, "new"); ids = [short_hash("bench", i) for i in range(15000)]
qs = [Query(s + q, "b", s + q, "1", {}) for s in ["", *"bcdefgh"] for q in ids]
states = load_states(qs, p, "0123456789abcdef", StrategyCfg("prop2diff", 192, 400000, 32))
n = len(p.keys); p.close()"""
PROBE = """import json, sys, time; f = sys.argv[1]; start = time.perf_counter()
{job}
wall = time.perf_counter() - start  # the kernel's peak since exec; ru_maxrss starts at the parent's
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([int(n), wall, time.process_time(), peak]))"""


def make_pool(folder: Path) -> int:
    "A pool as a run leaves it: queries of very unequal numbers of draws, in order of time."
    rng = np.random.default_rng(0)
    share = rng.lognormal(0, 1.5, N_QUERIES)
    n_draws = np.maximum(1, (share / share.sum() * N_ROWS)).astype(int)
    query = np.repeat(np.arange(N_QUERIES, dtype=np.int32), n_draws)
    trial = np.concatenate([np.arange(n, dtype=np.int32) for n in n_draws])
    order = np.argsort(trial + rng.random(len(trial), np.float32) * 30)
    query, trial, rate = query[order], trial[order], rng.random(N_QUERIES)
    ids = pa.array([short_hash("bench", i) for i in range(N_QUERIES)])
    for at in range(0, len(query), PER_PART):
        q, n = query[at : at + PER_PART], len(query[at : at + PER_PART])
        correct = rng.random(n) < rate[q]
        columns = {"query_id": ids.take(pa.array(q)), "trial": trial[at : at + PER_PART]}
        columns |= {
            "source_id": ["0123456789abcdef"] * n,
            "response": ["x"] * n,
            "correct": correct,
        }
        columns |= {"finish_reason": np.where(rng.random(n) < 0.02, "length", "stop")}
        columns |= {"n_tokens": rng.integers(20, 900, n), "seed": rng.integers(0, 2**63 - 1, n)}
        columns |= {"ans": rng.integers(0, 99, n).astype(str), "error": [None] * n}
        columns |= {"rule": np.where(correct, "exact", "different")}
        table = pa.table({c: pa.array(columns[c]) for c in POOL_COLUMNS}).cast(POOL_SCHEMA)
        write_part(PoolFile("0", at // PER_PART).path(folder, "part"), table)
    return len(query)


def _last_json(output: bytes) -> list:
    return json.loads(output.splitlines()[-1])  # DuckDB may print something of its own before


def measure_resume() -> list[dict]:
    "Seconds and memory of each job, in a process of its own; the middle one of three runs."
    rows, env = [], os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as tmp:
        n_rows = make_pool(Path(tmp))
        for name, job in JOBS.items():
            code = [sys.executable, "-c", PROBE.replace("{job}", job), tmp]
            runs = [_last_json(subprocess.check_output(code, env=env)) for _ in range(3)]
            n, wall, cpu, peak = sorted(runs, key=lambda r: r[2])[1]
            if n != n_rows:
                raise ValueError(f"{name}: {n} draws; need {n_rows}")
            row = {"what": name, "draws": n, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
            rows.append(row | {"peak_mb": round(peak), "cpu_s_150M": round(cpu * 150e6 / n, 1)})
    return rows


def copy_shards(folder: Path, letters: str) -> None:
    "The same parts again for further shards, with a letter before each query id."
    for path in sorted(folder.glob("part-0-*.parquet")):
        table = pq.read_table(path, partitioning=None, read_dictionary=["query_id"])
        column = table.combine_chunks()["query_id"].chunk(0)
        for letter in letters:
            names = pa.array([letter + name for name in column.dictionary.to_pylist()])
            query = pa.DictionaryArray.from_arrays(column.indices, names).cast(pa.string())
            name = folder / path.name.replace("part-0", f"part-{letter}")
            write_part(name, table.set_column(0, "query_id", query))


def measure_large() -> dict:
    "A resume at 160 million draws: open the pool, then enter its draws into the sampling loop."
    with tempfile.TemporaryDirectory() as tmp:
        make_pool(Path(tmp))
        copy_shards(Path(tmp), "bcdefgh")
        code = [sys.executable, "-c", PROBE.replace("{job}", LARGE), tmp]
        n, wall, cpu, peak = _last_json(subprocess.check_output(code))
    row = {"draws": n, "queries": 8 * N_QUERIES, "parts": 3200, "wall_s": round(wall, 1)}
    return row | {"cpu_s": round(cpu, 1), "peak_mb": round(peak)}


def measure_append() -> list[dict]:
    "Rows per second by size of batch and fsync policy; responses of 1,000 characters."
    text, found = "Add 12 and 34 to get 46, then take 5 away. " * 23, []
    row = dict(
        source_id="s", response=text, finish_reason="stop", n_tokens=300, seed=7, correct=True
    )
    row |= dict(ans="41", rule="exact", error=None)
    for sync_every in (5.0, 0.0):
        for batch in (1, 64, 2048):
            n = min(60_000, batch * 400)
            rows = [row | {"query_id": f"{i // 64:016x}", "trial": i % 64} for i in range(n)]
            with tempfile.TemporaryDirectory() as tmp:
                start, cpu = time.perf_counter(), time.process_time()
                with open_pool(tmp, sync_every=sync_every) as pool:
                    for at in range(0, n, batch):
                        pool.append(rows[at : at + batch])
                cpu, wall = time.process_time() - cpu, time.perf_counter() - start
            rate = {"rows_per_cpu_s": round(n / cpu), "rows_per_wall_s": round(n / wall)}
            found.append({"batch": batch, "sync_every": sync_every, "rows": n} | rate)
    return found


def fsync_ms() -> float:
    "Median time of an fsync after 64 kB, on the disk of the temporary folder."
    times = []
    with tempfile.NamedTemporaryFile() as f:
        for _ in range(50):
            f.write(os.urandom(2**16))
            f.flush()
            start = time.perf_counter()
            os.fsync(f.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)


def measure_keep_wrong() -> dict:
    "Bytes of a pool of real responses (43 models, MATH level 5), with and without wrong texts."
    file = data_folder() and data_folder() / "responses" / "zeroeval_math_l5.jsonl.gz"
    if not file or not file.exists():
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        start = time.perf_counter()
        result = import_pool(file, Path(tmp) / "text")
        seconds = time.perf_counter() - start
        rows = [r for t in iter_pool(Path(tmp) / "text") for r in t.to_pylist()]
        for keep in ("text", "counts"):
            with open_pool(Path(tmp) / f"new_{keep}", keep_wrong=keep) as pool:
                pool.append(rows)
                found[f"journal_{keep}"] = pool.path("journal").stat().st_size
                found[f"part_{keep}"] = pool.roll().stat().st_size
        start = time.process_time()
        n = sum(t.num_rows for t in iter_pool(Path(tmp) / "new_text", NARROW))
        found["narrow_us_per_row"] = round(1e6 * (time.process_time() - start) / n, 3)
    correct = int(result.table["n_correct"].sum())
    found |= {"rows": len(rows), "correct": correct, "import_s": round(seconds, 1)}
    return found | {"saved": round(1 - found["part_counts"] / found["part_text"], 3)}


JOBS = {"resume": measure_resume, "append": measure_append, "keep_wrong": measure_keep_wrong}
JOBS |= {"large": measure_large}


def main(which: list[str]) -> None:
    "Measure what is named, keep the rest of the results."
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    new = {name: JOBS[name]() for name in which}
    cores = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    facts = {"date": date.today().isoformat(), "machine": cores, "fsync_ms": fsync_ms()}
    write_json(RESULTS, old | facts | new)
    print(json.dumps(new, indent=1))


if __name__ == "__main__":
    main(named_parts(__doc__, JOBS))

"""A run that is told to end, at twenty moments, as a cluster does it: `python bench/sigterm.py [--moments 20]`.

A run draws from a server in a process of its own (text by prompt and seed alone). At moments spread over its life it
gets SIGTERM, every second time together with its children, and is started again. In the end its set is compared with
that of a run that nobody disturbed. Counted: exit codes, lines, tracebacks, status, processes left after 10 s.
Writes bench/results/sigterm.json.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

from dart_math_nb.data.files import write_json, write_jsonl
from dart_math_nb.sample.standing import strategy_draws
from dart_math_nb.sample.status import status_table
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.pool import read_pool
from dart_math_nb.testing.fake_server import sums_server

RUN = "import sys; from dart_math_nb.app.signals import main; sys.exit(main())"
STRATEGY = StrategyCfg("prop2diff", k=12, n_pilot=8, max_trials=64)
HOW = "--strategy prop2diff --k 12 --n-pilot 8 --max-trials 64"


def start(url: str, queries: Path, out: Path) -> subprocess.Popen:
    "A run, in a session of its own."
    words = ["sample", "--queries", queries, "--engine", "openai", "--model", "sums"]
    words += [*HOW.split(), "--base-url", url, "--out", out, "--option", "max_in_flight=64"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)], start_new_session=True, **pipes
    )


def n_bytes(out: Path) -> int:
    "Size of the journals and parts of a run."
    return sum(p.stat().st_size for p in out.rglob("*") if p.suffix in (".jsonl", ".parquet"))


def left(session: int) -> list[int]:
    "Processes of a session, zombies not counted."
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, of = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[:4]
            except OSError:
                continue
            if int(of) == session and state != "Z":
                found.append(int(entry.name))
    return found


def wait_left(session: int, seconds: float = 10.0) -> tuple[int, float]:
    "Processes of a session that are there after so long; seconds until there was none."
    begun = time.monotonic()
    while (n := len(left(session))) and time.monotonic() - begun < seconds:
        time.sleep(0.05)
    return n, time.monotonic() - begun


def digest(out: Path) -> list:
    "The set of a run."
    rows = strategy_draws(read_pool(out / "pool"), STRATEGY)
    return rows[["query_id", "trial", "response"]].values.tolist()


def disturb(url: str, queries: Path, out: Path, n_moments: int, seconds: float) -> dict:
    "End a run again and again, then let it finish."
    rng, found = random.Random(0), Counter()
    slowest, states = 0.0, Counter()
    for i in range(n_moments):
        process, group = start(url, queries, out), i % 2 == 1
        if i < n_moments // 4:  # while the package loads and the run is set up
            time.sleep(0.2 + 4.8 * i / (n_moments // 4))
        else:
            had = n_bytes(out)
            while process.poll() is None and n_bytes(out) <= had:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, seconds / n_moments))
        if process.poll() is not None:
            found["ended by itself"] += 1
            continue
        (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
        text = process.communicate(timeout=120)[1]
        n, took = wait_left(process.pid)
        slowest = max(slowest, took)
        found[f"exit code {process.returncode}"] += 1
        found["processes left after 10 s"] += n
        found["tracebacks"] += text.count("Traceback")
        own = [s for s in text.splitlines() if s.startswith("dart-math ")]
        found["other than one line"] += len(own) != 1
        if len(own) != 1 or "Traceback" in text or process.returncode != 143:
            print(i, group, process.returncode, text[-1500:], flush=True)
        if list(out.rglob("status-*.json")):
            states[status_table(out).state[0]] += 1
    return {**found, "status": dict(states), "slowest end of children, s": round(slowest, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    begun = time.time()
    rows = [
        {"problem": f"What is {i}*{i + 7}?", "answer": i * (i + 7)} for i in range(args.queries)
    ]
    with tempfile.TemporaryDirectory() as tmp, sums_server(0.2) as url:
        queries = write_jsonl(Path(tmp) / "queries.jsonl", rows)
        whole = start(url, queries, Path(tmp) / "whole")
        first = time.monotonic()
        said = whole.communicate()[1]
        seconds = time.monotonic() - first
        assert whole.returncode == 0, said
        found = disturb(url, queries, Path(tmp) / "ended", args.moments, seconds)
        last = start(url, queries, Path(tmp) / "ended")
        last.communicate()
        a, b = digest(Path(tmp) / "whole"), digest(Path(tmp) / "ended")
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "seconds": round(time.time() - begun),
        "moments": args.moments,
        "rows of the set": len(a),
        "same set": a == b,
        "last exit code": last.returncode,
        **found,
    }
    print(json.dumps(result, indent=1))
    write_json(Path(__file__).parent / "results/sigterm.json", result)


if __name__ == "__main__":
    main()

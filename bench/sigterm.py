"""A run that is told to end, at twenty moments, as a cluster does it: `python bench/sigterm.py [--moments 20] [--vllm]`.

A run draws from a server in a process of its own (text by prompt and seed alone), or from vLLM in process, whose
engine is a process that the run has to end. At moments spread over its life it
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

from dart_math_nb.data.files import read_json, write_json, write_jsonl
from dart_math_nb.demo.tiny import tiny_path, tiny_queries
from dart_math_nb.sample.standing import strategy_draws
from dart_math_nb.sample.status import status_table
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.pool import read_pool
from dart_math_nb.testing.fake_server import sums_server

RUN = "import sys; from dart_math_nb.app.signals import main; sys.exit(main())"
STRATEGY = StrategyCfg("prop2diff", k=12, n_pilot=8, max_trials=64)
HOW = "--strategy prop2diff --k 12 --n-pilot 8 --max-trials 64".split()
TINY = "--engine vllm --template plain --max-tokens 80 --option dtype=float32 max_model_len=128"
TINY = [*f"{TINY} enforce_eager=true max_num_seqs=32 max_in_flight=64".split(), "--model"]
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
MARK = f"DART_SIGTERM={os.getpid()}"  # In the environment of all that a run starts


def start(ask: list[str], queries: Path, out: Path) -> subprocess.Popen:
    "A run, in a session of its own."
    words = ["sample", "--queries", queries, *HOW, "--out", out, *ask]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    env = {**QUIET, **os.environ, **dict([MARK.split("=")])}
    command = [sys.executable, "-c", RUN, *map(str, words)]
    return subprocess.Popen(command, start_new_session=True, env=env, **pipes)


def n_bytes(out: Path) -> int:
    "Size of the journals and parts of a run."
    return sum(p.stat().st_size for p in out.rglob("*") if p.suffix in (".jsonl", ".parquet"))


def left(session: int) -> list[int]:
    "Processes of a session, or started from it; zombies not counted."
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, of = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[:4]
                ours = MARK.encode() in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if (ours or int(of) == session) and state != "Z":
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


def disturb(ask: list, queries: Path, out: Path, n_moments: int, seconds: float) -> dict:
    "End a run again and again, then let it finish."
    rng, found = random.Random(0), Counter()
    setting_up = min(0.5 * seconds, 4.8 if ask[1] == "openai" else 30.0)
    slowest, states = 0.0, Counter()
    for i in range(n_moments):
        process, group = start(ask, queries, out), i % 2 == 1
        if i < (early := max(n_moments // 4, 2)):  # while packages load and the run is set up
            time.sleep(0.2 + setting_up * i / early)
        else:
            had = n_bytes(out)
            while process.poll() is None and n_bytes(out) <= had:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, min(seconds / n_moments, 6.0)))
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


def measure(ask: list, queries: Path, tmp: Path, n_moments: int) -> dict:
    "A run that nobody disturbs beside one that is told to end again and again."
    begun = time.monotonic()
    whole = start(ask, queries, tmp / "whole")
    said = whole.communicate()[1]
    seconds = time.monotonic() - begun
    assert whole.returncode == 0, said
    found = disturb(ask, queries, tmp / "ended", n_moments, seconds)
    last = start(ask, queries, tmp / "ended")
    last.communicate()
    a, b = digest(tmp / "whole"), digest(tmp / "ended")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return {
        "date": date.today().isoformat(),
        "machine": machine,
        "seconds": round(time.monotonic() - begun),
        "moments": n_moments,
        "rows of the set": len(a),
        "same set": a == b,
        "same keys": [row[:2] for row in a] == [row[:2] for row in b],
        "last exit code": last.returncode,
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, help="20, or 5 with vLLM")
    parser.add_argument("--queries", type=int, help="300, or 100 with vLLM")
    parser.add_argument("--vllm", action="store_true", help="vLLM in process, on this machine")
    args = parser.parse_args()
    n = args.queries or (100 if args.vllm else 300)
    rows = [{"problem": f"What is {i}*{i + 7}?", "answer": i * (i + 7)} for i in range(n)]
    if args.vllm:
        rows = [{"problem": q.query, "answer": q.ref_ans} for q in tiny_queries(n, seed=3)]
    results = Path(__file__).parent / "results/sigterm.json"
    with tempfile.TemporaryDirectory() as tmp, sums_server(0.2) as url:
        queries = write_jsonl(Path(tmp) / "queries.jsonl", rows)
        hosted = ["--engine", "openai", "--model", "sums", "--base-url", url]
        hosted += ["--option", "max_in_flight=64"]
        ask = [*TINY, str(tiny_path("teacher"))] if args.vllm else hosted
        found = measure(ask, queries, Path(tmp), args.moments or (5 if args.vllm else 20))
    print(json.dumps(found, indent=1))
    kept = read_json(results) if results.exists() else {}
    write_json(results, kept | {"vllm": found} if args.vllm else found | {"vllm": kept.get("vllm")})


if __name__ == "__main__":
    main()

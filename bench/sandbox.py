"""The sandbox measured: price of a call, one output everywhere, leaks, hostile programs, stored responses run again.

`python bench/sandbox.py [PART ...]`: `calls` (milliseconds of CPU and calls a second), `same` (one program 200 times in
two worker processes under load), `leak` (1,000 calls), `hostile` (every program of the page), `replay` (the code of 2,000
stored responses, read from `DART_MATH_DATA` or ../shared/data). Linux with bubblewrap.
"""

import gzip
import json
import multiprocessing
import os
import re
import resource
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from parts import run_parts

from dart_math_nb.sandbox.box import LocalSandbox
from dart_math_nb.sandbox.hostile import HOSTILE, attack
from dart_math_nb.sandbox.protocol import Limits

RESULT = Path(
    os.environ.get("SANDBOX_RESULT") or Path(__file__).parent / "results" / "sandbox.json"
)
DATA = Path(os.environ.get("DART_MATH_DATA", "../shared/data"))
SOLVE = "import sympy\nx = sympy.Symbol('x')\nsympy.solve(x**3 - 6*x**2 + 11*x - 6, x)"
WORLD = """
import random, time, os, uuid, secrets, tempfile, datetime
import numpy as np, sympy
class Plain: pass
print(random.random(), np.random.rand(3), np.random.default_rng().random(), random.Random().random())
print(time.time(), time.perf_counter(), datetime.datetime.now(), os.getpid(), uuid.uuid4(), secrets.token_hex(8))
print({"a", "b", "c", "d", "e"}, {Plain(), Plain(), Plain()}, [id(Plain()) for _ in range(3)], tempfile.mktemp())
print(sympy.randprime(10, 10**6), sympy.solve(sympy.Symbol("y")**2 - 2), hash("text"), hash(Plain))
start = time.time()
while time.time() - start < 0.5: pass
print(time.time() - start)
"""


def cpu_of(pids: list[int]) -> float:
    "Seconds of CPU of processes and of their children that ended."
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(fields[k]) for k in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")
    return total


def tree(pid: int) -> list[int]:
    "A process and all below it."
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += tree(int(child))
    return found


def one(box: LocalSandbox, code: str, seed: int = 0) -> float:
    "Run a program in a fresh session; CPU seconds of its child."
    with box.session(seed) as session:
        outcome = session.run(code)
        if outcome.status != "ok":
            raise RuntimeError(f"{outcome}")
        return session.peer.cpu_s()


def calls() -> dict:
    "A fresh session per call; CPU of child, of this process and of the warm one; calls a second from threads."
    found = {}
    with LocalSandbox(Limits(), n_at_once=2) as box:
        for name, code, n in (("print", "print(2**100)", 300), ("solve", SOLVE, 60)):
            one(box, code)
            warm = tree(box.state["process"].pid)
            before, mine = cpu_of(warm), time.process_time()
            child = sum(one(box, code) for _ in range(n)) / n
            mine, warmed = (time.process_time() - mine) / n, (cpu_of(warm) - before) / n
            start = time.monotonic()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda _, code=code: one(box, code), range(2 * n)))
            rate = 2 * n / (time.monotonic() - start)
            ms = {"child": child, "this_process": mine, "warm_process": warmed}
            ms["all"] = child + mine + warmed
            found[name] = {
                "cpu_ms": {k: round(1000 * v, 2) for k, v in ms.items()},
                "per_second": round(rate),
            }
        with box.session(0) as session:
            session.run(SOLVE)
            found["solve"]["again_in_session_ms"] = round(1000 * session.run(SOLVE).seconds, 2)
    return found


def spin(stop) -> None:
    "Keep a core busy."
    while not stop.is_set():
        sum(range(10_000))


def outputs(n: int) -> list[tuple]:
    "What one program says, n times, in a sandbox of this process, with other programs between."
    with LocalSandbox(Limits(), n_at_once=2) as box:

        def once(i: int) -> tuple:
            with box.session(i) as other:
                other.run(f"x = 'x' * {i * 1000}; print(x)")
            with box.session(11) as session:
                outcome = session.run(WORLD)
                return outcome.status, outcome.stdout, outcome.stderr, outcome.value

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(once, range(n)))


def same() -> dict:
    "200 times in two worker processes, beside two that keep the cores busy."
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    busy = [spawn.Process(target=spin, args=(stop,)) for _ in range(2)]
    for p in busy:
        p.start()
    try:
        with spawn.Pool(2) as pool:
            found = [said for part in pool.map(outputs, [100, 100], chunksize=1) for said in part]
    finally:
        stop.set()
        for p in busy:
            p.join()
    counts = Counter(found)
    return {
        "runs": len(found),
        "workers": 2,
        "different_outputs": len(counts),
        "status": found[0][0],
    }


def leak() -> dict:
    "1,000 calls, some of which end badly, beside a thread that works: processes, descriptors, memory."
    codes = [
        "print(2**100)",
        "1/0",
        "import os; os._exit(1)",
        "x = bytearray(10**9)",
        "open('f', 'w').write('x' * 10**6)",
    ]
    stop = threading.Event()
    threading.Thread(target=spin, args=(stop,), daemon=True).start()
    with LocalSandbox(Limits(cpu_s=5), n_at_once=2) as box:

        def once(i: int) -> str:
            with box.session(i) as session:
                return session.run(codes[i % len(codes)]).status

        def state() -> dict:
            pids = tree(box.state["process"].pid)
            memory = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) / 256 for p in pids]
            mounts = len(Path(f"/proc/{pids[-1]}/mountinfo").read_text().splitlines())
            held = {"processes": len(pids), "warm_mb": round(sum(memory), 1), "mounts": mounts}
            held["descriptors"] = len(os.listdir("/proc/self/fd"))
            return held | {
                "rss_mb": round(int(Path("/proc/self/statm").read_text().split()[1]) / 256, 1)
            }

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(once, range(20)))
            time.sleep(0.5)
            before = state()
            statuses = Counter(pool.map(once, range(1000)))
            time.sleep(0.5)
            after = state()
    stop.set()
    return {"calls": 1000, "statuses": dict(statuses), "before": before, "after": after}


def hostile() -> dict:
    "Every program of the page `hostile`; what ended how, and is anything left?"
    with LocalSandbox(Limits(cpu_s=0.5, idle_s=0.5, memory_mb=128)) as box:
        found = [attack(box, name) for name in HOSTILE]
        left = [a.name for a in found for pid in a.pids if os.path.exists(f"/proc/{pid}")]
        processes = len(tree(box.state["process"].pid))
    ended = {a.name: [a.outcome.status, a.outcome.error] for a in found}
    got_out = [a.name for a in found if not a.held]
    counts = dict(Counter(a.outcome.status for a in found))
    return {
        "programs": len(found),
        "got_out": got_out,
        "left": left,
        "processes_after": processes,
        "statuses": counts,
        "ended": ended,
    }


_BLOCK = re.compile(r"```python\n(.*?)\n?```\s*```output\n(.*?)\n?```", re.S)


def text_of(outcome) -> str:
    "What a notebook would show."
    parts = [outcome.stdout.rstrip("\n")] * bool(outcome.stdout.strip()) + [outcome.value] * (
        outcome.value is not None
    )
    return "\n".join(parts + [outcome.error] * (outcome.error is not None))


def kind_of(stored: str, now: str, outcome) -> str:
    "How a stored output and the one of now agree, or why they do not."
    a, b = stored.strip(), now.strip()
    last = a.splitlines()[-1].strip() if a else ""
    if a == b:
        return "equal"
    if outcome.status in ("error", "memory", "cpu") and (outcome.error or "").strip() == last:
        return "equal, traceback cut to its last line"
    if "".join(a.split()) == "".join(b.split()):
        return "equal but for white space"
    if outcome.status == "error" and (
        ":" in last and last.split(":")[0] == (outcome.error or "").split(":")[0]
    ):
        return "same error, other words"
    if outcome.status == "cpu" or "imeout" in a or "imed out" in a:
        return "time ran out, then or now"
    if outcome.status == "error" and "Traceback" not in a and "Error" not in a:
        return "an error now"
    if outcome.status == "ok" and ("Traceback" in a or "Error" in last):
        return "an error then"
    if not a or not b:
        return "one of them empty"
    if re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.6g}", a) == re.sub(
        r"\d+\.\d+", lambda m: f"{float(m[0]):.6g}", b
    ):
        return "equal to six digits"
    return "other"


def replay(n: int = 2000) -> dict:
    "The code of stored responses run again, all blocks of one in one session."
    with gzip.open(DATA / "responses/mathcoder_tool_integrated.jsonl.gz", "rt") as f:
        rows = [row for row in map(json.loads, f) if _BLOCK.search(row["resp"])]
    rows = rows[:: max(1, len(rows) // n)][:n]
    kinds, statuses, examples = Counter(), Counter(), {}
    with LocalSandbox(Limits(cpu_s=10), n_at_once=2) as box:

        def once(row: dict) -> list[tuple]:
            found = []
            with box.session(0) as session:
                for code, stored in _BLOCK.findall(row["resp"]):
                    outcome = session.run(code)
                    found.append(
                        (
                            kind_of(stored, text_of(outcome), outcome),
                            outcome.status,
                            code,
                            stored,
                            text_of(outcome),
                        )
                    )
            return found

        start = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(once, rows))
        seconds = time.monotonic() - start
    for part in found:
        for kind, status, *texts in part:
            kinds[kind] += 1
            statuses[status] += 1
            examples.setdefault(kind, []).append(texts)
    if "--show" in os.environ.get("SANDBOX_SHOW", ""):
        for kind, texts in examples.items():
            if not kind.startswith("equal"):
                print("#####", kind, len(texts), *texts[:12], sep="\n-----\n", file=sys.stderr)
    n_blocks = sum(kinds.values())
    ended = sum(
        all(status not in ("wall", "lost", "cpu", "idle") for _, status, *_ in part)
        for part in found
    )
    equal = kinds["equal"] + kinds["equal, traceback cut to its last line"]
    told = {"responses": len(rows), "blocks": n_blocks, "seconds": round(seconds, 1)}
    told |= {
        "responses_that_end": round(ended / len(rows), 4),
        "blocks_equal": round(equal / n_blocks, 4),
    }
    return told | {"statuses": dict(statuses), "kinds": dict(kinds.most_common())}


PARTS = {"calls": calls, "same": same, "leak": leak, "hostile": hostile, "replay": replay}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run_parts(__doc__, PARTS, RESULT)

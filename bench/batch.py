"""Grading in processes: `python bench/batch.py [--rows 300000]`.

A script without a guard grades 12,000 rows with two workers: as it is, from a thread, in asyncio and in
a notebook's kernel. Each time the verdicts must be those of one process, and the script must run once.
Then many distinct rows are graded by one process and by two, in turn, three times each; run this part
on an idle machine with two cores or more. Writes `bench/results/batch.json`.
"""

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "batch.json"


def rows_of(n: int):
    "Distinct rows, one in nine wrong."
    forms = (
        r"so it is \boxed{{{}}}.",
        "The answer is {}.",
        "#### {}",
        r"\boxed{{\frac{{{}}}{{1}}}}",
    )
    for i in range(n):
        text = f"We add {i} and {i + 1}, step by step. " * 8
        ans = 2 * i + 1 + (i % 9 == 0)
        yield {"response": text + forms[i % 4].format(ans), "ref_ans": str(2 * i + 1)}


SCRIPT = (
    r"""
import asyncio, sys, threading
from dart_math_nb.grade.batch import grade_responses
print("runs")
"""
    + inspect.getsource(rows_of)
    + r"""
rows = list(rows_of(12_000))
def work(n_procs=2):
    return list(grade_responses(rows, n_procs))
def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start(); thread.join()
    return found
async def later():
    return await asyncio.to_thread(work)
ways = {"plain": work, "thread": in_thread, "asyncio": lambda: asyncio.run(later())}
print(ways[WAY]() == work(1))
"""
)


def run_script(way: str) -> dict:
    "What a script without a guard prints, and how long it takes."
    with tempfile.TemporaryDirectory() as tmp:
        file = Path(tmp) / "script.py"
        begin = time.perf_counter()
        if way == "jupyter":  # the code as a cell of a kernel
            file.write_text("WAY = 'plain'\n" + SCRIPT)
            cmd = [sys.executable, "-c", JUPYTER, str(file)]
        else:
            file.write_text(f"WAY = {way!r}\n" + SCRIPT)
            cmd = [sys.executable, str(file)]
        run = subprocess.run(cmd, capture_output=True, text=True, timeout=600)
    said = run.stdout.split()
    return {
        "ran": said.count("runs"),
        "same": said[-1:] == ["True"],
        "s": time.perf_counter() - begin,
    }


JUPYTER = r"""
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
def tell(m):
    if m["msg_type"] == "stream":
        print(m["content"]["text"], end="")
client.execute_interactive(open(sys.argv[1]).read(), output_hook=tell, timeout=600)
manager.shutdown_kernel(now=True)
"""


def seconds(rows: list[dict], n_procs: int) -> float:
    "Wall seconds to grade all rows."
    from dart_math_nb.grade.batch import grade_responses

    begin = time.perf_counter()
    n = sum(1 for _ in grade_responses(iter(rows), n_procs, progress=False))
    assert n == len(rows)
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = {"cores": os.cpu_count(), "scripts": {}}
    for way in ("plain", "thread", "asyncio", "jupyter"):
        found["scripts"][way] = run_script(way)
        print(way, found["scripts"][way], flush=True)
    if args.rows:
        rows = list(rows_of(args.rows))
        times = {n: [] for n in (1, 2)}
        for _ in range(args.rounds):
            for n, taken in times.items():
                taken.append(seconds(rows, n))
                print(n, f"{taken[-1]:.1f} s", flush=True)
        one, two = (statistics.median(times[n]) for n in (1, 2))
        found["rows"] = {"n": args.rows, "s_one": times[1], "s_two": times[2], "speedup": one / two}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found.get("rows")))


if __name__ == "__main__":
    main()

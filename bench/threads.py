"""Training of the demo, alone and beside a program that keeps one core busy: `python bench/threads.py`.

A student of the demo's base learns 2,000 worked solutions in three ways: with as many threads as PyTorch takes,
with as many as a measurement before the first step says, and with the one that the demo fixes. Each training is a
process of its own; its time holds the measurement. Writes bench/results/threads.json.

Run it on an idle machine with two cores or more: `load_before` in the result should be below 0.3 (what `uptime` calls
the load of the last minute). On a busy one the times of "alone" are those of a shared machine, and say little.
`--rounds 1 --rows 500` is a short look, `--skip-default` leaves PyTorch's own number out, which can take very long there.
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
from statistics import median

RESULTS = Path(__file__).parent / "results" / "threads.json"
LIMIT = 300  # Seconds for one training
WAYS = {"as PyTorch": "all", "measured": "none", "fixed (the demo)": "1"}
SPIN = "while True: pass"


def train_once(threads: str, n_rows: int) -> dict:
    "Train in this process; seconds of the whole call, and the threads that were taken."
    import torch
    from transformers.utils import logging

    from dart_math_nb.demo.tiny import tiny_path, worked_rows
    from dart_math_nb.train.config import TrainCfg
    from dart_math_nb.train.loop import train

    logging.set_verbosity_error()
    n = {"all": torch.get_num_threads(), "none": None, "1": 1}[threads]
    with tempfile.TemporaryDirectory() as tmp:
        recipe = TrainCfg(
            model=str(tiny_path("base")),
            out=tmp,
            template="plain",
            lr=1e-3,
            n_epochs=2,
            room=2048,
            batch_size=2,
            packing="next_fit",
            threads=n,
        )
        rows, start = list(worked_rows(n_rows, (1, 1, 1, 1, 1), 0)), time.perf_counter()
        result = train(recipe, rows, progress=False)
        return {"seconds": time.perf_counter() - start, "threads": result.summary["threads"]}


def timed(threads: str, busy: bool, n_rows: int) -> dict:
    "Train in a process of its own, perhaps beside a busy one."
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    other = subprocess.Popen([sys.executable, "-c", SPIN]) if busy else None
    try:
        run = subprocess.run(
            [sys.executable, __file__, "--one", threads, "--rows", str(n_rows)],
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
        return json.loads(run.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"seconds": float(LIMIT), "threads": None}
    finally:
        if other:
            other.kill()
            other.wait()


def row(way: str, found: dict[bool, list[dict]]) -> dict:
    "A row of the table: median seconds alone and beside a busy core, and how many times as long."
    alone, busy = (median(f["seconds"] for f in found[b]) for b in (False, True))
    taken = {b: sorted({f["threads"] or 0 for f in found[b]}) for b in (False, True)}
    return {
        "threads": way,
        "taken alone": ", ".join(map(str, taken[False])),
        "seconds alone": round(alone, 1),
        "taken busy": ", ".join(map(str, taken[True])),
        "seconds busy": round(busy, 1),
        "busy / alone": round(busy / alone, 2),
    }


def main(rounds: int, n_rows: int, ways: dict) -> None:
    "Measure in turns, print, write."
    load = os.getloadavg()[0]
    found = {way: {False: [], True: []} for way in ways}
    for i in range(rounds):
        for way, threads in ways.items():
            for busy in (False, True):
                if way == "as PyTorch" and busy and i:
                    continue  # once is enough to see it
                found[way][busy].append(one := timed(threads, busy, n_rows))
                print(way, "busy" if busy else "alone", one, flush=True)
    rows = [row(way, kinds) for way, kinds in found.items()]
    ratio = {r["threads"]: r["busy / alone"] for r in rows}
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_before": round(load, 2),
        "n_rows": n_rows,
        "trainings": rounds,
        "rows": rows,
        "measured_busy_over_idle": ratio["measured"],
        "fixed_busy_over_idle": ratio["fixed (the demo)"],
    }
    print(json.dumps(result, indent=2))
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="worked solutions to learn")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--skip-default", action="store_true", help="without PyTorch's own number")
    parser.add_argument("--one", choices=WAYS.values(), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(train_once(args.one, args.rows)))
    else:
        main(args.rounds, args.rows, dict(list(WAYS.items())[args.skip_default :]))

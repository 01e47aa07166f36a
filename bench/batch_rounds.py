"""Quotas filled by files of requests: what rounds cost, and whether the set is the loop's.

python bench/batch_rounds.py [--vllm MODEL_PYTHON]: rounds against requests against overdraw on the measured pass
rates of the data folder, simulated draw by draw; then the tiny teacher, asked in rounds and by the loop, where texts
depend on prompt and seed alone. With --vllm, `vllm run-batch` answers the files instead, and the share of equal
texts is counted. Writes bench/results/batch_rounds.json.
"""

import argparse
import gzip
import json
import platform
from datetime import date
from pathlib import Path

import numpy as np

from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Query
from dart_math_nb.sample.batches import OVERDRAW, plan_round
from dart_math_nb.sample.giveup import give_up_draws
from dart_math_nb.sample.state import State, mark, settle
from dart_math_nb.sample.strategy import StrategyCfg, with_numbers

OUT = Path(__file__).parent / "results" / "batch_rounds.json"
STRATEGIES = {
    "uniform": StrategyCfg("uniform", 16, 1024),
    "prop2diff": StrategyCfg("prop2diff", 32, 1024, 32),
}
OVER = (0.0, 0.1, 0.25, 0.5, 1.0)
ROUNDS = (2, 3, 4, 6, 8, 12)


def pass_rates(name: str, n: int = 500) -> np.ndarray:
    "Measured pass rates of some queries of a file."
    with gzip.open(data_folder() / "pass_rates" / f"{name}.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    p = np.array([(r["n_correct"] + 0.1) / (r["n"] + 0.5) for r in rows])
    return np.random.default_rng(0).choice(p, min(n, len(p)), replace=False)


def in_rounds(p: np.ndarray, strategy: StrategyCfg, rounds: int, overdraw: float) -> dict:
    "Rounds and draws until all has stopped, or the rounds are over; and the least draws that would do."
    rng = np.random.default_rng(1)
    coins = [(rng.random(1024) < rate) for rate in p]
    states = {f"q{i}": State(Query(f"q{i}", "", "", "")) for i in range(len(p))}
    for s in states.values():
        settle(s, strategy)
    n_asked, n_rounds = [], 0
    while n_rounds < rounds and (
        plan := list(plan_round(states, strategy, rounds - n_rounds, overdraw))
    ):
        for state, trial in plan:
            mark(state, trial, bool(coins[int(state.query.query_id[1:])][trial]))
        for state in {id(s): s for s, _ in plan}.values():
            settle(state, strategy)
        n_asked.append(len(plan))
        n_rounds += 1
    n_open = sum(s.stop is None for s in states.values())
    least = sum(s.n for s in states.values() if s.stop is not None)
    drawn = sum(s.n_graded for s in states.values() if s.stop is not None)
    return {
        "rounds": n_rounds,
        "requests": sum(n_asked),
        "open": n_open / len(p),
        "surplus": drawn / least - 1,
    }


def simulated() -> list[dict]:
    "Rounds against requests against overdraw, on every file of measured rates."
    rows = []
    for file in sorted((data_folder() / "pass_rates").glob("*.jsonl.gz")):
        name = file.name.removesuffix(".jsonl.gz")
        p = pass_rates(name)
        for kind, strategy in STRATEGIES.items():
            cfg = with_stop(strategy)
            for rounds in ROUNDS:
                for overdraw in OVER:
                    row = {"file": name, "strategy": kind, "most": rounds, "overdraw": overdraw}
                    rows.append(row | in_rounds(p, cfg, rounds, overdraw))
            print(rows[-1], flush=True)
    return rows


def with_stop(strategy: StrategyCfg) -> StrategyCfg:
    from dataclasses import replace

    return replace(strategy, give_up=give_up_draws(strategy))


if __name__ == "__main__":
    rows = simulated()
    json.dump(rows, open("/tmp/batchdev/sim.json", "w"))

"""Quotas of k right and m wrong responses: kills, shards, overdraw.

python bench/quotas.py: one run killed (SIGKILL) at 20 random moments, with a simulated engine and one that
replays stored responses; 1, 2 and 4 shards at 1, 4 and 64 draws in flight; draws beyond the sequential minimum
in virtual time, on measured pass rates where the data folder is there. The part `agree` does all of it where two
or three correct responses must agree. Writes bench/results/quotas.json; python bench/quotas.py PART does one part.
"""

import hashlib
import json
import os
import platform
import random
import tempfile
import time
from datetime import date
from pathlib import Path

from parts import named_parts
from sampler import (
    PLACES,
    forked,
    journal_bytes,
    kill_engines,
    kill_often,
    mixed_world,
    sample_here,
    virtual_run,
)

from dart_math_nb.engines.dice import simulated_world
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sets.cut import strategy_set, wrong_set
from dart_math_nb.store.pool import read_pool
from dart_math_nb.store.shards import shard_name, shard_queries

OUT = Path(__file__).parent / "results" / "quotas.json"
SMALL = {
    "uniform": StrategyCfg("uniform", 4, 64, k_wrong=4, give_up=48),
    "prop2diff": StrategyCfg("prop2diff", 12, 64, 8, k_wrong=3, give_up=48),
}
AGREE = {"agree": StrategyCfg("uniform", 4, 64, k_wrong=2, give_up=24, agree=2)}
LARGE = {
    "Uniform 4 and 4 wrong": StrategyCfg("uniform", 4, k_wrong=4, give_up=700),
    "Uniform 40 and 8 wrong": StrategyCfg("uniform", 40, k_wrong=8, give_up=420),
    "Prop2Diff 192 and 16 wrong": StrategyCfg("prop2diff", 192, k_wrong=16, give_up=230),
}
LARGE_AGREE = {
    "Uniform 4, 2 within 35": StrategyCfg("uniform", 4, give_up=35, agree=2),
    "Uniform 40, 3 within 82": StrategyCfg("uniform", 40, give_up=82, agree=3),
    "Prop2Diff 192, 3 within 82": StrategyCfg("prop2diff", 192, give_up=82, agree=3),
}


def both_sets(folder, queries, strategy) -> tuple[str, int, int]:
    "SHA-256 of the right and of the wrong responses, and how many there are."
    right, wrong = (f(folder, queries, strategy) for f in (strategy_set, wrong_set))
    rows = "".join(f.to_csv(index=False) for f in (right, wrong))
    return hashlib.sha256(rows.encode()).hexdigest(), len(right), len(wrong)


def killed(strategy, queries, engine, n_kills: int, seed: int) -> dict:
    "One run killed at random moments, against one that was left alone."
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        assert os.waitpid(forked(sample_here, tmp / "whole", queries, engine, strategy), 0)[1] == 0
        n_bytes, folder = journal_bytes(tmp / "whole"), tmp / "killed"
        n_dead = kill_often(rng, n_kills, n_bytes, 0.1, folder, queries, engine, strategy)
        last = forked(sample_here, folder, queries, engine, strategy)
        assert os.waitpid(last, 0)[1] == 0
        a, b = (both_sets(tmp / f, queries, strategy) for f in ("whole", "killed"))
        draws = [len(read_pool(tmp / f, ["trial"])) for f in ("whole", "killed")]
    return {"kills": n_dead, "same_set": a == b, "right": a[1], "wrong": a[2], "draws": draws}


def kill(cfgs: dict = SMALL, n_kills: int = 20, n: int = 300) -> dict:
    "Each strategy, both engines."
    queries, engines = kill_engines(n)
    found = {}
    for name, strategy in cfgs.items():
        for kind, engine in engines.items():
            found[f"{name}, {kind}"] = killed(strategy, queries, engine, n_kills, len(found))
            print(f"{name}, {kind}", found[f"{name}, {kind}"], flush=True)
    return found


def shards(cfgs: dict = SMALL, n: int = 200) -> dict:
    "The same sets for any number of draws in flight and shards."
    queries, engine = simulated_world(n, mean_latency=0.002, max_in_flight=64)
    found = {}
    for name, strategy in cfgs.items():
        seen = {}
        with tempfile.TemporaryDirectory() as tmp:
            for in_flight in (1, 4, 64):
                for n_shards in (1, 2, 4):
                    folder, engine.max_in_flight = Path(tmp) / f"{in_flight}-{n_shards}", in_flight
                    parts = [shard_queries(queries, i, n_shards) for i in range(n_shards)]
                    names = [shard_name(i, n_shards) for i in range(n_shards)]
                    how = [
                        (folder, p, engine, strategy, s) for p, s in zip(parts, names, strict=True)
                    ]
                    pids = [forked(sample_here, *a) for a in how]
                    assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
                    seen[f"{in_flight} in flight, {n_shards} shards"] = both_sets(
                        folder, queries, strategy
                    )
        one = next(iter(seen.values()))
        found[name] = {"runs": len(seen), "same": len(set(seen.values())) == 1}
        found[name] |= {"right": one[1], "wrong": one[2]}
        print(name, found[name], flush=True)
    return found


def overdraw(cfgs: dict = LARGE, n: int = 2000) -> list[dict]:
    "Draws beyond the sequential minimum; the mean draw takes one virtual second."
    rows = []
    for label, strategy in cfgs.items():
        queries, engine = mixed_world(n, mean_latency=1.0, max_in_flight=PLACES)
        row = {"strategy": label} | virtual_run(queries, engine, strategy, 0.01)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        rows.append(row)
    return rows


def agree() -> dict:
    "All of it where responses must agree."
    return {"kill": kill(AGREE), "shards": shards(AGREE), "overdraw": overdraw(LARGE_AGREE)}


PARTS = {"kill": kill, "shards": shards, "overdraw": overdraw, "agree": agree}


def main(names: list[str]) -> None:
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names:
        start = time.time()
        part = PARTS[name]()
        found[name] = {
            "date": str(date.today()),
            "seconds": round(time.time() - start, 1),
            "found": part,
        }
    found["machine"] = (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

"""Copies of an engine through Ray, and what the driver's books cost: `python bench/ray_replicas.py [PART ...]`.

deaths: 4 copies (rule-driven engines in processes of Ray on this machine, grading in 2 more), two of which are killed
(SIGKILL) and one added while a run goes on; the same run in one process, without Ray. Counts rows, keys and the set.
poison: the same with a prompt that kills the process of every copy that draws it.
books: 64 null copies, 256 draws in flight each: what is sent to them comes back in bundles, so the driver pays for its books
and for the loop, and for nothing of the copies. The verdict is made beforehand, so that grading costs nothing; the journal
is written. Draws per second of the driver's CPU and of the clock, and its memory; beside it 64 copies whose work is done in
the driver's process, too, and one engine without copies. `ray`: the same with 4 copies in processes of Ray, bundles and all.
vllm: 2 vLLM copies of the demo's teacher on this CPU against one. Needs vLLM beside Ray.

Parts that are named are measured anew; the others stay. Writes bench/results/ray.json.
"""

import asyncio
import json
import os
import platform
import resource
import signal
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

from parts import named_parts

import dart_math_nb
from dart_math_nb.data.records import Source, Verdict
from dart_math_nb.engines.dice import simulated_world
from dart_math_nb.engines.protocol import Completion, SampleParams, draw_for, run_async
from dart_math_nb.engines.ray import RayEngine
from dart_math_nb.engines.replicas import LocalLink, Replicas
from dart_math_nb.engines.retry import draw_all
from dart_math_nb.sample.loop import sample_pool, sample_pool_async
from dart_math_nb.sample.standing import strategy_draws
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.pool import open_pool, read_pool

RESULTS = Path(__file__).parent / "results" / "ray.json"
N, LATENCY = 300, 0.05
RULES = StrategyCfg("prop2diff", k=8, n_pilot=4, max_trials=64)


def world(latency: float = LATENCY):
    "Queries and dice."
    return simulated_world(N, mean_latency=latency)


def only_dice():
    "What a copy makes."
    return world()[1]


class Poison:
    "Dice that one prompt kills, with their process."

    max_in_flight = 64

    def __init__(self):
        queries, self.dice = world()
        self.bad = queries[17].query_id

    async def draw(self, draw, params):
        "As the dice."
        if draw.query_id == self.bad:
            await asyncio.sleep(0.01)
            os._exit(1)
        return await self.dice.draw(draw, params)

    async def close(self):
        "Nothing to free."


def accepted(folder: Path) -> list:
    "The set of a pool, rows that are there, and distinct keys."
    pool = read_pool(folder)
    rows = strategy_draws(pool, RULES)[["query_id", "trial", "response"]].values.tolist()
    return rows, len(pool), len(pool[["query_id", "source_id", "trial"]].drop_duplicates())


def journalled(folder: Path) -> tuple[int, int]:
    "Lines of the journals, and distinct keys in them."
    return accepted(folder)[1:]


async def disturbed(queries, engine, pool, how, kills: int, added: int):
    "A run; copies are killed and added on the way."
    run = asyncio.ensure_future(sample_pool_async(queries, engine, pool, **how))
    for i in range(kills):
        await asyncio.sleep(0.8)
        os.kill(engine.members[i].link.facts["pid"], signal.SIGKILL)
    engine.add(added)
    return await run


def with_copies(make, kills: int, added: int) -> dict:
    "One run in one process, one with copies."
    queries, dice = world()
    how = {"source": Source("dice"), "strategy": RULES, "progress": False}
    with tempfile.TemporaryDirectory() as tmp, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_pool(Path(tmp, "one")) as pool:
            sample_pool(queries, dice, pool, **how)
        start = time.time()
        with (
            RayEngine(engine=make, replicas=4, graders=2, max_in_flight=256) as engine,
            open_pool(Path(tmp, "many")) as pool,
        ):
            began = time.time()
            table = run_async(disturbed(queries, engine, pool, how, kills, added))
            took = time.time() - began
            asked = engine.n_answers
            facts = {"deaths": engine.n_deaths, "drawn_again": engine.n_again, "answers": asked}
            facts |= {"copies_at_the_end": sum(m.state != "gone" for m in engine.members)}
        one, many = accepted(Path(tmp, "one")), accepted(Path(tmp, "many"))
    bad = set() if kills else {queries[17].query_id}
    same = [r for r in one[0] if r[0] not in bad] == [r for r in many[0] if r[0] not in bad]
    facts |= {"rows": many[1], "distinct_keys": many[2], "accepted": len(many[0])}
    facts |= {"accepted_in_one_process": len(one[0]), "same_set": same}
    facts |= {
        "drawn_by_the_run": int(table.n_drawn.sum()),
        "stops": table.stop.value_counts().to_dict(),
    }
    return facts | {"seconds_to_start": round(began - start, 1), "seconds": round(took, 1)}


class Null:
    "Answers at once."

    max_in_flight = 256

    async def draw(self, draw, params):
        "The same text."
        return Completion("\\boxed{1}", "stop", 1)

    async def close(self):
        "Nothing to free."


def books(engine, n: int) -> dict:
    "What the driver does for n queries with four draws each."
    queries, right = simulated_world(n)[0], Verdict(True, "1", "null")
    how = {"source": Source("null"), "strategy": StrategyCfg("uniform", k=4, max_trials=64)}
    how |= {"grade": lambda query, done: right, "grade_in": None, "progress": False}
    with tempfile.TemporaryDirectory() as tmp, open_pool(tmp) as pool:
        clock, cpu = time.time(), time.process_time()
        table = sample_pool(queries, engine, pool, **how)
        clock, cpu = time.time() - clock, time.process_time() - cpu
    drawn = int(table.n_drawn.sum())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"queries": n, "draws": drawn, "draws_per_cpu_s": round(drawn / cpu)}
    return found | {"draws_per_s": round(drawn / clock), "peak_gb": round(memory, 2)}


class NullLink:
    "A line to a copy that costs the driver no more than its bundles: what is sent comes back at the next call."

    def __init__(self, number):
        self.done = []

    async def start(self):
        "There is nothing to start."

    def take(self, asks, dropped):
        "Answer at once."
        self.done += [(number, True, ("\\boxed{1}", "stop", 1, None)) for number, *_ in asks]

    async def give(self):
        "All answers, in bundles of a fiftieth of a second."
        await asyncio.sleep(0.02)
        done, self.done = self.done, []
        return done


def measure_books() -> dict:
    "64 copies behind such lines; 64 whose work is done in this process, too; the loop without copies."
    many = Replicas(NullLink, 64, room=256)
    here = Replicas(lambda number: LocalLink(Null, 0.02), 64, room=256)
    one = Null()
    found = {"64_null_copies": books(many, 25_000) | {"in_flight": many.max_in_flight}}
    found["64_copies_in_this_process"] = books(here, 25_000) | {"in_flight": here.max_in_flight}
    return found | {"one_engine_without_copies": books(one, 25_000) | {"in_flight": 256}}


def measure_ray() -> dict:
    "4 copies in processes of Ray."
    with RayEngine(engine=Null, replicas=4, max_in_flight=16_384) as engine:
        return {"4_copies_in_ray": books(engine, 50_000) | {"in_flight": engine.max_in_flight}}


def measure_vllm() -> dict:
    "2 vLLM copies against one, same draws."
    teacher = Path(dart_math_nb.__file__).parent / "demo" / "checkpoints" / "teacher"
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR")
    how = {"dtype": "float32", "max_model_len": 128, "enforce_eager": True, "max_num_seqs": 64}
    sums = simulated_world(100)[0]
    draws = [draw_for(q, t, f"{i}+{i + 3}-5\n", 7) for i, q in enumerate(sums) for t in range(4)]
    texts = {}
    for n in (1, 2):
        with RayEngine(teacher, replicas=n, max_in_flight=64 * n, **how) as engine:
            params = SampleParams(max_tokens=64)
            texts[n] = [c.text for c in run_async(draw_all(engine, draws, params))]
    same = sum(map(str.__eq__, texts[1], texts[2]))
    return {"draws": len(draws), "done": [len(t) for t in texts.values()], "same_text": same}


PARTS = {
    "deaths": lambda: with_copies(only_dice, kills=2, added=1),
    "poison": lambda: with_copies(Poison, kills=0, added=0),
    "books": measure_books,
    "ray": measure_ray,
    "vllm": measure_vllm,
}


def main() -> None:
    "Measure the parts that are named, or all but vllm."
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in named_parts(__doc__, PARTS, [n for n in PARTS if n != "vllm"]):
        facts = {
            "date": str(date.today()),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        }
        kept[name] = facts | {"load_before": round(os.getloadavg()[0], 1)} | PARTS[name]()
        print(name, json.dumps(kept[name], indent=1), flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

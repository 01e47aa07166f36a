"""Quotas filled by files of requests: what rounds cost, and whether the set is the loop's.

python bench/batch_rounds.py: rounds against requests against overdraw on the measured pass rates of the data folder,
draw by draw; then the tiny teacher, asked in rounds and by the loop, where texts depend on prompt and seed alone.
With --vllm PYTHON that interpreter's vLLM answers the files by its run-batch, from end to end (--only vllm leaves out
the rest). Writes bench/results/batch_rounds.json.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from dart_math_nb.data.files import read_json, write_json, write_jsonl
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Query
from dart_math_nb.demo.pipeline import prompt_of, teacher_source, tiny_engine
from dart_math_nb.demo.tiny import tiny_path, tiny_queries
from dart_math_nb.engines.batch_files import batch_speech, find_provider, read_results
from dart_math_nb.engines.protocol import Draw, params_of, run_async
from dart_math_nb.engines.retry import draw_all
from dart_math_nb.sample.batches import Asker, RoundCfg, plan_round, read_round, write_round
from dart_math_nb.sample.giveup import give_up_draws
from dart_math_nb.sample.loop import sample_pool
from dart_math_nb.sample.standing import strategy_draws
from dart_math_nb.sample.state import State, mark, settle
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.known import keep_list
from dart_math_nb.store.pool import open_pool, read_pool

OUT = Path(__file__).parent / "results" / "batch_rounds.json"
KINDS = {
    "uniform": StrategyCfg("uniform", 16, 1024),
    "prop2diff": StrategyCfg("prop2diff", 32, 1024, 32),
}
OVER = (0.0, 0.1, 0.25, 0.5, 1.0)
ROUNDS = (2, 3, 4, 6, 8, 12)


def with_stop(strategy: StrategyCfg) -> StrategyCfg:
    "A strategy with its usual stop for hopeless queries."
    return replace(strategy, give_up=give_up_draws(strategy))


def pass_rates(file: Path, n: int = 500) -> np.ndarray:
    "Measured pass rates of some queries of a file."
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    p = np.array([(r["n_correct"] + 0.1) / (r["n"] + 0.5) for r in rows])
    return np.random.default_rng(0).choice(p, min(n, len(p)), replace=False)


def in_rounds(p: np.ndarray, strategy: StrategyCfg, most: int, overdraw: float) -> dict:
    "Rounds and requests; queries open at the end; draws beyond the least that would do."
    rng = np.random.default_rng(1)
    coins = {f"q{i}": rng.random(1024) < rate for i, rate in enumerate(p)}
    states = {q: State(Query(q, "", "", "")) for q in coins}
    for state in states.values():
        settle(state, strategy)
    n_asked = []
    while len(n_asked) < most:
        plan = list(plan_round(states, strategy, most - len(n_asked), overdraw))
        if not plan:
            break
        for state, trial in plan:
            mark(state, trial, bool(coins[state.query.query_id][trial]))
        for query_id in {state.query.query_id for state, _ in plan}:
            settle(states[query_id], strategy)
        n_asked.append(len(plan))
    done = [s for s in states.values() if s.stop is not None]
    surplus = sum(s.n_graded for s in done) / sum(s.n for s in done) - 1
    found = {"rounds": len(n_asked), "requests": sum(n_asked), "asked": n_asked}
    return found | {"open": 1 - len(done) / len(p), "surplus": surplus}


def simulated() -> list[dict]:
    "Rounds against requests against overdraw, on every file of measured rates."
    rows = []
    for file in sorted((data_folder() / "pass_rates").glob("*.jsonl.gz")):
        p = pass_rates(file)
        for kind, strategy in KINDS.items():
            for most in ROUNDS:
                for overdraw in OVER:
                    about = {"file": file.name.split(".")[0], "strategy": kind}
                    about |= {"most": most, "overdraw": overdraw}
                    rows.append(about | in_rounds(p, with_stop(strategy), most, overdraw))
            print(file.name, kind, flush=True)
    return rows


def rows_in(files: list[Path]) -> list[dict]:
    "Requests, in order."
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def by_transformers(engine, params):
    "A service that answers files of plain completions."

    def answer(files: list[Path], out: Path) -> Path:
        rows = rows_in(files)
        draws = [Draw(r["custom_id"], 0, r["body"]["prompt"], r["body"]["seed"]) for r in rows]
        lines = []
        for row, c in zip(rows, run_async(draw_all(engine, draws, params)), strict=True):
            reply = {"choices": [{"text": c.text, "finish_reason": c.finish_reason}]}
            reply |= {"usage": {"completion_tokens": c.n_tokens}}
            response = {"status_code": 200, "body": reply}
            lines.append({"custom_id": row["custom_id"], "response": response, "error": None})
        return write_jsonl(out, lines[::-1])

    return answer


def by_vllm(python: str):
    "vLLM's run-batch, once per file."
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}

    def answer(files: list[Path], out: Path) -> Path:
        (out.parent / "chat.jinja").write_text(template)
        command = [python, "-m", "vllm.entrypoints.launchers.run_batch", "-o", str(out)]
        command += ["--model", str(tiny_path("teacher")), "--served-model-name", "tiny"]
        command += ["--dtype", "float32", "--max-model-len", "128", "--enforce-eager"]
        command += ["--chat-template", str(out.parent / "chat.jinja"), "-i", str(files[0])]
        assert len(files) == 1
        done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"run-batch: {done.stderr[-2000:]}")
        return out

    return answer


def rounds_of(run: Path, queries, strategy, ask: Asker, answer, cfg=RoundCfg()) -> list[dict]:  # noqa: B008
    "Write, answer, read, until nothing is left to ask."
    keep_list(run, queries)
    rows = []
    while len(rows) < cfg.rounds:
        if (round := write_round(run, queries, strategy, ask, cfg)) is None:
            break
        found = read_round(run, [answer(round.paths(run), run / f"out-{round.number}.jsonl")])
        row = {"requests": round.n_requests, "answers": found.counts["answers"]}
        rows.append(row | {"open": found.n_open, "missing": found.n_missing})
        print(rows[-1], flush=True)
    return rows


def set_of(pool: Path, strategy: StrategyCfg) -> list:
    "The accepted responses."
    rows = strategy_draws(read_pool(pool), strategy)
    return rows[["query_id", "trial", "response"]].values.tolist()


def tiny(n: int = 200) -> list[dict]:
    "The tiny teacher in rounds and by the loop."
    queries, source, rows = tiny_queries(n, seed=11), teacher_source(3), []
    ask = Asker(
        batch_speech("openai", "tiny", "vllm"), find_provider("openai"), source, prompt_of=prompt_of
    )
    with tempfile.TemporaryDirectory() as tmp, tiny_engine(tiny_path("teacher")) as engine:
        for kind, strategy in (
            ("uniform", StrategyCfg("uniform", 4, 64)),
            ("prop2diff", StrategyCfg("prop2diff", 8, 64, 8)),
        ):
            cfg, run, loop = with_stop(strategy), Path(tmp) / kind, Path(tmp) / f"{kind}-loop"
            answer = by_transformers(engine, params_of(source))
            asked = rounds_of(run, queries, cfg, ask, answer, RoundCfg(rounds=12))
            with open_pool(loop) as pool:
                how = {"source": source, "strategy": cfg, "prompt_of": prompt_of}
                sample_pool(queries, engine, pool, progress=False, **how)
            sets = [set_of(p, cfg) for p in (run / "pool", loop)]
            row = {"strategy": kind, "queries": n, "rows": len(sets[0]), "same": sets[0] == sets[1]}
            row |= {"rounds": len(asked), "requests": sum(r["requests"] for r in asked)}
            rows.append(row | {"loop_draws": len(read_pool(loop)), "each": asked})
            print(rows[-1], flush=True)
    return rows


def vllm(python: str, most: int, n: int = 40) -> dict:
    "The tiny teacher behind vLLM's run-batch, from end to end: a start of vLLM per round."
    queries, source = tiny_queries(n, seed=12), teacher_source(3)
    strategy, begin = with_stop(StrategyCfg("prop2diff", 6, 32, 4)), time.monotonic()
    speech, provider = batch_speech("vllm", "tiny", chat=True), find_provider("vllm")
    ask = Asker(speech, provider, source, prompt_of=prompt_of)
    with tempfile.TemporaryDirectory() as tmp:
        run = Path(tmp) / "run"
        asked = rounds_of(run, queries, strategy, ask, by_vllm(python), RoundCfg(rounds=most))
        texts = {}
        for out in sorted(run.glob("out-*.jsonl")):
            found = read_results(out, provider, speech)
            texts |= {(r.key.query, r.key.trial): r.done.text for r in found}
        pool = read_pool(run / "pool")
    kept = {(q, t): x for q, t, x in zip(pool.query_id, pool.trial, pool.response, strict=True)}
    found = {"queries": n, "rounds": len(asked), "each": asked, "draws": len(pool)}
    found |= {
        "correct": int(pool["correct"].sum()),
        "truncated": int((pool.error == "truncated").sum()),
    }
    return found | {"kept_as_answered": kept == texts, "seconds": round(time.monotonic() - begin)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--vllm", help="interpreter that has vLLM")
    parser.add_argument("--most", type=int, default=6, help="rounds of it, a start of vLLM each")
    parser.add_argument("--only", choices=("simulated", "tiny", "vllm"))
    args = parser.parse_args()
    new = {"date": date.today().isoformat(), "machine": platform.machine() + ", 2 cores"}
    if args.only in (None, "simulated"):
        new["simulated"] = simulated()
    if args.only in (None, "tiny"):
        new["tiny"] = tiny()
    if args.vllm:
        new["vllm"] = vllm(args.vllm, args.most)
    write_json(OUT, (read_json(OUT) if OUT.exists() else {}) | new)

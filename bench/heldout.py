"""Measure runs with held-out queries: `python bench/heldout.py [PART ...]`.

`kills`: a run that is evaluated, stopped early and saved at its best step, killed with kill -9 in each of its moments and at
random ones, and continued each time: in how many of them the log, the chosen step or a bit of the weights differs from the run
that was never killed. `processes`: held-out loss and accuracy of two processes (gloo) against one. `cost`: CPU seconds of
evaluations beside those of the training. A Llama of 0.1 million parameters on worked sums. `accuracy`: the shipped base of the
miniature, which solves some, trained at a low rate and trained until it breaks: what was answered and graded on the way
against what `evaluate` finds for the saved weights, answer by answer. `accuracy_of_two`: two processes against one.
`sharded`: two processes, ZeRO and FSDP2: what they found for the step that they saved against one process that looks at it.
`grid`: a grid killed within and between its runs, and continued. Writes bench/results/heldout.json.
"""

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

from parts import run_parts

os.environ.setdefault("OMP_NUM_THREADS", "1")

from transformers.utils import logging

from dart_math_nb.data.files import folder_revision, read_json, write_jsonl
from dart_math_nb.data.records import Query, Source
from dart_math_nb.demo.pipeline import prompt_of
from dart_math_nb.demo.tiny import tiny_path, tiny_queries, worked_solution
from dart_math_nb.engines.hf import TransformersEngine
from dart_math_nb.evaluate.ask import EvalCfg, PlainPrompt, evaluate_benchmarks
from dart_math_nb.testing.tiny_models import char_tokenizer, tiny_llama, worked_sums
from dart_math_nb.train import grid, loop, watch
from dart_math_nb.train.config import TrainCfg
from dart_math_nb.train.launch import launch
from dart_math_nb.train.result import load_result
from dart_math_nb.train.same import run_differences
from dart_math_nb.train.trainer import PackTrainer

RESULTS = Path(__file__).parent / "results" / "heldout.json"
N_RANDOM, PER_RUN = 6, 4  # Runs with kills at random moments, kills in each
MOMENTS = {  # Where the process kills itself -> what it is about to call, and for which time
    "between two steps": (PackTrainer, "log", 8),
    "in an evaluation": (watch, "held_loss", 2),
    "while answers are written": (watch, "answers_to", 3),
    "between evaluation and checkpoint": (PackTrainer, "_save_checkpoint", 2),
    "before the best weights": (watch, "keep_best", 2),
    "before the best weights get their name": (Path, "rename", 2),
    "before older best weights are deleted": (watch, "forget_best", 3),
    "in a checkpoint": (PackTrainer, "_save_rng_state", 2),
    "after the last step": (loop, "finish", 1),
    "before the model is saved": (loop, "save_result", 1),
}
GRID_MOMENTS = {
    "in the first run": (PackTrainer, "log", 5),
    "in the second run, in a checkpoint": (PackTrainer, "_save_rng_state", 5),
    "before a run's model is saved": (loop, "save_result", 2),
    "between two runs, before the table": (grid, "save_grid", 2),
    "while the table is written": (grid, "write_json", 3),
    "between two runs, after the table": (grid, "train", 3),
    "after the last run": (grid, "save_grid", 4),
}
HALF = "while the best weights are written (half a file)"


def recipe(tmp: Path, **more) -> TrainCfg:
    "A run of 50 sums, 50 held out, and what it starts from."
    if not (tmp / "base").exists():
        tiny_llama(tied=True).save_pretrained(tmp / "base")
        char_tokenizer().save_pretrained(tmp / "base")
        write_jsonl(tmp / "sums.jsonl", worked_sums(100))
    how = {"template": "plain", "room": 256, "batch_size": 2, "n_epochs": 12, "lr": 2e-2}
    how |= {"schedule": "constant", "held_out": 0.5, "held_every": 3, "patience": 2, "threads": 1}
    how |= {"held_answers": 4, "held_tokens": 30, "save_every": 5, "dtype": "float32"}
    files = (str(tmp / "sums.jsonl"),)
    return TrainCfg(str(tmp / "base"), str(tmp / "whole"), train_set=files, **how | more)


def die(*args, **kwargs) -> None:
    "kill -9 of this process."
    os.kill(os.getpid(), signal.SIGKILL)


def dying(real: Callable, n: int) -> Callable:
    "A function that kills the process at its n-th call."
    calls = []

    def call(*args, **kwargs):
        calls.append(1)
        return die() if len(calls) == n else real(*args, **kwargs)

    return call


def half_saved(real: Callable) -> Callable:
    "Saving that writes half of the best weights and kills the process."

    def save(self, output_dir=None, state_dict=None):
        real(self, output_dir, state_dict)
        if str(output_dir).endswith("part"):
            file = Path(output_dir) / "model.safetensors"
            os.truncate(file, file.stat().st_size // 2)
            die()

    return save


def arm(moment: str | None, tick: int, pipe: Connection) -> None:
    "Let this process kill itself at a moment, or tell when it has come to a tick."
    if moment == HALF:
        PackTrainer._save = half_saved(PackTrainer._save)
    elif moment:
        where, name, n = (MOMENTS | GRID_MOMENTS)[moment]
        setattr(where, name, dying(getattr(where, name), n))
    real, calls = PackTrainer.training_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == tick:
            pipe.send(1)
        return real(*args, **kwargs)

    PackTrainer.training_step = step


def child(cfg: TrainCfg, moment: str | None, tick: int, pipe: Connection) -> None:
    "A training in a process of its own, which may kill itself, or tell when it has come to a tick."
    arm(moment, tick, pipe)
    loop.train(cfg, progress=False)


def started(
    cfg: TrainCfg,
    moment: str | None = None,
    tick: int = 0,
    seconds: float = 0.0,
    target: Callable = child,
) -> bool:
    "Run a child; True when it was killed, by itself or some time after a tick."
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=target, args=(cfg, moment, tick, there))
    process.start()
    there.close()
    while tick and process.is_alive():
        if here.poll(0.01):
            time.sleep(seconds)
            process.kill()
            break
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{cfg.out}: the process ended with {process.exitcode}")
    return process.exitcode != 0


def kills() -> dict:
    "Runs that were killed against the one that was not."
    tmp = Path(tempfile.mkdtemp())
    started(cfg := recipe(tmp))
    rows, n_kills = [], 0
    for i, moment in enumerate([*MOMENTS, HALF]):
        run = replace(cfg, out=str(tmp / f"at{i}"))
        if not started(run, moment):
            raise RuntimeError(f"{moment}: the process was not killed")
        n_kills += 1
        started(run)
        found = run_differences(tmp / "whole", run.out)
        rows.append({"moment": moment, "kills": 1, "differences": ", ".join(found) or "none"})
        print(*rows[-1].values(), sep=" | ", flush=True)
    rng = random.Random(0)
    for i in range(N_RANDOM):
        run, mine = replace(cfg, out=str(tmp / f"random{i}")), 0
        for _ in range(PER_RUN):
            mine += started(run, tick=rng.randint(2, 12), seconds=rng.uniform(0, 0.3))
        started(run)
        found, n_kills = run_differences(tmp / "whole", run.out), n_kills + mine
        named = {"moment": f"at random, run {i + 1}", "kills": mine}
        rows.append(named | {"differences": ", ".join(found) or "none"})
        print(*rows[-1].values(), sep=" | ", flush=True)
    held = load_result(tmp / "whole").summary["held"]
    shutil.rmtree(tmp)
    return {
        "runs": len(rows),
        "kills": n_kills,
        "differences": sum(row["differences"] != "none" for row in rows),
        "steps_planned": held["steps_planned"],
        "evaluations": held["evaluations"],
        "best_step": held["best"]["step"],
        "moments": rows,
    }


SCRIPT = """
import sys
from dart_math_nb.train.loop import train
from dart_math_nb.train.recipe import make_cfg

if __name__ == "__main__":
    train(make_cfg(dict(a.split("=", 1) for a in sys.argv[1:])), progress=False)
"""


def fields_of(cfg: TrainCfg) -> dict:
    "What a configuration says that is no default."
    fields = {k: v for k, v in vars(cfg).items() if v != getattr(TrainCfg, k, None)}
    return fields | {"train_set": cfg.train_set[0]}


def processes() -> dict:
    "Two processes against one: the same model looked at, and a whole run."
    tmp = Path(tempfile.mkdtemp())
    (tmp / "run.py").write_text(SCRIPT)
    cfg = recipe(tmp, batch_size=4, packs_per_forward=1, save_every=0, lr=5e-3, patience=0)
    fields = fields_of(cfg)
    runs = {}
    for name, n, more in [
        ("one", 1, {}),
        ("two", 2, {}),
        ("one, looked at", 1, {"lr": 0.0}),
        ("two, looked at", 2, {"lr": 0.0}),
    ]:
        values = fields | more | {"out": tmp / name.replace(", ", "-")}
        launch(tmp / "run.py", [f"{k}={v}" for k, v in values.items()], n)
        runs[name] = load_result(values["out"])
    seen = {name: r.log.dropna(subset="held_loss") for name, r in runs.items()}

    def apart(a: str, b: str) -> float:
        one, two = seen[a].held_loss.to_numpy(), seen[b].held_loss.to_numpy()
        return float(abs(one - two).max() / abs(one).max())

    shutil.rmtree(tmp)
    return {
        "evaluations": len(seen["one"]),
        "held-out loss, same model: relative difference": apart("one, looked at", "two, looked at"),
        "held-out loss, whole run: relative difference": apart("one", "two"),
        "accuracies differ": int((seen["one"].held_accuracy != seen["two"].held_accuracy).sum()),
        "best step": [runs[n].summary["held"]["best"]["step"] for n in ("one", "two")],
    }


def cost() -> dict:
    "What evaluations add."
    tmp = Path(tempfile.mkdtemp())
    found = {}
    for name, more in {"without": {}, "loss": {"held_every": 5}}.items():
        cfg = replace(recipe(tmp, patience=0, held_answers=0), out=str(tmp / name))
        more = more or {"held_every": 0}
        begin = time.process_time()
        result = loop.train(replace(cfg, **more), progress=False)
        found[name] = round(time.process_time() - begin, 2)
        found[f"{name}: evaluations"] = result.summary["held"]["evaluations"]
    shutil.rmtree(tmp)
    return found


N_ASKED, MOST_TOKENS = 100, 80  # Held-out queries that are answered, tokens of an answer


def solving(tmp: Path, n: int = 800, **more) -> TrainCfg:
    "A run of the shipped base on worked solutions of the miniature, with held-out queries that it partly solves."
    if not (tmp / "worked.jsonl").exists():
        rng = random.Random(0)
        made = [(q, worked_solution(q.query, rng)) for q in tiny_queries(n, seed=3)]
        rows = [{"query": q.query, "response": w, "ref_ans": q.ref_ans} for q, w in made]
        write_jsonl(tmp / "worked.jsonl", rows)
    how = {"template": "plain", "room": 2048, "batch_size": 2, "n_epochs": 2, "lr": 1e-3}
    how |= {"packs_per_forward": 1, "held_out": 200.0, "held_every": 4, "held_answers": N_ASKED}
    how |= {"held_tokens": MOST_TOKENS, "best_by": "accuracy", "dtype": "float32", "threads": 1}
    files = (str(tmp / "worked.jsonl"),)
    return TrainCfg(str(tiny_path("base")), str(tmp / "run"), train_set=files, **how | more)


def watched(cfg: TrainCfg) -> tuple[dict, list]:
    "Train; the result, and the answers of each evaluation by query."
    said, real, heard = [], watch.held_accuracy, watch.answers_to

    def evaluation(*args):
        said.append({})
        return real(*args)

    def answers(trainer, questions, *args):
        found = heard(trainer, questions, *args)
        said[-1] |= {q.query: answer for q, answer in zip(questions, found, strict=True)}
        return found

    with (
        patch.object(watch, "held_accuracy", evaluation),
        patch.object(watch, "answers_to", answers),
    ):
        result = loop.train(cfg, progress=False)
    return result, said


def evaluated(cfg: TrainCfg, asked: list[Query]) -> dict:
    "What `evaluate` finds for the saved weights: query -> text, whether it ended, whether it is right."
    source = Source(
        "student", folder_revision(Path(cfg.out)), max_tokens=MOST_TOKENS, temperature=0.0
    )
    how = {"queries": {"held": asked}, "prompts": {"held": PlainPrompt(prompt_of, "plain")}}
    with TransformersEngine(cfg.out) as engine:
        folder = Path(cfg.out) / "eval"
        frame = evaluate_benchmarks(
            EvalCfg(["held"], source), engine, folder, progress=False, **how
        )
    text = {q.query_id: q.query for q in asked}
    cells = zip(frame.query_id, frame.response, frame.finish_reason, frame.correct, strict=True)
    return {text[i]: (said, reason == "stop", bool(right)) for i, said, reason, right in cells}


def accuracy() -> dict:
    "Accuracies that are not zero: during training, and of the saved weights."
    tmp, found = Path(tempfile.mkdtemp()), {}
    known = {q.query: q for q in tiny_queries(800, seed=3)}
    rising = {
        "lr": 1e-2,
        "warmup_ratio": 0.9,
        "held_every": 2,
    }  # To a rate at which the model breaks
    for name, more in {"at a low rate": {"lr": 2e-4}, "until it breaks": rising}.items():
        cfg = replace(solving(tmp), out=str(tmp / name.replace(" ", "-")), **more)
        result, said = watched(cfg)
        log = result.log.dropna(subset="held_accuracy")
        best = result.summary["held"]["best"]
        at = log.step.tolist().index(best["step"])
        again = evaluated(cfg, [known[q] for q in said[at]])
        right = sum(r for *_, r in again.values()) / len(again)
        found[name] = {
            "steps": log.step.tolist(),
            "accuracy during training": log.held_accuracy.tolist(),
            "step saved": best["step"],
            "last is worse": bool(log.held_accuracy.iloc[-1] < log.held_accuracy.max()),
            "of the best step": best["accuracy"],
            "evaluate, saved weights": right,
            "answers": len(again),
            "answers that differ": sum(again[q][:2] != a for q, a in said[at].items()),
        }
        print(name, found[name], flush=True)
    shutil.rmtree(tmp)
    return found


def accuracy_of_two() -> dict:
    "Accuracies of one process and of two, of the same model and of a whole run."
    tmp = Path(tempfile.mkdtemp())
    (tmp / "run.py").write_text(SCRIPT)
    cfg, found = solving(tmp, best_by="accuracy"), {}
    fields = fields_of(cfg)
    for name, more in {
        "same model": {"lr": 0.0, "n_epochs": 1, "held_every": 0},
        "run": {},
    }.items():
        logs = []
        for n in (1, 2):
            values = fields | more | {"out": tmp / f"{name[:3]}{n}"}
            launch(tmp / "run.py", [f"{k}={v}" for k, v in values.items()], n)
            logs.append(load_result(values["out"]).log.dropna(subset="held_loss"))
        one, two = logs
        apart = (one.held_loss.to_numpy() - two.held_loss.to_numpy()) / one.held_loss.to_numpy()
        found[name] = {
            "accuracy, one": one.held_accuracy.tolist(),
            "accuracy, two": two.held_accuracy.tolist(),
            "loss, relative difference": float(abs(apart).max()),
        }
    shutil.rmtree(tmp)
    return found


def sharded() -> dict:
    "Two processes, whole and in parts: what they found for the saved step against one process that looks at what was saved."
    tmp, found = Path(tempfile.mkdtemp()), {}
    (tmp / "run.py").write_text(SCRIPT)
    recipes = Path(__file__).parents[1] / "recipes"
    ways = {"one process": (1, {}), "two processes": (2, {})}
    for stage in (2, 3):
        ways[f"ZeRO-{stage}"] = (2, {"deepspeed": recipes / "deepspeed" / f"zero{stage}.json"})
    ways["FSDP2"] = (2, {"fsdp": recipes / "fsdp" / "full.json"})
    small = solving(tmp, 400, held_out=100.0, held_every=2, held_answers=40, lr=3e-3)
    for name, (n, more) in ways.items():
        cfg = replace(small, out=str(tmp / name.replace(" ", "-")))
        launch(tmp / "run.py", [f"{k}={v}" for k, v in (fields_of(cfg) | more).items()], n)
        held = load_result(cfg.out).summary["held"]
        look = replace(cfg, model=cfg.out, out=f"{cfg.out}-again", lr=0.0, n_epochs=1, held_every=0)
        again = loop.train(look, progress=False).summary["held"]["best"]
        best, last = held["best"], held["steps_planned"]
        found[name] = {
            "step saved": f"{best['step']} of {last}",
            "held-out loss": best["loss"],
            "relative difference": abs(best["loss"] - again["loss"]) / again["loss"],
            "accuracy, of the saved": [best["accuracy"], again["accuracy"]],
        }
        print(name, found[name], flush=True)
    shutil.rmtree(tmp)
    return found


def grid_child(cfg: TrainCfg, moment: str | None, tick: int, pipe: Connection) -> None:
    "A grid in a process of its own, which may kill itself, or tell when it has come to a tick."
    arm(moment, tick, pipe)
    grid.train_grid(cfg, (5e-3, 2e-2), (0, 1))


def table_of(folder: Path) -> dict:
    "The table of a grid without times."
    told = read_json(folder / "grid.json")
    for row in told["runs"].values():
        del row["seconds"]
    return told


def grids() -> dict:
    "Grids that were killed against the one that was not."
    tmp, rows = Path(tempfile.mkdtemp()), []
    cfg = recipe(tmp, n_epochs=3, held_answers=0, patience=0, save_every=4)
    started(cfg, target=grid_child)
    want, rng = table_of(tmp / "whole"), random.Random(0)
    plan = [(moment, [{"moment": moment}]) for moment in GRID_MOMENTS]
    for i in range(N_RANDOM):
        when = [{"tick": rng.randint(2, 30), "seconds": rng.uniform(0, 0.3)} for _ in "1234"]
        plan.append((f"at random, grid {i + 1}", when))
    for i, (name, when) in enumerate(plan):
        run, n_kills, done = replace(cfg, out=str(tmp / f"grid{i}")), 0, {}
        for how in when:
            n_kills += started(run, target=grid_child, **how)
            now = {p: p.stat().st_mtime_ns for p in Path(run.out).glob("*/train.json")}
            done = now | done
        if len(when) == 1 and not n_kills:
            raise RuntimeError(f"{name}: the process was not killed")
        started(run, target=grid_child)
        runs = [(n, run_differences(tmp / "whole" / n, Path(run.out) / n)) for n in want["runs"]]
        found = [f"{n}: {x}" for n, xs in runs for x in xs]
        found += ["table"] * (table_of(Path(run.out)) != want)
        found += [
            f"{p.parent.name} trained again" for p, t in done.items() if p.stat().st_mtime_ns != t
        ]
        facts = {"moment": name, "kills": n_kills, "runs finished before": len(done)}
        rows.append(facts | {"differences": ", ".join(found) or "none"})
        print(*rows[-1].values(), sep=" | ", flush=True)
    shutil.rmtree(tmp)
    return {
        "grids": len(rows),
        "runs in each": len(want["runs"]),
        "kills": sum(row["kills"] for row in rows),
        "differences": sum(row["differences"] != "none" for row in rows),
        "moments": rows,
    }


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parts = {
        "kills": kills,
        "processes": processes,
        "cost": cost,
        "grid": grids,
        "accuracy": accuracy,
        "accuracy_of_two": accuracy_of_two,
        "sharded": sharded,
    }
    run_parts(__doc__, parts, RESULTS)

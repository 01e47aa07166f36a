"""Measure runs with held-out queries: `python bench/heldout.py [kills] [processes] [cost]`.

`kills`: a run that is evaluated, stopped early and saved at its best step, killed with kill -9 in each of its moments and at
random ones, and continued each time: in how many of them the log, the chosen step or a bit of the weights differs from the run
that was never killed. `processes`: held-out loss and accuracy of two processes (gloo) against one. `cost`: CPU seconds of
evaluations beside those of the training. A Llama of 0.1 million parameters on worked sums. Writes bench/results/heldout.json.
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

from parts import run_parts

os.environ.setdefault("OMP_NUM_THREADS", "1")

from transformers.utils import logging

from dart_math_nb.data.files import write_jsonl
from dart_math_nb.testing.tiny_models import char_tokenizer, tiny_llama, worked_sums
from dart_math_nb.train import loop, watch
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


def child(cfg: TrainCfg, moment: str | None, tick: int, pipe: Connection) -> None:
    "A training in a process of its own, which may kill itself, or tell when it has come to a tick."
    if moment == HALF:
        PackTrainer._save = half_saved(PackTrainer._save)
    elif moment:
        where, name, n = MOMENTS[moment]
        setattr(where, name, dying(getattr(where, name), n))
    real, calls = PackTrainer.training_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == tick:
            pipe.send(1)
        return real(*args, **kwargs)

    PackTrainer.training_step = step
    loop.train(cfg, progress=False)


def started(cfg: TrainCfg, moment: str | None = None, tick: int = 0, seconds: float = 0.0) -> bool:
    "Run a child; True when it was killed, by itself or some time after a tick."
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=child, args=(cfg, moment, tick, there))
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


def processes() -> dict:
    "Two processes against one: the same model looked at, and a whole run."
    tmp = Path(tempfile.mkdtemp())
    (tmp / "run.py").write_text(SCRIPT)
    cfg = recipe(tmp, batch_size=4, packs_per_forward=1, save_every=0, lr=5e-3, patience=0)
    fields = {k: v for k, v in vars(cfg).items() if v != getattr(TrainCfg, k, None)}
    fields["train_set"] = cfg.train_set[0]
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


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    run_parts(__doc__, {"kills": kills, "processes": processes, "cost": cost}, RESULTS)

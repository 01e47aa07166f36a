"""Install the wheel into empty environments: the core, and each extra alone, with a small task for each.

`python bench/install.py` tries the core with this Python; `--all` tries everything, the core with each
Python 3.11 to 3.13 that it finds, which takes half an hour and downloads gigabytes; names (`plot train`)
try those. Results are kept in results/install.json, a row for each extra and Python. Extras that do not
build on a CPU are resolved only (`pip install --dry-run`).
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/install.json"
TORCH = ["torch==2.13.0"]  # the CPU build, installed first where an extra needs torch
ROWS = [
    {"problem": f"{i}*{i}?", "answer": i * i, "response": f"\\boxed{{{i * i}}}"} for i in range(9)
]
DICE = "sample --queries r.jsonl --engine simulated --out run --strategy vrt --k 4"
SERVED = """
import asyncio
from dart_math_nb import make_engine
engine = make_engine('openai', 'm', base_urls=['http://127.0.0.1:9/v1'], attempts=1)
try:
    asyncio.run(engine.open())
except ConnectionError as e:
    print('refused as it should be')
"""
TASKS = {  # Extra -> what is installed first, words of dart-math, then code; each must succeed
    "": ([], ["grade r.jsonl --out graded", DICE, "curate run"], "import dart_math_nb.grade"),
    "plot": ([], [DICE, "report run"], "import matplotlib, jinja2"),
    "train": (
        TORCH,
        [],
        "from dart_math_nb.train.loop import train; from dart_math_nb.demo import tiny",
    ),
    "hub": ([], [], "import datasets, huggingface_hub, dart_math_nb.data.hub"),
    "lora": (TORCH, [], "import peft"),
    "track": ([], [], "import tensorboard"),
    "remote": ([], [DICE, "push run copy", "pull copy again"], "import fsspec"),
    "openai": ([], [], SERVED),
    "curate": ([], [], "from dart_math_nb.sets import near_copies; near_copies(['a b', 'a b'])"),
    "embed": (TORCH, [], "import sentence_transformers, dart_math_nb.sets.paraphrase"),
    "ray": ([], [], "import ray"),
    "deepspeed": (
        [*TORCH, "setuptools", "wheel", "numpy"],
        [],
        "import importlib.metadata as m; m.version('deepspeed')",
    ),
}
RESOLVED = {
    "vllm": [],
    "flash-attn": [],
    "liger": [],
    "dev": [],
}  # Extras of which pip only says what it would take


def call(words: list, folder: Path, limit: float = 900) -> subprocess.CompletedProcess:
    "Run a command away from this project."
    skip = ("PYTHONPATH", "VIRTUAL_ENV")
    env = {k: v for k, v in os.environ.items() if k not in skip} | {"DS_BUILD_OPS": "0"}
    words = [str(w) for w in words]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=limit)


def pythons() -> list[str]:
    "Python 3.11 to 3.13 where they are at hand."
    homes = Path.home() / ".pyenv/versions"
    found = {}
    for n in (11, 12, 13):
        places = [shutil.which(f"python3.{n}"), *sorted(homes.glob(f"3.{n}.*/bin/python"))]
        for place in filter(None, places):
            if call([place, "-c", "import venv"], Path("/")).returncode == 0:
                found[n] = str(place)
    return list(found.values())


PIP = "env/bin/python -m pip install -q --disable-pip-version-check --no-compile".split()


def tail(done: subprocess.CompletedProcess, secret: Path) -> str:
    "The last error that a command printed, else its last line, without the folder it ran in."
    lines = (done.stdout + "\n" + done.stderr).strip().splitlines()
    lines = [s for s in lines if re.search(r"\w*Error: ", s)] or lines  # such as "ImportError: ..."
    return (lines[-1] if lines else "").strip().replace(str(secret), ".")[:300]


def install(extra: str, python: str, wheel: Path) -> dict:
    "Install one extra into an empty environment, and do its tasks there."
    first, stages, code = TASKS[extra]
    row = {"extra": extra or "core", "python": call([python, "-V"], Path("/")).stdout.split()[1]}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
        call([python, "-m", "venv", "env"], tmp)
        start = time.perf_counter()
        steps = [[*PIP, *first]] if first else []
        isolated = ["--no-build-isolation"] if extra == "deepspeed" else []
        steps += [[*PIP, *isolated, f"{wheel}[{extra}]" if extra else str(wheel)]]
        for step in steps:
            if (done := call(step, tmp)).returncode:
                return row | {"installed": False, "why": tail(done, tmp)}
        row |= {"installed": True, "seconds": round(time.perf_counter() - start)}
        steps = [["env/bin/dart-math", *stage.split()] for stage in stages]
        steps.append(["env/bin/python", "-c", code])
        failed = [tail(d, tmp) for step in steps if (d := call(step, tmp)).returncode]
        listed = json.loads(
            call(["env/bin/python", "-m", "pip", "list", "--format=json"], tmp).stdout
        )
        size = sum(p.stat().st_size for p in (tmp / "env").rglob("*") if p.is_file())
        row |= {"packages": len(listed), "megabytes": round(size / 1e6), "tasks": len(steps)}
        return row | {"failed": failed}


def resolve(extra: str, python: str, wheel: Path) -> dict:
    "What pip would install for an extra."
    row = {"extra": extra, "python": call([python, "-V"], Path("/")).stdout.split()[1]}
    with tempfile.TemporaryDirectory() as tmp:
        call([python, "-m", "venv", "env"], Path(tmp))
        words = [*PIP, "--dry-run", "--report", "report.json", f"{wheel}[{extra}]"]
        try:
            done = call(words, Path(tmp))
        except subprocess.TimeoutExpired:
            return row | {"resolved": False, "why": "no answer in 15 minutes"}
        if done.returncode:
            return row | {"resolved": False, "why": tail(done, Path(tmp))}
        found = json.loads(Path(tmp, "report.json").read_text())["install"]
        names = {f["metadata"]["name"].lower(): f["metadata"]["version"] for f in found}
        return row | {"resolved": True, "packages": len(names), "version": names.get(extra)}


def keep(row: dict) -> None:
    "Put a row into the results, in the place of an older one."
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {(r["extra"], r["python"]): r for r in [*old, row]}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    RESULTS.write_text(
        json.dumps({"machine": machine, "rows": list(rows.values())}, indent=1) + "\n"
    )
    print(json.dumps(row), flush=True)


def main() -> None:
    "Build the wheel, try what was asked for, keep the results."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", help="core, or names of extras")
    parser.add_argument("--all", action="store_true", help="everything, with each Python")
    parser.add_argument("--wheel", type=Path, help="a wheel that is built already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        wheel = args.wheel and args.wheel.resolve()
        if wheel is None:
            done = call(
                [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp, ROOT],
                Path(tmp),
            )
            if done.returncode:
                sys.exit(done.stderr)
            wheel = next(Path(tmp).glob("*.whl"))
        names = ["core", *filter(None, TASKS), *RESOLVED] if args.all else args.extras or ["core"]
        for name in names:
            every = pythons() if args.all and name == "core" else [sys.executable]
            for python in every:
                known = "" if name == "core" else name
                keep((resolve if name in RESOLVED else install)(known, python, wheel))


if __name__ == "__main__":
    main()

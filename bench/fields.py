"""Files of one row with the common field names, through every command that reads responses.

Counts refusals: python bench/fields.py [FOLDER], with another checkout of this project to compare
with, such as one of before there was one list of names; without it, the stored comparison stays.
Writes bench/results/fields.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from parts import command_line

OUT = Path(__file__).parent / "results" / "fields.json"
FILES = {
    "problem/answer/response": {"problem": "1+1?", "answer": "2", "response": "\\boxed{2}"},
    "Problem/Answer/response": {"Problem": "1+1?", "Answer": 2, "response": "\\boxed{2}"},
    "question/gt/generation": {"question": "1+1?", "gt": "2", "generation": "\\boxed{2}"},
    "query/ref_ans/output": {"query": "1+1?", "ref_ans": "2", "output": "\\boxed{2}"},
    "prompt/solution/completion": {
        "prompt": "1+1?",
        "solution": "1+1 is \\boxed{2}.",
        "completion": "\\boxed{2}",
    },
}
MORE = {
    "a list of responses in a row": {"query": "1+1?", "ref": "2", "resps": ["\\boxed{2}", "3"]},
    "samples of lm-evaluation-harness": {
        "doc": {"question": "1+1?", "answer": "Two.\n#### 2"},
        "target": "Two.\n#### 2",
        "resps": [["\\boxed{2}", "3"]],
        "filter": "none",
    },
}
CHILD = r"""
import contextlib, importlib, inspect, io, json, sys

def module(*names):
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module("dart_math_nb." + name)
    raise ModuleNotFoundError(names)

def command(words):
    main, err = module("app.cli", "cli").main, io.StringIO()
    sys.argv = ["dart-math", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            code = main(words) if inspect.signature(main).parameters else main()
        except SystemExit as e:
            code = e.code
    return "" if not code else err.getvalue().strip().splitlines()[-1]

def learn(file):
    rows, cfg = module("train.rows", "train.recipe", "recipe"), module("train.recipe", "recipe")
    try:
        rows.read_train_rows(cfg.TrainCfg("m", "o", train_set=(file,)))
    except (ValueError, OSError) as e:
        return str(e)
    return ""

for name, file in json.loads(sys.argv[1]).items():
    out, replay = file.removesuffix(".jsonl"), ["--engine", "replay", "--responses", file]
    said = {
        "grade": command(["grade", file, "--out", out + "-graded", "--n-procs", "1"]),
        "import": command(["import", file, "--out", out + "-imported", "--n-procs", "1"]),
        "sample": command(["sample", *replay, "--out", out + "-run", "--strategy", "vrt", "--k", "1"]),
        "evaluate": command(["evaluate", *replay, "--out", out + "-eval"]),
        "train": learn(file),
    }
    for stage, why in said.items():
        print("RESULT " + json.dumps([name, stage, why.replace(file, "FILE")[:160]]))
"""


def refusals(package: Path) -> list[list[str]]:
    "File, stage and error (empty for none) of each try with one checkout."
    with tempfile.TemporaryDirectory() as tmp:
        paths = {}
        for i, (name, row) in enumerate((FILES | MORE).items()):
            paths[name] = str(Path(tmp, f"file{i}.jsonl"))
            Path(paths[name]).write_text(json.dumps(row) + "\n")
        run = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(paths)],
            env=os.environ | {"PYTHONPATH": str(package)},
            cwd=tmp,
            capture_output=True,
            text=True,
        )
    lines = [line[7:] for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if len(lines) < 5 * len(paths):
        raise SystemExit(run.stderr)
    return [json.loads(line) for line in lines]


def main(before: Path | None) -> None:
    "Measure, print and store."
    checkouts = {"now": Path(__file__).resolve().parents[1]}
    checkouts |= {"before": before} if before else {}
    result = json.loads(OUT.read_text()) if OUT.exists() else {}
    result["date"] = date.today().isoformat()
    for when, package in checkouts.items():
        found = refusals(package)
        asked = [f for f in found if f[0] in FILES and f[1] in ("grade", "import", "sample")]
        result[when] = {
            "five files through grade, import and replay": f"{sum(bool(f[2]) for f in asked)} of {len(asked)} refused",
            "all files through all stages": f"{sum(bool(f[2]) for f in found)} of {len(found)} refused",
            "refusals": [
                dict(zip(("file", "stage", "why"), f, strict=True)) for f in found if f[2]
            ],
        }
        print(when, json.dumps(result[when], indent=1))
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a checkout to compare with")
    main(parser.parse_args().folder)

"""Build the source archive and the wheel, and try the wheel with the core alone: `python tools/package.py [--out dist]`.

The wheel is built from the archive, so both are proved. It is installed into an empty environment with
nothing but what it requires, away from this folder, and there the command grades a file of responses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "torch transformers matplotlib jinja2 yaml datasets aiohttp fsspec".split()  # not the core
ROWS = [  # problem, reference, response, what the grader should say
    ("6*7?", 42, "It is \\boxed{42}.", True),
    ("1/3+1/6?", "1/2", "The answer is 0.5.", True),
    ("2+2?", 4, "I cannot say.", False),
]


def run(*words, cwd: Path | None = None) -> str:
    "What a command printed; SystemExit with its last lines when it fails."
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        sys.exit("\n".join([f"package: {' '.join(map(str, words))} failed", *lines]))
    return done.stdout


def empty_python(folder: Path) -> Path:
    "The interpreter of a new environment without packages."
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin/python"


def pip(python: Path, *words) -> None:
    "Install, with the versions of constraints.txt."
    quiet = ("-q", "--disable-pip-version-check", "--no-compile", "-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", *quiet, *words)


def build(work: Path, out: Path) -> Path:
    "Build both files into `out`; the path of the wheel."
    python = empty_python(work / "builder")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "build")
    text = run(python, "-m", "build", "--outdir", out, ROOT)
    built = text.strip().splitlines()[-1]
    print(f"package: {built}")
    return max(out.glob("*.whl"), key=lambda p: p.stat().st_mtime)


def try_wheel(work: Path, wheel: Path) -> None:
    "Grade three responses with the wheel and the core alone."
    python, there = empty_python(work / "user"), work / "elsewhere"
    pip(python, wheel)
    there.mkdir()
    rows = [{"problem": p, "answer": a, "response": r} for p, a, r, _ in ROWS]
    (there / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = python.with_name("dart-math")
    print("package:", run(command, "--version", cwd=there).strip())
    print(run(command, "grade", "r.jsonl", "--out", "graded", cwd=there).strip())
    code = "import json, sys, gzip; from importlib.util import find_spec; "
    code += "rows = map(json.loads, gzip.open('graded/verdicts.jsonl.gz', 'rt')); "
    code += (
        f"print(json.dumps([[r['correct'] for r in rows], [n for n in {EXTRAS} if find_spec(n)]]))"
    )
    verdicts, found = json.loads(run(python, "-c", code, cwd=there))
    if verdicts != [row[3] for row in ROWS] or found:
        sys.exit(f"package: verdicts {verdicts}, packages beyond the core {found}")
    print("package: the wheel grades with the core alone")


def main() -> None:
    "Build and try."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for both files")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as tmp:
        try_wheel(Path(tmp), build(Path(tmp), out))


if __name__ == "__main__":
    main()

"""What the command costs before it does anything: CPU seconds, user and system, of whole processes.

`python bench/command.py [--old FOLDER]`; with the folder of another checkout both are measured in turns.
The smallest of several runs counts, because other work on the machine only adds. Keeps results/command.json.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/command.json"
SCRIPT = "import sys; from dart_math_nb.{module} import main; sys.argv[0] = 'dart-math'; sys.exit(main())"
HEAVY = "pandas torch matplotlib transformers statsmodels".split()
CASES = {  # What is measured -> words of the command
    "--version": ["--version"],
    "--help": ["--help"],
    "train nothing.yaml": ["train", "nothing.yaml"],
    "grade --help": ["grade", "--help"],
    "sample --help": ["sample", "--help"],
}
GRADER = {  # Name of the import, now and in the flat package of before
    "new": "from dart_math_nb import grade_response",
    "old": "from dart_math_nb.grade import grade_response",
}


def cpu_seconds(words: list[str], folder: Path, n: int = 5) -> float:
    "The smallest CPU time of n processes that import the package from a folder."
    env = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(n):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, env=env, capture_output=True, cwd=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(min(found), 3)


def heavy_modules(code: str, folder: Path) -> list[str]:
    "Which heavy packages an import loads."
    words = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules.keys() & set({HEAVY}))"]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=folder, check=True)
    return sorted(done.stdout.split())


def measure(name: str, folder: Path) -> dict:
    "All cases of one checkout."
    module = "app.cli" if (folder / "dart_math_nb/app").exists() else "cli"
    script = SCRIPT.format(module=module)
    found = {}
    for case, words in CASES.items():
        found[case] = cpu_seconds([sys.executable, "-c", script, *words], folder)
    found["grade_response"] = cpu_seconds([sys.executable, "-c", GRADER[name]], folder)
    return found | {"grade_response loads": heavy_modules(GRADER[name], folder)}


def main() -> None:
    "Measure, print and keep."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, help="another checkout, from before")
    old = parser.parse_args().old
    rows = {"old": measure("old", old.resolve())} if old else {}
    rows["new"] = measure("new", ROOT)
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    if not old and RESULTS.exists() and "old" in (kept := json.loads(RESULTS.read_text())):
        rows = {"old": kept["old"], **rows}
    found |= rows
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

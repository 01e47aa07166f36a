"""Send hostile files and folders through the commands: `python bench/fuzz_readers.py [--seconds S] [--seed N]`.

Valid files of every format and the folder of a whole run are changed by `testing.hostile`, thousands of times, and given to
the real commands in this process. Every error has to be one that a person can mend, told in one line without control
characters; nothing outside the folder of a case may change, and nothing may hang. S (600) seconds of CPU; a worker process
that crashes is started again behind the case that crashed it. Writes `bench/results/fuzz_readers.json`; with `--check` it
writes nothing, and exits with 1 when it found something. `--only N` repeats case N and shows what was said.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from datetime import date
from pathlib import Path

SCRIPT = Path(__file__).resolve()
RESULTS = SCRIPT.parent / "results" / "fuzz_readers.json"
PATIENCE = 240  # Seconds for one case, on a machine that may do other things
MEMORY = 12 * 2**30  # Bytes of address space of a worker
ROOM = ("--k", 2, "--max-trials", 16, "--strategy", "uniform", "--n-pilot", 4)
DICE = ("--engine", "simulated", *ROOM)
POOL_NAMES = (
    "pool/.lock-0",
    "pool/.lock-import",
    "pool/journal-0-000001.jsonl",
    "pool/part-0-000000.parquet",
)
POOL_NAMES += (
    "pool/quarantine",
    "pool/sources",
    "pool/imports",
    "pool/status-0.json",
    ".lock-enter",
    "config.json",
)
POOL_NAMES += ("queries.jsonl", "report", "eval", "train_set", "sample", "pool")
FILES = {  # Command -> valid files, words of the command, how often
    "grade": (
        (
            "r.jsonl",
            "r.jsonl.gz",
            "r.jsonl.zst",
            "r.json",
            "r.csv",
            "r.parquet",
            "r.arrow",
            "lists.jsonl",
        ),
        "grade FILE --out OUT",
        4,
    ),
    "grade to Parquet": (("r.jsonl", "r.parquet"), "grade FILE --out OUT --parquet --by model", 3),
    "import": (("r.jsonl", "r.jsonl.gz", "r.parquet", "lists.jsonl"), "import FILE --out OUT", 3),
    "import with labels": (("r.jsonl", "r.parquet"), "import FILE --out OUT --labels file", 1),
    "sample": (
        ("q.jsonl", "q.jsonl.gz", "q.json", "q.csv", "q.tsv", "q.parquet", "q.arrow"),
        "sample --queries FILE --out OUT DICE",
        3,
    ),
    "replay": (
        ("r.jsonl", "lists.jsonl", "r.parquet"),
        "sample --engine replay --responses FILE --out OUT ROOM",
        2,
    ),
    "evaluate": (
        ("q.jsonl", "q.parquet"),
        "evaluate --benchmarks FILE --engine simulated --out OUT",
        2,
    ),
    "decontaminate": (
        ("d.jsonl", "d.parquet"),
        "curate RUN --source-id SOURCE --strategy uniform --k 1 --partial --decontaminate FILE --replace",
        1,
    ),
    "run --plan": (("job.yaml",), "run FILE --plan --set out=OUT", 3),
    "run": (("job.yaml",), "run FILE --set out=OUT", 1),
    "template": (("template.yaml", "template.json"), "TEMPLATE", 1),
    "recipe": (("recipe.yaml",), "RECIPE", 1),
    "rows to train on": (("r.jsonl", "r.parquet"), "ROWS", 1),
}
FOLDERS = {  # Command on a changed run -> words, how often
    "check": ("check RUN", 4),
    "check --repair": ("check RUN --repair", 2),
    "status": ("status RUN", 2),
    "show": ("show RUN", 2),
    "show --query": ("show RUN --query 1+0=? --json", 1),
    "curate": ("curate RUN --source-id SOURCE --strategy uniform --k 2 --partial --replace", 3),
    "export": ("export RUN --out OUT.jsonl", 2),
    "export --counts": ("export RUN --counts --out OUT.jsonl", 1),
    "export a train set": ("export RUN/train_set/uniform --out OUT.jsonl", 1),
    "report": ("report RUN", 1),
    "sample again": ("sample --queries BASE/q.jsonl --out RUN DICE", 4),
    "import more": ("import BASE/more.jsonl --out RUN", 2),
    "evaluate again": ("evaluate --benchmarks BASE/q.jsonl --engine simulated --out RUN", 2),
    "push": ("push RUN file://OUT", 1),
    "pull": ("pull file://RUN/pool OUT", 2),
    "train set": ("SET RUN", 1),
}


def command(words: list[str]) -> int:
    "What `dart-math` does."
    from dart_math_nb.app.cli import main

    return main(words)


def function(name: str, file: Path) -> int:
    "A reader whose command would load a model."
    from dart_math_nb.app.cli import tell
    from dart_math_nb.data.responses import training_rows
    from dart_math_nb.prompts.templates import get_template
    from dart_math_nb.sets.card import read_train_set
    from dart_math_nb.train.recipe import read_recipe

    read = {
        "TEMPLATE": get_template,
        "RECIPE": read_recipe,
        "ROWS": lambda path: list(training_rows(path)),
        "SET": lambda run: read_train_set(run / "train_set/uniform"),
    }
    try:
        read[name](file)
    except Exception as e:
        return tell(name.lower(), e)
    return 0


def make_base(base: Path) -> None:
    "Valid files, and a run with everything that commands leave in one."
    from dart_math_nb.data.files import write_json, write_jsonl, write_parquet
    from dart_math_nb.store.pool import open_pool

    ops = [f"{i % 7}+{i // 7}" for i in range(24)]
    queries = [
        {
            "problem": f"{t}=?",
            "answer": str(sum_of(t)),
            "level": i % 3 + 1,
            "domain": "sum",
            "id": i,
        }
        for i, t in enumerate(ops)
    ]
    responses = [
        q
        | {
            "response": f"It is \\boxed{{{int(q['answer']) + j}}}.",
            "model": f"m{j}",
            "correct": j == 0,
        }
        | {"finish_reason": "stop", "n_tokens": 7, "abs_tol": 0.0, "trial": j, "score": 0.5}
        for q in queries
        for j in range(2)
    ]
    lists = [q | {"responses": ["\\boxed{1}", None, f"\\boxed{{{q['answer']}}}"]} for q in queries]
    for name, rows in {
        "q": queries,
        "r": responses,
        "lists": lists,
        "more": responses[:9],
        "d": queries[:9],
    }.items():
        write_jsonl(base / f"{name}.jsonl", rows)
        write_jsonl(base / f"{name}.jsonl.gz", rows)
    import pyarrow as pa
    import yaml

    for name, rows in {"q": queries, "r": responses, "d": queries[:9]}.items():
        table = pa.Table.from_pylist(rows)
        write_parquet(base / f"{name}.parquet", table)
        with pa.OSFile(str(base / f"{name}.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)
        write_json(base / f"{name}.json", rows)
        for ending, sign in ((".csv", ","), (".tsv", "\t")):
            with open(base / f"{name}{ending}", "w", newline="") as file:
                lines = csv.DictWriter(file, list(rows[0]), delimiter=sign)
                lines.writeheader()
                lines.writerows(rows)
        packed = pa.compress((base / f"{name}.jsonl").read_bytes(), "zstd", asbytes=True)
        (base / f"{name}.jsonl.zst").write_bytes(packed)
    parts = {
        "system": "",
        "query_prefix": "Q: ",
        "query_suffix": "\n",
        "response_prefix": "A:",
        "delimiter": "\n",
    }
    write_json(base / "template.json", parts)
    (base / "template.yaml").write_text(
        "".join(f"{k}: {json.dumps(v)}\n" for k, v in parts.items())
    )
    dice = {"engine": "simulated", "k": 2, "strategy": "uniform", "max_trials": 16, "n_pilot": 4}
    job = {
        "out": "job",
        "queries": [{"source": "q.jsonl", "n": 8}],
        "sample": dice,
        "curate": {"partial": True},
    }
    (base / "job.yaml").write_text(yaml.safe_dump(job))
    (base / "recipe.yaml").write_text(
        "model: base\nout: runs/x\nlr: 1.0e-5\nn_epochs: 2\ntrain_set: [a, b]\n"
    )
    run = base / "run"
    draw = list(map(str, ["sample", "--queries", base / "q.jsonl", "--out", run, *DICE]))
    if code := command(draw):
        raise SystemExit(f"{draw}: exit code {code}")
    for words in (
        ["import", base / "r.jsonl", "--out", run],
        [
            "curate",
            run,
            "--source-id",
            source_of(run),
            "--strategy",
            "uniform",
            "--k",
            2,
            "--partial",
        ],
        ["evaluate", "--benchmarks", base / "q.jsonl", "--engine", "simulated", "--out", run],
        ["report", run],
    ):
        if code := command(list(map(str, words))):
            raise SystemExit(f"{words}: exit code {code}")
    with open_pool(run / "pool", "0") as pool:
        pool.roll()
    if code := command(draw):
        raise SystemExit(f"the run does not go on: exit code {code}")


def source_of(run: Path) -> str:
    "Id of the source that was drawn from, not imported."
    imported = {p.stem for p in (run / "pool/imports").glob("*")}
    known = [
        json.loads(p.read_text()) | {"id": p.stem} for p in (run / "pool/sources").glob("*.json")
    ]
    return next(s["id"] for s in known if s["id"] not in imported and s["model"] == "simulated")


def sum_of(text: str) -> int:
    "The sum of `3+2`."
    return sum(map(int, text.split("+")))


def state_of(folder: Path) -> dict[str, bytes]:
    "Names and contents of what nobody may touch."
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


class TooSlow(BaseException):
    "A case that does not end."


def stop(*_) -> None:
    raise TooSlow


def one_case(seed: int, base: Path, room: Path, unchanged: str | None = None) -> dict:
    "Change something, run a command over it, and say what came of it; with the name of a command nothing is changed."
    from dart_math_nb.testing.hostile import mutated_file, mutated_folder

    rnd = random.Random(seed)
    case, outside = room / "case", room / "outside"
    for folder in (case, outside):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    (outside / "mine.txt").write_text("mine")
    shutil.copy(base / "q.jsonl", case)
    os.chdir(case)
    before = state_of(outside)
    table = {**{k: v[-1] for k, v in FILES.items()}, **{k: v[-1] for k, v in FOLDERS.items()}}
    name = unchanged or rnd.choices(list(table), list(table.values()))[0]
    target, hows = case / "run", []
    if name in FILES:
        files, words, _ = FILES[name]
        target = case / rnd.choice(files)
        shutil.copyfile(base / target.name, target)
        if "RUN" in words:
            shutil.copytree(base / "run", case / "run")
        for _ in range(0 if unchanged else rnd.choice([1, 1, 1, 2])):
            with contextlib.suppress(Exception):  # the first change left nothing to change
                hows.append(mutated_file(rnd, target))
    else:
        words, _ = FOLDERS[name]
        shutil.copytree(base / "run", target)
        if not unchanged:
            hows.append(mutated_folder(rnd, target, outside, POOL_NAMES))
    places = {
        "FILE": target,
        "RUN": case / "run",
        "OUT": case / "out",
        "BASE": base,
        "SOURCE": source_of(base / "run"),
    }
    argv = []
    for word in words.split():
        for key, place in places.items():
            word = (
                word.replace(key, str(place))
                if key in word.replace("/", " ").replace(".", " ").replace(":", " ").split()
                else word
            )
        argv += map(str, {"DICE": DICE, "ROOM": ROOM}.get(word, [word]))
    found = {"seed": seed, "command": name, "how": "; ".join(hows), "argv": argv}
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            special = words.split()[0] in ("TEMPLATE", "RECIPE", "ROWS", "SET")
            code = function(words.split()[0], target) if special else command(argv)
    except BaseException as e:
        code, found["bug"] = (
            1,
            traceback.format_exc()[-3000:] if not isinstance(e, TooSlow) else "does not end",
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    said = err.getvalue().rsplit("dart-math ", 1)[-1] if code == 2 else ""
    found |= {"code": code, "said": said.strip(), "seconds": time.process_time() - start}
    if code not in (0, 2) and "bug" not in found:
        found["bug"] = err.getvalue()[-9000:]
    elif any(not c.isprintable() for c in said.rstrip("\n")):
        found["bug"] = f"control characters, or two lines: {said!r}"
    elif state_of(outside) != before:
        found["bug"] = "something outside has changed"
    return found


def prove(base: Path, room: Path) -> None:
    "Every command reads what nobody changed; else its refusals would say nothing."
    for name in (*FILES, *FOLDERS):
        case = one_case(0, base, room, unchanged=name)
        if case["code"] or "bug" in case:
            raise SystemExit(f"{name}, unchanged: {case}")


def work(first: int, base: Path, room: Path) -> None:
    "Cases without end, a line of JSON each."
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, stop)
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seed = first
    while True:
        print(json.dumps({"begins": seed}), file=lines, flush=True)
        print(json.dumps(one_case(seed, base, room)), file=lines, flush=True)
        seed += 1


def where_of(bug: str) -> str:
    "The last line of the package in a traceback, and the error."
    own = [s.strip() for s in bug.splitlines() if "dart_math_nb/" in s and "line " in s]
    last = [s for s in bug.strip().splitlines() if s and not s.startswith("dart-math")]
    place = own[-1].partition("dart_math_nb/")[2] if own else ""
    return f"{place}: {last[-1][:150] if last else ''}"


def run_all(seconds: float, first: int, base: Path, room: Path) -> list[dict]:
    "Every case within a budget of CPU time."
    found, spent, seed = [], 0.0, first
    while spent < seconds:
        words = [sys.executable, str(SCRIPT), "--worker", str(seed), str(base), str(room)]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as worker:
            for line in worker.stdout:
                case = json.loads(line)
                if "begins" in case:
                    seed = case["begins"]
                    continue
                found.append(case)
                spent += case["seconds"]
                if "bug" in case:
                    print(
                        f"case {seed}, {case['command']}, {case['how']}: {where_of(case['bug'])}",
                        flush=True,
                    )
                if spent >= seconds:
                    worker.kill()
        if spent < seconds:
            bug = f"the process ended with {worker.returncode}"
            print(f"case {seed}: {bug}", flush=True)
            found.append(
                {
                    "seed": seed,
                    "command": "?",
                    "how": "",
                    "code": 1,
                    "bug": bug,
                    "seconds": 1.0,
                    "said": "",
                }
            )
            spent, seed = spent + 1.0, seed + 1
    return found


def summary(found: list[dict]) -> dict:
    "What the file of results says."
    kinds = {}
    for case in found:
        row = kinds.setdefault(case["command"], Counter())
        row["bug" if "bug" in case else "read" if case["code"] == 0 else "refused"] += 1
    slow = max(found, key=lambda c: c["seconds"])
    return {
        "measured": date.today().isoformat(),
        "python": platform.python_version(),
        "cpu_seconds": round(sum(c["seconds"] for c in found)),
        "n": len(found),
        "n_refused": sum(c["code"] == 2 and "bug" not in c for c in found),
        "n_bugs": sum("bug" in c for c in found),
        "n_ways": len({c["how"] for c in found}),
        "slowest": {
            "seconds": round(slow["seconds"], 1),
            "command": slow["command"],
            "how": slow["how"],
        },
        "by_command": {k: dict(kinds[k]) for k in sorted(kinds)},
        "bugs": dict(Counter(where_of(c["bug"]) for c in found if "bug" in c).most_common()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", type=int)
    parser.add_argument("--worker", nargs=3)
    args = parser.parse_args()
    if args.worker:
        work(int(args.worker[0]), *map(Path, args.worker[1:]))
    with tempfile.TemporaryDirectory() as tmp:
        base, room = Path(tmp) / "base", Path(tmp) / "room"
        base.mkdir()
        room.mkdir()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_base(base)
        if args.only is not None:
            signal.signal(signal.SIGALRM, stop)
            case = one_case(args.only, base, room)
            print(
                json.dumps({k: v for k, v in case.items() if k != "bug"}, indent=1),
                case.get("bug", ""),
                sep="\n",
            )
            return "bug" in case
        signal.signal(signal.SIGALRM, stop)
        prove(base, room)
        os.chdir(room)
        found = run_all(args.seconds, args.seed, base, room)
    report = summary(found)
    print(
        f"{report['n']} cases, {report['n_refused']} refused in one line, {report['n_bugs']} bugs"
    )
    for name, row in report["by_command"].items():
        print(f"{name:20} {row}")
    if not args.check:
        RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return bool(report["n_bugs"])


if __name__ == "__main__":
    raise SystemExit(main())

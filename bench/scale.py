"""Seconds and memory of each stage by the size of a pool: `nice python bench/scale.py [long short]`.

Samples, resumes, asks for the status of, checks and curates a run of 250,000, 500,000 and 1,000,000 draws of 2,000
characters (`short`) and of 25,000, 50,000 and 100,000 draws of 20,000 (`long`), each stage as the command does it,
in a process of its own. The engine is a stand-in that gives texts at once, so what is measured is everything but
the model: the loop, the grader, the journal, the parts. `resume` finds every draw there. Writes
`bench/results/scale.json` after each size; a kind that is not named keeps its rows.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from parts import named_parts

RESULTS = Path(__file__).parent / "results" / "scale.json"
SIZES = {
    "short": (2_000, (250_000, 500_000, 1_000_000)),
    "long": (20_000, (25_000, 50_000, 100_000)),
}
K = 50  # Draws of each query
ENGINE = """
import random, zlib
from dart_math_nb import register
from dart_math_nb.engines.protocol import Completion

WORDS = "so we add the first number to the second and find that it is then the sum times carry one".split()

@register("engine", "texts")
class Texts:
    max_in_flight = 256

    def __init__(self, n_chars: int = 2000):  # Characters of a text
        dice, self.n_chars = random.Random(0), n_chars
        self.text = " ".join(
            f"{dice.choice(WORDS)} {dice.randrange(10**6)}" for _ in range(n_chars // 4)
        )

    async def draw(self, draw, params):
        number, p = int(draw.prompt.split("+")[0]), zlib.crc32(draw.query_id.encode()) / 2**32
        ans = 2 * number + (draw.seed % 10_000 >= 10_000 * p)
        at, end = draw.seed % self.n_chars, f" The answer is \\\\boxed{{{ans}}}."
        return Completion(self.text[at : at + self.n_chars - len(end)] + end, "stop", self.n_chars // 4)

    async def close(self):
        pass
"""
PROBE = """import json, os, sys, time
from dart_math_nb.app.cli import main
start = time.perf_counter(); rc = main(sys.argv[2:]); wall = time.perf_counter() - start
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
cpu = sum(os.times()[:4])  # with that of processes which it started
json.dump([rc or 0, wall, cpu, peak], open(sys.argv[1], "w"))"""


def measure(folder: Path, *words: object) -> dict:
    "Seconds, seconds of CPU and peak memory of a command, in a process of its own."
    told, env = folder / "told.json", os.environ | {"OMP_NUM_THREADS": "1"}
    with open(folder / "log", "ab") as log:
        code = [sys.executable, "-c", PROBE, told, *map(str, words)]
        subprocess.run(code, env=env, stdout=log, stderr=log, check=True)
    rc, wall, cpu, peak = json.loads(told.read_text())
    if rc:
        raise RuntimeError(f"dart-math {words[0]}: {(folder / 'log').read_text()[-800:]}")
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak)}


def one_size(n_chars: int, n_draws: int) -> list[dict]:
    "All stages at one size."
    with tempfile.TemporaryDirectory() as tmp:
        folder, run, rows = Path(tmp), Path(tmp) / "run", []
        (folder / "texts.py").write_text(ENGINE)
        lines = [
            json.dumps({"query": f"{i}+{i}=?", "ref_ans": str(2 * i)}) for i in range(n_draws // K)
        ]
        (folder / "sums.jsonl").write_text("\n".join(lines) + "\n")
        ask = [
            "sample",
            "--use",
            folder / "texts.py",
            "--queries",
            folder / "sums.jsonl",
            "--engine",
            "texts",
        ]
        ask += ["--option", f"n_chars={n_chars}", "--strategy", "vrt", "--k", K, "--out", run]
        stages = {"sample": ask, "resume": ask, "status": ["status", run], "check": ["check", run]}
        for stage, words in (stages | {"curate": ["curate", run]}).items():
            row = {"stage": stage, "chars": n_chars, "draws": n_draws} | measure(folder, *words)
            row["us_per_draw"] = round(1e6 * row["cpu_s"] / n_draws, 1)
            rows.append(row)
            print(row, flush=True)
        card = json.loads((run / "train_set" / "vrt" / "card.json").read_text())
        size = sum(f.stat().st_size for f in (run / "pool").glob("part-*")) / 1e6
        return [r | {"set_rows": card["rows"], "parts_mb": round(size)} for r in rows]


def keep(rows: list[dict]) -> None:
    "Write the rows of a size beside those of the others."
    size = (rows[0]["chars"], rows[0]["draws"])
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    mine = [r for r in kept if (r["chars"], r["draws"]) != size] + rows
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    out = {"date": str(date.today()), "machine": machine, "python": platform.python_version()}
    out["rows"] = sorted(mine, key=lambda r: (r["chars"], r["draws"]))
    RESULTS.write_text(json.dumps(out, indent=1) + "\n")


def main() -> None:
    for kind in named_parts(__doc__, SIZES):
        n_chars, sizes = SIZES[kind]
        for n_draws in sizes:
            keep(one_size(n_chars, n_draws))


if __name__ == "__main__":
    main()

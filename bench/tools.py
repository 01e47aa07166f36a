"""Reasoning with tools: prompts byte by byte, kills, and what plain responses pay.

python bench/tools.py: `prompts` replays the turns of 200 real tool-integrated responses and compares each prompt that the
engine is asked with those of the four originals, written again here from their code; `kill` ends a run with programs
(SIGKILL) at 20 random moments and compares its set with that of a run left alone; `calls` counts draws a second with
programs and without. Writes bench/results/tools.json; python bench/tools.py PART does one part. The data folder is needed
for `prompts`, bubblewrap for the others.
"""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from parts import run_parts

from dart_math_nb.data.files import write_jsonl
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.segments import count_notes, drawn_turns
from dart_math_nb.engines.protocol import Completion, Draw, SampleParams, run_async
from dart_math_nb.engines.tools import ToolEngine
from dart_math_nb.prompts.templates import get_template, render
from dart_math_nb.prompts.tool_forms import tool_form
from dart_math_nb.sandbox.protocol import Limits, Outcome
from dart_math_nb.store.pool import read_pool

N = 200


class Stored:
    "The turns of one response, and the outputs that stood behind them."

    max_in_flight = 1
    limits = Limits()

    def __init__(self, turns, outputs):
        self.turns, self.outputs, self.asked = turns, outputs, []

    async def draw(self, draw, params):
        self.asked.append(draw.prompt)
        return Completion(self.turns[draw.turn], "stop", 1)

    def session(self, seed):
        return self

    def run(self, code):
        "The output of the turn in which the program stands."
        return Outcome("ok", self.outputs[len(self.asked) - 1])

    def close(self): ...


def dart_math(prompt, turns, outputs):
    "gen.py: the text as it is, a line's end, the output in its marks, a line's end."
    text, asked = "", []
    for turn, output in zip(turns, [*outputs, None], strict=True):
        asked.append(prompt + text)
        text += turn
        if text.count("```python") == text.count("```output") or "boxed" in turn:
            break
        if len(output.strip()) > 100:  # as its documentation says; its code never cut
            output = output.strip()[:50] + "..." + output.strip()[-50:]
        text += "\n" + "```output\n" + output.strip() + "\n```" + "\n"
    return asked


def others(n_calls, head, tail, cut):
    "inference.py of ToRA, run_tool_integrated_eval.py of DeepSeekMath, math_eval.py of Qwen2.5-Math."

    def prompts(prompt, turns, outputs):
        query, asked = prompt, []
        for turn, output in list(zip(turns, [*outputs, None], strict=True))[: n_calls + 1]:
            asked.append(query)
            said = turn.rstrip()
            query += said
            if "boxed" in said or not said.endswith("```") or len(asked) > n_calls:
                break
            found = output.strip()
            found = found[:head] + "..." + found[-tail:] if len(found) > cut else found
            query += f"\n```output\n{found}\n```\n"
        return asked

    return prompts


FORMS = {
    "deepseekmath-tool": (dart_math, {"cut": (50, 50), "max_calls": 99}),
    "tora": (others(4, 50, 50, 100), {}),
    "qwen25-math-tir": (others(4, 200, 200, 400), {}),
}


def real_responses():
    "Responses with an output, of which every one stands behind a program that ends its turn."
    path = data_folder() / "responses" / "mathcoder_tool_integrated.jsonl.gz"
    rng = random.Random(1)
    with gzip.open(path, "rt") as f:
        rows = [json.loads(line) for line in f]
    rng.shuffle(rows)
    for row in rows:
        turns = drawn_turns(row["resp"], None)
        calls = turns[:-1]
        if calls and all(t.rstrip().endswith("```") and "boxed" not in t for t in calls):
            if all(t.count("```python") == 1 for t in calls) and "```python" not in turns[-1]:
                outputs = [p.split("\n```")[0] for p in row["resp"].split("```output\n")[1:]]
                if len(outputs) == len(calls):
                    yield row["query"], turns, outputs


def prompts() -> dict:
    "Prompts of the engine and of the originals."
    found = {}
    for name, (original, numbers) in FORMS.items():
        counts, form = Counter(), replace(tool_form(name), **numbers)
        source = real_responses()
        for _ in range(N):
            query, turns, outputs = next(source)
            prompt, stored = render(get_template(name), query), Stored(turns, outputs)
            run_async(
                ToolEngine(stored, stored, form).draw(Draw("q", 0, prompt, 1), SampleParams())
            )
            wanted = original(prompt, turns, outputs)
            counts.update(responses=1, prompts=len(wanted), equal=stored.asked == wanted)
        found[name] = dict(counts)
    return found


PLUGIN = """from dart_math_nb import register
from dart_math_nb.demo.programmer import ProgrammerEngine
register("engine", "programmer")(ProgrammerEngine)
"""


def world(folder: Path, n: int, latency: float = 0.02) -> list[str]:
    "A command that samples sums with programs, but for its folder."
    rng = random.Random(5)
    sums = [(rng.randrange(10, 99), rng.randrange(2, 9)) for _ in range(n)]
    rows = [
        {"query": f"{a}+{a}*{b}-{i}", "ref_ans": str(a + a * b - i)}
        for i, (a, b) in enumerate(sums)
    ]
    write_jsonl(folder / "sums.jsonl", rows)
    (folder / "mine.py").write_text(PLUGIN)
    line = f"sample --use {folder}/mine.py --engine programmer --template plain --queries {folder}/sums.jsonl"
    line += f" --tools --tool-limit cpu_s=0.3 idle_s=0.3 output_chars=2000 --option mean_latency={latency}"
    line += " --strategy prop2diff --k 6 --n-pilot 6 --max-trials 24 --sync-every 0 --cut"
    return [
        sys.executable,
        "-c",
        f"from dart_math_nb.app.cli import main; main({line.split()!r} + __import__('sys').argv[1:])",
    ]


def same(run: Path) -> str:
    "Hash of the train set of a run."
    return hashlib.sha256((run / "train_set/prop2diff/train.parquet").read_bytes()).hexdigest()[:16]


def kill() -> dict:
    "One run, killed 20 times on its way, against one that is left alone."
    with tempfile.TemporaryDirectory() as tmp:
        tmp, rng = Path(tmp), random.Random(3)
        command = world(tmp, 60, 0.2)
        whole = time.monotonic()
        subprocess.run([*command, "--out", tmp / "whole"], check=True, capture_output=True)
        whole = time.monotonic() - whole
        n_kills, n_rows = 0, [0]
        while n_kills < 20:
            process = subprocess.Popen(
                [*command, "--out", tmp / "killed"],
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            before = n_rows[-1]
            while process.poll() is None:  # past its start, and at a moment of its own
                time.sleep(0.05)
                there = sum(
                    f.read_bytes().count(b"\n")
                    for f in (tmp / "killed").glob("pool/journal-*.jsonl")
                )
                if there > before:
                    break
            time.sleep(rng.uniform(0, 0.3))
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            n_kills += 1
            n_rows.append(
                sum(
                    f.read_bytes().count(b"\n")
                    for f in (tmp / "killed").glob("pool/journal-*.jsonl")
                )
            )
        lost = [a for a, b in zip(n_rows, n_rows[1:], strict=False) if b < a]
        subprocess.run([*command, "--out", tmp / "killed"], check=True, capture_output=True)
        left = subprocess.run(
            ["pgrep", "-fc", str(tmp)], capture_output=True, text=True
        ).stdout.strip()
        pools = [read_pool(tmp / name / "pool") for name in ("whole", "killed")]
        texts = [
            dict(zip(zip(p["query_id"], p["trial"], strict=True), p["response"], strict=True))
            for p in pools
        ]
        both = texts[0].keys() & texts[1].keys()
        return {
            "kills": n_kills,
            "whole run s": round(whole, 1),
            "draws": [len(p) for p in pools],
            "rows lost at a kill": sum(lost),
            "draws of both with another text": sum(texts[0][k] != texts[1][k] for k in both),
            "draws twice": int(pools[1].duplicated(["query_id", "source_id", "trial"]).sum()),
            "same set": same(tmp / "whole") == same(tmp / "killed"),
            "programs": dict(count_notes(pools[1]["segments"])),
            "processes left": int(left or 0),
        }


def calls() -> dict:
    "Draws a second with programs, and without any tool, from the same engine."
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        command = world(tmp, 60, 0.0)
        for name, code in (
            ("with programs", command[2]),
            (
                "without",
                command[2]
                .replace("'--tools', ", "")
                .replace("'--tool-limit', 'cpu_s=0.3', 'idle_s=0.3', 'output_chars=2000', ", ""),
            ),
        ):
            out = tmp / name.replace(" ", "-")
            subprocess.run(
                [sys.executable, "-c", code, "--out", out],
                capture_output=True,
                check=name == "with programs",
            )
            status = json.loads(next((out / "pool").glob("status-*.json")).read_text())
            found[name] = {k: status[k] for k in ("n_drawn", "draws_per_s")}
    return found


if __name__ == "__main__":
    results = Path(__file__).parent / "results/tools.json"
    run_parts(__doc__, {"prompts": prompts, "kill": kill, "calls": calls}, results)

"""A model judge against the rules of the grader, on real answers whose verdict the rules know.

`python bench/judge.py` asks a server of its own, which judges by the rules and errs at a stated rate, so that what comes back is known.
`JUDGE_URL=http://host:8000/v1 JUDGE_MODEL=name python bench/judge.py` asks any server that speaks OpenAI's protocol (`OPENAI_API_KEY`
as ever) and writes nothing. Needs the data folder of the project. All goes through the commands: import, judge write, sample, judge read.
Counts, no text, in bench/results/judge.json.
"""

import asyncio
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from parts import named_parts

from dart_math_nb.app.judge import judge_asked, judge_pairs, judge_replies
from dart_math_nb.data.files import read_rows, write_json, write_jsonl
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.messages import Refused
from dart_math_nb.evaluate.judge import agreement, judge_quality, judge_verdicts, read_judgement
from dart_math_nb.evaluate.metrics import wilson
from dart_math_nb.grade.verdict import grade_answer, grade_response
from dart_math_nb.testing.fake_server import json_reply, serve

OUT = Path(__file__).parent / "results" / "judge.json"
N_QUERIES, ERRORS = 300, (0.0, 0.05, 0.2)


def some_rows() -> list[dict]:
    "Of the first queries of GSM8K a right and a wrong response each, as far as there are some."
    found, sides = {}, set()
    for r in read_rows(data_folder() / "responses/zeroeval_gsm.jsonl.gz"):
        ref = r["ref"].removeprefix("# ")
        if r["qid"] not in found and len(found) == N_QUERIES:
            continue
        rows = found.setdefault(r["qid"], [])
        v = grade_response(r["resp"] or "", ref, r["query"])
        if v.ans is not None and (r["qid"], v.correct) not in sides:
            sides.add((r["qid"], v.correct))
            rows.append({"query": r["query"], "ref_ans": ref, "response": r["resp"]})
    return [row for rows in found.values() for row in rows]


def parts_of(text: str) -> tuple[str, str, str]:
    "Problem and both answers of a question."
    problem, _, rest = text.partition("Problem: ")[2].partition("\n\nFirst answer: ")
    first, _, rest = rest.partition("\nSecond answer: ")
    return problem, first, rest.partition("\n\n")[0]


def by_rule(error: float):
    "A handler that judges by the rules, and errs in this share of all questions."

    def handler(request):
        if request.path.endswith("/models"):
            return json_reply({"data": [{"id": "by-rule"}]})
        text = json.loads(request.body)["messages"][-1]["content"]
        problem, first, second = parts_of(text)
        same = any(
            grade_answer(a, b, problem).correct for a, b in ((first, second), (second, first))
        )
        draw = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
        said = f"Judgement: {'Yes' if same != (draw < error) else 'No'}"
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return json_reply({"choices": [choice | {"finish_reason": "stop"}], "usage": usage})

    return handler


@contextmanager
def server(error: float):
    "Address of such a server, in a thread."
    loop, there = asyncio.new_event_loop(), threading.Event()
    state = {}

    async def run():
        state["stop"] = asyncio.Event()
        async with serve(by_rule(error)) as url:
            state["url"] = url
            there.set()
            await state["stop"].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    there.wait()
    try:
        yield f"{state['url']}/v1"
    finally:
        loop.call_soon_threadsafe(state["stop"].set)
        thread.join()


def dart(*words: object) -> None:
    code = "from dart_math_nb.app.signals import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )
    if told.returncode:
        raise SystemExit(f"dart-math {words[0]}: {told.stderr[-2000:]}")


def asked(folder: Path, url: str, model: str) -> dict:
    "What a judge says, beside what the rules say."
    words = (
        "--engine",
        "openai",
        "--base-url",
        url,
        "--model",
        model,
        "--strategy",
        "vrt",
        "--k",
        1,
    )
    out = folder / "replies"
    words += ("--no-grade", "--instruction", "none", "--out", out)
    dart("sample", "--queries", folder / "judge/queries.jsonl", *words)
    pairs, _ = judge_pairs(str(folder / "run"), "all")
    questions, replies = judge_asked(folder / "judge"), judge_replies([str(out)])
    rules = [grade_answer(p.ans, p.ref_ans, p.query).correct for p in pairs]
    said = [
        (read_judgement(text, "nemo"), rules[q.pair])
        for q in questions
        if q.pair is not None
        for text in replies.get(q.query.query_id, ())
    ]
    n, wrong = len(said), sum(a is not None and a != b for a, b in said)
    low, high = map(float, wilson(wrong, n))
    quality = judge_quality(questions, replies)
    about = {"replies": n, "unread": sum(a is None for a, _ in said), "against the rules": wrong}
    about |= {"share": round(wrong / n, 4), "interval": [round(low, 4), round(high, 4)]}
    about["controls right"] = {
        kind: f"{row['right']:.0f} of {row['n']:.0f}" for kind, row in quality[:2].iterrows()
    }
    try:
        table = agreement(rules, judge_verdicts(pairs, questions, replies))
    except Refused as e:
        return about | {"refused": str(e)}
    return about | {"rules, judge": {k: row.to_dict() for k, row in table.iterrows()}}


def main() -> None:
    "Measure, print and store."
    if data_folder() is None:
        raise SystemExit("no data folder; set DART_MATH_DATA")
    found, url = {}, os.environ.get("JUDGE_URL")
    with tempfile.TemporaryDirectory() as tmp:
        file = write_jsonl(Path(tmp) / "theirs.jsonl", some_rows())
        for error in (None,) if url else ERRORS:
            folder = Path(tmp) / f"at {error}"
            dart("import", file, "--out", folder / "run", "--n-procs", 1)
            dart("judge", "write", folder / "run", "--out", folder / "judge", "--of", "all")
            if url:
                print(
                    json.dumps(asked(folder, url, os.environ.get("JUDGE_MODEL", "judge")), indent=1)
                )
                continue
            with server(error) as own:
                found[f"errs in {error:.0%}"] = told = asked(folder, own, "by-rule")
            print(error, told)
    if not url:
        machine = (
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        )
        write_json(OUT, found | {"date": date.today().isoformat(), "machine": machine})


if __name__ == "__main__":
    named_parts(__doc__)
    main()

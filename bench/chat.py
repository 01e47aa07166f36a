"""Chats as train rows: ids and labels beside what `apply_chat_template` gives, for every chat template that TRL ships.

templates  each template with a byte-level tokenizer (of the optional data folder; its control tokens are added) and 200 conversations at random, a quarter with a system message, with thoughts, with
           tools. `equal_ids`: samples whose ids are those of apply_chat_template of the same turns. `asked`: learned
           runs before which stand exactly the ids of the prompt (add_generation_prompt). `equal_masks`: samples whose
           labels are the template's own marks, where it has marks. `twin`: for templates without marks, beside TRL's
           marked copy, where it writes the same text; what the copy marks beyond is told by kind: what stands in the
           prompt already, what the template writes behind the end token, and anything else, which should be nothing.
           `refused` counts rows by reason; a template that is refused as a whole says why.
pieces     the same with a SentencePiece tokenizer.
processes  a tiny model on chats and on responses with outputs of tools: largest relative difference of loss and
           gradient norm over the first five steps, one pass a step against four accumulated and two processes (float32).
loaded     what one chat row costs, rendered and tokenized.

Writes bench/results/chat.json.
"""

import logging
import re
import tempfile
import time
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from parts import run_parts
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from dart_math_nb.data.files import write_jsonl
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.tables import read_frame
from dart_math_nb.prompts.instruct import template_switches
from dart_math_nb.testing.chats import CHATML, chat_tokenizer, random_chats
from dart_math_nb.testing.tiny_models import tiny_llama
from dart_math_nb.train.chat import Unfit, chat_form
from dart_math_nb.train.conversations import ChatRules, placed_thought, row_samples
from dart_math_nb.train.launch import launch
from dart_math_nb.train.pieces import tokenize_pieces

OUT = Path(__file__).parent / "results" / "chat.json"
FOLDER = Path(find_spec("trl").origin).parent / "chat_templates"
CONTROL = re.compile(r"<\|[^|<>]{1,40}\|>|<｜[^｜]{1,40}｜>|<\|?[a-z_]+\|?>|<[A-Z_|]{3,}>")
PLAIN = re.compile(r"</?(tool|think|function|parameter|response|atem|invoke|IMPORTANT)")
TOOLS = [{"type": "function", "function": {"name": "run", "description": "Run Python."}}]
TOOLS[0]["function"]["parameters"] = {"type": "object", "properties": {"code": {"type": "string"}}}
DAY = {"strftime_now": "2026-01-31"}


def rows(n: int) -> list[dict]:
    "Conversations of four kinds."
    kinds = [{"system": False}, {}, {"thoughts": True}, {"thoughts": True, "tools": True}]
    found = []
    for seed, kind in enumerate(kinds):
        for turns in random_chats(n // 4, seed, **kind):
            uses = any(t["role"] == "tool" for t in turns)
            found.append({"messages": turns} | ({"tools": TOOLS} if uses else {}))
    return found


def tokenizer(kind: str, template: str):
    "A tokenizer with the control tokens of a template."
    files, names = data_folder() / "tokenizers", {"bos_token": "<bos>", "eos_token": "<eos>"}
    if kind == "bytes":
        tok = PreTrainedTokenizerFast(tokenizer_file=str(files / "dolma2.json"), **names)
    else:
        tok = LlamaTokenizer.from_pretrained(str(files / "mistral-7b-v1.model"))
    found = sorted({t for t in CONTROL.findall(template) if not PLAIN.match(t)})
    tok.add_special_tokens({"additional_special_tokens": found})
    tok.chat_template = template
    return tok


def runs_of(labels: np.ndarray) -> list[tuple[int, int]]:
    "Runs of learned tokens."
    at = np.flatnonzero(np.diff(np.r_[0, labels, 0]))
    return list(zip(at[::2].tolist(), at[1::2].tolist(), strict=True))


def reference(tok, turns: list, tools, twin: str | None, marks: bool) -> tuple[list, list | None]:
    "Ids and marks of the library."
    how = {"tools": tools, **template_pins(), "return_dict": True}
    if twin is not None:
        how["chat_template"] = twin
    out = tok.apply_chat_template(turns, return_assistant_tokens_mask=marks, **how)
    return list(out["input_ids"]), list(out["assistant_masks"]) if marks else None


def template_pins() -> dict:
    "The fixed date, as the library takes it."
    from datetime import date

    return {"strftime_now": date.fromisoformat(DAY["strftime_now"]).strftime}


def kinds_of_gaps(form, turns, tools, ids, mine, theirs) -> Counter:
    "What a marked copy marks and we do not, and the other way round."
    tok, found, mine, theirs = form.tokenizer, Counter(), np.array(mine), np.array(theirs)
    prompts = [
        tok(form.write(turns[:i], tools, ask=True), add_special_tokens=False)["input_ids"]
        for i, t in enumerate(turns)
        if t["role"] == "assistant"
    ]
    found["ours_alone"] = int((mine & ~theirs).sum())
    for a, b in runs_of(theirs & ~mine):
        text = tok.decode(ids[a:b])
        if a and mine[a - 1] and not text.replace(str(tok.eos_token), "").strip():
            found["behind_the_end"] += 1
        elif mine[b : b + 1].any() and any(len(p) == b and ids[:b] == p for p in prompts):
            found["in_the_prompt"] += 1
        else:
            found["other"] += 1
    return found


def compare(form, row: dict, twin: str | None, told: Counter) -> None:
    "One row: what is equal."
    tools, tok = row.get("tools"), form.tokenizer
    try:
        samples = row_samples(form, row)
    except Unfit as e:
        told[f"refused: {e.reason}"] += 1
        return
    told["rows"] += 1
    rules = ChatRules()
    turns = [
        placed_thought(form, t, rules) if t["role"] == "assistant" else t for t in row["messages"]
    ]
    texts = {
        form.write(turns[: i + 1], tools): i + 1
        for i, t in enumerate(turns)
        if t["role"] == "assistant"
    }
    tokens = tokenize_pieces(tok, samples, end=form.end, frame=False)
    for why, n in tokens.left_out.items():
        told[f"refused: {why}"] += n
    for i in range(len(tokens)):
        told["samples"] += 1
        n = texts.get("".join(t for t, _ in samples[tokens.rows[i]]), 0)
        library = turns[:n]
        if form.in_parts:
            library = [
                t | {"content": [{"type": "text", "text": t.get("content") or ""}]} for t in library
            ]
        ids, labels = tokens[i]["input_ids"].tolist(), tokens[i]["labels"] >= 0
        want, marks = reference(tok, library, tools, None, form.has_marks) if n else ([], None)
        told["equal_ids"] += ids == want
        if form.has_marks:
            told["marked"] += 1
            inside = np.array(marks, bool)
            told["equal_masks" if (labels == inside).all() else "part_of_marks"] += not (
                labels & ~inside
            ).any()
            continue
        for a, _ in runs_of(labels):
            told["runs"] += 1
            own = (j for j in range(n) if turns[j]["role"] == "assistant")
            asked = (form.write(turns[:j], tools, ask=True) for j in own)
            told["asked"] += any(
                tok(p, add_special_tokens=False)["input_ids"] == ids[:a] for p in asked if p
            )
        if twin is not None:
            try:
                same, marks = reference(tok, library, tools, twin, True)
            except Exception:
                continue
            if (
                same == ids
                and labels.sum()
                and len(runs_of(labels)) == sum(t["role"] == "assistant" for t in library)
            ):
                told["twin"] += 1
                gaps = kinds_of_gaps(form, library, tools, ids, labels, np.array(marks, bool))
                told["twin_equal"] += not +gaps
                told.update({f"twin_{k}": v for k, v in gaps.items()})


def one_template(file: Path, kind: str, n: int) -> dict:
    "What is equal for one template and one tokenizer."
    text = file.read_text()
    twin = file.with_stem(file.stem + "_training")
    twin = twin.read_text() if twin.exists() else None
    switches = DAY if "strftime_now" in text else {}
    try:
        form = chat_form(
            tokenizer(kind, text), template_switches([f"{k}={v}" for k, v in switches.items()])
        )
    except ValueError as e:
        return {"refused as a whole": re.sub(r"^tokenizer of \S+: ", "", str(e))[:200]}
    told = Counter()
    for row in rows(n):
        compare(form, row, twin, told)
    facts = {"end": form.end_text, "marks": form.has_marks, "thought": form.thought}
    return facts | {k: v for k, v in sorted(told.items()) if v}


def templates(kind: str = "bytes", n: int = 200) -> dict:
    "All templates with one tokenizer."
    logging.disable(logging.WARNING)
    found = {}
    for file in sorted(FOLDER.glob("*.jinja")):
        found[file.stem] = one_template(file, kind, n)
        print(file.stem, found[file.stem], flush=True)
    return {"conversations": n, "summary": summary(found), "templates": found}


def summary(found: dict) -> dict:
    "Sums over templates."
    read, total = {k: v for k, v in found.items() if "end" in v}, Counter()
    for facts in read.values():
        total.update({k: v for k, v in facts.items() if type(v) is int})
    return {
        "templates": len(found),
        "refused as a whole": sorted(found.keys() - read.keys()),
        "with rows": sum("samples" in facts for facts in read.values()),
        **dict(sorted(total.items())),
    }


RUN = """import sys
from dart_math_nb.train.loop import train
from dart_math_nb.train.recipe import make_cfg
train(make_cfg(dict(item.split("=", 1) for item in sys.argv[1:])), progress=False)
"""


def processes() -> dict:
    "Loss and gradient norm of the first steps: one pass, accumulation, two processes."
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        tiny_llama(100, max_position_embeddings=2048).save_pretrained(tmp / "base")
        chat_tokenizer(CHATML).save_pretrained(tmp / "base")
        (tmp / "run.py").write_text(RUN)
        ran = [
            {"query": f"{a}*7", "response": f"run({a}*7) {a * 7:5d} So {a * 7}."}
            for a in range(99, 700)
        ]
        for row in ran:
            row["segments"] = f"t11 o6:ok t{len(row['response']) - 17}"
        write_jsonl(tmp / "tools.jsonl", ran)
        write_jsonl(tmp / "chats.jsonl", [{"messages": c} for c in random_chats(400, 9)])
        for name, template in {"chats": "chat", "tools": "plain"}.items():
            logs = {}
            for way, (n, passes) in {
                "one pass": (1, 4),
                "accumulation": (1, 1),
                "two processes": (2, 2),
            }.items():
                cfg = {"model": tmp / "base", "out": tmp / f"{name} {way}", "template": template}
                cfg |= {
                    "train_set": tmp / f"{name}.jsonl",
                    "room": 1024,
                    "batch_size": 4,
                    "n_epochs": 1,
                }
                cfg |= {
                    "packs_per_forward": passes,
                    "dtype": "float32",
                    "lr": "1e-4",
                    "attn": "dart_segments",
                }
                launch(tmp / "run.py", [f"{k}={v}" for k, v in cfg.items()], n, timeout=300)
                logs[way] = read_frame(tmp / f"{name} {way}" / "log.parquet").head(5)
            one = logs.pop("one pass")
            found[name] = {
                way: {
                    k: float(((log[k] - one[k]).abs() / one[k].abs()).max())
                    for k in ("loss", "grad_norm")
                }
                for way, log in logs.items()
            } | {"steps": len(one)}
    return found


def loaded() -> dict:
    "Microseconds of one row."
    logging.disable(logging.WARNING)
    form = chat_form(tokenizer("bytes", (FOLDER / "qwen2_5.jinja").read_text()))
    many = [
        {"query": f"What is {i}+1?", "response": "We add. " * 100 + f"\\boxed{{{i + 1}}}"}
        for i in range(2000)
    ]
    start = time.perf_counter()
    samples = [s for row in many for s in row_samples(form, row)]
    middle = time.perf_counter()
    tokens = tokenize_pieces(form.tokenizer, samples, end=form.end, frame=False)
    end = time.perf_counter()
    return {
        "rendered, microseconds a row": round((middle - start) / len(many) * 1e6),
        "tokenized, microseconds a row": round((end - middle) / len(many) * 1e6),
        "tokens a row": round(len(tokens.input_ids) / len(tokens)),
    }


if __name__ == "__main__":
    parts = {
        "processes": processes,
        "templates": templates,
        "pieces": partial(templates, "sentencepiece"),
        "loaded": loaded,
    }
    run_parts(__doc__, parts, OUT)

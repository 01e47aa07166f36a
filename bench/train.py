"""Measure training on packs on a CPU: `python bench/train.py [PART ...]`. Writes bench/results/train.json.

layouts    the same samples in the same steps through the Trainer, laid out in several ways: packs, rows padded to
           the longest of the batch, rows padded to the room
attention  the attention part alone
trl        the same rows through TRL's SFTTrainer with its packing (bfd), one epoch, with sdpa (its packs in one pass,
           and one by one) and with this package's attention in it; in one run, in turns

Lengths are log-normal like DART-Math-Hard's (mean 577 in packs of 4,096, sigma 0.6), scaled down by 8; for `trl`
those of real responses to MATH (from the data folder; the part is left out without it, or without TRL), scaled alike.
Real tokens per second of CPU time on one thread; the ratios are what counts, and beside them those of the clock,
which other programs on the machine disturb.
"""

import os

from parts import named_parts

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from dart_math_nb.data.files import read_json, read_rows, write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.demo.tiny import tiny_tokenizer
from dart_math_nb.train.attention import attend_segments
from dart_math_nb.train.collate import collate_packs, collate_padded
from dart_math_nb.train.config import TrainCfg
from dart_math_nb.train.kernels import pick_attention
from dart_math_nb.train.pack import fill, pack_lengths
from dart_math_nb.train.plan import plan_run
from dart_math_nb.train.tokens import IGNORE_ID, TokenSet
from dart_math_nb.train.trainer import make_trainer

RESULTS = Path(__file__).parent / "results" / "train.json"
ROOM, MEAN, SIGMA, N, BATCH = 512, 577 / 8, 0.6, 400, 4


def lengths(n: int) -> np.ndarray:
    "DART-Math-Hard's lengths, an eighth as long."
    raw = np.random.default_rng(0).lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, n)
    return np.clip(raw, 4, ROOM).astype(np.int64)


def token_set(lens: np.ndarray) -> TokenSet:
    "Random tokens; a sixth of each sample is its prompt."
    ids = np.random.default_rng(0).integers(1, 98, lens.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lens)])
    return TokenSet(ids, offsets, (lens // 6).astype(np.int32), np.arange(len(lens)), {})


def tiny_llama(attn: str) -> LlamaForCausalLM:
    "0.9 million parameters: 4 layers, hidden 128, four heads of size 32."
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 341, "num_hidden_layers": 4, "vocab_size": 98}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32}
    cfg = LlamaConfig(**shape, **heads, max_position_embeddings=ROOM, tie_word_embeddings=True)
    return LlamaForCausalLM._from_config(cfg, attn_implementation=attn)


def padded_to_room(features: list) -> dict:
    "Rows of ROOM tokens each."
    batch, values = collate_padded(features, pad_id=0), {"labels": IGNORE_ID}
    more = ROOM - batch["input_ids"].shape[1]
    rows = {
        k: F.pad(v, (0, more), value=values.get(k, 0)) for k, v in batch.items() if k != "use_cache"
    }
    return rows | {"use_cache": False}


def clocked(work: Callable) -> tuple[float, float]:
    "Seconds of the processor, and of the clock."
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def train_seconds(tokens: TokenSet, attn: str, collate: Callable, n_passes: int) -> tuple:
    "CPU and clock seconds of one epoch; a step's samples in `n_passes` forward passes."
    with tempfile.TemporaryDirectory() as tmp:
        cfg = TrainCfg(
            "tiny", tmp, room=ROOM, batch_size=BATCH, n_epochs=1, dtype="float32", lr=1e-4
        )
        plan = plan_run(tokens.seq_lens, cfg, n_passes)
        trainer = make_trainer(tiny_llama(attn), tokens, plan, cfg, n_passes, collate)
        return clocked(trainer.train)


def attention_seconds(f: Callable, n: int = 4) -> float:
    "CPU seconds of forward and backward, the best of n."
    times = []
    for _ in range(n + 1):
        start = time.process_time()
        f().sum().backward()
        times.append(time.process_time() - start)
    return min(times[1:])


def measure_attention(n_seq: int) -> dict:
    "Attention within sequences against attention with a block-diagonal mask, four heads of size 32."
    lens = torch.as_tensor(lengths(n_seq))
    ends, seq = F.pad(lens.cumsum(0), (1, 0)), torch.arange(n_seq).repeat_interleave(lens)
    qkv = [torch.randn(len(seq), 4, 32, requires_grad=True) for _ in range(3)]
    rows = [x.transpose(0, 1)[None] for x in qkv]
    mask = torch.tril(seq[:, None] == seq)
    by_mask = attention_seconds(lambda: F.scaled_dot_product_attention(*rows, attn_mask=mask))
    by_rows = attention_seconds(lambda: attend_segments(*qkv, ends))
    ratio = round(by_mask / by_rows, 2)
    return {
        "sequences": n_seq,
        "tokens": len(seq),
        "block_mask_ms": round(1e3 * by_mask, 2),
        "dart_segments_ms": round(1e3 * by_rows, 2),
        "ratio": ratio,
    }


def measure_layouts(tokens: TokenSet) -> list[dict]:
    "Real tokens per CPU second of each layout."
    dynamic = partial(collate_padded, pad_id=0)
    ways = {
        "packs, dart_segments": ("dart_segments", collate_packs, 1),
        "packs, block mask (sdpa)": ("sdpa", collate_packs, BATCH),
        "padded to the longest of the batch (sdpa)": ("sdpa", dynamic, 1),
        "padded to the room (sdpa)": ("sdpa", padded_to_room, 1),
    }
    train_seconds(tokens, *ways["packs, dart_segments"])  # warm up
    rows = []
    for name, way in ways.items():
        seconds = min(train_seconds(tokens, *way)[0] for _ in range(2))
        speed = len(tokens.input_ids) / seconds
        rows.append({"layout": name, "cpu_s": round(seconds, 2), "tokens_per_s": round(speed)})
        rows[-1]["packed_is"] = round(rows[0]["tokens_per_s"] / rows[-1]["tokens_per_s"], 2)
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def real_lengths(n: int) -> np.ndarray:
    "Tokens of real responses to MATH, an eighth as many."
    from tokenizers import Tokenizer

    read = Tokenizer.from_file(str(data_folder() / "tokenizers" / "dolma2.json"))
    rows = read_rows(data_folder() / "responses" / "zeroeval_math_l5.jsonl.gz")
    texts = [r["resp"] for r in rows if r["resp"]]
    picked = np.random.default_rng(1).choice(len(texts), n, replace=False)
    lens = [len(read.encode(texts[i]).ids) for i in picked]
    return np.clip(np.array(lens) // 8, 4, ROOM)


def trl_seconds(tokens: TokenSet, attn: str, per_pass: int) -> tuple:
    "CPU and clock seconds of one epoch of SFTTrainer on its own packs."
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [tokens[i] for i in range(len(tokens.seq_lens))]
    data = Dataset.from_dict({k: [r[k].tolist() for r in rows] for k in ("input_ids", "labels")})
    with tempfile.TemporaryDirectory() as tmp:
        cfg = SFTConfig(
            tmp, packing=True, max_length=ROOM, per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=BATCH // per_pass, num_train_epochs=1, learning_rate=1e-4,
            bf16=False, gradient_checkpointing=False, use_cpu=True, save_strategy="no",
            report_to=[], disable_tqdm=True, weight_decay=0.0,
        )  # fmt: skip
        trainer = SFTTrainer(
            tiny_llama(attn), cfg, train_dataset=data, processing_class=tiny_tokenizer()
        )
        return clocked(trainer.train)


def trl() -> dict:
    "This package beside TRL."
    tokens = token_set(real_lengths(N))
    ways = {
        "packs, dart_segments": partial(train_seconds, tokens, "dart_segments", collate_packs, 1),
        "TRL, four packs a pass, sdpa": partial(trl_seconds, tokens, "sdpa", BATCH),
        "TRL, one pack a pass, sdpa": partial(trl_seconds, tokens, "sdpa", 1),
        "TRL, four packs a pass, dart_segments": partial(
            trl_seconds, tokens, "dart_segments", BATCH
        ),
    }
    took = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            took[name].append(way())
            print(name, took[name][-1], flush=True)
    best = {name: np.min(each, 0) for name, each in took.items()}
    mine, rows = best["packs, dart_segments"], []
    for name, seconds in best.items():
        rates = len(tokens.input_ids) / seconds
        row = {"way": name, "tokens_per_cpu_s": round(rates[0]), "tokens_per_s": round(rates[1])}
        ratio = {
            "packs_are": round(seconds[0] / mine[0], 2),
            "by_clock": round(seconds[1] / mine[1], 2),
        }
        rows.append(row | ratio)
    lens = tokens.seq_lens
    about = {"samples": N, "mean": round(float(lens.mean()), 1), "longest": int(lens.max())}
    about |= {
        "trl": version("trl"),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
        "runs": 3,
    }
    return about | {"date": date.today().isoformat(), "rows": rows}


def layouts() -> list[dict]:
    "Rows of the part."
    return measure_layouts(token_set(lengths(N)))


def attention() -> list[dict]:
    "Rows of the part."
    return [measure_attention(n) for n in (16, 32, 64)]


PARTS = {"layouts": layouts, "attention": attention, "trl": trl}


def main(names: list[str]) -> None:
    "Measure, print, write."
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    pick_attention("dart_segments")
    lens = lengths(N)
    result = read_json(RESULTS) if RESULTS.exists() else {}
    about = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, one thread, CPU time",
        "torch": torch.__version__,
        "samples": N,
        "room": ROOM,
        "mean": round(float(lens.mean()), 1),
        "packs_per_step": BATCH,
        "fill": round(fill(pack_lengths(lens, ROOM), lens, ROOM), 4),
    }
    if names != ["trl"]:  # That part has a date of its own
        result |= about
    for name in names:
        if name == "trl" and not (data_folder() and find_spec("trl")):
            print("trl: left out; it needs the data folder and the package trl")
            continue
        result[name] = PARTS[name]()
        print(name, json.dumps(result[name], indent=1), flush=True)
        write_json(RESULTS, result)


if __name__ == "__main__":
    main(named_parts(__doc__, PARTS))

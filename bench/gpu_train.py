"""Speed of training on packs on one GPU: `python bench/gpu_train.py`. Writes bench/results/gpu_train.json.

Needs nothing but this repository, torch (2.11 or later) and transformers 5. A Llama of 1.2 billion parameters
(the shape of Llama-3.2-1B) with random weights, bf16 products, AdamW, packs of 4,096 tokens with
DART-Math-Hard's lengths (log-normal, mean 577, sigma 0.6); then a row per sample, padded to 4,096. Padding
stands at the end, where causal attention never sees it, so the padded rows need no mask and take the fastest
attention too. Before that, the proof: gradients of a pack against its samples apart, on this GPU's kernels.

FLOPs = 6 N + attention, per token and per pair of tokens that see each other, forward and backward; nothing
recomputed is counted, nor tokens that only fill; N has all weights but the input embedding (tied to the
output, so it counts once). MFU = FLOPs / seconds / peak.

Quick ways come first; the file is written after each, and none is begun after `--limit` seconds.
"""

import argparse
import gc
import json
import sys
import time
import traceback
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from dart_math_nb.train.attention import check_packing, packing_error, to_device
from dart_math_nb.train.collate import collate_packs
from dart_math_nb.train.kernels import available_attentions, pick_attention
from dart_math_nb.train.pack import fill, pack_lengths
from dart_math_nb.train.tokens import IGNORE_ID

ROOT = Path(__file__).resolve().parents[1]
ROOM, MEAN, SIGMA, N_WARM = 4096, 577, 0.6, 4
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def arguments() -> argparse.Namespace:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default=str(ROOT / "bench" / "results" / "gpu_train.json"))
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOP/s of the GPU")
    parser.add_argument("--packs", type=int, default=4, help="packs, or padded rows, per step")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--limit", type=float, default=400, help="seconds; no way begins later")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--tiny", action="store_true", help="a small shape, for a CPU")
    return parser.parse_args()


def make_model(attn: str, tiny: bool, dtype: torch.dtype) -> LlamaForCausalLM:
    "Random weights."
    shape = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
    }
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 98,
    }
    shape = small if tiny else shape
    config = LlamaConfig(**shape, max_position_embeddings=8192, tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return LlamaForCausalLM._from_config(config, attn_implementation=attn, dtype=dtype)


def samples(lens: np.ndarray, n_vocab: int) -> list[dict]:
    "Random tokens; a sixth of each sample is its prompt."
    rng, made = np.random.default_rng(0), []
    for n in lens:
        ids = rng.integers(1, n_vocab, n)
        made.append({"input_ids": ids, "labels": np.where(np.arange(n) < n // 6, IGNORE_ID, ids)})
    return made


def run_on(features: list) -> dict:
    "A broken collator, to see that the proof would see it: positions run on through the pack."
    batch = collate_packs(features)
    ids = batch["input_ids"]
    positions = torch.arange(ids.shape[1])[None]
    return {"input_ids": ids, "labels": batch["labels"], "position_ids": positions}


def prove(attn: str) -> list[dict]:
    "Loss and gradients of a pack against its samples apart, in bf16, on small models."
    shape = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 98,
        "attn_implementation": attn,
    }
    kinds = {
        "Llama, grouped heads": (LlamaForCausalLM, LlamaConfig, {}),
        "Mistral, window 64": (MistralForCausalLM, MistralConfig, {"sliding_window": 64}),
    }
    some, rows = samples(np.array([5, 300, 1, 170, 90, 2]), 98), []
    for name, (cls, config, more) in kinds.items():
        torch.manual_seed(0)
        model = cls(config(**shape, **more)).to(DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16):
            right, wrong = packing_error(model, some), packing_error(model, some, run_on)
        rows.append({"attn": attn, "model": name, "loss": right["loss"], "grad": right["grad"]})
        rows[-1] |= {"grad_if_broken": wrong["grad"]}
    return rows


def padded(rows: list[dict]) -> dict:
    "A row of ROOM tokens for each sample."
    ids, labels = torch.zeros(len(rows), ROOM).long(), torch.full((len(rows), ROOM), IGNORE_ID)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        ids[i, :n], labels[i, 1:n] = map(torch.as_tensor, (row["input_ids"], row["labels"][1:]))
    positions = torch.arange(ROOM).repeat(len(rows), 1)
    ends = torch.arange(len(rows) + 1, dtype=torch.int32) * ROOM
    batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "use_cache": False}
    return batch | {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}


def flops(model: LlamaForCausalLM, lens: np.ndarray) -> float:
    "Of a training step on sequences of these lengths."
    n, cfg = sum(p.numel() for p in model.parameters()), model.config
    pairs = float((lens * (lens + 1) / 2).sum())
    per_pair = 3 * 4 * cfg.num_attention_heads * cfg.head_dim * cfg.num_hidden_layers
    return 6 * n * float(lens.sum()) + per_pair * pairs


def measure(way: dict, batches: list[dict], lens: list[np.ndarray], args) -> dict:
    "Seconds per step, MFU and memory of one way."
    begun = time.perf_counter()
    model = make_model(way["attn"], args.tiny, getattr(torch, way["weights"])).train()
    with torch.autocast(DEVICE, torch.bfloat16):
        leak = check_packing(model) if way["rows"] == "packs" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0, fused=True)
    step, losses = torch.compile(model) if way["compiled"] else model, []
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    for i, batch in enumerate(batches):
        if i == N_WARM:
            losses[-1].item()  # Waits for the GPU
            start = time.perf_counter()
        batch = to_device(batch, DEVICE) | dict.fromkeys(("max_length_q", "max_length_k"), ROOM)
        for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
            torch._dynamo.maybe_mark_dynamic(batch[name], 0)  # One compilation for all steps
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = step(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    last, seconds = losses[-1].item(), time.perf_counter() - start
    work, n_tokens = sum(flops(model, x) for x in lens[N_WARM:]), sum(map(sum, lens[N_WARM:]))
    return {
        "tokens_per_s": round(n_tokens / seconds),
        "mfu": round(work / seconds / (1e12 * args.peak), 4),
        "ms_per_step": round(1e3 * seconds / args.steps, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 1) if CUDA else None,
        "leak_sd": leak,
        "loss": round(last, 4),
        "s_in_all": round(time.perf_counter() - begun, 1),
    }


def ways(args: argparse.Namespace) -> list[dict]:
    "What to measure, the quick ones first."
    here = [a for a in available_attentions(DEVICE) if a not in ("eager", "sdpa")]
    best = here[0]  # eager and sdpa would build a mask over 16,384 tokens
    keys = ("rows", "attn", "weights", "compiled")
    plain = [("packs", best, "float32", False), ("padded", best, "float32", False)]
    plain += [("padded", "sdpa", "float32", False)]
    compiled = [("packs", best, "float32", True), ("padded", best, "float32", True)]
    compiled += [("packs", best, "bfloat16", True)]
    rest = [("packs", a, "float32", a == "flex_attention") for a in here[1:]]
    chosen = [w for w in plain + compiled + rest if not (args.no_compile and w[3])]
    return [dict(zip(keys, w, strict=True)) for w in chosen]


def guarded(f, about: dict, *args) -> dict:
    "What f returns, or its error: one way that fails must not cost the others."
    try:
        return about | f(*args)
    except Exception as e:
        traceback.print_exc()
        return about | {"error": f"{type(e).__name__}: {e}"[:500]}
    finally:
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()


def fastest(rows: list[dict], kind: str) -> dict | None:
    "The best way of a kind, with weights in float32 (what `dart-math train` keeps)."
    have = [r for r in rows if r["rows"] == kind and "mfu" in r and r["weights"] == "float32"]
    return max(have, key=lambda r: r["tokens_per_s"], default=None)


def summary(rows: list[dict]) -> dict:
    "The two figures: MFU of packs, and packs over padded rows, each at its best."
    packs, pad = fastest(rows, "packs"), fastest(rows, "padded")
    over = packs and pad and round(packs["tokens_per_s"] / pad["tokens_per_s"], 2)
    return {"best_mfu": packs and packs["mfu"], "packed_over_padded": over}


def write(path: str, result: dict) -> None:
    "Keep what is known so far."
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    whole = result | summary(result["rows"])
    Path(path).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    "Prove, measure, print, write."
    args, begun = arguments(), time.perf_counter()
    if not CUDA and not args.tiny:
        print("no CUDA device, nothing measured; --tiny tries the script on a CPU")
        return
    n_steps, rng = args.steps + N_WARM, np.random.default_rng(0)
    raw = rng.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, 20 * args.packs * n_steps)
    lens = np.clip(raw, 16, ROOM).astype(np.int64)
    every = samples(lens, 98 if args.tiny else 128256)
    packs = pack_lengths(lens, ROOM)
    steps = [np.concatenate(packs[i * args.packs :][: args.packs]) for i in range(n_steps)]
    alone = [np.arange(i * args.packs, (i + 1) * args.packs) for i in range(n_steps)]
    row_len = ROOM * args.packs
    result = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if CUDA else "CPU, tiny shape",
        "transformers": transformers.__version__,
        "peak_tflops": args.peak,
        "packs_per_step": args.packs,
        "fill": round(fill(packs, lens, ROOM), 4),
        "proof": [],
        "rows": [],
    }
    kernels = [a for a in available_attentions(DEVICE) if a != "eager"]
    jobs = [{"prove": a} for a in kernels] + ways(args)
    jobs.sort(key=lambda job: "flex_attention" in job.values())  # Compiles long
    for way in jobs:
        if time.perf_counter() - begun > args.limit:
            print(way, f"not begun: {args.limit} s were over")
        elif "prove" in way:
            attn = pick_attention(way["prove"], DEVICE)
            done = guarded(lambda a=attn: {"errors": prove(a)}, {"attn": attn})
            result["proof"] += done.get("errors", [done])
            print(*result["proof"][-2:], sep="\n", flush=True)
        else:
            batches = [padded([every[i] for i in s]) for s in alone]
            if way["rows"] == "packs":
                batches = [collate_packs([every[i] for i in s], row_len=row_len) for s in steps]
            numbers = [lens[s] for s in (steps if way["rows"] == "packs" else alone)]
            way = way | {"attn": pick_attention(way["attn"], DEVICE)}
            result["rows"].append(guarded(measure, way, way, batches, numbers, args))
            print(*result["rows"][-1].values(), sep=" | ", flush=True)
        write(args.out, result)
    print(json.dumps(summary(result["rows"]), indent=2))


if __name__ == "__main__":
    main()

"""Speed of training on packs on one GPU: `python bench/gpu_train.py`. Writes bench/results/gpu_train.json.

Needs nothing but this repository, torch and transformers. A Llama of 1.2 billion parameters (the shape of
Llama-3.2-1B) with random weights, bf16 products, AdamW, packs of 4,096 tokens with DART-Math-Hard's lengths
(log-normal, mean 577, sigma 0.6), each attention that is there; then the same samples a row each, padded to
4,096 (without a mask, which is in its favor: padding stands at the end, so causal attention never sees it).

FLOPs = 6 N + attention, per token and per pair of tokens that see each other, forward and backward; nothing
recomputed is counted; N has all weights but the input embedding (tied to the output, so it counts once).
MFU = FLOPs / seconds / peak. Memory, times and the probe for leaks are printed for each way.
"""

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dart_math_nb.attention import check_packing
from dart_math_nb.kernels import available_attentions, pick_attention
from dart_math_nb.pack import IGNORE_ID, collate_packs, fill, pack_lengths

ROOT = Path(__file__).resolve().parents[1]
ROOM, MEAN, SIGMA = 4096, 577, 0.6


def arguments() -> argparse.Namespace:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default=str(ROOT / "bench" / "results" / "gpu_train.json"))
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOP/s of the GPU")
    parser.add_argument("--packs", type=int, default=4, help="packs, or padded rows, per step")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument(
        "--attn", nargs="*", help="which attentions; all that are there when absent"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--tiny", action="store_true", help="a small shape, to try the script on a CPU"
    )
    return parser.parse_args()


def make_model(attn: str, tiny: bool) -> LlamaForCausalLM:
    "Random weights in float32; the products are bf16 by autocast."
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    shape |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    shape |= {"vocab_size": 128256, "max_position_embeddings": 8192, "tie_word_embeddings": True}
    if tiny:
        shape |= {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "vocab_size": 98,
        }
        shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM._from_config(LlamaConfig(**shape), attn_implementation=attn)


def samples(lens: np.ndarray, n_vocab: int) -> list[dict]:
    "Random tokens; a sixth of each sample is its prompt."
    rng = np.random.default_rng(0)
    for n in lens:
        ids = rng.integers(1, n_vocab, n)
        yield {"input_ids": ids, "labels": np.where(np.arange(n) < n // 6, IGNORE_ID, ids)}


def padded(rows: list[dict]) -> dict:
    "A row of ROOM tokens for each sample, no mask."
    ids, labels = torch.zeros(len(rows), ROOM).long(), torch.full((len(rows), ROOM), IGNORE_ID)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        ids[i, :n], labels[i, 1:n] = (
            torch.as_tensor(row["input_ids"]),
            torch.as_tensor(row["labels"][1:]),
        )
    return {"input_ids": ids, "labels": labels, "use_cache": False}


def flops(model: LlamaForCausalLM, lens: np.ndarray) -> float:
    "Of a training step on sequences of these lengths."
    n, cfg = sum(p.numel() for p in model.parameters()), model.config
    pairs = float((lens * (lens + 1) / 2).sum())
    per_pair = 3 * 4 * cfg.num_attention_heads * cfg.head_dim * cfg.num_hidden_layers
    return 6 * n * float(lens.sum()) + per_pair * pairs


def measure(name: str, attn: str, batches: list[dict], lens: list[np.ndarray], args) -> dict:
    "Seconds per step, MFU and memory of one way."
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    model = make_model(attn, args.tiny).train()
    with torch.autocast(device, torch.bfloat16):
        leak = check_packing(model) if name != "padded" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0, fused=True)
    step = model if args.no_compile else torch.compile(model)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    n_warm, losses = len(batches) - args.steps, []
    for i, batch in enumerate(batches):
        if i == n_warm:
            losses and losses[-1].item()  # waits for the GPU
            start = time.perf_counter()
        batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        with torch.autocast(device, torch.bfloat16):
            loss = step(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    last = losses[-1].item()
    seconds = time.perf_counter() - start
    seen = lens[n_warm:]
    work, n_tokens = sum(flops(model, x) for x in seen), int(sum(x.sum() for x in seen))
    return {
        "way": name,
        "attn": attn,
        "compiled": not args.no_compile,
        "tokens_per_s": round(n_tokens / seconds),
        "mfu": round(work / seconds / (1e12 * args.peak), 4),
        "ms_per_step": round(1e3 * seconds / args.steps, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
        "leak_sd": leak,
        "loss": round(last, 4),
    }


def main() -> None:
    "Measure, print, write."
    args, cuda = arguments(), torch.cuda.is_available()
    if not cuda and not args.tiny:
        print("no CUDA device, nothing measured; --tiny tries the script on a CPU")
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    n_steps, rng = args.steps + 4, np.random.default_rng(0)
    raw = rng.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, 20 * args.packs * n_steps)
    lens = np.clip(raw, 16, ROOM).astype(np.int64)
    every = list(samples(lens, 98 if args.tiny else 128256))
    packs = pack_lengths(lens, ROOM)[: args.packs * n_steps]
    steps = [np.concatenate(packs[i : i + args.packs]) for i in range(0, len(packs), args.packs)]
    row_len = ROOM * args.packs
    packed = [collate_packs([every[i] for i in s], row_len=row_len) for s in steps]
    alone = [np.arange(i, i + args.packs) for i in range(0, args.packs * n_steps, args.packs)]
    ways = [
        ("packs", a, packed, steps)
        for a in args.attn or available_attentions("cuda" if cuda else "cpu")
    ]
    ways = [
        w for w in ways if w[1] not in ("eager", "sdpa") or args.tiny
    ]  # A mask over 16,384 tokens
    ways += [("padded", "sdpa", [padded([every[i] for i in s]) for s in alone], alone)]
    rows = []
    for name, attn, batches, numbers in ways:
        try:
            known = pick_attention(attn, "cuda" if cuda else "cpu")
            rows.append(measure(name, known, batches, [lens[s] for s in numbers], args))
        except (RuntimeError, ValueError) as e:  # One way that fails must not cost the others
            rows.append({"way": name, "attn": attn, "error": f"{type(e).__name__}: {e}"[:500]})
        print(*rows[-1].values(), sep=" | ", flush=True)
        if cuda:
            torch.cuda.empty_cache()
    best = max(
        (r for r in rows if r["way"] == "packs" and "mfu" in r),
        key=lambda r: r["mfu"],
        default=None,
    )
    pad = next((r for r in rows if r["way"] == "padded" and "mfu" in r), None)
    result = {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if cuda else "CPU, tiny shape",
        "torch": torch.__version__,
        "peak_tflops": args.peak,
        "packs_per_step": args.packs,
        "fill": round(fill(pack_lengths(lens, ROOM), lens, ROOM), 4),
        "rows": rows,
        "best_mfu": best and best["mfu"],
        "packed_over_padded": best and pad and round(best["tokens_per_s"] / pad["tokens_per_s"], 2),
    }
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=2))


if __name__ == "__main__":
    main()

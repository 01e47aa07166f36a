"""Speed of training on packs on one GPU: `python bench/gpu_train.py`. Writes bench/results/gpu_train.json.

Needs this repository, torch 2.11 or later and transformers 5; installs and downloads nothing. A Llama of 1.2 billion
parameters (the shape of Llama-3.2-1B) with random weights kept in float32, products in bf16, AdamW, samples with
DART-Math-Hard's lengths (log-normal, mean 577, sigma 0.6), a room of 4,096 tokens. Each way takes as many samples
to a step as four packs hold:

  packs    this package's packs (best fit), four in one forward pass
  trl      TRL's packs (best fit decreasing over 1,000 samples at a time; its own code where it is installed, else the
           same in 20 lines here), four in one pass, boundaries in position_ids and cu_seq_lens as its collator gives
           them; with FlashAttention or torch's varlen kernel, and with sdpa, where transformers builds a block mask
  room     a row of 4,096 for each sample          |  these three without a mask: filling stands at the end, where
  longest  rows as long as the longest of the pass |  causal attention never sees it; that is the fastest they can be.
  sorted   likewise, samples of like length        |  `longest, mask`: with the mask of transformers' own collator

`sorted` as transformers does it (`group_by_length`): groups of 50 passes sorted by length; passes in random order.

Before that, in parts of their own: the chip's matrix rate; the proof on small models (gradients of a pack against
its samples apart with each kernel, and with a broken collator); the proof that `dart-math train` does before its
first step, on the shape itself, with its seconds as a share of runs of several sizes at the speed of packs.

FLOPs = 6 N + attention, per token and per pair of tokens that see each other, forward and backward; nothing
recomputed is counted, nor tokens that only fill; N has all weights but the input embedding (tied to the output, so
it counts once). MFU = FLOPs / seconds / peak. Tokens are those of samples. Quick ways come first; the file is written
after each, none is begun after `--limit` seconds, and a run that is cut off leaves a whole file. `--tiny` tries
everything on a CPU.
"""

import argparse
import gc
import statistics
import time
import traceback

import bare
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from dart_math_nb.train.attention import check_packing, packing_error, to_device
from dart_math_nb.train.collate import collate_packs, collate_padded
from dart_math_nb.train.kernels import available_attentions, pick_attention
from dart_math_nb.train.pack import best_fit_decreasing, fill, pack_lengths
from dart_math_nb.train.proof import longest_samples, prove_attention, prove_real
from dart_math_nb.train.tokens import IGNORE_ID

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
FULL = {"room": 4096, "mean": 577, "seconds": 6.0, "warm": 3, "least": 3, "vocab": 128256}
TINY = {"room": 512, "mean": 72, "seconds": 0.3, "warm": 1, "least": 1, "vocab": 98}
SIGMA, PACKS, N_STEPS = 0.6, 4, 60  # Of lengths; packs in a step; steps that there are samples for
RUNS = (10_000, 100_000, 585_392)  # Samples of an epoch; the last is DART-Math-Hard


def arguments() -> argparse.Namespace:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default=str(bare.ROOT / "bench" / "results" / "gpu_train.json"))
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOP/s of the GPU")
    parser.add_argument("--rows", type=int, default=8, help="rows of a padded forward pass")
    parser.add_argument("--limit", type=float, default=330, help="seconds; no way begins later")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--tiny", action="store_true", help="a small shape, for a CPU")
    args = parser.parse_args()
    args.size = TINY if args.tiny else FULL
    args.no_compile |= not CUDA
    return args


def make_model(attn: str, args: argparse.Namespace, dtype: torch.dtype) -> LlamaForCausalLM:
    "Random weights."
    shape = {**(bare.SMALL if args.tiny else bare.SHAPE), "vocab_size": args.size["vocab"]}
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


# --- layouts: steps of passes of samples, and a pass as a batch


def chunks(numbers: np.ndarray, n: int) -> list[np.ndarray]:
    "So many at a time."
    return [numbers[i : i + n] for i in range(0, len(numbers), n)]


def trl_packs(lens: np.ndarray, room: int) -> list[np.ndarray]:
    "As `trl.pack_dataset(..., strategy='bfd')`: `map` hands it 1,000 samples at a time."
    found = []
    for part in chunks(np.arange(len(lens)), 1000):
        order = np.arange(len(part))
        found += [part[p] for p in best_fit_decreasing(lens[part], room, order)]
    return found


def trl_packs_of_trl(lens: np.ndarray, room: int) -> list[np.ndarray]:
    "The same by TRL's own code. Raises ImportError without it."
    from datasets import Dataset
    from trl import pack_dataset

    rows = Dataset.from_dict({"input_ids": [[i] * n for i, n in enumerate(lens.tolist())]})
    packs = pack_dataset(rows, room, "bfd")["input_ids"]
    return [np.array(list(dict.fromkeys(p))) for p in packs]


def layouts(lens: np.ndarray, args: argparse.Namespace) -> tuple[dict, dict]:
    "Steps of each layout: lists of passes, each with numbers of samples; and facts about the packs."
    room, order = args.size["room"], np.random.default_rng(1)
    packs = pack_lengths(lens, room)
    try:
        theirs, own_code = trl_packs_of_trl(lens, room), True
    except ImportError:
        theirs, own_code = trl_packs(lens, room), False
    facts = {"fill": fill(packs, lens, room), "fill_trl": fill(theirs, lens, room)}
    facts = {k: round(v, 4) for k, v in facts.items()} | {"packs_by_trl_itself": own_code}
    theirs = [theirs[i] for i in order.permutation(len(theirs))]
    n_step = round(len(lens) * PACKS / len(packs))  # Samples of a step
    every = order.permutation(len(lens))
    mixed = [np.concatenate(packs[i : i + PACKS]) for i in range(0, len(packs), PACKS)]
    groups = chunks(every, 50 * args.rows)
    alike = [p for g in groups for p in chunks(g[np.argsort(-lens[g], kind="stable")], args.rows)]
    alike = [alike[i] for i in order.permutation(len(alike))]
    n_passes = max(1, round(n_step / args.rows))
    found = {
        "packs": [[m] for m in mixed],
        "trl": [
            [np.concatenate(theirs[i : i + PACKS])]
            for i in range(0, len(theirs) - PACKS + 1, PACKS)
        ],
        "longest": [chunks(step, args.rows) for step in chunks(every, n_step)],
        "room": [chunks(step, PACKS) for step in chunks(every, n_step)],
        "sorted": [alike[i : i + n_passes] for i in range(0, len(alike), n_passes)],
    }
    found["longest, mask"] = found["longest"]
    return found, facts | {"samples_per_step": n_step}


def batch_of(way: dict, features: list[dict], room: int) -> dict:
    "A pass of one layout."
    if way["rows"] in ("packs", "trl"):
        made = collate_packs(features, row_len=room * PACKS if way["compiled"] else None)
        if way["rows"] == "trl" and way["attn"] == "sdpa":
            keep = ("input_ids", "labels", "position_ids", "use_cache")
            return {k: made[k] for k in keep}
        return made | dict.fromkeys(("max_length_q", "max_length_k"), room)
    made = collate_padded(features, pad_id=0)
    if way["rows"] == "room":
        more = room - made["input_ids"].shape[1]
        pad = torch.nn.functional.pad
        made |= {"input_ids": pad(made["input_ids"], (0, more))}
        made |= {"labels": pad(made["labels"], (0, more), value=IGNORE_ID)}
    if way["rows"] != "longest, mask":
        del made["attention_mask"]
    return made


def flops(model: LlamaForCausalLM, lens: np.ndarray) -> float:
    "Of a training step on sequences of these lengths."
    n, cfg = sum(p.numel() for p in model.parameters()), model.config
    pairs = float((lens * (lens + 1) / 2).sum())
    per_pair = 3 * 4 * cfg.num_attention_heads * cfg.head_dim * cfg.num_hidden_layers
    return 6 * n * float(lens.sum()) + per_pair * pairs


# --- the parts


def matrix_rate(args: argparse.Namespace) -> dict:
    "TFLOP/s of a bf16 product of random matrices, the median of some."
    n, times = (256 if args.tiny else 8192), []
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in "ab")
    for _ in range(12):
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        float((a @ b)[0, 0])  # Waits for the GPU
        times.append((time.perf_counter() - start) / 5)
    return {"matmul": n, "tflops": round(2 * n**3 / statistics.median(times[2:]) / 1e12, 1)}


def run_on(features: list) -> dict:
    "A broken collator, to see that the proof would see it: positions run on through the pack."
    batch = collate_packs(features)
    ids = batch["input_ids"]
    positions = torch.arange(ids.shape[1])[None]
    return {"input_ids": ids, "labels": batch["labels"], "position_ids": positions}


def prove_kernel(attn: str) -> dict:
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
        rows.append({"model": name, "loss": right["loss"], "grad": right["grad"]})
        rows[-1] |= {"grad_if_broken": wrong["grad"]}
    return {"errors": rows}


def prove_run(attn: str, every: list[dict], args: argparse.Namespace) -> dict:
    "The two proofs that a run begins with, and their seconds."
    model = make_model(attn, args, torch.float32)
    start = time.perf_counter()
    name = {"flex_attention": "dart_flex"}.get(attn, attn)
    small = prove_attention(model.config, [name])
    middle = time.perf_counter()
    some = [every[i] for i in longest_samples([len(s["labels"]) for s in every], args.size["room"])]
    with torch.autocast(DEVICE, torch.bfloat16):
        real = prove_real(model, some, collate_packs, "bfloat16")
    if CUDA:
        torch.cuda.synchronize()
    end = time.perf_counter()
    parts = {"small_s": round(middle - start, 2), "real_s": round(end - middle, 2)}
    return parts | {"seconds": round(end - start, 2), "small": small["small"], "real": real}


def measure(way: dict, steps: list, every: list[dict], args: argparse.Namespace) -> dict:
    "Speed, MFU and memory of one way."
    begun, room = time.perf_counter(), args.size["room"]
    model = make_model(way["attn"], args, getattr(torch, way["weights"])).train()
    leak = None
    if way["rows"] in ("packs", "trl"):
        with torch.autocast(DEVICE, torch.bfloat16):
            leak = check_packing(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0, fused=True)
    step = torch.compile(model) if way["compiled"] else model
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    took, work, n_tokens, n_places, losses = [], 0.0, 0, 0, []
    for i, passes in enumerate(steps):
        batches = [batch_of(way, [every[j] for j in numbers], room) for numbers in passes]
        n_labels = sum(int((b["labels"][:, 1:] != IGNORE_ID).sum()) for b in batches)
        start = time.perf_counter()
        total, divisor = torch.zeros((), device=DEVICE), torch.tensor(n_labels, device=DEVICE)
        for batch in batches:
            batch = to_device(batch, DEVICE)
            for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
                if name in batch:
                    torch._dynamo.maybe_mark_dynamic(batch[name], 0)  # One compilation for all
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = step(**batch, num_items_in_batch=divisor).loss
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())  # Waits for the GPU
        if i < args.size["warm"]:
            continue
        took.append(time.perf_counter() - start)
        lens = np.array([len(every[j]["input_ids"]) for numbers in passes for j in numbers])
        work, n_tokens = work + flops(model, lens), n_tokens + int(lens.sum())
        n_places += sum(b["input_ids"].numel() for b in batches)
        if len(took) >= args.size["least"] and sum(took) > args.size["seconds"]:
            break
    return {
        "tokens_per_s": round(n_tokens / sum(took)),
        "mfu": round(work / sum(took) / (1e12 * args.peak), 5),
        "ms_per_step": round(1e3 * sum(took) / len(took), 1),
        "ms_median": round(1e3 * statistics.median(took), 1),
        "steps": len(took),
        "passes_per_step": round(sum(map(len, steps)) / len(steps), 2),
        "full": round(n_tokens / n_places, 4),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 1) if CUDA else None,
        "leak_sd": leak,
        "loss": round(losses[-1], 4),
        "s_in_all": round(time.perf_counter() - begun, 1),
    }


def ways(args: argparse.Namespace) -> list[dict]:
    "What to measure, the quick ones and the most wanted first."
    kernels = [a for a in available_attentions(DEVICE) if a not in ("eager", "sdpa")]
    best, keys = kernels[0], ("rows", "attn", "weights", "compiled")
    plain = [("packs", best), ("longest", "sdpa"), ("sorted", "sdpa"), ("room", "sdpa")]
    plain += [("trl", best), ("trl", "sdpa"), ("longest, mask", "sdpa")]
    plain += [("packs", a) for a in kernels[1:] if a != "flex_attention"]
    found = [(*p, "float32", False) for p in plain]
    if not args.no_compile:
        found += [("packs", best, "float32", True), ("room", "sdpa", "float32", True)]
        found += [("packs", best, "bfloat16", True)]
        found += [("packs", a, "float32", True) for a in kernels if a == "flex_attention"]
    return [dict(zip(keys, f, strict=True)) for f in found]


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
        if CUDA:
            torch.cuda.empty_cache()


def speed(rows: list[dict], kind: str, weights: str = "float32") -> float | None:
    "The best of a layout, with weights in float32 (what `dart-math train` keeps)."
    have = [r for r in rows if r["rows"] == kind and "mfu" in r and r["weights"] == weights]
    return max((r["tokens_per_s"] for r in have), default=None)


def summary(result: dict) -> dict:
    "Packs over each other layout, each at its best; and what the proof costs of runs."
    rows, mine = result["rows"], speed(result["rows"], "packs")
    if not mine:
        return {}
    found = {"best_mfu": max(r.get("mfu", 0) for r in rows if r["rows"] == "packs")}
    for kind in dict.fromkeys(r["rows"] for r in rows):
        if kind != "packs" and (other := speed(rows, kind)):
            found[f"packs_over {kind}"] = round(mine / other, 2)
    took = next((p["seconds"] for p in result["proof_of_run"] if "seconds" in p), None)
    if took:
        mean = FULL["mean"]
        found["proof_share"] = {str(n): round(took / (took + n * mean / mine), 5) for n in RUNS}
        found["samples_for_2_percent"] = round(49 * took * mine / mean)
    return found


def jobs(args: argparse.Namespace) -> list[dict]:
    "Parts and ways, in order."
    every = ways(args)
    kernels = [a for a in available_attentions(DEVICE) if a not in ("eager", "flex_attention")]
    found = [{"rate": True}, every[0], {"prove_run": every[0]["attn"]}]
    found += [{"prove": a} for a in kernels] + every[1:]
    flex = CUDA and not args.no_compile
    return found + ([{"prove": "flex_attention"}] if flex else [])  # Compiles long


def main() -> None:
    "Prove, measure, print, write."
    args = arguments()
    if not CUDA and not args.tiny:
        print("no CUDA device, nothing measured; --tiny tries the script on a CPU")
        return
    size, rng = args.size, np.random.default_rng(0)
    n = N_STEPS * PACKS * size["room"] // size["mean"]
    raw = rng.lognormal(np.log(size["mean"]) - SIGMA**2 / 2, SIGMA, n)
    lens = np.clip(raw, 16, size["room"]).astype(np.int64)
    every = samples(lens, size["vocab"])
    steps, facts = layouts(lens, args)
    about = {
        "tiny": args.tiny,
        "peak_tflops": args.peak,
        "packs_per_step": PACKS,
        "room": size["room"],
    }
    result = (
        bare.machine() | about | facts | {"rate": None, "proof": [], "proof_of_run": [], "rows": []}
    )
    for job in jobs(args):
        if bare.seconds() > args.limit:
            result.setdefault("not_begun", []).append(job)
            print(job, f"not begun: {args.limit} s were over")
        elif "rate" in job:
            result["rate"] = guarded(matrix_rate, {}, args)
            print(result["rate"], flush=True)
        elif "prove" in job:
            attn = pick_attention(job["prove"], DEVICE)
            result["proof"].append(guarded(prove_kernel, {"attn": attn}, attn))
            print(result["proof"][-1], flush=True)
        elif "prove_run" in job:
            attn = pick_attention(job["prove_run"], DEVICE)
            result["proof_of_run"].append(guarded(prove_run, {"attn": attn}, attn, every, args))
            print(result["proof_of_run"][-1], flush=True)
        else:
            way = job | {"attn": pick_attention(job["attn"], DEVICE)}
            result["rows"].append(guarded(measure, way, way, steps[way["rows"]], every, args))
            print(*result["rows"][-1].values(), sep=" | ", flush=True)
        bare.write(
            args.out, result | {"summary": summary(result), "seconds": round(bare.seconds(), 1)}
        )
    print(summary(result))


if __name__ == "__main__":
    main()

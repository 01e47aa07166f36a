"""What difficulty-aware sampling buys at equal cost, with models of 20 million parameters on one GPU.

python bench/gpu_evidence.py profile                     # train teacher and base, show pass rates by level
python bench/gpu_evidence.py run [--seeds 0 1 2 3] [--budgets 20] [--rules ...] [--limit 330]
python bench/gpu_evidence.py table                       # means and paired contrasts so far

The comparison of bench/evidence.py, by the rules of sample.respend: a student for each seed (queries, draws,
training), budget in raw draws a query, and rule that spends it; all see the same number of tokens, rows are repeated.
The world is the package's miniature with harder sums, `--levels`: for each level its terms, products among them,
largest number and largest factor. Teacher and base are trained here from random weights and fixed seeds, the base on
fewer solutions and mostly of low levels. Look at `profile` before a run, and choose levels by the teacher's pass
rates alone.

Draws come from a batched sampler of this script, each from its own random stream, as the package's engine draws. A
response counts as correct when its last box holds the reference; each pool says how often the package's grader
disagrees among 1,000 responses. `run` works on cells that are not in gpu_evidence.jsonl (in `--out`) yet, all
rules of a seed before the next, and begins none after `--limit` seconds: call it again for the rest. A cell holds
hashes of teacher and base; contrasts pair students of one seed with the same ones. `--tiny` tries it on a CPU, from
the shipped checkpoints.

Needs this repository, torch, transformers, accelerate, pandas, pyarrow, scipy and mpmath; installs and downloads
nothing.
"""

import argparse
import hashlib
import json
import math
import os
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import bare
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from dart_math_nb.data.records import draw_seed
from dart_math_nb.demo.tiny import (
    VOCAB,
    distinct_queries,
    expression_value,
    tiny_path,
    tiny_tokenizer,
    worked_solution,
)
from dart_math_nb.engines.hf import pick_tokens, uniform_stream
from dart_math_nb.engines.protocol import SampleParams
from dart_math_nb.grade import grade_response
from dart_math_nb.sample.respend import Unfit, count_prefixes, respend, spent_rows

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
LEVELS = "3,0,100,9 4,1,100,9 5,2,100,20 6,3,100,30 7,4,100,50"
TINY_LEVELS = "2,0,50,9 3,0,30,9 4,0,20,9 4,1,20,9 5,2,20,9"  # The miniature's own
RULES = ["VRT", "budget", "Uniform", "Prop2Diff, stop"]
EVERY = [*RULES, "Uniform, stop", "Prop2Diff"]
LIMIT, ENOUGH, PILOT = 64, 20, 8  # Draws of a query; correct ones that end it; before Prop2Diff
SHAPE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6}
SHAPE |= {"num_attention_heads": 8, "initializer_range": 0.03}
SMALL = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}
SMALL |= {"num_attention_heads": 4, "initializer_range": 0.05}  # Of the shipped checkpoints
FULL = {
    "shape": SHAPE, "teacher": 700_000, "base": 250_000, "n_queries": 1500, "n_test": 3000,
    "tokens": 8_000_000, "batch": 512, "lr": 1e-3, "student_lr": 3e-4, "at_once": 8192,
}  # fmt: skip
TINY = {
    "shape": SMALL, "teacher": 128, "base": 128, "n_queries": 40, "n_test": 60,
    "tokens": 20_000, "batch": 32, "lr": 1e-5, "student_lr": 1e-3, "at_once": 256,
}  # fmt: skip
WEIGHTS = {"teacher": (1, 1, 1, 1.2, 1.5), "base": (3, 2, 1, 0.3, 0.1)}  # Of levels
ROOM, MAX_TOKENS, CHUNK = 224, 176, 5000  # Tokens of a row and of a response; rows a process makes
EOS, PAD = 1, 0


def arguments() -> argparse.Namespace:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("profile", "run", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--budgets", type=int, nargs="+", default=[20], help="draws a query")
    parser.add_argument("--rules", nargs="+", default=RULES, choices=EVERY)
    parser.add_argument("--levels", help=f"of the world ({LEVELS})")
    parser.add_argument("--temperature", type=float, default=1.4, help="of the teacher's draws")
    parser.add_argument("--limit", type=float, default=330, help="seconds; no cell begins later")
    parser.add_argument("--out", default=str(bare.ROOT / "bench" / "results"), help="folder")
    parser.add_argument("--work", help="folder that keeps teacher and base for another call")
    parser.add_argument("--processes", type=int, help="that write solutions (all cores)")
    parser.add_argument("--tiny", action="store_true", help="small, for a CPU")
    args = parser.parse_args()
    args.size = TINY if args.tiny else FULL
    args.levels = read_levels(args.levels or (TINY_LEVELS if args.tiny else LEVELS), parser)
    return args


# --- the world


def read_levels(text: str, parser: argparse.ArgumentParser) -> dict[int, tuple[int, ...]]:
    "Level -> terms, products among them, largest number, largest factor."
    found = {}
    for i, word in enumerate(text.split(), 1):
        parts = [int(x) if x.isdecimal() else -1 for x in word.split(",")]
        if len(parts) != 4 or parts[0] < 2 or not 0 <= parts[1] <= parts[0] or min(parts[2:]) < 2:
            parser.error(f"--levels: {word!r}; need terms,products,largest number,largest factor")
        found[i] = tuple(parts)
    if len(found) != 5:
        parser.error(f"--levels has {len(found)} levels; need 5")
    return found


def expression(shape: tuple[int, ...], rng: random.Random) -> str:
    "As `random_expression` of demo.tiny, with numbers and factors of any size."
    n_terms, n_products, largest, factor = shape
    products, parts, total = set(rng.sample(range(n_terms), n_products)), [], 0
    for i in range(n_terms):
        factors = [rng.randint(2, factor if i in products else largest)]
        factors += [rng.randint(2, factor)] if i in products else []
        value = math.prod(factors)
        minus = i > 0 and total >= value and rng.random() < 0.5
        total += -value if minus else value
        parts.append(("-" if minus else "+" if i else "") + "*".join(map(str, factors)))
    return "".join(parts)


def make_queries(n: int, seed: int, levels: dict, exclude: set[str] = frozenset()) -> list:
    "Different queries, as many of each level."

    def make(level: int, rng: random.Random) -> tuple[str, str]:
        text = expression(levels[level], rng)
        return text, str(expression_value(text))

    return distinct_queries(make, n, seed, exclude, "sums")


def ids_of(query: str, response: str) -> tuple[list[int], int]:
    "Tokens of a row, and how many of them are the prompt."
    lead = [TOKENS[c] for c in query + "\n"]
    text = response.replace("\\boxed{", "\0")
    return [*lead, *(TOKENS[c] for c in text), EOS], len(lead)


TOKENS = {c: i for i, c in enumerate(VOCAB) if len(c) == 1} | {"\0": VOCAB.index("\\boxed{")}


def some_rows(n: int, weights: tuple, seed: int, levels: dict) -> tuple[np.ndarray, np.ndarray]:
    "Worked solutions as rows of ROOM tokens, and lengths of prompts."
    rng, made, leads = random.Random(seed), np.zeros((n, ROOM), np.int8), np.zeros(n, np.int16)
    at = 0
    while at < n:
        query = expression(levels[rng.choices(list(levels), weights)[0]], rng)
        ids, lead = ids_of(query, worked_solution(query, rng))
        if len(ids) <= ROOM:
            made[at, : len(ids)], leads[at] = ids, lead
            at += 1
    return made, leads


def worked(name: str, args: argparse.Namespace, workers) -> list:
    "Jobs that make the rows to train the teacher or the base on."
    n, first = args.size[name], 10_000_019 * (1 + list(WEIGHTS).index(name))
    sizes = [min(CHUNK, n - i) for i in range(0, n, CHUNK)]
    return [
        workers.submit(some_rows, size, WEIGHTS[name], first + i, args.levels)
        for i, size in enumerate(sizes)
    ]


# --- the model


def new_model(args: argparse.Namespace, seed: int) -> LlamaForCausalLM:
    "Random weights."
    config = LlamaConfig(
        **args.size["shape"], vocab_size=len(VOCAB), max_position_embeddings=2 * ROOM,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    torch.manual_seed(seed)
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").to(DEVICE)


def shipped(name: str) -> dict:
    "Weights of a shipped checkpoint, from which `--tiny` starts."
    return LlamaForCausalLM.from_pretrained(tiny_path(name), dtype=torch.float32).state_dict()


def weights_hash(model: LlamaForCausalLM) -> str:
    "Twelve digits of the weights."
    found = hashlib.sha256()
    for name, p in sorted(model.state_dict().items()):
        found.update(name.encode() + p.cpu().numpy().tobytes())
    return found.hexdigest()[:12]


def fit(model: LlamaForCausalLM, rows, leads, seed: int, lr: float, batch: int) -> float:
    "One pass over rows in random order, AdamW, cosine with warmup; mean loss of the last tenth."
    order = np.random.default_rng(seed).permutation(len(rows))
    n_steps = max(1, len(rows) // batch)
    fused = {"fused": True} if CUDA else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr, (0.9, 0.95), weight_decay=0.0, **fused)
    losses = []
    for step in range(n_steps):
        at = torch.from_numpy(order[step * batch : (step + 1) * batch])
        ids, lead = rows[at].long(), leads[at].long()
        width = int((ids != PAD).sum(1).max())
        ids = ids[:, :width].to(DEVICE, non_blocking=True)
        place = torch.arange(width, device=DEVICE)
        labels = ids.masked_fill((place < lead.to(DEVICE)[:, None]) | (ids == PAD), -100)
        rate = min(
            (step + 1) / (0.05 * n_steps + 1), 0.5 + 0.5 * math.cos(math.pi * step / n_steps)
        )
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return round(torch.stack(losses)[-max(1, n_steps // 10) :].mean().item(), 4)


def teacher_and_base(args: argparse.Namespace) -> dict:
    "Both models, trained or as an earlier call left them."
    files = {n: Path(args.work) / f"{n}-{world_of(args)}.pt" for n in WEIGHTS if args.work}
    n, found = 1 if args.tiny else args.processes or os.cpu_count(), {}
    with ProcessPoolExecutor(n, get_context("spawn")) as workers:
        missing = [name for name in WEIGHTS if not (name in files and files[name].exists())]
        jobs = {name: worked(name, args, workers) for name in missing}
        for seed, name in enumerate(WEIGHTS):
            model, start = new_model(args, seed), bare.seconds()
            if args.tiny:
                model.load_state_dict(shipped(name))
            if name not in jobs:
                model.load_state_dict(torch.load(files[name], weights_only=True))
            else:
                parts = zip(*(job.result() for job in jobs[name]), strict=True)
                rows, leads = (torch.from_numpy(np.concatenate(x)) for x in parts)
                made = bare.seconds()
                loss = fit(model, rows, leads, seed, args.size["lr"], args.size["batch"])
                told = {"rows": len(rows), "waited_s": round(made - start), "loss": loss}
                print(name, told, f"{bare.seconds() - made:.0f} s", flush=True)
            if name in jobs and files:
                files[name].parent.mkdir(parents=True, exist_ok=True)
                torch.save(model.state_dict(), files[name])
            found[name] = model.eval()
    return found


def world_of(args: argparse.Namespace) -> str:
    "Names the world: levels, sizes and temperature."
    what = json.dumps([args.levels, args.size, args.temperature], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:8]


# --- the sampler


class Columns:
    "Key-value buffers of rows that all stand at the same column; prompts are padded on the left."

    def __init__(self):
        self.layers, self.n_seen = {}, 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.n_seen

    def update(self, keys, values, layer_idx, *args, **kwargs):
        "Write the columns before `n_seen`; return all up to there."
        if layer_idx not in self.layers:
            shape = (2, *keys.shape[:2], self.room, keys.shape[3])
            self.layers[layer_idx] = torch.zeros(shape, dtype=keys.dtype, device=keys.device)
        buffer, n_new = self.layers[layer_idx], keys.shape[2]
        buffer[0, :, :, self.n_seen - n_new : self.n_seen] = keys
        buffer[1, :, :, self.n_seen - n_new : self.n_seen] = values
        return buffer[0, :, :, : self.n_seen], buffer[1, :, :, : self.n_seen]

    def keep(self, rows: torch.Tensor) -> None:
        "Only these rows."
        self.layers = {i: b[:, rows] for i, b in self.layers.items()}


@torch.inference_mode()
def sample(model, prompts: list[list[int]], seeds: list[int], params: SampleParams) -> list:
    "Tokens of each response; the last is the end token unless it was cut off."
    width, n = max(map(len, prompts)), len(prompts)
    ids = torch.full((n, width), PAD)
    for i, p in enumerate(prompts):
        ids[i, width - len(p) :] = torch.tensor(p)
    u = torch.from_numpy(np.stack([uniform_stream(s, params.max_tokens) for s in seeds]))
    ids, u, cache, room = ids.to(DEVICE), u.to(DEVICE), Columns(), width + params.max_tokens
    cache.room, column = room, torch.arange(room, device=DEVICE)
    first = width - torch.tensor([len(p) for p in prompts], device=DEVICE)  # First real column
    done = torch.full((n, params.max_tokens), PAD, device=DEVICE)
    where, new = torch.arange(n, device=DEVICE), ids
    for step in range(params.max_tokens):
        cache.n_seen = width + step
        at = column[cache.n_seen - new.shape[1] : cache.n_seen]
        seen = column[: cache.n_seen]
        mask = (seen <= at[:, None]) & (seen >= first[:, None, None])
        mask |= seen == at[:, None]  # A padded place sees itself, so that nothing is 0 / 0
        with torch.autocast(DEVICE, torch.bfloat16, enabled=CUDA):
            hidden = model.base_model(
                input_ids=new, position_ids=(at - first[:, None]).clamp(min=0),
                attention_mask=mask[:, None], past_key_values=cache, use_cache=True,
            ).last_hidden_state[:, -1]  # fmt: skip
            logits = model.lm_head(hidden)
        token = pick_tokens(logits.float(), u[where, step], params)
        done[where, step] = token
        new = token[:, None]
        if step % 8 == 7 or step + 1 == params.max_tokens:
            open_rows = ~(done[where] == EOS).any(1)
            if not bool(open_rows.any()):
                break
            if float(open_rows.float().mean()) < 0.8:
                cache.keep(open_rows)
                where, first, new = where[open_rows], first[open_rows], new[open_rows]
    rows = done.tolist()
    return [r[: r.index(EOS) + 1] if EOS in r else r for r in rows]


def draw_many(model, asked: list, params: SampleParams, at_once: int) -> list:
    "Responses to (query, seed), those of like length together."
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0].query))
    found = [None] * len(asked)
    for start in range(0, len(order), at_once):
        part = order[start : start + at_once]
        prompts = [[TOKENS[c] for c in asked[i][0].query + "\n"] for i in part]
        drawn = sample(model, prompts, [asked[i][1] for i in part], params)
        for i, ids in zip(part, drawn, strict=True):
            found[i] = ids
    return found


def text_of(ids: list[int]) -> str:
    "A response without its end token."
    return "".join(VOCAB[i] for i in ids if i not in (EOS, PAD))


def is_right(ids: list[int], ref_ans: str) -> bool:
    "Finished, with the reference in its last box."
    if not ids or ids[-1] != EOS:
        return False
    _, box, rest = text_of(ids).rpartition("\\boxed{")
    return bool(box) and rest.partition("}")[0] == ref_ans


def draw_pool(teacher, queries: list, seed: int, args: argparse.Namespace) -> pd.DataFrame:
    "Draws of each query until enough are correct or the limit, sixteen trials at a time."
    params = SampleParams(args.temperature, max_tokens=MAX_TOKENS)
    right, rows = {q.query_id: 0 for q in queries}, []
    for start in range(0, LIMIT, 16):
        asked = [
            (q, draw_seed(seed, q.query_id, t), t)
            for q in queries
            if right[q.query_id] < ENOUGH
            for t in range(start, start + 16)
        ]
        drawn = draw_many(teacher, asked, params, args.size["at_once"])
        for (q, _, t), ids in zip(asked, drawn, strict=True):
            ok = is_right(ids, q.ref_ans)
            right[q.query_id] += ok
            rows.append((q.query_id, t, ok, len(ids), text_of(ids)))
    return pd.DataFrame(rows, columns=["query_id", "trial", "ok", "n_tokens", "response"])


def disagreements(pool: pd.DataFrame, queries: list) -> int:
    "Responses among 1,000 that the package's grader judges otherwise."
    known = {q.query_id: q for q in queries}
    some = pool.sample(min(1000, len(pool)), random_state=0)
    return sum(
        grade_response(r.response, known[r.query_id].ref_ans, known[r.query_id].query).correct
        != r.ok
        for r in some.itertuples()
        if r.n_tokens < MAX_TOKENS
    )


# --- students


def student(base, mine: pd.DataFrame, queries: list, seed: int, args: argparse.Namespace):
    "The base, trained on a set until all have seen the same number of tokens."
    text = {q.query_id: q.query for q in queries}
    rows = [ids_of(text[r.query_id], r.response) for r in mine.itertuples()]
    ids, leads = np.zeros((len(rows), ROOM + 64), np.int8), np.zeros(len(rows), np.int16)
    for i, (x, lead) in enumerate(rows):
        ids[i, : len(x)], leads[i] = x, lead
    rng, picked, n = random.Random(seed), [], 0
    while n < args.size["tokens"]:
        for i in rng.sample(range(len(rows)), len(rows)):
            if n >= args.size["tokens"]:
                break
            picked.append(i)
            n += len(rows[i][0])
    model = new_model(args, 0)
    model.load_state_dict(base.state_dict())
    data = torch.from_numpy(ids[picked]), torch.from_numpy(leads[picked])
    loss = fit(model, *data, seed, args.size["student_lr"], args.size["batch"] // 4)
    return model.eval(), loss


def accuracy(model, test: list, args: argparse.Namespace) -> dict:
    "Greedy, in percent: in all and by level."
    params = SampleParams(0.0, max_tokens=MAX_TOKENS)
    drawn = draw_many(model, [(q, 0) for q in test], params, args.size["at_once"])
    right = [is_right(ids, q.ref_ans) for q, ids in zip(test, drawn, strict=True)]
    by = pd.Series(right, dtype=float).groupby([q.meta["level"] for q in test]).mean()
    return {"accuracy": 100 * float(np.mean(right)), "levels": [round(100 * x, 2) for x in by]}


def by_level(pool: pd.DataFrame, queries: list) -> list[float]:
    "Pass rates of the first sixteen draws, in percent."
    level = pool.query_id.map({q.query_id: q.meta["level"] for q in queries})
    first = pool.trial < 16
    return [round(100 * x, 1) for x in pool.ok[first].groupby(level[first]).mean()]


def kept(args: argparse.Namespace) -> list[dict]:
    "Cells that are done."
    file = Path(args.out) / "gpu_evidence.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


CELL = ("world", "seed", "budget", "rule")


def run(args: argparse.Namespace) -> None:
    "Students of cells that are not done."
    done, world = {tuple(r[c] for c in CELL) for r in kept(args)}, world_of(args)
    cells = [(world, s, b, r) for s in args.seeds for b in args.budgets for r in args.rules]
    cells = [c for c in cells if c not in done]
    print(f"{len(cells)} cells to do in world {world}", flush=True)
    models = teacher_and_base(args) if cells else {}
    about = {name: weights_hash(m) for name, m in models.items()}
    for seed in dict.fromkeys(c[1] for c in cells):
        if bare.seconds() > args.limit:
            break
        one_seed(seed, [c for c in cells if c[1] == seed], models, about, args)
    if cells:
        table(args)


def one_seed(seed: int, cells: list, models: dict, about: dict, args: argparse.Namespace) -> None:
    "A pool, and a student of each cell."
    queries = make_queries(args.size["n_queries"], seed, args.levels)
    taken = {q.query_id for q in queries}
    test = make_queries(args.size["n_test"], seed + 1000, args.levels, taken)
    start = bare.seconds()
    pool = draw_pool(models["teacher"], queries, seed, args)
    told = {"draws": len(pool), "teacher_levels": by_level(pool, queries)}
    told |= {"grader_disagrees": disagreements(pool, queries)}
    told |= {"base": accuracy(models["base"], test, args)["accuracy"]}
    print("pool", seed, told, f"{bare.seconds() - start:.0f} s", flush=True)
    known = count_prefixes(pool, [q.query_id for q in queries], LIMIT)
    for cell in cells:
        if bare.seconds() > args.limit:
            print(cell, f"not begun: {args.limit} s were over")
            return
        row = one_cell(cell, known, pool, queries, test, models, args)
        keep(dict(zip(CELL, cell, strict=True)) | row | about | {"pool": told}, args)


def one_cell(cell, known, pool, queries, test, models, args) -> dict:
    "A student."
    _, seed, budget, rule = cell
    start = bare.seconds()
    pilot = min(PILOT, max(1, budget // 2))
    try:
        spent = respend(known, rule, budget * len(queries), pilot)
    except Unfit as e:
        return {"unfit": str(e)}
    mine = spent_rows(pool, known, spent)
    if mine.empty:
        return {"unfit": "no correct response"}
    model, loss = student(models["base"], mine, queries, seed, args)
    row = accuracy(model, test, args) | {"loss": loss}
    row |= {"draws": int(spent.n.sum()), "rows": len(mine), "queries": int(mine.query_id.nunique())}
    tokens = known.tokens[np.arange(len(spent.n)), spent.n].sum()
    return row | {"tokens_drawn": int(tokens), "seconds": round(bare.seconds() - start, 1)}


def keep(row: dict, args: argparse.Namespace) -> None:
    "Add a cell to the file."
    row = row | bare.machine() | {"levels_of_world": list(args.levels.values())}
    print(row, flush=True)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    with open(Path(args.out) / "gpu_evidence.jsonl", "a", encoding="utf-8") as f:
        f.write(json.dumps(row) + "\n")
        f.flush()
        os.fsync(f.fileno())


def interval(x: np.ndarray) -> list:
    "Mean and half-width of its 95 % interval over seeds, Student's t."
    mean, n = round(float(x.mean()), 2), len(x)
    if n < 2:
        return [mean, None]
    return [mean, round(float(stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / n**0.5), 2)]


def table(args: argparse.Namespace) -> None:
    "Means, and contrasts to VRT within a seed and the same teacher and base."
    frame = pd.DataFrame([r for r in kept(args) if "unfit" not in r])
    if frame.empty:
        print("no cells yet")
        return
    found = []
    for (world, budget), part in frame.groupby(["world", "budget"], sort=False):
        wide = part.pivot_table("accuracy", ["seed", "teacher", "base"], "rule")
        for rule in dict.fromkeys(part.rule):
            mine = part[part.rule == rule]
            row = {"world": world, "budget": int(budget), "rule": rule, "seeds": len(mine)}
            row["accuracy"] = interval(mine.accuracy.to_numpy())
            row["levels"] = np.mean(mine.levels.tolist(), 0).round(1).tolist()
            if "VRT" in wide and rule != "VRT" and len(d := (wide[rule] - wide["VRT"]).dropna()):
                row["less VRT"] = interval(d.to_numpy())
            found.append(row)
            print(json.dumps(row))
    about = {
        "cells": len(frame),
        "machines": sorted(set(frame.machine)),
        "dates": sorted(set(frame.date)),
    }
    bare.write(Path(args.out) / "gpu_evidence.json", about | {"rows": found})


def profile(args: argparse.Namespace) -> None:
    "Pass rates by level."
    models = teacher_and_base(args)
    queries = make_queries(min(500, args.size["n_queries"]), 99, args.levels)
    for name, model in models.items():
        params = SampleParams(args.temperature, max_tokens=MAX_TOKENS)
        asked = [(q, draw_seed(99, q.query_id, t), t) for q in queries for t in range(8)]
        drawn = draw_many(model, asked, params, args.size["at_once"])
        right = [is_right(ids, q.ref_ans) for (q, _, _), ids in zip(asked, drawn, strict=True)]
        by = pd.Series(right, dtype=float).groupby([q.meta["level"] for q, _, _ in asked]).mean()
        greedy = accuracy(model, queries, args)
        row = {
            "model": name,
            "hash": weights_hash(model),
            "sampled": [round(100 * x, 1) for x in by],
        }
        print(json.dumps(row | {"greedy": greedy, "seconds": round(bare.seconds())}), flush=True)


def main() -> None:
    args = arguments()
    if args.what == "table":
        return table(args)
    if not CUDA and not args.tiny:
        print("no CUDA device, nothing measured; --tiny tries the script on a CPU")
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert tiny_tokenizer().get_vocab() == {t: i for i, t in enumerate(VOCAB)}
    {"profile": profile, "run": run}[args.what](args)


if __name__ == "__main__":
    main()

"""What processes learn together beside what one learns, and memory that was estimated beside memory that was measured.

lessons    a tiny model on chats and on responses with outputs of tools, room 1,024, four packs a step: loss and every
           gradient of the first step (float32, before it is clipped), of one pass against four accumulated, and two
           processes of two passes each as copies (DDP), FSDP2, ZeRO-2 and ZeRO-3. `loss`, `gradient`: relative
           differences, of the norm over all parameters; `worst`: of the parameter that differs most, relative to its
           own norm. `held`: share of the weights that a process holds. ZeRO needs deepspeed (make deepspeed).
memory     passes over small models with random weights: most bytes at once beside weights and gradients, by the notes of
           torch's profiler, and the estimate of `train.memory` (train --plan) for the same pass, with its error.

Writes bench/results/launch.json.
"""

import importlib.util
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from parts import run_parts
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from dart_math_nb.data.files import write_jsonl
from dart_math_nb.testing.chats import CHATML, chat_tokenizer, random_chats
from dart_math_nb.testing.tiny_models import tiny_llama
from dart_math_nb.train.attention import register_segments
from dart_math_nb.train.config import TrainCfg
from dart_math_nb.train.launch import launch
from dart_math_nb.train.memory import pass_bytes
from dart_math_nb.train.spare import loss_in_chunks

OUT = Path(__file__).parent / "results" / "launch.json"
RECIPES = Path(__file__).parents[1] / "recipes"
KINDS = {"chats": "chat", "tools": "plain"}  # Train set -> template
RUN = """
import sys, torch
import dart_math_nb.train.loop as t
from dart_math_nb.train.recipe import make_cfg
from dart_math_nb.train.shards import share_held
from transformers import TrainerCallback

lesson = {}


def keep(model, of):
    found = {n: of(p) for n, p in model.named_parameters()}
    lesson.setdefault("grads", {n: g.detach().float().cpu().clone() for n, g in found.items()})
    lesson.setdefault("held", share_held(model))


def whole(p):
    return p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad


class Keep(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        engine = self.trainer.model_wrapped
        if self.trainer.is_deepspeed_enabled:
            from deepspeed.utils import safe_get_full_grad
            step = engine.step

            def kept(*a, **k):
                if engine.is_gradient_accumulation_boundary():
                    keep(engine.module, safe_get_full_grad)
                return step(*a, **k)

            engine.step = kept

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.trainer.is_deepspeed_enabled:
            keep(model, whole)


def make(*args, make=t.make_trainer):
    trainer = make(*args)
    callback = Keep()
    callback.trainer = trainer
    trainer.add_callback(callback)
    return trainer


t.make_trainer = make
if __name__ == "__main__":
    fields = dict(a.split("=", 1) for a in sys.argv[1:])
    for kind, template in (p.split(":") for p in fields.pop("kinds").split(",")):
        lesson.clear()
        own = {"out": fields["out"] + "-" + kind, "template": template}
        own["train_set"] = fields["train_set"] + "/" + kind + ".jsonl"
        result = t.train(make_cfg(fields | own), progress=False)
        lesson["loss"] = float(result.log.loss.iloc[0])
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            continue
        torch.save(dict(lesson), own["out"] + ".pt")
"""


def write_sets(folder: Path) -> None:
    "A model, chats, and responses of which the outputs of tools carry no loss."
    tiny_llama(100, max_position_embeddings=2048).save_pretrained(folder / "base")
    chat_tokenizer(CHATML).save_pretrained(folder / "base")
    ran = []
    for a in range(99, 300):
        row = {"query": f"{a}*7", "response": f"run({a}*7) {a * 7:5d} So {a * 7}."}
        ran.append(row | {"segments": f"t11 o6:ok t{len(row['response']) - 17}"})
    write_jsonl(folder / "tools.jsonl", ran)
    write_jsonl(folder / "chats.jsonl", [{"messages": c} for c in random_chats(60, 9)])
    (folder / "run.py").write_text(RUN)


def apart(have: dict, want: dict) -> dict:
    "How far a lesson is from another."
    pairs = {n: (have["grads"][n], g) for n, g in want["grads"].items()}
    off = {n: float((a - b).norm()) for n, (a, b) in pairs.items()}
    size = {n: float(b.norm()) for n, (_, b) in pairs.items()}
    norm = math.sqrt(sum(v**2 for v in size.values()))
    worst = max(off, key=lambda n: off[n] / max(size[n], 1e-30))
    return {
        "loss": abs(have["loss"] - want["loss"]) / abs(want["loss"]),
        "gradient": math.sqrt(sum(v**2 for v in off.values())) / norm,
        "worst": off[worst] / size[worst],
        "of": worst,
        "held": round(have["held"], 3),
    }


def lessons() -> dict:
    "Loss and gradients of the first step, each way against one pass of one process."
    ways = {"one pass": (1, 4, {}), "accumulation": (1, 1, {}), "copies": (2, 1, {})}
    ways["FSDP2"] = (2, 1, {"fsdp": RECIPES / "fsdp" / "full.json"})
    if importlib.util.find_spec("deepspeed"):
        for stage in (2, 3):
            config = RECIPES / "deepspeed" / f"zero{stage}.json"
            ways[f"ZeRO-{stage}"] = (2, 1, {"deepspeed": config})
    found = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as tmp:
        write_sets(tmp := Path(tmp))
        for way, (n, passes, more) in ways.items():
            cfg = {"model": tmp / "base", "train_set": tmp, "out": tmp / way, "room": 1024}
            cfg |= {"batch_size": 4, "n_epochs": 1, "packs_per_forward": passes, "lr": "1e-4"}
            cfg |= {"dtype": "float32", "attn": "dart_segments", "max_grad_norm": "1e9"} | more
            cfg |= {"kinds": ",".join(f"{k}:{v}" for k, v in KINDS.items()), "max_left_out": 1}
            launch(tmp / "run.py", [f"{k}={v}" for k, v in cfg.items()], n, timeout=900)
            for kind in KINDS:
                one, have = (torch.load(tmp / f"{w}-{kind}.pt") for w in ("one pass", way))
                found[kind][way] = apart(have, one)
            print(way, {k: found[k][way] for k in KINDS}, flush=True)
    return found


MODELS = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "mistral": {"num_key_value_heads": 2, "head_dim": 64},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "olmo2": {"num_key_value_heads": 4},
    "phi3": {"num_key_value_heads": 4, "pad_token_id": 0},
}
SPARING = {
    "as it is": {},
    "checkpointing": {"gradient_checkpointing": True},
    "chunks": {"gradient_checkpointing": True, "loss_chunk": 128},
}


def measured(config, cfg: TrainCfg, n_tokens: int) -> int:
    "Most bytes at once in a pass, beside weights and gradients, as the allocator says."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=register_segments())
    model.train()
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    ids = torch.arange(n_tokens)[None] % 500
    batch = {"input_ids": ids, "labels": ids, "position_ids": torch.arange(n_tokens)[None]}
    with (
        loss_in_chunks(model, cfg.loss_chunk),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        model(**batch, use_cache=False, num_items_in_batch=n_tokens).loss.backward()
    notes = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for note in sorted(notes, key=lambda e: e.start_ns()):
        live += note.nbytes()
        most = max(most, live)
    return most


def memory() -> dict:
    "Estimates beside measurements."
    n, found = 1024, {}
    for kind, more in MODELS.items():
        shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}
        shape |= {"num_attention_heads": 8, "vocab_size": 8000}
        config = AutoConfig.for_model(kind, **shape | more)
        for way, spare in SPARING.items():
            cfg = replace(TrainCfg(kind, "out", room=n, dtype="float32"), **spare)
            have, said = measured(config, cfg, n), pass_bytes(config, cfg, n)["most"]
            row = {"measured, MiB": round(have / 2**20, 1), "estimate, MiB": round(said / 2**20, 1)}
            found.setdefault(kind, {})[way] = row | {"error": round(said / have - 1, 3)}
    errors = [abs(r["error"]) for ways in found.values() for r in ways.values()]
    return {"tokens": n, "largest error": max(errors), "models": found}


if __name__ == "__main__":
    run_parts(__doc__, {"lessons": lessons, "memory": memory}, OUT)

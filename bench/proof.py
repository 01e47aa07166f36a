"""Take the proof of packing through the architectures of transformers: `python bench/proof.py [PART ...]`.

`architectures`: every configuration below, tiny, on each attention of a CPU, packed and padded. What the proof says is
checked by an audit of its own: the configuration as it is (windows of 20 and chunks of 24 tokens, no smaller), other
samples, other weights, loss and all gradients against the samples one by one with plain attention. `right`: the proof
passes and the audit is below 1e-10; `refused`: with the reason; `silent`: the proof passes and the audit does not.
It writes after each configuration and goes on where it was.
`faults`: five planted faults on several architectures, each to be found. `cost`: CPU seconds of the proof, by shape.
"""

import json
import logging
import os
import time
import warnings
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import torch
from parts import run_parts
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dart_math_nb.data.files import read_json, write_json
from dart_math_nb.data.messages import one_line
from dart_math_nb.train import attention
from dart_math_nb.train.collate import collate_packs, collate_padded
from dart_math_nb.train.proof import (
    LIMIT,
    difference,
    learn_apart,
    learn_together,
    prove_attention,
    prove_small,
    small_case,
)
from dart_math_nb.train.small import InDouble, small_config, small_model, small_samples
from dart_math_nb.train.tokens import IGNORE_ID

RESULTS = Path(__file__).parent / "results" / "proof.json"
LENS = (70, 5, 33, 1, 52, 90, 2, 18)  # Longer than windows and chunks, and not
PACKED, PADDED = ("dart_segments", "sdpa", "eager"), ("sdpa", "eager")
NOT_DECODERS = """bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small
camembert data2vec-text electra ernie git got_ocr2 marian mbart megatron-bert musicgen
musicgen_melody mvp pegasus plbart prophetnet reformer rembert roberta roberta-prelayernorm roc_bert
roformer trocr whisper xlm xlm-roberta xlm-roberta-xl xlnet xmod moshi fuyu emu3 mllama blt
gemma4_assistant gemma4_unified_assistant gemma4_unified qwen3_5 qwen3_5_moe gemma3 gemma3n gemma4
llama4 qwen4_exp phi4_multimodal gpt-sw3""".split()  # Or the same as their text part

LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 40}
LONG |= {"short_factor": [1.0, 1.2] * 24, "long_factor": [2.0, 3.0] * 24, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 40}
L3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
L3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 40}
SLIDING, FULL = ["sliding_attention"] * 4, ["full_attention"] * 4
MIXED = ["sliding_attention", "full_attention"] * 2
VARIANTS = {
    "llama": {
        "one key head": {"num_key_value_heads": 1},
        "as many key heads": {"num_key_value_heads": 32},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "tied": {"tie_word_embeddings": True},
        "rope linear": {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
        },
        "rope dynamic, within": {"rope_parameters": DYNAMIC, "max_position_embeddings": 2048},
        "rope dynamic, beyond": {"rope_parameters": DYNAMIC, "max_position_embeddings": 40},
        "rope yarn": {"rope_parameters": YARN},
        "rope llama3": {"rope_parameters": L3},
    },
    "phi3": {
        "window": {"sliding_window": 20},
        "longrope, beyond": {"rope_parameters": LONG, "original_max_position_embeddings": 40},
    },
    "mistral": {"no window": {"sliding_window": None}, "window 1": {"sliding_window": 1}},
    "mixtral": {"window": {"sliding_window": 20}},
    "qwen2": {
        "window": {"use_sliding_window": True, "sliding_window": 20, "layer_types": SLIDING},
        "window in half": {"use_sliding_window": True, "sliding_window": 20, "layer_types": MIXED},
    },
    "qwen2_moe": {
        "window": {"use_sliding_window": True, "sliding_window": 20, "layer_types": SLIDING},
        "window in half": {"use_sliding_window": True, "sliding_window": 20, "layer_types": MIXED},
    },
    "qwen3": {
        "window": {"use_sliding_window": True, "sliding_window": 20, "layer_types": SLIDING},
        "window in half": {"use_sliding_window": True, "sliding_window": 20, "layer_types": MIXED},
    },
    "qwen3_moe": {"window": {"use_sliding_window": True, "sliding_window": 20}},
    "phimoe": {"window": {"sliding_window": 20}, "no window": {"sliding_window": None}},
    "starcoder2": {"window": {"sliding_window": 20}, "no window": {"sliding_window": None}},
    "gemma2": {
        "no soft cap": {"attn_logit_softcapping": None},
        "no window": {"layer_types": FULL},
        "window": {"layer_types": SLIDING},
    },
    "gemma3_text": {
        "both ways": {"use_bidirectional_attention": True},
        "window": {"layer_types": SLIDING},
    },
    "cohere2": {"window": {"layer_types": SLIDING}, "NoPE": {"layer_types": FULL}},
    "olmo3": {"window": {"layer_types": SLIDING}, "no window": {"layer_types": FULL}},
    "exaone4": {
        "window": {"layer_types": SLIDING, "sliding_window": 20},
        "no window": {"layer_types": FULL, "sliding_window": None},
    },
    "gpt_oss": {"window": {"layer_types": SLIDING}, "sinks alone": {"layer_types": FULL}},
    "smollm3": {
        "window": {"use_sliding_window": True, "sliding_window": 20, "layer_types": SLIDING},
        "NoPE": {"no_rope_layers": [0, 0, 0, 0]},
        "RoPE": {"no_rope_layers": [1, 1, 1, 1]},
    },
    "llama4_text": {
        "chunks": {"layer_types": ["chunked_attention"] * 4, "attn_temperature_tuning": False},
        "no chunks": {"layer_types": FULL, "attn_temperature_tuning": False},
        "temperature": {"layer_types": FULL, "no_rope_layers": [0, 0, 0, 0]},
        "NoPE": {
            "layer_types": FULL,
            "no_rope_layers": [0, 0, 0, 0],
            "attn_temperature_tuning": False,
        },
        "chunks out of reach": {"attention_chunk_size": 8192, "floor_scale": 8192},
    },
    "ministral3": {"window": {"sliding_window": 20}},
    "falcon": {
        "ALiBi": {"alibi": True},
        "key heads": {"new_decoder_architecture": True, "num_kv_heads": 2},
    },
    "vaultgemma": {"no soft cap": {"attn_logit_softcapping": None}},
    "granitemoehybrid": {"attention alone": {"layer_types": ["full_attention"] * 4}},
    "modernbert-decoder": {"window": {"layer_types": SLIDING}},
    "mimo_v2_flash": {"window": {"layer_types": SLIDING}},
    "gemma4_text": {"window": {"layer_types": SLIDING}},
    "gpt_neo": {"window": {"attention_types": [[["local"], 4]], "window_size": 20}},
    "gpt2": {"scaled by layer": {"scale_attn_by_inverse_layer_idx": True}},
    "stablelm": {"qk norm": {"qk_layernorm": True}, "parallel": {"use_parallel_residual": True}},
    "gpt_neox": {"in sequence": {"use_parallel_residual": False}},
    "phi": {"qk norm": {"qk_layernorm": True}},
    "cohere": {"qk norm": {"use_qk_norm": True}},
    "nemotron": {"plain": {"num_key_value_heads": 2, "head_dim": 16}},
    "dots1": {
        "experts": {
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "layer_types": FULL,
            "num_experts_per_tok": 2,
        }
    },
    "hunyuan_v1_dense": {"plain": {"head_dim": 16}},
    "hunyuan_v1_moe": {"plain": {"head_dim": 16}},
    "ministral": {"window": {"head_dim": 16, "sliding_window": 20, "layer_types": SLIDING}},
    "deepseek_v2": {"experts": {"num_experts_per_tok": 2}},
}
REACH = {"sliding_window": 20, "attention_chunk_size": 24, "floor_scale": 24, "window_size": 20}
REACH |= {"sliding_window_size": 20, "attention_window_size": 20, "local_attention": 40}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WITHOUT_PLAIN = (
    "deepseek_v2",
    "nemotron",
    "dots1",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "ministral",
)


def tiny(kind: str, **changes) -> object:
    "A configuration with four layers, narrow, its windows within reach of the samples."
    config = CONFIG_MAPPING[kind]()
    names = [n for n in LAYERS if isinstance(getattr(config, n, None), int)]
    made = {"tie_word_embeddings": False, "num_hidden_layers": 4} if names else {}
    try:
        config = CONFIG_MAPPING[kind](**made | changes)
    except Exception:  # Lists by layer that cannot be four: as deep as it is
        config = CONFIG_MAPPING[kind](**changes)
    config = small_config(config, 0, 0)
    for name, value in REACH.items():
        if isinstance(getattr(config, name, None), int) and name not in changes:
            if getattr(config, name) > 0:
                setattr(config, name, value)
    return config


def configurations() -> dict[str, tuple]:
    "All that are tried, by name: kind and changes."
    kinds = [k for k in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if k not in NOT_DECODERS]
    found = {k: (k, {}) for k in kinds if k not in WITHOUT_PLAIN}
    return found | {f"{k}, {v}": (k, c) for k in kinds for v, c in VARIANTS.get(k, {}).items()}


def audit_model(config: object) -> object:
    "The configuration as it is, other weights than the proof's, in float64."
    torch.manual_seed(7)
    options = {"dtype": torch.float64, "experts_implementation": "eager"}
    options |= {"attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(deepcopy(config), **options).double().eval()
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            p.copy_(p + 0.2 * noise if p.ndim < 2 else 1.3 * noise / p.shape[-1] ** 0.5)
    return model


def audit(config: object, cases: list[tuple[str, bool]]) -> dict:
    "Largest error of loss and gradients of each attention, packed (False) or padded (True)."
    model, found = audit_model(config), {}
    samples = small_samples(min(90, model.config.vocab_size), LENS)
    with InDouble():
        want = learn_apart(model, samples, 100)
        for attn, padded in cases:
            collate = partial(collate_padded, pad_id=0) if padded else collate_packs
            model.set_attn_implementation(attn)
            error = difference(learn_together(model, collate(samples), 100), want)
            found[attn, padded] = max(error["loss"], error["grad"])
    return found


def try_one(kind: str, changes: dict) -> dict:
    "What the proof and the audit say of one configuration."
    start, verdicts = time.process_time(), {}
    try:
        config = tiny(kind, **changes)
    except Exception as e:
        return {"not made": one_line(e)}
    reach = {"n_longest": max(LENS), "n_row": sum(LENS)}
    for padded, names in ((False, PACKED), (True, PADDED)):
        for attn in names:
            try:
                proof = prove_attention(config, [attn], padded, **reach)["small"]
                verdicts[attn, padded] = max(proof["loss"], proof["grad"])
            except ValueError as e:
                verdicts[attn, padded] = str(e)
    passed = [case for case, v in verdicts.items() if not isinstance(v, str)]
    audited = audit(config, passed) if passed else {}
    rows = {}
    for (attn, padded), said in verdicts.items():
        name = f"{attn}, {'padded' if padded else 'packed'}"
        if isinstance(said, str):
            why = said.split(f"({attn}: ")[-1].split("; try ")[0]
            rows[name] = {"verdict": "refused", "why": why[:300]}
        else:
            error = audited[attn, padded]
            good = "right" if error < LIMIT else "silent"
            rows[name] = {"verdict": good, "proof": said, "audit": error}
    return {"seconds": round(time.process_time() - start, 2), "attentions": rows}


def architectures() -> dict:
    "Every configuration that is not in the results yet; then the count."
    found = read_json(RESULTS).get("architectures", {}) if RESULTS.exists() else {}
    done = found.get("configurations", {})
    for name, (kind, changes) in configurations().items():
        if name in done:
            continue
        try:
            done[name] = try_one(kind, changes)
        except Exception as e:  # The audit itself, which must not stop the others
            done[name] = {"not audited": one_line(e)}
        told = done[name].get("attentions", done[name])
        print(
            name,
            json.dumps(
                {k: v.get("verdict") if isinstance(v, dict) else v for k, v in told.items()}
            ),
            flush=True,
        )
        result = read_json(RESULTS) if RESULTS.exists() else {}
        write_json(RESULTS, result | {"architectures": {"configurations": done}})
    rows = [r for d in done.values() for r in d.get("attentions", {}).values()]
    tried = [n for n, d in done.items() if "attentions" in d]
    count = {v: sum(r["verdict"] == v for r in rows) for v in ("right", "refused", "silent")}
    return {
        "transformers": version("transformers"),
        "architectures": len({n.split(",")[0] for n in tried}),
        "configurations tried": len(tried),
        "verdicts": count,
        "largest error of what passed": max(
            (r["audit"] for r in rows if "audit" in r), default=None
        ),
        "configurations": done,
    }


def run_on(samples: list) -> dict:
    "Positions that run on through the pack."
    batch = collate_packs(samples)
    ids = torch.arange(batch["input_ids"].shape[1])[None]
    return {k: batch[k] for k in ("input_ids", "labels", "use_cache")} | {"position_ids": ids}


def shifted(samples: list) -> dict:
    "One label that stands a token too early."
    batch = collate_packs(samples)
    labels = batch["labels"].clone()
    at = int((labels[0] != IGNORE_ID).nonzero()[5])
    labels[0, [at - 1, at]] = labels[0, [at, at - 1]]
    return batch | {"labels": labels}


def faults() -> dict:
    "Five faults, planted where they can be: found by the proof or not."
    attend = attention._attend
    wide = patch.object(
        attention, "_attend", lambda q, k, v, w, **o: attend(q, k, v, w and w + 1, **o)
    )
    blind = patch("transformers.masking_utils.find_packed_sequence_indices", lambda ids: None)
    planted = {
        "none": ("llama mistral qwen3 olmo2 gemma3_text", "sdpa", collate_packs, nullcontext()),
        "mask dropped": ("llama mistral qwen3 olmo2 gemma3_text", "sdpa", collate_packs, blind),
        "window off by one": (
            "mistral olmo3 gemma3_text cohere2",
            "dart_segments",
            collate_packs,
            wide,
        ),
        "cap missing": ("gemma2 vaultgemma", "sdpa", collate_packs, nullcontext()),
        "positions not restarted": (
            "llama mistral olmo2 gemma3_text",
            "dart_segments",
            run_on,
            nullcontext(),
        ),
        "one label shifted": ("llama mistral qwen3 olmo2 gemma2", "eager", shifted, nullcontext()),
    }
    found = {}
    attention.register_segments()
    for fault, (kinds, attn, collate, fault_in) in planted.items():
        found[fault] = {}
        for kind in kinds.split():
            model = small_model(tiny(kind), max(LENS), sum(LENS))
            _, case = small_case(model)
            try:
                with fault_in:
                    found[fault][kind] = (
                        f"not found: {prove_small(model, attn, collate, *case)['grad']:.0e}"
                    )
            except ValueError as e:
                found[fault][kind] = f"found: {one_line(e)[:160]}"
    return found


SHAPES = {
    "Llama, 1 B (16 layers)": ("llama", {"num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "intermediate_size": 8192}),
    "Llama, 8 B (32 layers)": ("llama", {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "intermediate_size": 14336}),
    "Llama, 70 B (80 layers)": ("llama", {"num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "intermediate_size": 28672}),
    "Mistral, 7 B (32 layers, window)": ("mistral", {}),
    "Gemma 2, 9 B (42 layers, window, soft cap)": ("gemma2", {"num_hidden_layers": 42}),
    "Qwen3-MoE, 30 B (48 layers, 128 experts)": ("qwen3_moe", {"num_hidden_layers": 48}),
}  # fmt: skip


def cost() -> dict:
    "CPU seconds of one thread, from a configuration to an attention."
    found = {}
    for name, (kind, changes) in SHAPES.items():
        config = CONFIG_MAPPING[kind](**changes)
        start = time.process_time()
        proof = prove_attention(config, PACKED, n_longest=8192, n_row=65536)
        seconds = round(time.process_time() - start, 2)
        found[name] = {"cpu_s": seconds, "attn": proof["attn"], **proof["small"]}
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parts = {"architectures": architectures, "faults": faults, "cost": cost}
    run_parts(__doc__, parts, RESULTS)

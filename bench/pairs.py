"""Preference pairs: written by the export, prepared by TRL's own DPO trainer.

python bench/pairs.py: a pool of made-up responses of many lengths (dice), cut with 4 right and 4 wrong responses of
each query, exported in both forms and both kinds of file; DPOTrainer loads each with a tokenizer of bytes and prepares
it. `unequal` counts rows whose prompt, chosen or rejected text, decoded from TRL's tokens, is not what the pool holds.
The gaps are mean differences in tokens: matched, in the order of trials, and with one pair of each query.

Writes bench/results/pairs.json.
"""

import json
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import pandas as pd
from datasets import load_dataset
from parts import named_parts
from rl import END, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from dart_math_nb.data.queries import save_queries
from dart_math_nb.data.records import Source
from dart_math_nb.engines.dice import simulated_world
from dart_math_nb.sample.loop import sample_pool
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sets.pairs import PairCfg, export_pairs, pair_rows, read_wrong
from dart_math_nb.sets.stage import cut_sets
from dart_math_nb.store.pool import open_pool

OUT = Path(__file__).parent / "results" / "pairs.json"
N = 800
SYSTEM = "Put the answer in a box."


def make_set(folder: Path) -> Path:
    "A train set with wrong responses beside it."
    asked = StrategyCfg("uniform", k=4, max_trials=256, k_wrong=4, give_up=64)
    queries, dice = simulated_world(N)
    save_queries(folder / "queries.jsonl", queries)
    with open_pool(folder / "pool") as pool:
        sample_pool(queries, dice, pool, source=Source("dice"), strategy=asked, progress=False)
    cut_sets(folder, {"uniform": asked})
    return folder / "train_set/uniform"


def prepared(file: Path, cfg: PairCfg, pairs: pd.DataFrame, folder: Path) -> dict:
    "What DPOTrainer makes of a file."
    tok = tokenizer(folder)
    kind = "parquet" if file.suffix == ".parquet" else "json"
    data = load_dataset(kind, data_files=str(file), split="train", cache_dir=str(folder / "cache"))
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), **shape)).save_pretrained(folder / "model")
    args = DPOConfig(str(folder / "run"), report_to=[], use_cpu=True, save_strategy="no")
    trainer = DPOTrainer(str(folder / "model"), args=args, train_dataset=data, processing_class=tok)
    chat, unequal = cfg.form == "pairs", 0
    for row, pair in zip(trainer.train_dataset, pairs.to_dict("records"), strict=True):
        start, sides = f"{SYSTEM}\n\n{pair['query']}", (pair["chosen"], pair["rejected"])
        if chat:
            turns = (("system", SYSTEM), ("user", pair["query"]))
            start = "".join(f"<|im_start|>{role}\n{text}{END}\n" for role, text in turns)
            start += "<|im_start|>assistant\n"
        wanted = (start, *(f"{text}{END}" + ("\n" if chat else "") for text in sides))
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        found = [tok.decode(row[n]) for n in names]
        shared = os.path.commonprefix(wanted[1:])  # TRL counts a common start to the prompt
        unequal += [found[0] + t for t in found[1:]] != [start + t for t in wanted[1:]]
        assert found[0].startswith(start) and found[0].removeprefix(start) in shared
    losses = trainer.get_train_dataloader()
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(next(iter(losses))))
    return {"rows": len(data), "unequal": unequal, "loss of a batch": round(loss.item(), 4)}


def gaps(right: pd.DataFrame, wrong: pd.DataFrame) -> dict:
    "Mean difference in tokens, and mean lengths of both sides."
    found = {"matched": pair_rows(right, wrong, PairCfg()), "one of each": None}
    found["one of each"] = pair_rows(right, wrong, PairCfg(n=1))
    i = [f.assign(i=f.groupby("query_id").cumcount()) for f in (right, wrong)]
    order = i[0].merge(i[1], on=["query_id", "i"])
    sides = {n: (f["chosen_tokens"], f["rejected_tokens"]) for n, f in found.items()}
    sides["by order"] = (order["n_tokens_x"], order["n_tokens_y"])
    return {
        n: {
            "pairs": len(a),
            "gap": round((a - b).abs().mean(), 2),
            "right": round(a.mean(), 1),
            "wrong": round(b.mean(), 1),
        }
        for n, (a, b) in sides.items()
    }


def main() -> None:
    forms, start = {}, time.time()
    with tempfile.TemporaryDirectory() as tmp:
        folder = make_set(Path(tmp) / "run")
        right, wrong = pd.read_parquet(folder / "train.parquet"), read_wrong(folder)
        pairs = pair_rows(right, wrong, PairCfg())
        for form, name in (
            ("pairs", "a.jsonl"),
            ("pairs", "a.parquet"),
            ("pairs-text", "b.jsonl"),
            ("pairs-text", "b.parquet"),
        ):
            cfg = PairCfg(form, system=SYSTEM)
            made = export_pairs(folder, Path(tmp) / name, cfg)
            forms[f"{form}, {Path(name).suffix}"] = prepared(made.path, cfg, pairs, Path(tmp))
            print(form, name, forms[f"{form}, {Path(name).suffix}"], flush=True)
        lens = gaps(right, wrong)
    import trl

    found = {"date": str(date.today()), "seconds": round(time.time() - start, 1)}
    found |= {"trl": trl.__version__, "forms": forms, "lengths": lens}
    found["machine"] = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(lens)


if __name__ == "__main__":
    named_parts(__doc__)
    main()

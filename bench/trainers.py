"""Exported sets, loaded by other trainers with their own code, to the tokens and labels that they would train on.

python bench/trainers.py FOLDER [TRAINER ...] [--source open-instruct=PATH]

FOLDER (outside the repository) gets an environment per trainer, which also sees the packages of this one; what a
trainer needs for GPUs alone is left out. A trainer that no index has is read from a checkout, named by --source.

1,000 rows (texts at random with much white space and many signs, and real responses to MATH where the data folder
is) are written in each form by the functions of `dart-math export`. A tokenizer with merges learned from these texts and
a ChatML template says what they are as tokens. The trainer's own code then reads the file; so does `dart-math train`
(template: chat), which leaves out rows whose first token would be half prompt and half response (`merged`); others
train on them. A row counts as `equal` when tokens and labels are; `ids_equal` when tokens are. Where labels differ,
`learned_more` lists the tokens that only the trainer learns, `learned_less` those that only this package does, with
counts. What does not install or load is kept as its error. Writes bench/results/trainers.json.

The drivers run inside: python bench/trainers.py --inside TRAINER CASE FOLDER.
"""

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

OUT = Path(__file__).parent / "results" / "trainers.json"
REPO = Path(__file__).resolve().parents[1]
N_ROWS, ROOM = 1000, 8192
IGNORE_ID = -100
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = "Put the answer in a box."
CASES = {  # Name -> form of `export`, system message
    "messages": ("messages", ""),
    "messages, system": ("messages", SYSTEM),
    "sharegpt": ("sharegpt", ""),
    "sharegpt, system": ("sharegpt", SYSTEM),
    "alpaca": ("alpaca", ""),
}
PACKAGES = {  # Trainer -> what pip installs without what it needs
    "trl": ["trl==1.16.0"],
    "llamafactory": [
        *("llamafactory==0.9.5", "transformers==5.6.0", "tokenizers==0.22.2", "trl==0.24.0"),
        *(
            "datasets==4.0.0",
            "peft==0.18.1",
            "accelerate==1.11.0",
            "omegaconf",
            "huggingface-hub==1.17.0",
        ),
        "antlr4-python3-runtime==4.9.3",
    ],
    "axolotl": ["axolotl==0.19.0", "addict", "art", "colorama", "fire", "termcolor"],
    "open-instruct": "litellm rich tiktoken langdetect immutabledict nltk beaker-py ray wandb".split(),
}
HOW = {
    "trl": "its wheel: load_dataset, SFTTrainer (assistant_only_loss), its collator",
    "llamafactory": "its wheel and its pins of transformers, datasets, trl, peft: get_dataset; an empty module "
    "stands in for torchaudio",
    "axolotl": "its wheel beside a newer transformers: load_dataset, the strategies of chat_template and alpaca, "
    "wrap_dataset_for_tokenized_prompt",
    "open-instruct": "its module from a checkout: get_cached_dataset_tulu, sft_tulu_tokenize_and_truncate_v1",
}
READS = {  # Trainer -> cases
    "trl": ("messages", "messages, system"),
    "llamafactory": tuple(CASES),
    "axolotl": ("messages", "messages, system", "sharegpt", "sharegpt, system"),
    "open-instruct": ("messages", "messages, system"),
}


# --- rows, files, and what this package makes of them


def texts() -> tuple[list[dict], int]:
    "Rows with query and response; how many of them are real."
    from dart_math_nb.data.files import read_rows
    from dart_math_nb.data.load import data_folder
    from dart_math_nb.testing.chats import random_text

    rng, rows = random.Random(0), []
    if (folder := data_folder()) is not None:
        read = read_rows(folder / "responses" / "zeroeval_math_l5.jsonl.gz")
        whole = [r for r in read if r["resp"] and len(r["resp"]) < 4000 and "<|" not in r["resp"]]
        rows = [
            {"query": r["query"], "response": r["resp"]} for r in rng.sample(whole, N_ROWS // 2)
        ]
    n_real = len(rows)
    edges = ("", " ", "\n", "\n\n", "  ")
    while len(rows) < N_ROWS:
        said = rng.choice(edges) + random_text(rng, 40) + rng.choice(edges)
        rows.append({"query": f"{random_text(rng)} ({len(rows)})", "response": said})
    return rows, n_real


def make_tokenizer(folder: Path, rows: list[dict]) -> None:
    "Bytes with merges learned from the rows, and a ChatML template; saved as trainers expect one."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    how = {"initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()), "show_progress": False}
    learn = trainers.BpeTrainer(vocab_size=2000, **how)
    tok.train_from_iterator([r["query"] + "\n" + r["response"] for r in rows], learn)
    marks = {"pad_token": "<|pad|>", "eos_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, **marks)
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = CHATML
    fast.save_pretrained(folder / "tokenizer")


def prepare(folder: Path) -> dict:
    "Files of all cases, and this package's tokens and labels of each."
    from transformers import AutoTokenizer

    from dart_math_nb.data.files import read_rows
    from dart_math_nb.sets.export import formed, write_rows
    from dart_math_nb.train.config import TrainCfg
    from dart_math_nb.train.rows import train_tokens

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, n_real = texts()
    make_tokenizer(folder, rows)
    tokenizer, left_out = AutoTokenizer.from_pretrained(folder / "tokenizer"), {}
    for case, (form, system) in CASES.items():
        file = folder / f"{case.replace(', ', '-')}.jsonl"
        write_rows(file, formed(rows, form, system))
        named = {"query_field": "instruction", "response_field": "output"}
        named = named if form == "alpaca" else {}
        cfg = TrainCfg("none", "none", template="chat", room=ROOM, instruction="none", **named)
        tokens = train_tokens(read_rows(file), tokenizer, cfg)
        left_out[case] = {k: n for k, n in tokens.left_out.items() if n}
        made = [tokens[i] for i in range(len(tokens.seq_lens))]
        save(folder / f"{file.stem}.ours.json", [(s["input_ids"], s["labels"]) for s in made])
    return {"rows": len(rows), "real": n_real, "tokens": len(tokenizer), "left_out": left_out}


def save(file: Path, pairs: list) -> None:
    "Tokens and labels of each row."
    file.write_text(json.dumps([[list(map(int, x)) for x in pair] for pair in pairs]))


# --- drivers: each runs inside the environment of its trainer, and gives tokens and labels of each row


def tokenizer_of(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


def inside_trl(folder: Path, case: str, file: Path) -> list:
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tok = tokenizer_of(folder)
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    cfg = SFTConfig(
        str(folder / "run"), assistant_only_loss=True, max_length=None, use_cpu=True, bf16=False,
        report_to=[], save_strategy="no",
    )  # fmt: skip
    data = load_dataset("json", data_files=str(file), split="train")
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), **shape))
    trainer = SFTTrainer(model, cfg, train_dataset=data, processing_class=tok)
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    return [(b["input_ids"][0].tolist(), b["labels"][0].tolist()) for b in batches]


def inside_llamafactory(folder: Path, case: str, file: Path) -> list:
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    if not find_spec("torchaudio"):
        sys.modules["torchaudio"] = empty = ModuleType("torchaudio")
        empty.__spec__ = ModuleSpec("torchaudio", None)
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system"}
    about = {"file_name": file.name, "formatting": "sharegpt"}
    about |= {
        "messages": {"columns": {"messages": "messages"}, "tags": tags},
        "sharegpt": {},
        "alpaca": {"formatting": "alpaca"},
    }[CASES[case][0]]
    (folder / "dataset_info.json").write_text(json.dumps({"set": about}))
    data = DataArguments(
        dataset="set", dataset_dir=str(folder), cutoff_len=ROOM, template="chatml",
        overwrite_cache=True, preprocessing_num_workers=None,
    )  # fmt: skip
    model, args = ModelArguments(model_name_or_path="none"), Seq2SeqTrainingArguments("none")
    tok = tokenizer_of(folder)
    template = get_template_and_fix_tokenizer(tok, data)
    made = get_dataset(template, model, data, args, stage="sft", tokenizer=tok)["train_dataset"]
    return [(r["input_ids"], r["labels"]) for r in made]


def inside_axolotl(folder: Path, case: str, file: Path) -> list:
    from axolotl.datasets import wrap_dataset_for_tokenized_prompt
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault
    from datasets import load_dataset

    cfg = DictDefault(
        {"sequence_len": ROOM, "train_on_inputs": False, "chat_template": "tokenizer_default"}
    )
    about = {"type": "chat_template", "chat_template": "tokenizer_default"}
    if CASES[case][0] == "sharegpt":
        about |= {"field_messages": "conversations"}
        about |= {"message_property_mappings": {"role": "from", "content": "value"}}
    strategy = load(tokenizer_of(folder), cfg, DictDefault(about))
    data = load_dataset("json", data_files=str(file), split="train")
    made = wrap_dataset_for_tokenized_prompt(strategy, data, process_count=1)
    return [(r["input_ids"], r["labels"]) for r in made]


def inside_open_instruct(folder: Path, case: str, file: Path) -> list:
    from open_instruct import dataset_transformation as dt

    how = dt.TokenizerConfig(tokenizer_name_or_path=str(folder / "tokenizer"), add_bos=False)
    made = dt.get_cached_dataset_tulu(
        [str(file), "1.0"],
        ["train"],
        how,
        ["sft_tulu_tokenize_and_truncate_v1", "sft_tulu_filter_v1"],
        [{"max_seq_length": ROOM}, {}],
        target_columns=dt.TOKENIZED_SFT_DATASET_KEYS,
        dataset_local_cache_dir=str(folder / f"cache-{file.stem}"),
        dataset_skip_cache=True,
    )
    return [(r["input_ids"], r["labels"]) for r in made]


INSIDE = {
    "trl": inside_trl,
    "llamafactory": inside_llamafactory,
    "axolotl": inside_axolotl,
    "open-instruct": inside_open_instruct,
}


def run_inside(name: str, case: str, folder: Path) -> None:
    "Load, and write what came."
    file = folder / f"{case.replace(', ', '-')}.jsonl"
    save(folder / f"{file.stem}.{name}.json", INSIDE[name](folder, case, file))


# --- outside


def environment(name: str, place: Path) -> Path:
    "Python of an environment; a fresh one unless it was made by this script."
    python, made = place / "bin" / "python", place / "made"
    if made.exists() and made.read_text() == " ".join(PACKAGES[name]):
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    here = next(p for p in sys.path if p.endswith("site-packages"))
    site = next((place / "lib").glob("python3*")) / "site-packages"
    (site / "zz_base.pth").write_text(f"{here}\n")
    alone = [] if name == "open-instruct" else ["--no-deps"]
    subprocess.run([python, "-m", "pip", "install", "-qq", *alone, *PACKAGES[name]], check=True)
    made.write_text(" ".join(PACKAGES[name]))
    return python


def compared(ours: list, theirs: list, words: list[str]) -> dict:
    "How rows agree; an order is not expected."
    mine, rows = {tuple(ids): labels for ids, labels in ours}, Counter()
    more, less, lens = Counter(), Counter(), Counter()
    for ids, labels in theirs:
        known = mine.get(tuple(ids))
        rows["ids_equal"] += known is not None
        rows["equal"] += known == labels
        if known is None:
            lens["others"] += 1
            continue
        pairs = list(zip(ids, known, labels, strict=True))
        more.update(words[i] for i, a, b in pairs if a == IGNORE_ID != b)
        less.update(words[i] for i, a, b in pairs if b == IGNORE_ID != a)
    found = {"rows": len(theirs), "ours": len(ours), **rows}
    return found | {
        "learned_more": dict(more.most_common(5)),
        "learned_less": dict(less.most_common(5)),
    }


def measure(name: str, folder: Path, source: str | None) -> dict:
    "One trainer, from an empty environment to tokens."
    found = {"version": source and Path(source).name or PACKAGES[name][0], "how": HOW[name]}
    if name == "open-instruct" and source is None:
        return found | {"error": "no checkout named by --source"}
    try:
        python = environment(name, folder / f"env-{name}")
    except subprocess.CalledProcessError as e:
        return found | {"error": f"does not install: {e}"[:500]}
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    env |= {"PYTHONPATH": source or "", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "offline"}
    data, start = folder / "data", time.perf_counter()
    words = vocabulary(data)
    for case in READS[name]:
        command = [python, __file__, "--inside", name, case, str(data)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        stem = case.replace(", ", "-")
        (folder / f"log-{name}-{stem}.txt").write_text(done.stdout + done.stderr)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            found[case] = {"error": said[-1][:300] if said else f"exit {done.returncode}"}
        else:
            ours, theirs = (
                json.loads((data / f"{stem}.{who}.json").read_text()) for who in ("ours", name)
            )
            found[case] = compared(ours, theirs, words)
        print(name, case, found[case], flush=True)
    return found | {"seconds": round(time.perf_counter() - start)}


def vocabulary(data: Path) -> list[str]:
    "Tokens by id."
    tok = tokenizer_of(data)
    return tok.convert_ids_to_tokens(list(range(len(tok))))


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        return run_inside(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    from parts import (
        command_line,
        trainer_words,
    )  # the environments of the trainers are not to see it

    args, sources = trainer_words(command_line(__doc__), INSIDE)
    old = json.loads(OUT.read_text()) if OUT.exists() else {"trainers": {}}
    folder = args.folder.resolve()
    old |= prepare(folder / "data")
    for name in args.trainers or INSIDE:
        old["trainers"][name] = measure(name, folder, sources.get(name))
        old |= {"date": str(date.today()), "python": platform.python_version()}
        OUT.write_text(json.dumps(old, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Prompts for reinforcement learners: loaded by each trainer's own reader, rewarded by its own code.

python bench/rl.py FOLDER [TRAINER ...] [--source open-instruct=PATH] [--source nemo-rl=PATH]

FOLDER (outside the repository) gets an environment per trainer, which also sees the packages of this
one. A trainer that no index has is read from a checkout of its source, named by --source. Each gets
10,000 prompts written by `dart-math export`'s own function, loads them, and has its reward code called on
two responses to each: `unequal` counts rewards that are not the verdict of the grader on the same response.
`text_decides` says how many of these verdicts would be others without the problem text, and `tolerance_decides`
without the tolerance: a reward that lost either on its way would be found out. The drivers run inside:
python bench/rl.py --inside TRAINER FOLDER.

Writes bench/results/rl.json.
"""

import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

OUT = Path(__file__).parent / "results" / "rl.json"
REPO = Path(__file__).resolve().parents[1]
N_ROWS = 10_000
END = "<|im_end|>"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    + END
    + "\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PACKAGES = {  # Trainer -> what pip installs into its environment; "" before a name: without what it needs
    "trl": ["trl==1.16.0"],
    "verl": ["verl==0.9.1"],
    "openrlhf": ["--no-deps", "pylatexenc", "openrlhf==0.11.2"],  # flash-attn needs CUDA to build
    "prime-rl": ["verifiers==0.4.0"],
    "open-instruct": "litellm rich tiktoken langdetect immutabledict nltk beaker-py ray wandb".split(),
    "nemo-rl": ["soundfile", "ray", "hydra-core", "omegaconf"],
}
HOW = {
    "trl": "installed",
    "verl": "installed",
    "openrlhf": "its wheel, without flash-attn (needs CUDA), deepspeed, ray and vLLM",
    "prime-rl": "verifiers installed; prime-rl itself needs vLLM and Python 3.12",
    "open-instruct": "its modules from a checkout; on no index",
    "nemo-rl": "its modules from a checkout; needs Python 3.13",
}


# --- problems


def problem(i: int) -> tuple[str, str, str, str, dict]:
    "Text, reference, right answer, wrong answer, tolerance; the text or the tolerance decides in most."
    a, b = i + 2, i % 97 + 3
    kinds = [
        (f"What is {a}+{b}?", str(a + b), str(a + b), str(a + b + 1), {}),
        (f"What percent of {100 * a} is {a * b}?", str(b), rf"{b}\%", rf"{b + 1}\%", {}),
        (f"Write {a} in base 8.", f"{a:o}", f"{a:o}_8", f"{a:o}_9", {}),
        (f"In order, list {b} and {b + a}.", f"{b},{b + a}", f"{b},{b + a}", f"{b + a},{b}", {}),
        (f"What is {a} million plus {b} million? Express your answer in millions.", str(a + b),
         rf"{a + b}\text{{ million}}", rf"{a}\text{{ million}}", {}),
        (f"Which number is {a}+1? (A) {a} (B) {a + 1} (C) {a + 2}", "B", str(a + 1), str(a), {}),
        (rf"What is \(\frac{{{a}}}{{{a + 1}}}\)?", rf"\frac{{{a}}}{{{a + 1}}}", rf"{a}/{a + 1}", f"{b}/{a + b}", {}),
        (f"Measure {a}.{b:02d}.", f"{a}.{b:02d}", f"{a}.{b:02d}9", f"{a + 1}.{b:02d}", {"abs_tol": 0.01}),
    ]  # fmt: skip
    return kinds[i % len(kinds)]


FRAMES = (  # Around a right and a wrong answer; the last two are no explicit, finished answer
    r"So it is \boxed{{{}}}.",
    "<think>Hmm, 7?</think>The answer is ${}$.",
    r"Let me see. Therefore \(\boxed{{{}}}\)",
    "#### {}",
    r"<think>It is \boxed{{{}}}",
    "perhaps {}",
)


def responses(i: int) -> list[str]:
    "One to each query that is right in substance, and one that is not."
    _, _, right, wrong, _ = problem(i)
    frame = FRAMES[(i // 8) % len(FRAMES)]
    return [frame.format(right), frame.format(wrong)]


def write_all(folder: Path, name: str) -> dict:
    "Prompts for a trainer, responses by row, and the verdicts of the grader."
    import numpy as np
    import pandas as pd

    from dart_math_nb.data.records import make_query
    from dart_math_nb.grade import grade_response
    from dart_math_nb.sample.boundary import rate_columns
    from dart_math_nb.sets.trainers import PromptCfg, export_prompts, get_trainer

    some = [i for i in range(2 * N_ROWS) if get_trainer(name).tolerances or not problem(i)[4]][
        :N_ROWS
    ]
    queries = [
        make_query("bench", q, ref, level=i % 5, **tol)
        for i in some
        for q, ref, _, _, tol in [problem(i)]
    ]
    n = np.full(len(some), 32)
    counts = rate_columns(n, np.random.default_rng(0).binomial(n, 0.5), ["fixed"] * len(some))
    rates = pd.DataFrame(counts, index=pd.Index([q.query_id for q in queries], name="query_id"))
    ending = {"verl": "parquet", "trl": "parquet"}.get(name, "jsonl")
    system = "Put the answer in a box." if get_trainer(name).system else ""
    start = time.perf_counter()
    made = export_prompts(folder / f"rl.{ending}", queries, rates, PromptCfg(name, system=system))
    seconds = time.perf_counter() - start
    asked = []
    for i, q in zip(some, queries, strict=True):
        for said in responses(i):
            tol = problem(i)[4]
            right = grade_response(said, q.ref_ans, q.query, strict=True, **tol).correct
            bare = grade_response(said, q.ref_ans, strict=True, **tol).correct
            exact = grade_response(said, q.ref_ans, q.query, strict=True).correct
            asked.append(
                {
                    "query_id": q.query_id,
                    "said": said,
                    "right": right,
                    "text": right != bare,
                    "tol": right != exact,
                }
            )
    (folder / "asked.json").write_text(json.dumps(asked))
    return {"file": made.files[""].name, "write_seconds": round(seconds, 2)}


# --- drivers: each runs inside the environment of its trainer, and gives a reward for (row, response)


def tokenizer(folder: Path):
    "A tokenizer of bytes with a chat template, saved as trainers expect one."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token=END)
    fast.chat_template = CHAT
    fast.save_pretrained(folder / "tokenizer")
    return fast


def inside_trl(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "GRPOTrainer, with a model of one layer: its data loader and its own call of rewards."
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    from dart_math_nb.grade.reward import correctness_reward

    tok = tokenizer(folder)
    data = load_dataset("parquet", data_files=str(file), split="train")
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), **shape))
    batch = dict(per_device_train_batch_size=4, num_generations=4, report_to=[], use_cpu=True)
    cfg = GRPOConfig(str(folder / "run"), save_strategy="no", **batch)
    trainer = GRPOTrainer(model, correctness_reward, cfg, data, processing_class=tok)
    first = next(iter(trainer.get_train_dataloader()))
    assert first[0]["prompt"][0]["role"] == "system"
    rows = [r for row in trainer.train_dataset for r in (row, row)]
    texts = [t for row in trainer.train_dataset for t in said(row["query_id"])]
    given = [[{"role": "assistant", "content": t}] for t in texts]
    rewards = trainer._calculate_rewards(
        rows, [r["prompt"] for r in rows], given, [[1]] * len(rows)
    )
    return len(trainer.train_dataset), rewards[:, 0].tolist()


def inside_verl(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "RLHFDataset with its filter of long prompts, and NaiveRewardManager."
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    tok = tokenizer(folder)
    how = {
        "filter_overlong_prompts": True,
        "max_prompt_length": 2048,
        "cache_dir": str(folder / "cache"),
    }
    data = RLHFDataset(
        [str(file)], tok, OmegaConf.create(how | {"filter_overlong_prompts_workers": 1})
    )
    place = {"path": "pkg://dart_math_nb.grade.reward", "name": "compute_score"}
    cfg = OmegaConf.create({"reward": {"custom_reward_function": place}})

    async def all_of_them() -> list[float]:
        manager = NaiveRewardManager(cfg, tok, get_custom_reward_fn(cfg))
        manager.loop = asyncio.get_running_loop()
        found = []
        for i in range(len(data)):
            row = data[i]
            for text in said(row["extra_info"]["query_id"]):
                ids = torch.tensor(tok(text + END)["input_ids"])
                tensors = {"responses": ids, "attention_mask": torch.ones_like(ids)}
                one = collate_fn([row | tensors | {"extra_info": dict(row["extra_info"])}])
                result = await manager.run_single(DataProto.from_single_dict(one))
                found.append(result["reward_score"])
        return found

    return len(data), asyncio.run(all_of_them())


def inside_openrlhf(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "blending_datasets, PromptDataset, and the executor of one turn; only its engine is ours."
    from openrlhf.datasets.prompts_dataset import PromptDataset
    from openrlhf.datasets.utils import blending_datasets
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    from dart_math_nb.sets.trainers import reward_path

    tok = tokenizer(folder)
    keys = SimpleNamespace(input_key="input", label_key="label", apply_chat_template=True)
    strategy = SimpleNamespace(
        args=SimpleNamespace(data=keys, use_ms=False), print=print, is_rank_0=lambda: True
    )
    raw = blending_datasets(str(file), None, strategy)
    data = PromptDataset(raw, tok, strategy)
    executor = SingleTurnAgentExecutor([str(reward_path(file))])
    params = SimpleNamespace(max_tokens=512, logprobs=None)

    class Engine:  # gives the response that is asked for
        async def generate(self, ids, sampling, multi_modal_data=None):
            output = SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)
            return SimpleNamespace(outputs=[output])

    async def all_of_them() -> list[float]:
        engine, found = Engine(), []
        for i in range(len(data)):
            _, prompt, label, _ = data[i]
            for text in said(raw[i]["query_id"]):
                engine.ids = tok(text + END)["input_ids"]
                done = await executor.execute(prompt, label, params, 4096, tok, engine)
                found.append(float(done["reward"]))
        return found

    return len(data), asyncio.run(all_of_them())


def inside_open_instruct(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "Its loading and tokenizing of rows for RLVR, its table of verifiers, and its call of them."
    import importlib

    from open_instruct import dataset_transformation as dt
    from open_instruct.ground_truth_utils import apply_verifiable_reward, build_all_verifiers

    from dart_math_nb.sets.trainers import reward_path

    tokenizer(folder)
    sys.path.insert(0, str(folder))
    importlib.import_module(reward_path(file).stem)
    how = dt.TokenizerConfig(tokenizer_name_or_path=str(folder / "tokenizer"), add_bos=False)
    steps = ["rlvr_tokenize_v1", "rlvr_max_length_filter_v1"]
    about = dt.DatasetConfig(
        str(file),
        "train",
        "main",
        transform_fn=steps,
        transform_fn_args=[{}, {"max_prompt_token_length": 2048}],
    )
    data = dt.get_dataset_v1(about, how)
    args = dict(llm_judge_model="x", llm_judge_max_tokens=1, llm_judge_max_context_length=1)
    args |= dict(
        llm_judge_temperature=1.0, llm_judge_timeout=1, seed=0, code_apply_perf_penalty=False
    )
    args |= dict(
        code_api_url="x/test_program",
        code_max_execution_time=1.0,
        code_pass_rate_reward_threshold=0.0,
    )
    verifiers = build_all_verifiers(SimpleNamespace(**args, remap_verifier=None))
    rows = [r for row in data for r in (row, row)]
    texts = [t + END for row in data for t in said(row["query_id"])]
    tok = how.tokenizer
    rewards, _ = asyncio.run(
        apply_verifiable_reward(
            verifiers,
            [tok(t)["input_ids"] for t in texts],
            texts,
            [r[dt.GROUND_TRUTHS_KEY] for r in rows],
            [r[dt.VERIFIER_SOURCE_KEY] for r in rows],
            queries=[r[dt.RAW_PROMPT_KEY] for r in rows],
        )
    )
    return len(data), list(map(float, rewards))


def inside_prime_rl(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "load_taskset finds the module beside the file; Task.score scores traces."
    import verifiers.v1 as vf
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, TraceTask
    from verifiers.v1.types import AssistantMessage, UserMessage

    from dart_math_nb.sets.trainers import reward_path

    sys.path.insert(0, str(folder))
    tasks = list(vf.load_taskset(vf.TasksetConfig(id=reward_path(file).stem)))
    assert len({t.key for t in tasks}) == len(tasks)

    async def score(task, text: str) -> float:
        about = TraceTask(type=type(task).__name__, data=task.data, key=task.key)
        nodes = [MessageNode(message=UserMessage(content=task.data.prompt))]
        nodes += [MessageNode(message=AssistantMessage(content=text), parent=0, sampled=True)]
        trace = vf.Trace(task=about, agent=AgentInfo(config=AgentConfig()), nodes=nodes)
        await task.score(trace)
        return trace.reward

    async def all_of_them() -> list[float]:
        return [await score(task, text) for task in tasks for text in said(task.data.id)]

    return len(tasks), asyncio.run(all_of_them())


def inside_nemo_rl(folder: Path, file: Path, said: Callable) -> tuple[int, list[float]]:
    "ResponseDataset and its processor of rows; the environment is called without an actor around it."
    from nemo_rl.data.datasets.response_datasets import load_response_dataset
    from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn

    from dart_math_nb.grade.reward import make_environment

    tok = tokenizer(folder)
    how = {"dataset_name": "ResponseDataset", "data_path": str(file), "env_name": "dart_math"}
    how |= {"processor": "math_hf_data_processor", "prompt_file": None, "system_prompt_file": None}
    loaded = load_response_dataset(how)
    data, env = loaded.dataset, make_environment(EnvironmentInterface, EnvironmentReturn)()
    ids = [json.loads(line)["query_id"] for line in file.read_text().splitlines()]
    logs, metadata = [], []
    for i, query_id in enumerate(ids):
        row = loaded.processor(data[i], loaded.task_spec, tok, 4096, i)
        for text in said(query_id):
            logs.append([*row["message_log"], {"role": "assistant", "content": text}])
            metadata.append(row["extra_env_info"])
    return len(data), env.step(logs, metadata).rewards.tolist()


INSIDE = {
    "trl": (inside_trl, "load_dataset, GRPOTrainer"),
    "verl": (inside_verl, "RLHFDataset, NaiveRewardManager"),
    "openrlhf": (inside_openrlhf, "PromptDataset, SingleTurnAgentExecutor"),
    "open-instruct": (inside_open_instruct, "get_dataset_v1, apply_verifiable_reward"),
    "prime-rl": (inside_prime_rl, "load_taskset, Task.score"),
    "nemo-rl": (inside_nemo_rl, "load_response_dataset, math_hf_data_processor, step"),
}


def run_inside(name: str, folder: Path) -> None:
    "Load, reward, and write what came."
    asked, by_id = json.loads((folder / "asked.json").read_text()), {}
    for one in asked:
        by_id.setdefault(one["query_id"], []).append(one)
    file = next(p for p in folder.iterdir() if p.name in ("rl.parquet", "rl.jsonl"))
    order: list[dict] = []

    def said(query_id: str) -> list[str]:
        order.extend(by_id[query_id])
        return [one["said"] for one in by_id[query_id]]

    start = time.perf_counter()
    n_rows, rewards = INSIDE[name][0](folder, file, said)
    wrong = [
        o | {"reward": r} for o, r in zip(order, rewards, strict=True) if r != float(o["right"])
    ]
    found = {"rows": n_rows, "rewards": len(rewards), "right": sum(o["right"] for o in order)}
    found |= {
        "text_decides": sum(o["text"] for o in order),
        "tolerance_decides": sum(o["tol"] for o in order),
    }
    found |= {"unequal": len(wrong), "seconds": round(time.perf_counter() - start, 1)}
    (folder / "found.json").write_text(json.dumps(found))
    print(*wrong[:5], sep="\n")


def real() -> dict:
    "Does a chat template around real problems move a verdict, as where a trainer passes the prompt?"
    import random

    from dart_math_nb.data.files import read_rows
    from dart_math_nb.data.load import data_folder
    from dart_math_nb.grade import grade_response

    if (folder := data_folder()) is None:
        return {"skipped": "no data folder"}
    system, found = r"Please reason step by step, and put your final answer within \boxed{}.", {}
    forms = {
        "openrlhf, nemo-rl": f"<|im_start|>system\n{system}{END}\n<|im_start|>user\nTEXT{END}\n<|im_start|>assistant\n",
        "open-instruct": f"system: {system}\nuser: TEXT",
        "no problem text": "",
    }
    for name in ("zeroeval_math_l5", "zeroeval_gsm"):
        rows = [r for r in read_rows(folder / "responses" / f"{name}.jsonl.gz") if r["resp"]]
        counts = dict.fromkeys(forms, 0)
        for r in random.Random(0).sample(rows, 4000):
            is_right = grade_response(r["resp"], str(r["ref"]), r["query"], strict=True).correct
            for form, text in forms.items():
                around = text.replace("TEXT", r["query"])
                said = grade_response(r["resp"], str(r["ref"]), around, strict=True).correct
                counts[form] += said != is_right
        found[name] = {"responses": 4000, "moved": counts}
    return found


# --- outside


def environment(name: str, place: Path) -> tuple[Path, float]:
    "Python of a fresh environment, and the seconds that it took."
    start = time.perf_counter()
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    here = next(p for p in sys.path if p.endswith("site-packages"))
    site = next((place / "lib").glob("python3*")) / "site-packages"
    (site / "zz_base.pth").write_text(f"{here}\n")
    subprocess.run(
        [place / "bin/python", "-m", "pip", "install", "-qq", *PACKAGES[name]], check=True
    )
    return place / "bin/python", round(time.perf_counter() - start, 1)


def measure(name: str, folder: Path, source: str | None) -> dict:
    "One trainer, from an empty environment to rewards."
    if name in ("open-instruct", "nemo-rl") and source is None:
        return {"how": "skipped: no checkout named by --source"}
    data = folder / f"data-{name}"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    python, seconds = environment(name, folder / f"env-{name}")
    found = {"version": source and Path(source).name or PACKAGES[name][-1], "how": HOW[name]}
    found |= {"reader": INSIDE[name][1], "install_seconds": seconds, **write_all(data, name)}
    paths = [str(REPO), *([source] if source else [])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    env |= {"HF_HOME": str(folder / "hf"), "TOKENIZERS_PARALLELISM": "false"}
    command = [python, __file__, "--inside", name, str(data)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    (data / "log.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{name}: failed, see {data}/log.txt\n{done.stderr[-1500:]}")
    return found | json.loads((data / "found.json").read_text())


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        return run_inside(sys.argv[2], Path(sys.argv[3]))
    from parts import (
        command_line,
        trainer_words,
    )  # the environments of the trainers are not to see it

    args, sources = trainer_words(command_line(__doc__), INSIDE)
    old = json.loads(OUT.read_text()) if OUT.exists() else {"trainers": {}}
    if not args.trainers:
        old["real"] = real()
    for name in args.trainers or INSIDE:
        old["trainers"][name] = measure(name, args.folder.resolve(), sources.get(name))
        print(name, old["trainers"][name], flush=True)
        old |= {"n_rows": N_ROWS, "date": str(date.today()), "python": platform.python_version()}
        old |= {"n_cpu": os.cpu_count()}
        OUT.write_text(json.dumps(old, indent=1) + "\n")


if __name__ == "__main__":
    main()

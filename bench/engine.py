"""Measure the engines: `python bench/engine.py [PART ...]`, all parts when none is named.

transport  requests per second of one core against a server that answers at once: bare libraries, and
           the openai engine with all that it does
batching   tokens per second of the hf engine beside left-padded batches of `generate` and beside
           transformers' own continuous batching, on the tiny teacher
faults     a sampling run over a real vLLM server, plain and through a proxy that spoils answers:
           keys accepted, texts that match
vllm       vLLM in process: draws per second, and texts that match under other batches

The last two need vLLM (`make vllm`) and are left out without it. Each part writes its entry of
bench/results/engine.json.
"""

import asyncio
import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from parts import drawn, drive, run_parts

from dart_math_nb.data.records import Source
from dart_math_nb.demo.tiny import tiny_path, tiny_queries
from dart_math_nb.engines.openai import OpenAIEngine
from dart_math_nb.engines.protocol import Draw, SampleParams, draw_for, run_async
from dart_math_nb.engines.retry import draw_all
from dart_math_nb.sample.standing import accepted
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.testing.fake_server import FaultProxy, null_server, serve, vllm_server

RESULTS = Path(__file__).parent / "results" / "engine.json"
FLYING = 256
WARM = SampleParams(temperature=1.0, max_tokens=80)
VLLM = {"dtype": "float32", "max_model_len": 128, "enforce_eager": True, "max_num_seqs": 128}
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
FAULTS = {"error": 0.05, "hang": 0.02, "cut": 0.01}


def request(i: int) -> dict:
    "Body of a request."
    ask = {"model": "null", "prompt": "12+34-5=?" * 20, "seed": i, "temperature": 1.0}
    return ask | {"top_p": 0.95, "max_tokens": 96}


async def with_aiohttp(url: str) -> dict:
    "Bare aiohttp."
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(i):
            async with session.post(url + "/completions", json=request(i)) as reply:
                return json.loads(await reply.read())["choices"][0]["text"]

        return await drive(ask, 4000)


async def with_httpx(url: str) -> dict:
    "Bare httpx."
    import httpx

    limits = httpx.Limits(max_connections=FLYING, max_keepalive_connections=FLYING)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def ask(i):
            reply = await client.post(url + "/completions", json=request(i))
            return reply.json()["choices"][0]["text"]

        return await drive(ask, 1000)


async def with_openai(url: str) -> dict:
    "The openai package, without its retries."
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def ask(i):
            return (await client.completions.create(**request(i))).choices[0].text

        return await drive(ask, 1000)


async def with_engine(url: str, **options) -> dict:
    "The engine of this project."
    async with OpenAIEngine("null", url, **options) as engine:

        async def ask(i):
            return await engine.draw(Draw("q", i, request(i)["prompt"], i), WARM)

        return await drive(ask, 4000)


def transport() -> list[dict]:
    "One row for each way to send a request."
    ways = {"aiohttp": with_aiohttp, "httpx": with_httpx, "openai": with_openai}
    rows = []
    with null_server() as url:
        for name, way in ways.items():
            if importlib.util.find_spec(name):
                rows.append({"client": name} | asyncio.run(way(url)))
        rows.append({"client": "openai engine"} | asyncio.run(with_engine(url, stream=False)))
        chat = asyncio.run(with_engine(url, chat=True, stream=False))
        rows.append({"client": "openai engine, chat"} | chat)
    with null_server() as a, null_server() as b:
        two = asyncio.run(with_engine([a, b], stream=False))
        rows.append({"client": "openai engine, two servers"} | two)
    return rows


def timed(work: Callable[[], int]) -> dict:
    "Tokens per second of the clock and of the processor."
    wall, cpu = time.perf_counter(), time.process_time()
    n = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"tokens": n, "per second": round(n / wall), "per core second": round(n / cpu)}


def padded(model, tokenizer, prompts: list[str], rows: int) -> int:
    "Left-padded batches of `generate`, one generator for all rows; tokens drawn."
    import torch

    tokenizer.padding_side, n = "left", 0
    for batch in chunks(prompts, rows):
        x = tokenizer(batch, return_tensors="pt", padding=True)
        with torch.inference_mode():
            y = model.generate(
                x["input_ids"],
                attention_mask=x["attention_mask"],
                max_new_tokens=WARM.max_tokens,
                do_sample=True,
            )
        n += int((y[:, x["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum())
    return n


def chunks(items: list, n: int) -> list[list]:
    "Lists of at most n items."
    return [items[i : i + n] for i in range(0, len(items), n)]


def own_continuous(model, tokenizer, prompts: list[str]) -> int:
    "transformers' continuous batching; tokens drawn."
    from transformers import ContinuousBatchingConfig, GenerationConfig

    how = GenerationConfig(
        max_new_tokens=WARM.max_tokens, do_sample=True, temperature=1.0, eos_token_id=1
    )
    small = ContinuousBatchingConfig(use_cuda_graph=False, num_blocks=1024, max_batch_tokens=512)
    out = model.generate_batch(
        [tokenizer(p)["input_ids"] for p in prompts],
        generation_config=how,
        warmup=False,
        continuous_batching_config=small,
    )
    return sum(len(o.generated_tokens) for o in out.values())


def batching() -> list[dict]:
    "One row for each way to draw from the tiny teacher."
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dart_math_nb.engines.hf import TransformersEngine

    torch.set_num_threads(1)
    folder = tiny_path("teacher")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [q.query + "\n" for q in tiny_queries(200, seed=5)] * 5
    draws = [Draw(p, t, p, t) for t, p in enumerate(prompts)]

    def engine(exact: bool) -> int:
        with TransformersEngine(folder, max_in_flight=FLYING, max_len=128, exact=exact) as e:
            return sum(c.n_tokens for c in run_async(draw_all(e, draws, WARM)))

    return [
        {"way": "hf engine, exact"} | timed(lambda: engine(True)),
        {"way": "hf engine"} | timed(lambda: engine(False)),
        {"way": "padded batches"} | timed(lambda: padded(model, tokenizer, prompts, FLYING)),
        {"way": "generate_batch"} | timed(lambda: own_continuous(model, tokenizer, prompts[:60])),
    ]


def one_run(url: str, queries: list, **options) -> tuple[dict, set]:
    "Text of each draw of a run, and the keys that it accepts."
    source = Source("tiny", temperature=1.0, max_tokens=WARM.max_tokens)
    cfg = StrategyCfg("uniform", k=4, max_trials=24)
    engine = OpenAIEngine("tiny", url, timeout=4, wait=0.1, max_in_flight=64, **options)
    how = {"source": source, "strategy": cfg, "prompt_of": lambda q: q.query + "\n"}
    rows, _ = drawn(engine, queries, **how)
    texts = dict(zip(zip(rows.query_id, rows.trial, strict=True), rows.response, strict=True))
    found = accepted(rows, {q.query_id: cfg.k for q in queries}, cfg.max_trials)
    return texts, set(zip(found.query_id, found.trial, strict=True))


async def spoiled_run(url: str, queries: list) -> tuple[dict, set, dict]:
    "The same through the proxy, and what the proxy did."
    proxy = FaultProxy(url.removesuffix("/v1"), **FAULTS)
    async with serve(proxy) as spoiled:
        texts, keys = await asyncio.to_thread(one_run, spoiled, queries)
    return texts, keys, dict(proxy.done)


def share_same(a: dict, b: dict) -> float:
    "Share of the draws in both whose texts are equal."
    both = a.keys() & b.keys()
    return sum(a[k] == b[k] for k in both) / len(both)


def faults() -> dict:
    "A run with faults beside runs without."
    queries = tiny_queries(150, seed=11)
    with vllm_server(tiny_path("teacher"), env=QUIET, served_model_name="tiny", **VLLM) as url:
        start = time.perf_counter()
        plain, keys = one_run(url, queries)
        middle = time.perf_counter()
        spoiled, same_keys, done = asyncio.run(spoiled_run(url, queries))
        end = time.perf_counter()
        again, again_keys = one_run(url, queries)
    return {
        "queries": len(queries),
        "draws": len(plain),
        "accepted": len(keys),
        "faults": done,
        "seconds": [round(middle - start, 1), round(end - middle, 1)],
        "same keys accepted": same_keys == keys,
        "accepted in both": len(keys & same_keys),
        "text match": share_same(plain, spoiled),
        "same keys in a second plain run": again_keys == keys,
        "text match of a second plain run": share_same(plain, again),
    }


def vllm() -> dict:
    "vLLM in process."
    from dart_math_nb.engines.vllm import VLLMEngine

    os.environ.update(QUIET)
    queries = tiny_queries(100, seed=7)
    draws = [draw_for(q, t, q.query + "\n", 0) for t in range(10) for q in queries]
    texts, rates = {}, {}
    with VLLMEngine(tiny_path("teacher"), **VLLM) as engine:
        for n in (128, 512, 32, 8):
            engine.max_in_flight, start = n, time.perf_counter()
            done = run_async(draw_all(engine, draws, WARM))
            rates[n] = round(len(draws) / (time.perf_counter() - start), 1)
            texts[n] = {(d.query_id, d.trial): c.text for d, c in zip(draws, done, strict=True)}
    return {
        "draws": len(draws),
        "draws per second by draws in flight": {str(n): r for n, r in rates.items()},
        "text match with 128 in flight": {
            str(n): share_same(texts[128], t) for n, t in texts.items() if n != 128
        },
    }


PARTS = {"transport": transport, "batching": batching, "faults": faults, "vllm": vllm}

if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    run_parts(__doc__, PARTS, RESULTS, needs={"faults": "vllm", "vllm": "vllm"})

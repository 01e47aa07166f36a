"""Speed of sampling on one GPU, and what a second draw gives: `python bench/gpu_sample.py`. Writes bench/results/gpu_sample.json.

Needs this repository, torch, transformers, accelerate, pandas, pyarrow, scipy and mpmath; installs and downloads
nothing. The engine is vLLM where it is installed, else this package's engine for transformers (`--engine` chooses).
Two models: the tiny teacher that ships with the package, which solves arithmetic, and a Llama of the shape of
Llama-3.2-1B with random weights and 128,256 tokens, which solves nothing and costs what such a model costs.

For each model:
  draws     draws and tokens per second from the bare engine, all at once
  again     the same draws again: as before, in reversed order, with a fourth and a sixteenth as many at once;
            how many of N texts differ. Each draw has its own seed, so a difference is one of rounding: other
            neighbors, other shapes of matrices. The teacher also in float32 with `exact` (transformers only)
  generate  `generate` of transformers on padded batches of the same prompts, as large (transformers only)
  loop      this package's sampling loop on the same engine, grader and pool beside it: Uniform for the teacher
            (it stops each query at its quota), VRT for the other

`busy` is the share of the engine's places that were taken, over the time; `gpu` the mean utilization that nvidia-smi
shows (a kernel was running), where it is there. The file is written after each part, none is begun after `--limit`
seconds, and a run that is cut off leaves a whole file. `--tiny` tries everything small on a CPU.
"""

import argparse
import importlib.util
import shutil
import subprocess
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import bare
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dart_math_nb.data.records import Source, make_query
from dart_math_nb.demo.tiny import TEACHER_TEMPERATURE, tiny_path, tiny_queries
from dart_math_nb.engines.protocol import SampleParams, draw_for, run_async
from dart_math_nb.engines.retry import draw_all
from dart_math_nb.sample.loop import sample_pool
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.pool import open_pool

CUDA = torch.cuda.is_available()
SHAPE, SMALL = bare.SHAPE | {"vocab_size": 128256}, bare.SMALL | {"vocab_size": 512}
FULL = {"teacher": (500, 8), "large": (128, 4), "at_once": 256, "max_tokens": 128}
TINY = {"teacher": (20, 2), "large": (8, 2), "at_once": 16, "max_tokens": 16}


def arguments() -> argparse.Namespace:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default=str(bare.ROOT / "bench" / "results" / "gpu_sample.json"))
    parser.add_argument("--engine", choices=("vllm", "hf"), help="vllm where it is installed")
    parser.add_argument("--at-once", type=int, help="draws at once (256)")
    parser.add_argument("--limit", type=float, default=330, help="seconds; no part begins later")
    parser.add_argument("--tiny", action="store_true", help="small, for a CPU")
    args = parser.parse_args()
    args.size = TINY if args.tiny else FULL
    args.at_once = args.at_once or args.size["at_once"]
    args.engine = args.engine or ("vllm" if importlib.util.find_spec("vllm") else "hf")
    return args


# --- models and what they are asked


def word_tokenizer(n: int) -> PreTrainedTokenizerFast:
    "So many words: w0, w1 ..., the first two for padding and the end."
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w1", pad_token="w0")


def make_large(folder: Path, args: argparse.Namespace) -> Path:
    "A Llama with random weights in bf16, saved with its tokenizer."
    shape = SMALL if args.tiny else SHAPE
    config = LlamaConfig(
        **shape, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    word_tokenizer(shape["vocab_size"]).save_pretrained(folder)
    return folder


def asked(name: str, args: argparse.Namespace) -> tuple[list, list, SampleParams]:
    "Queries of a model, the draws of each, and how to draw."
    n, trials = args.size[name]
    if name == "teacher":
        queries, params = tiny_queries(n, 7), SampleParams(TEACHER_TEMPERATURE, max_tokens=80)
    else:
        vocabulary = (SMALL if args.tiny else SHAPE)["vocab_size"]
        words = [
            " ".join(f"w{2 + (37 * i + 11 * j) % (vocabulary - 2)}" for j in range(40 + i % 25))
            for i in range(n)
        ]
        queries = [make_query("words", text, "1") for text in words]
        params = SampleParams(1.0, max_tokens=args.size["max_tokens"])
    draws = [draw_for(q, t, q.query + "\n", 0) for q in queries for t in range(trials)]
    return queries, draws, params


def start_engine(folder: Path, room: int, args: argparse.Namespace, **options):
    "The engine on a model."
    if args.engine == "vllm":
        from dart_math_nb.engines.vllm import VLLMEngine

        how = {"dtype": "bfloat16" if CUDA else "float32", "max_model_len": room}
        return VLLMEngine(folder, max_in_flight=args.at_once, max_num_seqs=args.at_once, **how)
    from dart_math_nb.engines.hf import TransformersEngine

    return TransformersEngine(folder, max_in_flight=args.at_once, max_len=room, **options)


# --- measures


class Meter:
    "How many of an engine's places are taken, over the time."

    def __init__(self, engine):
        self.engine, self.plain, self.taken = engine, engine.draw, 0
        self.area = self.last = 0.0
        engine.draw = self.draw

    def _count(self, change: int) -> None:
        now = time.perf_counter()
        self.area += self.taken * (now - self.last)
        self.taken, self.last = self.taken + change, now

    async def draw(self, draw, params):
        self._count(1)
        try:
            return await self.plain(draw, params)
        finally:
            self._count(-1)

    def start(self) -> None:
        self.area, self.last, self.begun = 0.0, time.perf_counter(), time.perf_counter()

    def busy(self, at_once: int) -> float:
        "Share of places since the start."
        self._count(0)
        return round(self.area / (time.perf_counter() - self.begun) / at_once, 3)


@contextmanager
def utilization(found: dict):
    "Mean utilization of the GPU meanwhile, in [0, 1], as `gpu`."
    program = shutil.which("nvidia-smi") if CUDA else None
    if not program:
        yield
        return
    ask = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    process = subprocess.Popen(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield
    finally:
        process.terminate()
        seen = [float(x) for x in process.communicate()[0].split() if x.isdigit()]
        found["gpu"] = round(sum(seen) / len(seen) / 100, 3) if seen else None


def timed_draws(engine, draws: list, params: SampleParams) -> tuple[dict, dict]:
    "Rates, and texts by key."
    meter, found = engine.meter, {}
    with utilization(found):
        meter.start()
        done = run_async(draw_all(engine, draws, params))
        took, busy = time.perf_counter() - meter.begun, meter.busy(engine.max_in_flight)
    n_tokens = sum(c.n_tokens for c in done)
    rates = {"draws": len(draws), "tokens": n_tokens, "seconds": round(took, 2)}
    rates |= {"draws_per_s": round(len(draws) / took, 1), "tokens_per_s": round(n_tokens / took)}
    texts = {(d.query_id, d.trial): c.text for d, c in zip(draws, done, strict=True)}
    return rates | {"busy": busy} | found, texts


def different(a: dict, b: dict) -> dict:
    "How many of N texts differ."
    return {"n": len(b), "differ": sum(a[key] != text for key, text in b.items())}


def again(engine, draws: list, params: SampleParams, first: dict) -> dict:
    "The same draws under other batches."
    most, found = engine.max_in_flight, {}
    some = draws[: max(1, len(draws) // 4)]
    ways = {"the same": (draws, most), "reversed": (draws[::-1], most)}
    ways |= {"a fourth at once": (some, most // 4), "a sixteenth at once": (some, most // 16)}
    for name, (these, at_once) in ways.items():
        engine.max_in_flight = max(1, at_once)
        rates, texts = timed_draws(engine, these, params)
        found[name] = different(first, texts) | {"draws_per_s": rates["draws_per_s"]}
    engine.max_in_flight = most
    return found


def generated(engine, draws: list, params: SampleParams) -> dict:
    "`generate` on padded batches."
    tokenizer, model, n_tokens = engine.tokenizer, engine.model, 0
    tokenizer.padding_side, start = "left", time.perf_counter()
    for i in range(0, len(draws), engine.max_in_flight):
        part = [d.prompt for d in draws[i : i + engine.max_in_flight]]
        x = tokenizer(part, return_tensors="pt", padding=True).to(engine.device)
        torch.manual_seed(i)
        with torch.inference_mode():
            y = model.generate(
                x["input_ids"], attention_mask=x["attention_mask"], do_sample=True,
                temperature=params.temperature, top_k=0, max_new_tokens=params.max_tokens,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        n_tokens += int((y[:, x["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum())
    took = time.perf_counter() - start
    rates = {"draws": len(draws), "tokens": n_tokens, "seconds": round(took, 2)}
    return rates | {
        "draws_per_s": round(len(draws) / took, 1),
        "tokens_per_s": round(n_tokens / took),
    }


def looped(engine, name: str, queries: list, params: SampleParams, trials: int) -> dict:
    "The sampling loop of this package on the engine."
    strategy = StrategyCfg("vrt", trials)
    if name == "teacher":
        strategy = StrategyCfg("uniform", max(1, trials // 2), 4 * trials)
    sampled = {"temperature": params.temperature, "max_tokens": params.max_tokens}
    source = Source(name, "0" * 12, template="plain", **sampled)
    how = {"source": source, "strategy": strategy, "params": params, "progress": False}
    meter, found = engine.meter, {}
    with tempfile.TemporaryDirectory() as tmp, open_pool(tmp) as pool:
        with utilization(found):
            meter.start()
            frame = sample_pool(queries, engine, pool, prompt_of=lambda q: q.query + "\n", **how)
            took, busy = time.perf_counter() - meter.begun, meter.busy(engine.max_in_flight)
    n = int(frame.n_drawn.sum())
    rates = {"draws": n, "counted": int(frame.n_trials.sum()), "seconds": round(took, 2)}
    rates |= {"draws_per_s": round(n / took, 1), "busy": busy, "strategy": strategy.name}
    return rates | found | {"stop": {str(k): int(v) for k, v in frame.stop.value_counts().items()}}


# --- parts


def one_model(name: str, folder: Path, args: argparse.Namespace, keep, late) -> None:
    "All parts of a model; `keep` files one as soon as it is known."
    queries, draws, params = asked(name, args)
    start = time.perf_counter()
    engine = start_engine(folder, 96 if name == "teacher" else 256, args)
    engine.meter = Meter(engine)
    keep("start", {"seconds": round(time.perf_counter() - start, 1)})
    try:
        run_async(draw_all(engine, draws[:: max(1, len(draws) // 32)], params))  # Warm
        rates, first = timed_draws(engine, draws, params)
        keep("draws", rates)
        trials = args.size[name][1]
        parts = {"loop": lambda: looped(engine, name, queries, params, trials)}
        parts["again"] = lambda: again(engine, draws, params, first)
        if args.engine == "hf":
            parts["generate"] = lambda: generated(engine, draws, params)
        for part, do in parts.items():
            if late():
                keep(part, {"not_begun": True})
            else:
                keep(part, do())
    finally:
        run_async(engine.close())


def exact_again(args: argparse.Namespace) -> dict:
    "The teacher in float32 with close choices decided in double precision, under two batches."
    _, draws, params = asked("teacher", args)
    draws, rows = draws[: max(1, len(draws) // 4)], {}
    with start_engine(tiny_path("teacher"), 96, args, dtype="float32", exact=True) as engine:
        engine.meter = Meter(engine)
        for at_once in (args.at_once, max(1, args.at_once // 16)):
            engine.max_in_flight = at_once
            rates, rows[at_once] = timed_draws(engine, draws, params)
    a, b = rows.values()
    return different(a, b) | {"draws_per_s": rates["draws_per_s"]}


def main() -> None:
    "Measure, print, write."
    args = arguments()
    if not CUDA and not args.tiny:
        print("no CUDA device, nothing measured; --tiny tries the script on a CPU")
        return
    about = {"engine": args.engine, "at_once": args.at_once, "tiny": args.tiny}
    result = bare.machine() | about

    def keep(model: str, part: str, found: dict) -> None:
        result.setdefault(model, {})[part] = found
        print(model, part, found, flush=True)
        bare.write(args.out, result | {"seconds": round(bare.seconds(), 1)})

    def late() -> bool:
        return bare.seconds() > args.limit

    with tempfile.TemporaryDirectory() as tmp:
        for name in ("teacher", "large"):
            try:
                folder = tiny_path(name) if name == "teacher" else make_large(Path(tmp), args)
                one_model(name, folder, args, lambda *x, n=name: keep(n, *x), late)
                if name == "teacher" and args.engine == "hf" and not late():
                    keep(name, "exact", exact_again(args))
            except Exception as e:
                traceback.print_exc()
                keep(name, "error", {"error": f"{type(e).__name__}: {e}"[:500]})


if __name__ == "__main__":
    main()

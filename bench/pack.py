"""Measure packing beside TRL's: `python bench/pack.py`. Prints a table, writes bench/results/pack.json.

585,000 lengths in packs of 4,096 tokens: log-normal, and drawn from real ones where the optional data
folder is present (see `dart_math_nb.data.load.data_folder`). Each measurement has a process of its own;
time is CPU time of one core. TRL is a dev dependency.
"""

import gzip
import json
import multiprocessing
import os
import platform
import re
import time
from datetime import date
from pathlib import Path

import numpy as np
from parts import named_parts

from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder
from dart_math_nb.train.pack import best_fit_decreasing, epoch_order, fill, pack_lengths

RESULTS = Path(__file__).parent / "results" / "pack.json"
N, ROOM, MEAN = 585_000, 4096, 577
WAYS = ("best_fit", "next_fit", "best_fit_decreasing", "trl bfd", "trl bfd, 1000 rows at a time")


def log_normal(sigma: float) -> np.ndarray:
    "Lengths with the mean of DART-Math-Hard, none above the room."
    raw = np.random.default_rng(0).lognormal(np.log(MEAN) - sigma**2 / 2, sigma, N)
    return np.clip(raw, 16, ROOM).astype(np.int64)


def real_lengths(data: Path) -> dict:
    "Tokens of real responses, counted with a real tokenizer."
    from tokenizers import Tokenizer

    tokenizer, lens = Tokenizer.from_file(str(data / "tokenizers" / "dolma2.json")), []
    for name in ("zeroeval_math_l5", "zeroeval_gsm"):
        with gzip.open(data / "responses" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
            texts = [json.loads(line)["resp"] for line in f]
        for i in range(0, len(texts), 1000):
            lens += [len(e.ids) for e in tokenizer.encode_batch_fast(texts[i : i + 1000])]
    return {"all": len(lens), "lens": np.array(lens)}


def trl_packs(lens: np.ndarray, batch_size: int) -> list[np.ndarray]:
    "TRL's packs as sequence numbers; tokens are one byte, so that it need not move more."
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    packs = []
    for a in range(0, len(lens), batch_size):
        part = lens[a : a + batch_size]
        offsets = np.concatenate([[0], np.cumsum(part)]).astype(np.int32)
        column = pa.ListArray.from_arrays(offsets, np.zeros(offsets[-1], np.int8))
        packed = _pack_bfd(pa.table({"input_ids": column}), ROOM)
        sizes = [np.array(x) for x in packed["seq_lengths"].to_pylist()]
        packs += sizes
    return packs


def eta_squared(sizes: list[np.ndarray]) -> float:
    "Share of the variance of length between packs."
    every = np.concatenate(sizes)
    return 1 - sum(len(s) * s.var() for s in sizes) / len(every) / every.var()


def measure(way: str, lens: np.ndarray) -> dict:
    "One way of packing; run in a fresh process."
    if way.startswith("trl"):
        from trl.data_utils import _pack_bfd  # noqa: F401  imports are not timed
    start = time.process_time()
    if way.startswith("trl"):
        sizes = trl_packs(lens, 1000 if "1000" in way else N)
    elif way == "best_fit_decreasing":
        sizes = best_fit_decreasing(lens, ROOM, epoch_order(len(lens), 0, 0))
    else:
        sizes = pack_lengths(lens, ROOM, way)
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()  # ru_maxrss counts the parent's peak too
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024
    if not way.startswith("trl"):
        seen = np.concatenate(sizes)
        if len(seen) != len(lens) or len(np.unique(seen)) != len(lens):
            raise RuntimeError(f"{way}: {len(seen)} of {len(lens)} sequences packed once")
        sizes = [lens[p] for p in sizes]
    return {
        "packing": way,
        "packs": len(sizes),
        "fill": round(fill(sizes, lens, ROOM), 5),
        "cpu_s": round(seconds, 2),
        "peak_mb": round(peak),
        "alike": round(eta_squared(sizes), 3),
        "by_chance": round(len(sizes) / len(lens), 3),
    }


def main() -> None:
    "Measure, print, write."
    cases = {f"log-normal, sigma {s}": log_normal(s) for s in (0.4, 0.6, 0.8)}
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, one core, CPU time",
        "n": N,
        "room": ROOM,
    }
    if (data := data_folder()) is not None:
        found = real_lengths(data)
        fit = found["lens"][(found["lens"] > 0) & (found["lens"] <= ROOM)]
        result["real"] = {"responses": found["all"], "fit": len(fit), "mean": round(fit.mean(), 1)}
        cases["real responses"] = np.random.default_rng(0).choice(fit, N)
    rows = []
    for name, lens in cases.items():
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append({"lengths": name} | pool.apply(measure, (way, lens)))
            print(*rows[-1].values(), sep=" | ", flush=True)
    write_json(RESULTS, result | {"rows": rows})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    named_parts(__doc__)
    main()

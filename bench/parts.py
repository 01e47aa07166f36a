"""What benchmarks in parts share: their command line, and two measures of an engine. Measures nothing by itself."""

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

from dart_math_nb.data.files import read_json, write_json


def command_line(
    about: str,  # Documentation of the script
) -> argparse.ArgumentParser:
    "A parser whose `--help` is the documentation of the script."
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)


def named_parts(
    about: str,  # Documentation of the script
    parts: Iterable[str] = (),  # That there are; none for a script that measures one thing
    default: Iterable[str] | None = None,  # When none is named; None for all
) -> list[str]:  # In the order in which they were named
    "The parts that the command line names. Ends the script for `--help`, and for what is no part."
    parser, parts = command_line(about), list(parts)
    default = parts if default is None else list(default)
    if parts:
        one = f"of {', '.join(parts)} ({'all' if default == parts else ', '.join(default)})"
        parser.add_argument("parts", nargs="*", metavar="PART", help=one)
    wanted = getattr(parser.parse_args(), "parts", None) or default
    if unknown := set(wanted) - set(parts):
        parser.error(f"unknown part {min(unknown)!r}; need some of {', '.join(parts)}")
    return wanted


def trainer_words(
    parser: argparse.ArgumentParser,  # From command_line
    trainers: Iterable[str],  # That there are
) -> tuple[argparse.Namespace, dict[str, str]]:  # folder, trainers; trainer -> a checkout of it
    "What the command line says to a benchmark that runs other trainers, each in an environment of its own."
    parser.add_argument("folder", type=Path, help="for environments, outside the repository")
    parser.add_argument(
        "trainers", nargs="*", metavar="TRAINER", help=f"of {', '.join(trainers)} (all)"
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="TRAINER=PATH", help="a checkout"
    )
    args = parser.parse_args()
    sources = dict(one.split("=", 1) for one in args.source)
    if wrong := set(args.trainers) - set(trainers):
        parser.error(f"unknown trainer {min(wrong)!r}; need some of {', '.join(trainers)}")
    return args, sources


def run_parts(
    about: str,  # Documentation of the script
    parts: Mapping[str, Callable],  # Name -> what measures it and returns what JSON can keep
    results: Path,  # JSON file; a part writes its entry
    needs: Mapping[str, str] | None = None,  # Part -> package without which it is left out
) -> None:
    "Command line of a benchmark: run the parts that are named, or all."
    wanted = named_parts(about, parts)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in wanted:
        need = (needs or {}).get(name)
        if need and not importlib.util.find_spec(need):
            print(f"{name}: left out, because {need} is not installed")
            continue
        start, load = time.monotonic(), os.getloadavg()[0]
        found = parts[name]()
        result = read_json(results) if results.exists() else {}
        today = date.today().isoformat()
        result |= {name: found, "date": today, "machine": machine}
        told = {"date": today, "seconds": round(time.monotonic() - start), "load": round(load, 1)}
        result.setdefault("runs", {})[name] = told
        print(name, json.dumps(found, indent=1), flush=True)
        write_json(results, result)


async def drive(
    ask: Callable,  # Coroutine of one request, given its number
    n: int,  # Requests
    flying: int = 256,  # At once
    warm: int = 0,  # Requests before that do not count
) -> dict:  # Requests per second of the clock, and of this process's core
    "Ask n times."
    await asyncio.gather(*(ask(i) for i in range(warm)))
    numbers = iter(range(n))

    async def work():
        for i in numbers:
            await ask(i)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(flying)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"requests": n, "per second": round(n / wall), "per core second": round(n / cpu)}


def drawn(engine, queries: list, **how) -> tuple:  # Rows of the pool, seconds
    "What the product's own sampling loop draws, into a pool that is gone afterwards."
    from dart_math_nb.engines.protocol import run_async
    from dart_math_nb.sample.loop import sample_pool
    from dart_math_nb.store.pool import open_pool, read_pool

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        with open_pool(tmp) as pool:
            sample_pool(queries, engine, pool, progress=False, **how)
        seconds = time.monotonic() - start
        run_async(engine.close())
        return read_pool(tmp), seconds

"""Requests for one draw of a server that always fails: `python bench/retries.py [--before FOLDER]`.

A server answers 500 to every request for a draw. One query, one draw, sampled to the error of the run; the
server counts. `--before` names a checkout of the package without a retry policy (its modules lay flat), which
is measured in the same way. Pauses are cut to a millisecond. Writes bench/results/retries.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "retries.json"
WORK = """
import asyncio, json, sys, tempfile, warnings
try:
    from dart_math_nb.data.records import Source, make_query
    from dart_math_nb.engines.openai import OpenAIEngine
    from dart_math_nb.sample.loop import sample_pool_async
    from dart_math_nb.sample.strategy import StrategyCfg
    from dart_math_nb.store.pool import open_pool
    from dart_math_nb.testing.fake_server import json_reply, null_reply, serve
    now = True
except ImportError:
    from dart_math_nb.records import Source, make_query
    from dart_math_nb.client import OpenAIEngine
    from dart_math_nb.sample import sample_pool_async
    from dart_math_nb.dars import StrategyCfg
    from dart_math_nb.pool import open_pool
    from dart_math_nb.servers import json_reply, null_reply, serve
    now = False

how = json.loads(sys.argv[1])
seen = []

def answer(request):
    if request.method == "GET":
        return null_reply()
    seen.append(request)
    return json_reply({"error": "out of order"}, 500)

async def main():
    pauses = {} if now else {"retry_wait": 0.001}
    async with serve(answer) as url, OpenAIEngine("null", url, wait=0.001, **how["engine"]) as engine:
        with tempfile.TemporaryDirectory() as tmp, open_pool(tmp) as pool:
            one, cfg = [make_query("demo", "1+1=?", "2")], StrategyCfg("uniform", 1, 1)
            rest = {"source": Source("null"), "strategy": cfg, "progress": False} | pauses
            try:
                await sample_pool_async(one, engine, pool, **rest | how["run"])
            except RuntimeError as e:
                return {"requests_per_draw": len(seen), "said": str(e).replace(url, "http://server")}

print(json.dumps(asyncio.run(main())))
"""
SETTINGS = {
    "default": {"engine": {}, "run": {}},
    "retries=2": {"engine": {}, "run": {"retries": 2}},
    "attempts=1": {"engine": {"attempts": 1}, "run": {}},
}


def measure(code: str, folder: Path) -> list[dict]:
    "One row per setting, each in a process of its own."
    rows = []
    for name, how in SETTINGS.items():
        command = [sys.executable, "-c", WORK, json.dumps(how)]
        env = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        out = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True, check=True
        )
        rows.append({"code": code, "setting": name} | json.loads(out.stdout))
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout without a retry policy")
    before = parser.parse_args().before
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = measure("before", before) if before else [r for r in old if r["code"] == "before"]
    rows += measure("now", Path(__file__).resolve().parents[1])
    found = {"date": date.today().isoformat(), "python": platform.python_version(), "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

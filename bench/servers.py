"""Processor time of a test server per request: the one of `testing.fake_server` beside aiohttp's.

Both answer every request with the same completion, each in a process of its own; one client keeps 64 requests
in flight. Writes bench/results/servers.json.
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import aiohttp

RESULTS = Path(__file__).parent / "results" / "servers.json"
OWN = "import asyncio, dart_math_nb.testing.fake_server as s; asyncio.run(s._serve_null())"
AIOHTTP = """
import asyncio
from aiohttp import web
from dart_math_nb.testing.fake_server import null_reply
body = null_reply().data.partition(b"\\r\\n\\r\\n")[2]

async def answer(request):
    await request.read()
    return web.Response(body=body, content_type="application/json")

async def main():
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("http://127.0.0.1:%d" % runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def cpu_seconds(pid: int) -> float:
    "Processor time of a process so far."
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(url: str, n: int) -> float:
    "Seconds for `n` requests."
    body, numbers = b'{"prompt": "1+1=?"}' + b" " * 400, iter(range(n))
    async with aiohttp.ClientSession() as session:

        async def work():
            for _ in numbers:
                async with session.post(url + "/v1/completions", data=body) as reply:
                    await reply.read()

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(64)))
        return time.perf_counter() - begin


def measure(name: str, code: str, n: int = 6000) -> dict:
    "Time of one server."
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        try:
            url = child.stdout.readline().strip()
            asyncio.run(ask(url, 200))
            before = cpu_seconds(child.pid)
            wall = asyncio.run(ask(url, n))
            cpu = cpu_seconds(child.pid) - before
        finally:
            child.terminate()
    return {"server": name, "requests": n, "per_s": round(n / wall), "cpu_us": round(1e6 * cpu / n)}


if __name__ == "__main__":
    rows = [measure(*who) for _ in range(2) for who in (("own", OWN), ("aiohttp", AIOHTTP))]
    best = [
        min((r for r in rows if r["server"] == s), key=lambda r: r["cpu_us"])
        for s in ("own", "aiohttp")
    ]
    found = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "aiohttp": aiohttp.__version__,
    }
    RESULTS.write_text(
        json.dumps(found | {"python": platform.python_version(), "rows": best}, indent=2) + "\n"
    )
    print(rows)

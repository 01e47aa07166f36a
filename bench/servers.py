"""Servers on bad days, and what a test server costs: `python bench/servers.py [PART ...]`.

cost      processor time of the test server of `testing.fake_server` per request, beside aiohttp's
outage    256 draws in flight; the only server is killed for a minute, or stopped so that it hangs; the
          same run without: time, and the set
dead      one of four servers is killed, or stopped, in mid-run and never comes back
stream    responses per second of one core, 20 events each, from a server that answers at once: bare
          aiohttp that parses each event, and the engine with all that it does
slow      a tenth of the draws take a hundred times as long as the others: requests for each draw, and how
          busy the places are until fewer draws than places are left
dialects  the fake of each dialect that enforces it, 200 queries and two that its filter refuses: quotas,
          requests refused, failures against the trouble that was made
limit     a service that takes 20 requests a second and says `Retry-After`, in several ways of counting

Runs take the product's own sampling loop over real sockets, servers in processes of their own; seeds are
fixed. All parts when none is named; each writes its entry of bench/results/servers.json. Whether an engine can
send faster than others at all is `bench/engine.py transport`.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from parts import drawn, drive, run_parts

from dart_math_nb.data.records import Source, make_query
from dart_math_nb.engines.openai import OpenAIEngine
from dart_math_nb.engines.protocol import Draw, SampleParams
from dart_math_nb.sample.loop import sample_pool_async
from dart_math_nb.sample.standing import accepted
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.store.pool import open_pool, read_pool
from dart_math_nb.testing.fake_server import (
    NULL_TEXT,
    Reply,
    free_port,
    json_reply,
    null_reply,
    null_server,
    serve,
    stream_reply,
    sums_reply,
    text_events,
)
from dart_math_nb.testing.strict_server import RULES, StrictServer

RESULTS = Path(__file__).parent / "results" / "servers.json"
OWN = "import asyncio, dart_math_nb.testing.fake_server as s; asyncio.run(s._serve_null())"
SUMS = "import asyncio, dart_math_nb.testing.fake_server as s; asyncio.run(s._serve_sums({}, {}))"
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


async def post_many(url: str, n: int) -> float:
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


@contextmanager
def child(code: str):
    "A process, and the first line that it says."
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as one:
        try:
            yield one, one.stdout.readline().strip()
        finally:
            one.kill()


def measure(name: str, code: str, n: int = 6000) -> dict:
    "Time of one server."
    with child(code) as (process, url):
        asyncio.run(post_many(url, 200))
        before = cpu_seconds(process.pid)
        wall = asyncio.run(post_many(url, n))
        cpu = cpu_seconds(process.pid) - before
    return {"server": name, "requests": n, "per_s": round(n / wall), "cpu_us": round(1e6 * cpu / n)}


def cost() -> dict:
    "Processor time per request, the better of two."
    rows = [measure(*who) for _ in range(2) for who in (("own", OWN), ("aiohttp", AIOHTTP))]
    best = {
        s: min((r for r in rows if r["server"] == s), key=lambda r: r["cpu_us"])
        for s in ("own", "aiohttp")
    }
    return {"aiohttp": aiohttp.__version__, "rows": list(best.values())}


def sums(n: int) -> list:
    "Queries that the server of sums solves now and then."
    pairs = [(a, b) for a in range(11, 99) for b in range(11, 99)][:n]
    return [make_query("sums", f"What is {a}*{b}?", str(a * b), level=1) for a, b in pairs]


def one_run(urls: list[str], n_queries: int, k: int = 2, most: int = 16, **options) -> dict:
    "A run: its seconds, its set, what the servers' tallies say."
    engine = OpenAIEngine("sums", urls, **options)
    cfg, queries = StrategyCfg("uniform", k=k, max_trials=most), sums(n_queries)
    rows, seconds = drawn(engine, queries, source=Source("sums"), strategy=cfg)
    found = accepted(rows, {q.query_id: k for q in queries}, most)
    found = found.merge(rows[["query_id", "trial", "response"]])
    texts = sorted(map(tuple, found[["query_id", "trial", "response"]].values.tolist()))
    tally = engine.tally()
    told = {"requests": tally.n_requests, "draws": len(rows), "failures": dict(tally.failures)}
    return {"seconds": round(seconds, 1), "accepted": len(texts), "set": texts} | told


class Sums:
    "Servers of sums on ports of their own, that can be killed, stopped and started."

    def __init__(self, n: int, seconds: float):
        self.seconds, self.ports, self.running = seconds, [free_port() for _ in range(n)], {}

    def __enter__(self):
        for port in self.ports:
            self.start(port)
        return self

    def __exit__(self, *error):
        for one in self.running.values():
            one.kill()
            one.wait()

    def start(self, port: int) -> None:
        "Start one."
        command = [sys.executable, "-c", SUMS.format(self.seconds, port)]
        one = self.running[port] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        one.stdout.readline()

    def away(self, port: int, how: str, seconds: float | None) -> None:
        "Kill or stop one, for a time or for ever."
        one = self.running[port]
        one.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "killed":
            one.wait()
        if seconds is None:
            return
        time.sleep(seconds)
        if how == "killed":
            self.start(port)
        else:
            one.send_signal(signal.SIGCONT)

    @property
    def urls(self) -> list[str]:
        "Their addresses."
        return [f"http://127.0.0.1:{port}" for port in self.ports]


def beside(servers: Sums, how: str, after: float, seconds: float | None, **options) -> dict:
    "A run during which the first server goes away."
    port = servers.ports[0]
    timer = threading.Timer(after, servers.away, (port, how, seconds))
    timer.start()
    found = one_run(servers.urls, **options)
    timer.cancel()
    timer.join()
    return found


def outage(n_queries: int = 500, away: float = 60.0) -> list[dict]:
    "The only server is away for a minute."
    rows = []
    with Sums(1, 2.0) as servers:
        well = one_run(servers.urls, n_queries)
        for how in ("killed", "stopped"):
            found = beside(servers, how, 10.0, away, n_queries=n_queries)
            row = {"server": how, "away_s": away, "healthy_s": well["seconds"]} | found
            row["share"] = round(found["seconds"] / (well["seconds"] + away), 3)
            row["same_set"] = row.pop("set") == well["set"]
            rows.append(row)
            print(row, flush=True)
    return rows


def dead(n_queries: int = 500) -> list[dict]:
    "One of four servers goes away for ever; beside it a run with three from the start."
    rows = []
    for how in ("killed", "stopped"):
        with Sums(4, 2.0) as servers:
            well = one_run(servers.urls, n_queries)
            found = beside(servers, how, 10.0, None, n_queries=n_queries)
        row = {"server": how, "healthy_s": well["seconds"]} | found
        row["share"] = round(found["seconds"] / well["seconds"], 3)
        row["same_set"] = row.pop("set") == well["set"]
        rows.append(row)
        print(row, flush=True)
    return rows


class Limit:
    "A service that takes `rate` requests a second, by a bucket or by a count of each `span` seconds."

    def __init__(self, rate: float, burst: float, span: float, exact: bool, tells: bool = False):
        self.rate, self.burst, self.span, self.exact, self.tells = rate, burst, span, exact, tells
        self.room, self.at, self.done, self.rejected = burst, time.monotonic(), 0, 0
        self.first = self.last = 0.0

    def wait(self) -> float:
        "Seconds to wait; 0 when it answers."
        now = time.monotonic()
        if self.span:
            if now // self.span != self.at // self.span:
                self.room = self.rate * self.span
            need = self.span - now % self.span
        else:
            self.room = min(self.burst, self.room + (now - self.at) * self.rate)
            need = (1 - self.room) / self.rate
        self.at = now
        if self.room >= 1:
            self.room -= 1
            return 0.0
        return need if self.exact else 1.0

    def says(self) -> dict:
        "Headers of a reply."
        most = self.rate * self.span or self.burst
        whole = self.span - self.at % self.span if self.span else (most - self.room) / self.rate
        said = {"limit": most, "remaining": int(self.room), "reset": f"{whole:.3f}s"}
        said = {f"x_ratelimit_{name}_requests": str(text) for name, text in said.items()}
        return said if self.tells else {}

    async def __call__(self, request):
        if request.method == "GET":
            return null_reply(model="sums")
        if wait := self.wait():
            self.rejected += 1
            wait = {"retry_after": f"{wait:.3f}"} | self.says()
            return json_reply({"error": {"message": "slow down"}}, 429, **wait)
        said = "".join(f"{name.replace('_', '-')}: {t}\r\n" for name, t in self.says().items())
        self.done, self.last = self.done + 1, time.monotonic()
        self.first = self.first or self.last
        await asyncio.sleep(0.3)
        reply = sums_reply(request.body)
        return Reply(reply.data.replace(b"\r\n", b"\r\n" + said.encode(), 1))


async def limited(limit: Limit, n_queries: int) -> dict:
    "A run against it."
    async with serve(limit) as url:
        found = await asyncio.to_thread(one_run, [url], n_queries, 2, 16)
    return found


def limit(n_queries: int = 130) -> list[dict]:
    "One row for each way to count."
    rows = []
    ways = {
        "bucket of 20, whole seconds": (20, 20, 0, False),
        "bucket of 20, exact": (20, 20, 0, True),
        "20 in each second, whole seconds": (20, 20, 1, False),
        "20 in each second, exact": (20, 20, 1, True),
        "no burst, exact": (20, 1, 0, True),
        "no burst, whole seconds": (20, 1, 0, False),
        "200 in each ten seconds, exact": (20, 200, 10, True),
        "200 in each ten seconds, headers": (20, 200, 10, True, True),
        "bucket of 200, headers": (20, 200, 0, True, True),
    }
    for name, how in ways.items():
        one = Limit(*how)
        found = asyncio.run(limited(one, n_queries))
        row = {"counts": name, "seconds": found["seconds"], "answered": one.done}
        row["answered_per_s"] = round(one.done / (one.last - one.first), 2)
        row["rejected"] = round(one.rejected / (one.done + one.rejected), 4)
        rows.append(row)
        print(row, flush=True)
    return rows


async def bare(url: str, n: int) -> dict:
    "Bare aiohttp."
    body = {"model": "null", "prompt": "12+34-5=?" * 20, "seed": 1, "stream": True}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(i):
            text = ""
            async with session.post(url + "/completions", json=body | {"seed": i}) as reply:
                async for line in reply.content:
                    if line.startswith(b"data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            text += choice["text"]
            return text

        return await drive(ask, n, warm=300)


async def ours(url: str, n: int) -> dict:
    "The engine."
    async with OpenAIEngine("null", url) as engine:
        ask = Draw("q", 0, "12+34-5=?" * 20, 1)
        how = SampleParams(max_tokens=96)
        test = await engine.draw(ask, how)
        assert test.text == NULL_TEXT and test.n_tokens == 16
        return await drive(lambda i: engine.draw(ask, how), n, warm=300)


def stream(n: int = 6000) -> list[dict]:
    "The better of two each, in turn."
    rows = []
    with null_server() as url:
        for _ in range(2):
            for name, way in (("aiohttp", bare), ("engine", ours)):
                rows.append({"client": name} | asyncio.run(way(url, n)))
                print(rows[-1], flush=True)
    return [
        max((r for r in rows if r["client"] == c), key=lambda r: r["per core second"])
        for c in ("aiohttp", "engine")
    ]


class Slow:
    "Streams, most in a fifth of a second, a tenth of them a hundred times slower."

    def __init__(self):
        self.asked, self.flying, self.trace = Counter(), 0, []

    async def __call__(self, request):
        if request.method == "GET":
            return null_reply(model="sums")
        asked = json.loads(request.body)
        self.asked[asked["prompt"], asked["seed"]] += 1
        self.flying += 1
        self.trace.append((time.monotonic(), self.flying))
        try:
            events = text_events(json.loads(sums_text(request.body))["choices"][0]["text"], 20)
            pause = 0.01 * (100 if random.Random(asked["seed"]).random() < 0.1 else 1)
            for _ in events:
                await asyncio.sleep(pause)
            return stream_reply(events)
        finally:
            self.flying -= 1
            self.trace.append((time.monotonic(), self.flying))


def sums_text(body: bytes) -> bytes:
    "The whole reply of the server of sums, without its head."
    plain = json.loads(body)
    plain.pop("stream", None)
    return sums_reply(json.dumps(plain).encode()).data.partition(b"\r\n\r\n")[2]


async def slow_run(handler: Slow, n_queries: int, flying: int) -> dict:
    "A run against it."
    async with serve(handler) as url:
        return await asyncio.to_thread(one_run, [url], n_queries, 16, 16, max_in_flight=flying)


def slow(n_queries: int = 300, flying: int = 64) -> dict:
    "16 draws for each query, so that all draws are wanted and the end is known."
    handler = Slow()
    found = asyncio.run(slow_run(handler, n_queries, flying))
    begun = [
        t
        for (t, n), (_, before) in zip(handler.trace[1:], handler.trace, strict=False)
        if n > before
    ]
    start, end = begun[flying], begun[-1]  # all places taken; the last draw leaves
    area = sum(
        n * (min(t2, end) - max(t, start))
        for (t, n), (t2, _) in zip(handler.trace, handler.trace[1:], strict=False)
        if t2 > start and t < end
    )
    row = {"draws": found["draws"], "in_flight": flying, "seconds": found["seconds"]}
    row["most_requests_for_a_draw"] = max(handler.asked.values())
    row["busy"] = round(area / (flying * (end - start)), 4)
    print(row, flush=True)
    return row


async def strict_run(server: StrictServer, queries: list) -> dict:
    "A run against the fake of a dialect."
    async with serve(server) as url:
        engine = OpenAIEngine("sums", url, dialect=server.name, chat=True, wait=0.01)
        how = {"source": Source("sums"), "strategy": StrategyCfg("uniform", 2, max_trials=64)}
        with tempfile.TemporaryDirectory() as tmp:
            with open_pool(tmp) as pool:
                table = await sample_pool_async(queries, engine, pool, **how, progress=False)
            n_rows = len(read_pool(tmp))
        await engine.close()
    t = engine.tally()
    row = {"dialect": server.name} | table.stop.value_counts().to_dict()
    row |= {"exact": bool((table.n_accepted[table.stop == "quota"] == 2).all()), "draws": n_rows}
    row |= {"requests": t.n_requests, "answers": t.n_answers, "failures": dict(t.failures)}
    row |= {"trouble": server.done["trouble"], "refused_fields": len(server.refusals)}
    return row | {"cancelled": t.n_requests - t.n_answers - t.n_refused - sum(t.failures.values())}


def dialects() -> list[dict]:
    "One row each."
    warnings.simplefilter("ignore")
    pairs = [(a, b) for a in range(2, 12) for b in range(2, 22)]
    queries = [make_query("sums", f"What is {a}+{b}?", str(a + b)) for a, b in pairs]
    queries += [make_query("sums", f"How many bullets are {a}+4?", str(a + 4)) for a in (3, 5)]
    rows = []
    for name in RULES:
        rows.append(asyncio.run(strict_run(StrictServer(name), queries)))
        print(rows[-1], flush=True)
    return rows


PARTS = {
    "cost": cost,
    "outage": outage,
    "dead": dead,
    "stream": stream,
    "slow": slow,
    "dialects": dialects,
    "limit": limit,
}


if __name__ == "__main__":
    run_parts(__doc__, PARTS, RESULTS)

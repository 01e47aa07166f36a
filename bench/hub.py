"""Loading a data set from the hub, from its cache, and without a net: seconds of one call, in a fresh process.

The hub is a server of this script that speaks the hub's protocol: python bench/hub.py
"""

import hashlib
import io
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).parent / "results" / "hub.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = b"""---
configs:
- config_name: main
  data_files:
  - split: test
    path: main/test-*
---
"""


class Hub(BaseHTTPRequestHandler):
    "The requests that `datasets` makes, for one data set."

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}
    n_requests = 0

    def log_message(self, *args) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, name: str) -> dict:
        body = self.files[name]
        kind = {"type": "file", "path": name, "size": len(body)}
        return kind | {"oid": hashlib.sha1(body).hexdigest()}

    def do_GET(self) -> None:
        Hub.n_requests += 1
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].partition("/")[2]
            if name not in self.files:
                self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                tag = f'"{self.entry(name)["oid"]}"'
                self.answer(self.files[name], ETag=tag, X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            below = path.split("/tree/")[1].partition("/")[2]
            found = [self.entry(name) for name in self.files if name.startswith(below)]
            if not below:
                found.append({"type": "directory", "path": "main", "size": 0, "oid": "0" * 40})
            self.answer(json.dumps(found).encode())
        elif path.startswith("/api/datasets/"):
            names = [{"rfilename": name} for name in self.files]
            self.answer(
                json.dumps({"id": "someone/sums", "sha": COMMIT, "siblings": names}).encode()
            )
        else:
            self.answer(b"{}", 200 if path == "/" else 404)

    do_HEAD = do_POST = do_GET


CLIENT = """
import json, sys, time
import datasets
from dart_math_nb.hub import hub_rows
start = time.perf_counter()
try:
    found = str(len(list(hub_rows("someone/sums", "main", "test", REVISION)))) + " rows"
except (ConnectionError, ValueError) as e:
    found = type(e).__name__
print(json.dumps([found, round(time.perf_counter() - start, 2)]))
"""


def call(endpoint: str, home: str, revision: str | None = None, **env: str) -> list:
    "What one call gives, and its seconds."
    run = subprocess.run(
        [sys.executable, "-c", CLIENT.replace("REVISION", repr(revision))],
        env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": home} | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def measure() -> list[dict]:
    "One row per situation."
    table = pa.table({"question": [f"{i}+1?" for i in range(1000)], "answer": range(1, 1001)})
    pq.write_table(table, buffer := io.BytesIO())
    Hub.files = {"main/test-00000-of-00001.parquet": buffer.getvalue(), "README.md": CARD}
    rows = []

    def add(what: str, *args, **env) -> None:
        before = Hub.n_requests
        found, seconds = call(*args, **env)
        asked = Hub.n_requests - before
        rows.append({"situation": what, "gives": found, "seconds": seconds, "requests": asked})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    silent = socket.create_server(("127.0.0.1", 0))
    there, gone = f"http://127.0.0.1:{server.server_port}", "http://127.0.0.1:9"
    quiet = f"http://127.0.0.1:{silent.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as empty:
        add("first load, pinned commit", there, home, COMMIT)
        add("again, pinned commit", there, home, COMMIT)
        add("again, main", there, home)
        server.shutdown()
        server.server_close()
        add("hub refuses, cached, pinned", gone, home, COMMIT)
        add("hub refuses, cached, main", gone, home)
        add("HF_HUB_OFFLINE=1, cached", gone, home, HF_HUB_OFFLINE="1")
        add("hub refuses, not cached", gone, empty)
        add("hub never answers, not cached", quiet, empty)
        add("no such host, not cached", "http://hub.invalid", empty)
    return rows


def main() -> None:
    "Measure, print and store."
    rows = measure()
    for row in rows:
        print(f"{row['situation']:32} {row['gives']:18} {row['seconds']:6.2f} s {row['requests']}")
    about = {"date": date.today().isoformat(), "machine": f"{platform.machine()}, 2 cores"}
    about |= {name: version(name) for name in ("datasets", "huggingface_hub")}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

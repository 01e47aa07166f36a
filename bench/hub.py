"""Loading from the hub, from its cache, and without a net: seconds of one call, in a fresh process.

The hub is a server of this script that speaks the hub's protocol: python bench/hub.py. Where the
local data are, every mirror of the registry is served in its own form (ids, commits, field names,
configurations) and loaded through `load_queries`, hash check and all.
"""

import hashlib
import io
import json
import os
import platform
import re
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
from parts import named_parts

from dart_math_nb.data.catalog import BENCHMARKS
from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder, local_file

OUT = Path(__file__).parent / "results" / "hub.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def data_set(tables: dict[str, list[dict]], split: str) -> dict[str, bytes]:
    "Files of a data set: one Parquet file per configuration, and the card."
    files, card = {}, ["---", "configs:"]
    for config, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), buffer := io.BytesIO())
        files[f"{config}/{split}-00000-of-00001.parquet"] = buffer.getvalue()
        card += [f"- config_name: {config}", "  data_files:", f"  - split: {split}"]
        card += [f"    path: {config}/{split}-*"]
    return files | {"README.md": "\n".join([*card, "---", ""]).encode()}


def oid(body: bytes) -> str:
    "Name of a content."
    return hashlib.sha1(body).hexdigest()


def tree(files: dict[str, bytes], below: str) -> list[dict]:
    "Files and folders of a folder."
    found = [
        {"type": "file", "path": name, "size": len(body), "oid": oid(body)}
        for name, body in files.items()
        if name.startswith(below)
    ]
    folders = {name.split("/")[0] for name in files if "/" in name} if not below else set()
    return found + [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in folders]


class Hub(BaseHTTPRequestHandler):
    "The requests that `datasets` makes."

    protocol_version = "HTTP/1.1"
    sets: dict[str, dict[str, bytes]] = {}  # Files of each data set
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

    def do_GET(self) -> None:
        Hub.n_requests += 1
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        found = re.match(r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(\w+)/([^/]+)(?:/(.*))?)?$", path)
        if not found or found[1] not in self.sets:
            gone = {} if path == "/" else {"X_Error_Code": "RepoNotFound"}
            return self.answer(b"{}", 404 if gone else 200, **gone)
        hub_id, what, commit, name = found.groups()
        files, commit = self.sets[hub_id], COMMIT if commit in ("main", None) else commit
        if what == "resolve" and name not in files:
            self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif what == "resolve":
            self.answer(files[name], ETag=f'"{oid(files[name])}"', X_Repo_Commit=commit)
        elif what == "tree":
            self.answer(json.dumps(tree(files, name or "")).encode())
        else:
            names = [{"rfilename": name} for name in files]
            about = {"id": hub_id, "sha": commit, "siblings": names}
            self.answer(json.dumps(about).encode())

    do_HEAD = do_POST = do_GET


CLIENT = """
import json, sys, time
import datasets
from dart_math_nb.data.load import load_queries
start = time.perf_counter()
try:
    found = str(len(load_queries(**json.loads(sys.argv[1])))) + " rows"
except (ConnectionError, ValueError) as e:
    found = type(e).__name__ + ": " + str(e)
print(json.dumps([found, round(time.perf_counter() - start, 2)]))
"""
SUMS = {"source": "someone/sums", "config": "main", "split": "test"}


def call(endpoint: str, home: str, wanted: dict, **env: str) -> list:
    "What one call of load_queries gives, and its seconds."
    run = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(wanted)],
        env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": home} | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def row_of(what: str, *args, **env) -> dict:
    "One line of the table."
    before = Hub.n_requests
    found, seconds = call(*args, **env)
    found = found.split(":")[0] if found.startswith("Conn") else found
    row = {"situation": what, "gives": found, "seconds": seconds}
    return row | {"requests": Hub.n_requests - before}


def mirror_form(bench, mirror) -> dict[str, bytes]:
    "The local file of a benchmark as a mirror would have it."
    back, tables = {name: field for name, field in bench.fields.meta}, {}
    for row in read_rows(local_file(bench)):
        worked = mirror.fields.ref_ans == "solution" or mirror.hub_id == "openai/gsm8k"
        ref = row["solution"] if worked else row["ref"]
        made = {mirror.fields.query: row["query"], mirror.fields.ref_ans: ref}
        for name, field in mirror.fields.meta:
            value = row.get(back.get(name))
            made[field] = f"Level {value or '?'}" if name == "level" else value
        config = mirror.configs[0] if mirror.configs else "default"
        if len(mirror.configs) == 7:
            config = row["type"].lower().replace(" & ", "_and_").replace(" ", "_")
        tables.setdefault(config, []).insert(0, made)
    return data_set(tables, mirror.split)


def situations(there: str, server: ThreadingHTTPServer) -> list[dict]:
    "With a net, without one, and without a cache."
    rows = [{"question": f"{i}+1?", "answer": f"{i + 1}"} for i in range(1000)]
    Hub.sets["someone/sums"] = data_set({"main": rows}, "test")
    silent, gone = socket.create_server(("127.0.0.1", 0)), "http://127.0.0.1:9"
    quiet, pinned = f"http://127.0.0.1:{silent.getsockname()[1]}", SUMS | {"revision": COMMIT}
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as empty:
        found = [row_of("first load, pinned commit", there, home, pinned)]
        found += [row_of("again, pinned commit", there, home, pinned)]
        found += [row_of("again, main", there, home, SUMS)]
        server.shutdown()
        server.server_close()
        found += [row_of("hub refuses, cached, pinned", gone, home, pinned)]
        found += [row_of("hub refuses, cached, main", gone, home, SUMS)]
        found += [row_of("offline flag, cached, main", gone, home, SUMS, HF_HUB_OFFLINE="1")]
        found += [row_of("hub refuses, not cached", gone, empty, SUMS)]
        found += [row_of("hub never answers, not cached", quiet, empty, SUMS)]
        found += [row_of("no such host, not cached", "http://hub.invalid", empty, SUMS)]
        aime = {"source": "aime25", "folder": empty}
        found += [row_of("never answers, 2 mirrors", quiet, empty, aime)]
    return found


def mirrors(there: str) -> list[dict]:
    "Every mirror of a benchmark whose rows are here, served in its form, one at a time."
    found = []
    for bench in BENCHMARKS.values():
        for mirror in bench.mirrors if bench.sha256 and local_file(bench) else ():
            with tempfile.TemporaryDirectory() as home:
                Hub.sets = {mirror.hub_id: mirror_form(bench, mirror)}
                row = row_of(mirror.hub_id, there, home, {"source": bench.name, "folder": home})
                found.append({"benchmark": bench.name} | row)
    return found


def measure() -> tuple[list[dict], list[dict]]:
    "Rows of the two tables."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = f"http://127.0.0.1:{server.server_port}"
    return (mirrors(there) if data_folder() else []), situations(there, server)


def main() -> None:
    "Measure, print and store."
    served, rows = measure()
    for row in (*served, *rows):
        name = f"{row.get('benchmark', '')} {row['situation']}"
        print(f"{name:50} {row['gives']:18} {row['seconds']:6.2f} s {row['requests']}")
    about = {"date": date.today().isoformat(), "machine": f"{platform.machine()}, 2 cores"}
    about |= {name: version(name) for name in ("datasets", "huggingface_hub")}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(about | {"mirrors": served, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    named_parts(__doc__)
    main()

"""The page of queries of a large pool: how long it takes to make, how large it is, how fast it is in Chromium.

`python bench/viewer.py [--queries 10000] [--draws 20] [--folder F]` makes a pool of synthetic responses of about
600 characters, writes its page in a process of its own, opens it in a real Chromium without a window, searches,
sorts and opens responses there, and writes bench/results/viewer.json. Chromium: Debian's `chromium` and
`chromium-driver`. Times are of the slower of two runs, except making the page, which runs once.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import random
import tempfile
import time
from pathlib import Path

from dart_math_nb.data.files import read_rows
from dart_math_nb.data.load import data_folder
from dart_math_nb.data.queries import save_queries
from dart_math_nb.data.records import Response, Source, Verdict, draw_seed, make_query, pool_row
from dart_math_nb.report.look import read_look
from dart_math_nb.report.script import MATH_PROSE, MATH_READER, MATH_TABLES
from dart_math_nb.report.viewer import write_viewer
from dart_math_nb.sample.freeze import save_strategy
from dart_math_nb.sample.strategy import StrategyCfg
from dart_math_nb.sets.stage import cut_sets
from dart_math_nb.store.pool import open_pool
from dart_math_nb.testing.browser import console, open_browser

ROOT = Path(__file__).resolve().parents[1]
WORDS = "let us consider the equation so that we have and therefore which gives by symmetry each side now sum of all terms".split()
FORMULAS = (
    r"$x^2 + {n}x = \frac{{{n}}}{{2}}$",
    r"\[ \sum_{{i=1}}^{{{n}}} i = {n} \]",
    r"$\sqrt{{{n}}} < {n}$",
)


def synthetic_text(rng: random.Random, n: int, length: int) -> str:
    "Words and formulas, about `length` characters."
    parts, size = [], 0
    while size < length:
        formula = rng.random() < 0.08
        part = rng.choice(FORMULAS).format(n=rng.randrange(2, 99)) if formula else rng.choice(WORDS)
        parts.append(part)
        size += len(part) + 1
    return f"{' '.join(parts)} so the answer is $\\boxed{{{n}}}$."


def make_pool(run: Path, n_queries: int, n_draws: int) -> None:
    "A run with a pool, a strategy and a train set."
    rng, source = random.Random(0), Source("synthetic")
    queries = [
        make_query("synthetic", synthetic_text(rng, i, 200), str(i), level=i % 5 + 1)
        for i in range(n_queries)
    ]
    save_queries(run / "queries.jsonl", queries)
    strategy = StrategyCfg("vrt", n_draws)
    save_strategy(run / "sample/vrt", strategy)
    with open_pool(run / "pool", sync_every=60) as pool:
        pool.add_source(source)
        for i, q in enumerate(queries):
            rows, rate = [], rng.random() ** 2 if i % 20 else 0.0
            for trial in range(n_draws):
                right, seed = rng.random() < rate, draw_seed(0, q.query_id, trial)
                ans = str(i) if right else str(rng.randrange(9) if i % 60 else 7)
                text = synthetic_text(rng, int(ans), 560)
                response = Response(q.query_id, source.source_id, trial, text, "stop", 150, seed)
                rule = "same_text" if right else "different"
                rows.append(pool_row(response, Verdict(right, ans, rule)))
            pool.append(rows)
        pool.roll()
    cut_sets(run, {"vrt": strategy})


def peak_mb() -> float:
    "Most memory that this process has held."
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def make_page(run: Path, out: Path, queue) -> None:
    "Write the page in this process; how long and how much memory."
    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    look = read_look(run)
    read = time.perf_counter() - start
    write_viewer(out / "queries.html", look)
    found = {"seconds": time.perf_counter() - start, "seconds_to_read_the_pool": read}
    found |= {"cpu_seconds": time.process_time() - cpu}
    queue.put(found | {"peak_mb": peak_mb(), "peak_mb_before": before})


LATER = "const done = arguments[arguments.length - 1], now = performance.now(); const end = (ok) => requestAnimationFrame(() => setTimeout(() => done([performance.now() - now, ok()])));"
SEARCH = (
    LATER
    + """
const box = document.getElementById("search"), before = document.getElementById("count").textContent;
box.value = arguments[0]; box.dispatchEvent(new Event("input"));
const look = () => document.getElementById("count").textContent === before ? setTimeout(look, 1) : end(() => document.getElementById("count").textContent);
look();"""
)
SORT = (
    LATER
    + "document.querySelectorAll('th button')[arguments[0]].click(); end(() => document.querySelector('td').textContent);"
)
OPEN = (
    LATER
    + """
document.querySelectorAll("#rows .key")[arguments[0]].click();
const box = document.querySelector(".opened details"); box.open = true;
const look = () => box.querySelector(".full").textContent ? end(() => box.querySelector(".full").textContent.length) : setTimeout(look, 1);
look();"""
)
VIEW = (
    LATER
    + "document.getElementById(arguments[0]).click(); end(() => document.getElementById('count').textContent);"
)


def in_browser(page: Path) -> dict:
    "Seconds of what a reader does."
    with open_browser(1400, 1000) as browser:
        browser.set_script_timeout(60)

        def ask(script: str, *words) -> tuple[float, object]:
            ms, seen = browser.execute_async_script(script, *words)
            return round(ms / 1000, 3), seen

        start = time.perf_counter()
        browser.get(page.as_uri())
        times = {"open": round(time.perf_counter() - start, 3)}
        rows = browser.execute_script("return document.querySelectorAll('#rows tr.row').length")
        timing = browser.execute_script(
            "return performance.getEntriesByType('navigation')[0].loadEventEnd"
        )
        times |= {"open_as_the_browser_says": round(timing / 1000, 3)}
        times["search_queries"], one = ask(SEARCH, "symmetry each side now")
        times["search_queries_again"], two = ask(SEARCH, "no such words")
        times["search_cleared"], every = ask(SEARCH, "")
        times["full_text_on_a_click"], length = ask(OPEN, 3)
        times["to_responses"], responses = ask(VIEW, "responses")
        times["search_responses_first"], found = ask(SEARCH, "therefore which")
        times["search_responses"], fewer = ask(SEARCH, "gives by symmetry")
        times["search_responses_cleared"], _ = ask(SEARCH, "")
        times["sort_responses"], _ = ask(SORT, 3)
        memory = browser.execute_script("return performance.memory.usedJSHeapSize / 1e6")
        assert not (said := console(browser)), said
    counts = {"rows": rows, "found": [one, two, every, responses, found, fewer], "length": length}
    return {"seconds": times, "heap_mb": round(memory), "seen": counts}


FORMULAS_SET = """
let n = 0, set = 0;
for (const text of arguments[0]) for (const m of text.matchAll(DELIMITED)) {
  n++;
  set += formula(m[1] ?? m[2] ?? m[3] ?? m[4], false) !== null;
}
return [n, set];"""


def real_formulas() -> dict:
    "How many formulas of real problems and responses are set; empty without the data."
    folder, texts = data_folder(), []
    for file in sorted(folder.glob("*/*.jsonl.gz")) if folder else ():
        for i, row in enumerate(read_rows(file)):
            texts += [v for v in row.values() if isinstance(v, str)] if i % 11 == 0 else []
    n = n_set = 0
    with open_browser() as browser, tempfile.TemporaryDirectory() as tmp:
        page = Path(tmp) / "formulas.html"
        page.write_text(
            f"<meta charset=utf-8><script>{MATH_TABLES}{MATH_READER}{MATH_PROSE}</script>"
        )
        browser.get(page.as_uri())
        for at in range(0, len(texts), 500):
            found = browser.execute_script(FORMULAS_SET, texts[at : at + 500])
            n, n_set = n + found[0], n_set + found[1]
    return {"formulas": n, "set": n_set, "share": round(n_set / n, 4)} if n else {}


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument(
        "--folder", type=Path, help="keep run and page here; a run there is used again"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = args.folder or Path(tmp)
        run, out = folder / "run", folder / "report"
        if not (run / "train_set/vrt/card.json").exists():
            make_pool(run, args.queries, args.draws)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        worker = context.Process(target=make_page, args=(run, out, queue))
        worker.start()
        made = {k: round(v, 1) for k, v in queue.get(timeout=1800).items()}
        worker.join()
        page, files = out / "queries.html", sorted(out.glob("data-*.js"))
        sizes = {"page_mb": round(page.stat().st_size / 1e6, 1), "data_files": len(files)}
        sizes["data_mb"] = round(sum(f.stat().st_size for f in files) / 1e6, 1)
        runs = [in_browser(page) for _ in range(2)]
    slower = {k: max(r["seconds"][k] for r in runs) for k in runs[0]["seconds"]}
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "n_queries": args.queries,
        "n_responses": args.queries * args.draws,
        "to_make": made,
        **sizes,
        "in_chromium": {**runs[-1], "seconds": slower},
        "real_formulas": real_formulas(),
    }
    file = ROOT / "bench/results/viewer.json"
    file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

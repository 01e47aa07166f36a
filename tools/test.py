"""Run every check, every self-test and every notebook: `python tools/test.py [PAGE ...]` (make test).

The last line is `N passed, N failed`; exit code 1 when anything failed. Pages named: only those, no checks.
Cells flagged slow, gpu, net, vllm, chromium or ray are left out; name flags to run them: `--flags "slow"`, and `--flagged`
for the pages with such cells alone.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from check import CHECKS, ROOT, cells, pages, run_check

SELF_TESTS = ("tools/test_check.py",)


def say(ok: bool, name: str, seconds: float, details: str = "") -> bool:
    "One line per result; details only of failures."
    print(f"{'ok' if ok else 'FAIL':4} {seconds:6.1f} s  {name}", flush=True)
    if not ok and details:
        print("     " + details.strip().replace("\n", "\n     "), flush=True)
    return ok


def run_checks() -> Iterator[bool]:
    "The project's checks."
    for name in CHECKS:
        start = time.time()
        failures = run_check(name, ROOT)
        yield say(not failures, f"check {name}", time.time() - start, "\n".join(failures))


def run_self_tests() -> Iterator[bool]:
    "The tests of the checks themselves."
    for script in SELF_TESTS:
        start = time.time()
        run = subprocess.run(
            [sys.executable, ROOT / script], cwd=ROOT, capture_output=True, text=True
        )
        bad = [s for s in run.stdout.splitlines() if s.startswith("FAIL")]
        yield say(run.returncode == 0, script, time.time() - start, "\n".join(bad) or run.stderr)


def test_page(page: str, flags: str) -> tuple[bool, float, str]:
    "Run one page in this process. Returns whether it passed, seconds, and the error."
    import contextlib
    import io

    from nbdev.config import get_config
    from nbdev.test import test_nb

    cfg, errors, start = get_config(ROOT), io.StringIO(), time.time()
    sys.__stderr__ = errors  # where nbdev writes the traceback
    with contextlib.redirect_stdout(errors), contextlib.redirect_stderr(errors):
        ok, _ = test_nb(
            ROOT / "nbs" / page,
            cfg.tst_flags.split(),
            flags.split(),
            basepath=ROOT,
            cell_timeout=600,
        )
    return ok, time.time() - start, errors.getvalue()[-4000:]


def run_pages(wanted: list[str], flags: str, n_workers: int) -> Iterator[bool]:
    "Pages side by side, each in a fresh process; late pages first, because they take longest."
    spawn = multiprocessing.get_context("spawn")
    order = sorted(wanted, key=lambda p: ("/" in p, p), reverse=True)
    with ProcessPoolExecutor(n_workers, spawn, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(test_page, page, flags): page for page in order}
        for job in as_completed(jobs):
            error = job.exception()
            result = (False, 0.0, f"the page's process died: {error}") if error else job.result()
            yield say(result[0], f"nbs/{jobs[job]}", result[1], result[2])


def flagged(every: list[str], flags: str) -> list[str]:
    "Pages with a cell that has one of these flags."
    wanted = set(flags.split())
    return [p for p in every if any(wanted & c.directives for c in cells(ROOT, p))]


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "pages",
        nargs="*",
        help="pages such as nbs/40_sample/20_strategy.ipynb (all, and all checks)",
    )
    parser.add_argument("--flags", default="", help="space-separated flags whose cells run too")
    parser.add_argument(
        "--flagged", action="store_true", help="only pages with cells of these flags"
    )
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="pages at once"
    )
    args = parser.parse_args()
    threads = max(1, (os.cpu_count() or 1) // args.workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # two pages share the cores
    start, every = time.time(), pages(ROOT)
    named = [p.removeprefix("nbs/") for p in args.pages]
    if unknown := sorted(set(named) - set(every)):
        parser.error(f"no page {', '.join(unknown)}; pages are below nbs/")
    if args.flagged:
        named = flagged(named or every, args.flags)
    results = [] if named else [*run_checks(), *run_self_tests()]
    results += run_pages(named or every, args.flags, args.workers)
    print(f"{time.time() - start:.0f} s")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()

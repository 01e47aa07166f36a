"""Run pages and keep their outputs: `python tools/run_pages.py [PAGE ...] [--flags "slow"]`.

Cells flagged `slow`, `gpu` or `net` are skipped unless named in `--flags`, and keep the outputs they
have. Progress bars and other lines on standard error are not kept.
"""

import argparse
import sys
from pathlib import Path

from fastcore.nbio import read_nb, write_nb
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.test import test_nb

ROOT = Path(__file__).resolve().parents[1]


def drop_stderr(page: Path) -> None:
    "Remove standard-error streams and run-dependent metadata from the stored outputs of `page`."
    nb = read_nb(page)
    for cell in nb.cells:
        if cell.cell_type == "code":
            kept = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
            cell["outputs"] = kept
    clean_nb(nb)
    write_nb(nb, page)


def run_page(page: Path, flags: list[str]) -> bool:
    "Run one page in this process, store outputs on success, and say how it went."
    cfg = get_config(ROOT)
    ok, seconds = test_nb(
        page,
        skip_flags=cfg.tst_flags.split(),
        force_flags=flags,
        basepath=ROOT,
        save=True,
        cell_timeout=None,
    )
    if ok:
        drop_stderr(page)
    print(f"{page.name}: {'ok' if ok else 'FAILED'} in {seconds:.0f} s")
    return ok


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, help="pages to run (all when none is named)")
    parser.add_argument("--flags", default="", help="space-separated flags whose cells run too")
    args = parser.parse_args()
    pages = args.pages or sorted((ROOT / "nbs").rglob("*.ipynb"))
    results = [run_page(p.resolve(), args.flags.split()) for p in pages]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()

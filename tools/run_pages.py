"""Run pages and keep their outputs: `python tools/run_pages.py [PAGE ...] [--flags "slow"]`.

Cells flagged `slow`, `gpu`, `net`, `vllm`, `chromium` or `ray` are skipped unless named in `--flags`, and keep the outputs they
have. Progress bars and other lines on standard error are not kept; pictures are stored with 128 colors,
which makes them a third as large.
"""

import argparse
import base64
import io
import sys
from pathlib import Path

from fastcore.nbio import read_nb, write_nb
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.test import test_nb
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def shrink_png(text: str) -> str:
    "A base64 picture with at most 128 colors; unchanged when that is no smaller."
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    if picture.mode == "P":
        return text
    picture.convert("RGB").quantize(128).save(buffer, "PNG", optimize=True)
    small = base64.b64encode(buffer.getvalue()).decode()
    return small if len(small) < len(text) else text


def tidy(page: Path) -> None:
    "Shrink pictures; remove standard error and what differs from run to run."
    nb = read_nb(page)
    for cell in nb.cells:
        if cell.cell_type == "code":
            kept = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
            for data in (o["data"] for o in kept if "image/png" in o.get("data", {})):
                data["image/png"] = shrink_png("".join(data["image/png"]))
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
        tidy(page)
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

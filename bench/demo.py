"""Time, memory and outcome of `make demo` at full size, as bench/results/demo.json.

Run alone: another program on the same cores lengthens every stage. `python bench/demo.py [FOLDER]`
"""

import json
import os
import platform
import resource
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from parts import command_line

from dart_math_nb.data.files import write_json
from dart_math_nb.demo.pipeline import run_demo
from dart_math_nb.evaluate.ask import read_evals
from dart_math_nb.evaluate.metrics import accuracy, compare
from dart_math_nb.sets.stage import run_cards
from dart_math_nb.train.model import pick_dtype

OUT = Path(__file__).parent / "results" / "demo.json"


def outcome(run: Path) -> dict:
    "Accuracy of each model, gains over VRT, and what the sets cost."
    models, _ = read_evals(run)
    gains = compare({n: m for n, m in models.items() if n not in ("base", "teacher")}, "vrt")
    return {
        "accuracy": {n: float(accuracy(m)["accuracy"][0]) for n, m in models.items()},
        "gain_over_vrt": gains[["model", "diff", "low", "high", "p_value"]].to_dict("records"),
        "sets": {n: {"rows": c["rows"], **c["cost"]} for n, c in run_cards(run).items()},
    }


def main(run: Path) -> None:
    "Run, measure, write."
    start = time.perf_counter()
    run_demo(run)
    seconds = time.perf_counter() - start
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "bf16_instructions": pick_dtype() == "bfloat16",
        "seconds": round(seconds, 1),
        "stages": json.loads((run / "timings.json").read_text(encoding="utf-8")),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **outcome(run),
    }
    print(json.dumps(result, indent=2))
    write_json(OUT, result)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="to run in; one that is gone afterwards"
    )
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as tmp:
        main(folder or Path(tmp) / "demo")

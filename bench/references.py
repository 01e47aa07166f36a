"""Reference answers of the known benchmarks given as answers to other queries of the same set.

Ten shifts of the rows, so ten strangers for each query: python bench/references.py. Needs the
optional data folder; writes counts, no text, to bench/results/references.json.
"""

import platform
import time
from datetime import date
from pathlib import Path

import pandas as pd
from parts import named_parts

from dart_math_nb.data.catalog import BENCHMARKS
from dart_math_nb.data.files import write_json
from dart_math_nb.data.load import data_folder, load_benchmark, local_file
from dart_math_nb.grade.references import swapped_references

OUT = Path(__file__).parent / "results" / "references.json"
SHIFTS = range(1, 11)


def main() -> None:
    "Measure, print and store."
    if data_folder() is None:
        raise SystemExit("no data folder; set DART_MATH_DATA")
    start = time.process_time()
    sets = [load_benchmark(b) for b in BENCHMARKS.values() if b.sha256 and local_file(b)]
    pairs = pd.concat(swapped_references(qs, shift) for qs in sets for shift in SHIFTS)
    n = len(SHIFTS) * sum(map(len, sets))
    rules = pairs.groupby("rule").size().sort_values(ascending=False)
    found = {"date": date.today().isoformat(), "machine": f"{platform.machine()}, 2 cores"}
    found |= {"pairs": n, "equal": len(pairs), "by_rule": rules.to_dict()}
    found |= {"cpu_seconds": round(time.process_time() - start, 1)}
    print(f"{len(pairs)} of {n} pairs called equal ({len(pairs) / n:.3%})\n{rules.to_string()}")
    write_json(OUT, found)


if __name__ == "__main__":
    named_parts(__doc__)
    main()

"""How the house stands: walls, floors and circles between folders, sentences before code, assertions on pages.

`python bench/house.py [--before FOLDER]` writes bench/results/house.json; FOLDER is an older checkout, whose modules may lie flat.
"""

import argparse
import ast
import datetime
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from check import LAYERS, pages, sidebar_pages  # noqa: E402

ASSERTION = re.compile(r"\b(?:test_\w+\(|assert\b|expect_fail\()")
EXPORT = re.compile(r"^#\s*\|\s*export", re.M)


def page_counts(root: Path) -> dict:
    "Exported cells, those that follow code without a sentence, and assertions, over all pages."
    n = dict.fromkeys(("pages", "exported_cells", "without_sentence", "assertions"), 0)
    for page in pages(root):
        nb, before = json.loads((root / "nbs" / page).read_text(encoding="utf-8")), "markdown"
        n["pages"] += 1
        for cell in nb["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "code":
                n["assertions"] += len(ASSERTION.findall(text))
                exported = bool(EXPORT.search(text))
                n["exported_cells"] += exported
                n["without_sentence"] += exported and before == "code"
            before = cell["cell_type"]
    return n


def module_graph(root: Path) -> dict[str, set[str]]:
    "Module of the package -> the modules it imports, in functions too."
    folder = root / "dart_math_nb"
    files = {".".join(f.relative_to(folder).with_suffix("").parts): f for f in folder.rglob("*.py")}
    files = {name: f for name, f in files.items() if not name.startswith("_")}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        inside = name.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level:
                base = [*inside[: len(inside) + 1 - node.level], *(node.module or "").split(".")]
            elif (node.module or "").split(".")[0] == "dart_math_nb":
                base = node.module.split(".")[1:]
            else:
                continue
            base = ".".join(filter(None, base))
            for found in (base, *(f"{base}.{a.name}".lstrip(".") for a in node.names)):
                if found in files and found != name and not found.endswith("__init__"):
                    graph[name].add(found)
    return graph


def floors(graph: dict[str, set[str]]) -> tuple[int, list[str]]:
    "Length of the longest chain of imports, and the circles met (as texts)."
    height: dict[str, int] = {}
    circles: list[str] = []

    def climb(node: str, path: tuple[str, ...]) -> int:
        if node in path:
            circles.append(" > ".join([*path[path.index(node) :], node]))
            return 0
        if node not in height:
            height[node] = 1 + max(
                (climb(n, (*path, node)) for n in sorted(graph[node])), default=0
            )
        return height[node]

    return max((climb(n, ()) for n in sorted(graph)), default=0), circles


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    "Folder -> the other folders that its modules import; fronts of folders aside."
    found: dict[str, set[str]] = {}
    for name, used in graph.items():
        room = name.split(".")[0]
        if "." in name and not name.endswith("__init__"):
            others = {u.split(".")[0] for u in used if "." in u} - {room}
            found.setdefault(room, set()).update(others)
    return found


def upward(root: Path, graph: dict[str, set[str]]) -> list[str]:
    "Imports of a folder that stands below the importing one in the sidebar, or is behind its wall."
    order = list(dict.fromkeys(re.sub(r"^\d+_", "", p.split("/")[0]) for p in sidebar_pages(root)))
    return [
        f"{room} > {other}"
        for room, others in rooms(graph).items()
        for other in sorted(others)
        if order.index(other) > order.index(room) or other not in LAYERS[room].split()
    ]


def house(root: Path) -> dict:
    "All figures of one checkout."
    graph = module_graph(root)
    inner, circles = floors(graph)
    found = page_counts(root) | {"modules": len(graph), "floors_of_modules": inner}
    found["share_without_sentence"] = round(found["without_sentence"] / found["exported_cells"], 4)
    if between := rooms(graph):
        n, round_trips = floors(between)
        found |= {"folders": len(between), "floors_of_folders": n}
        found["circles"], found["upward"] = circles + round_trips, upward(root, graph)
    else:
        found["circles"] = circles
    return found


def main() -> None:
    "Count, print, keep."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="folder of an older checkout")
    args = parser.parse_args()
    result = {"date": str(datetime.date.today()), "now": house(ROOT)}
    if args.before:
        result["before"] = house(args.before.resolve())
    print(json.dumps(result, indent=1))
    if args.before:
        file = ROOT / "bench" / "results" / "house.json"
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

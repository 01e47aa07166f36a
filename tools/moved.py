"""Where modules went: `python tools/moved.py OLD [--write]`, OLD being an older checkout.

Public names are looked up in both packages, so that the table says what is there and not what was planned. With --write it
replaces the table at the end of CHANGELOG.md. Names that are nowhere now are listed last.
"""

import argparse
import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = "## Where modules moved"
TEXT = """Every module lay in `dart_math_nb` itself; now it lies in the room where it belongs. Where a module was split, the one
with most of its names comes first. `tools/moved.py` makes this table from the public names of both versions."""


def public_names(root: Path) -> dict[str, set[str]]:
    "Module -> the public names it defines."
    folder, found = root / "dart_math_nb", {}
    for file in sorted(folder.rglob("*.py")):
        module = ".".join(file.relative_to(folder).with_suffix("").parts)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                found[module] = set(ast.literal_eval(node.value))
    return {m: names for m, names in found.items() if names and not m.endswith("__init__")}


def table(
    old: dict[str, set[str]], new: dict[str, set[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    "Rows of the table, and the names of each old module that are nowhere now."
    where: dict[str, list[str]] = {}
    for module, names in new.items():
        for name in names:
            where.setdefault(name, []).append(module)
    rows, gone = [], {}
    for module, names in sorted(old.items()):
        clear = Counter(where[n][0] for n in names if len(where.get(n, ())) == 1)
        for name in sorted(n for n in names if len(where.get(n, ())) > 1):
            clear[max(where[name], key=lambda m: (clear[m], m))] += 1  # the place of its neighbours
        places = ", ".join(f"`{m}`" for m, _ in sorted(clear.items(), key=lambda p: (-p[1], p[0])))
        rows.append(f"| `{module}` | {places or '-'} |")
        if lost := sorted(n for n in names if n not in where):
            gone[module] = lost
    return rows, gone


def main() -> None:
    "Print or write the table."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("old", type=Path, help="folder of an older checkout")
    parser.add_argument("--write", action="store_true", help="replace the table in CHANGELOG.md")
    args = parser.parse_args()
    rows, gone = table(public_names(args.old), public_names(ROOT))
    lines = [HEAD, "", TEXT, "", "| was `dart_math_nb.` | is `dart_math_nb.` |", "|---|---|", *rows]
    if args.write:
        file = ROOT / "CHANGELOG.md"
        before = file.read_text(encoding="utf-8").split(HEAD)[0].rstrip()
        file.write_text("\n".join([before, "", *lines]) + "\n", encoding="utf-8")
    print("\n".join(rows))
    for module, names in gone.items():
        print(f"nowhere now, of {module}: {', '.join(names)}")


if __name__ == "__main__":
    main()

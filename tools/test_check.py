"""Tests of check.py and render_docs.py: plant each defect in a small project, see it caught.

`python tools/test_check.py` prints one line per defect; exit code 1 when one is missed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from check import CHECKS, ROOT, run_check
from fastcore.nbio import nb2str
from render_docs import dead_links, empty_pages

ONE = """%% md
# one: twice a number

> The first page.
%%
#| default_exp data.one
#| export
def double(x: int) -> int:
    "Twice `x`."
    return 2 * x
%% md
Twice two is four, see [the second page](../20_grade/10_two.ipynb#more).
%%
double(2)
"""
TWO = """%% md
# two: four times a number

> The second page.
%%
#| default_exp grade.two
#| export
from dart_math_nb.data.one import double
%% md
## More
%%
#| export
def quadruple(x: int) -> int:
    "Four times `x`."
    return double(double(x))
%%
quadruple(2)
"""
THREE = """%% md
# three times four

> A tutorial.
%%
from dart_math_nb.grade.two import quadruple
%%
quadruple(3)
"""
FRONT = """%% md
# {room}: what a room holds

> A room.

May import: {wall}.

[page]({page}.ipynb)
%%
#| default_exp {room}.__init__
%%
abs(-4)
"""
SIDEBAR = """website:
  sidebar:
    contents:
      - section: All
        contents:
          - 10_data/00_front.ipynb
          - 10_data/10_one.ipynb
          - 20_grade/00_front.ipynb
          - 20_grade/10_two.ipynb
          - tutorials/three.ipynb
"""


PAGES = {
    "10_data/00_front": FRONT.format(wall="nothing", page="10_one", room="data"),
    "10_data/10_one": ONE,
    "20_grade/00_front": FRONT.format(wall="`data`", page="10_two", room="grade"),
    "20_grade/10_two": TWO,
    "tutorials/three": THREE,
}


def write_page(file: Path, text: str) -> None:
    "A notebook from cells between `%%` lines; a cell that ends in a call has the output 4."
    nb = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    nb["metadata"]["kernelspec"] = {
        "display_name": "python3",
        "language": "python",
        "name": "python3",
    }
    for i, part in enumerate(text.removeprefix("%%").split("\n%%")):
        first, _, source = part.partition("\n")
        kind = "markdown" if "md" in first else "code"
        cell = {"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": source.strip("\n")}
        if kind == "code":
            data = {"text/plain": ["4"]}
            shown = {
                "output_type": "execute_result",
                "execution_count": None,
                "metadata": {},
                "data": data,
            }
            cell |= {
                "execution_count": None,
                "outputs": [shown] * (source.rstrip().endswith(")") and "export" not in source),
            }
        nb["cells"].append(cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(nb2str(nb), encoding="utf-8")


def make_project(root: Path) -> None:
    "A small project that passes every check."
    (root / "dart_math_nb").mkdir(parents=True)
    (root / "dart_math_nb" / "__init__.py").write_text('"A small package."\n')
    for name, text in PAGES.items():
        write_page(root / "nbs" / f"{name}.ipynb", text)
    for name in ("pyproject.toml", "settings.ini", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / "tools").mkdir()
    (root / "_quarto.yml").write_text(SIDEBAR)
    (root / "nbs" / "_quarto.yml").symlink_to("../_quarto.yml")
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    code = "from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()"
    subprocess.run([sys.executable, "-c", code], cwd=root, env=env, check=True)


def append(name: str, cell: str) -> Callable[[Path], None]:
    "A defect: one more cell on a page."
    return lambda root: write_page(root / "nbs" / f"{name}.ipynb", f"{PAGES[name]}%%\n{cell}\n")


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    "A defect: other text in a file."

    def plant(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        if old not in text:
            raise ValueError(f"{name}: no {old!r} to replace")
        (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return plant


def write_bench(root: Path, text: str) -> None:
    "A script in bench/."
    (root / "bench").mkdir(exist_ok=True)
    (root / "bench" / "speed.py").write_text(text)


LONG = "#| export\ndef long():\n" + "".join(f"    print({i})\n" for i in range(25))
FOUR = "#| export\n" + "\n".join(f"def f{i}():\n    pass\n" for i in range(4))
DEFECTS = [  # check, what is planted, how, part of the message
    (
        "sync",
        "edited module",
        replace("dart_math_nb/data/one.py", "2 * x", "3 * x"),
        "one.py: differs",
    ),
    (
        "sync",
        "module without page",
        lambda root: (root / "dart_math_nb" / "stray.py").write_text("x = 1\n"),
        "stray.py: no notebook",
    ),
    (
        "sync",
        "missing module",
        lambda root: (root / "dart_math_nb" / "grade" / "two.py").unlink(),
        "two.py: is missing",
    ),
    (
        "clean",
        "run count",
        replace("nbs/10_data/10_one.ipynb", '"execution_count": null', '"execution_count": 7'),
        "not clean",
    ),
    (
        "clean",
        "metadata",
        replace("nbs/20_grade/10_two.ipynb", '"metadata": {}', '"metadata": {"x": 1}'),
        "not clean",
    ),
    (
        "order",
        "later import",
        append("10_data/10_one", "#| export\nfrom dart_math_nb.grade.two import x"),
        "later",
    ),
    (
        "order",
        "later example",
        append("10_data/10_one", "import dart_math_nb.grade.two"),
        "comes later",
    ),
    (
        "order",
        "own module",
        append("10_data/10_one", "#| export\nfrom dart_math_nb.data import one"),
        "later",
    ),
    (
        "order",
        "unknown module",
        append("10_data/10_one", "from dart_math_nb.nine import x"),
        "no page exports",
    ),
    (
        "order",
        "star",
        append("20_grade/10_two", "#| export\nfrom dart_math_nb.data.one import *"),
        "by name",
    ),
    (
        "layers",
        "a room behind a wall",
        append("10_data/10_one", "#| export\nfrom dart_math_nb.grade.two import quadruple"),
        "behind a wall; data may import: nothing",
    ),
    (
        "layers",
        "an unknown room",
        lambda root: write_page(root / "nbs/30_attic/10_box.ipynb", ONE),
        "has no line in LAYERS",
    ),
    (
        "layers",
        "no front page",
        lambda root: (root / "nbs/20_grade/00_front.ipynb").unlink(),
        "no front page",
    ),
    (
        "layers",
        "a front that says another wall",
        replace("nbs/20_grade/00_front.ipynb", "May import: `data`", "May import: `store`"),
        "does not say 'May import: `data`.'",
    ),
    (
        "layers",
        "a page that the front does not name",
        replace("nbs/20_grade/00_front.ipynb", "](10_two.ipynb)", "](10_too.ipynb)"),
        "has no link to 20_grade/10_two.ipynb",
    ),
    (
        "homes",
        "a name from a page that only imports it",
        append("10_data/10_one", "#| export\nfrom dart_math_nb.grade.two import double"),
        "dart_math_nb.grade.two does not define double; import it from its home",
    ),
    ("size", "long cell", append("10_data/10_one", LONG), "26 exported lines"),
    ("size", "many definitions", append("20_grade/10_two", FOUR), "4 definitions"),
    (
        "names",
        "exporting tutorial",
        append("tutorials/three", "#| export\nx = 1"),
        "exports nothing",
    ),
    (
        "names",
        "other name",
        replace("nbs/20_grade/10_two.ipynb", "default_exp grade.two", "default_exp grade.deux"),
        "need ['grade.two']",
    ),
    (
        "imports",
        "import and code",
        append("10_data/10_one", "import math\nmath.pi"),
        "a cell of their own",
    ),
    (
        "imports",
        "hidden import",
        append("20_grade/10_two", "def f():\n    import math\n"),
        "a cell of their own",
    ),
    (
        "imports",
        "import of what a flag needs",
        append("20_grade/10_two", "#| ray\nimport ray"),
        "take need(...)",
    ),
    (
        "outputs",
        "no outputs",
        lambda root: write_page(
            root / "nbs/20_grade/10_two.ipynb", TWO.replace("quadruple(2)\n", "x = 1\n")
        ),
        "no stored outputs",
    ),
    (
        "outputs",
        "error output",
        replace("nbs/10_data/10_one.ipynb", '"execute_result"', '"error"'),
        "is an error",
    ),
    ("text", "eval", append("10_data/10_one", "#| export\ny = eval('1')"), "uses eval"),
    ("text", "exec by name", append("10_data/10_one", "#| export\nrun = exec"), "uses exec"),
    (
        "text",
        "sympify",
        append("20_grade/10_two", "#| export\nimport sympy\nsympy.sympify('1')"),
        "sympify",
    ),
    (
        "text",
        "imported parser",
        append("20_grade/10_two", "#| export\nfrom sympy.parsing.sympy_parser import parse_expr"),
        "parse_expr",
    ),
    (
        "places",
        "machine path",
        append("10_data/10_one", "open('/" + "home/me/x.txt')"),
        "one machine",
    ),
    (
        "sidebar",
        "page left out",
        replace("_quarto.yml", "          - 20_grade/10_two.ipynb\n", ""),
        "20_grade/10_two",
    ),
    (
        "sidebar",
        "page twice",
        replace("_quarto.yml", "20_grade/10_two", "10_data/10_one"),
        "2 times",
    ),
    (
        "sidebar",
        "other order than the numbers",
        replace("_quarto.yml", "10_data/10_one", "90_data/10_one"),
        "is below 90_data/10_one",
    ),
    ("sidebar", "no such page", replace("_quarto.yml", "three", "four"), "no such page"),
    (
        "sidebar",
        "no link",
        lambda root: (root / "nbs" / "_quarto.yml").unlink(),
        "need a link",
    ),
    (
        "patterns",
        "repeats that share digits",
        replace(
            "nbs/10_data/10_one.ipynb",
            "    return 2 * x",
            '    return 2 * x if re.compile(r\\"\\\\d*[\\\\d,]*x\\") else x',
        ),
        "twice side by side",
    ),
    (
        "patterns",
        "a repeat within a repeat",
        replace(
            "nbs/10_data/10_one.ipynb",
            "    return 2 * x",
            '    return 2 * x if re.compile(r\\"(?:a*b?)*c\\") else x',
        ),
        "repeats 'a' twice",
    ),
    (
        "titles",
        "a bare module name",
        replace("nbs/10_data/10_one.ipynb", "# one: twice a number", "# one"),
        "its title is '# one'; need '# one: ' and 3 words or more",
    ),
    (
        "titles",
        "another name",
        replace("nbs/20_grade/10_two.ipynb", "# two: four", "# deux: four"),
        "need '# two: '",
    ),
    (
        "titles",
        "a front without its room",
        replace("nbs/20_grade/00_front.ipynb", "# grade: what", "# front: what"),
        "need '# grade: '",
    ),
    (
        "titles",
        "a tutorial of one word",
        replace("nbs/tutorials/three.ipynb", "# three times four", "# three"),
        "need '# ' and 3 words",
    ),
    (
        "sentences",
        "an exported cell behind code",
        append("10_data/10_one", "#| export\ny = 1"),
        "1 of 4 exported cells follow code",
    ),
    ("ruff", "layout", append("10_data/10_one", "x=1"), "ruff format"),
    ("ruff", "unused name", append("10_data/10_one", "def g():\n    z = 1"), "ruff check"),
    ("pins", "no pin", replace("constraints.txt", "\nnumpy==", "\nnumpi=="), "no pin for numpy"),
    (
        "benches",
        "a script that takes --help for a part",
        lambda root: write_bench(
            root, "import sys\n\nif __name__ == '__main__':\n    print(sys.argv)\n"
        ),
        "speed.py: reads no command line",
    ),
    (
        "readme",
        "an index that README.md does not know",
        lambda root: write_page(root / "nbs" / "index.ipynb", "%% md\n# another project"),
        "README.md: not what",
    ),
]


def missed_defects(base: Path) -> list[str]:
    "Defects that a check does not see, and checks that complain about nothing."
    missed = []
    for name in CHECKS:
        if found := run_check(name, base):
            missed.append(f"{name} complains about a good project: {found[0]}")
    for name, what, plant, words in DEFECTS:
        root = base.parent / "planted"
        shutil.copytree(base, root, symlinks=True)
        plant(root)
        found = run_check(name, root)
        seen = any(words in line for line in found)
        print(f"{'ok' if seen else 'FAIL':4} {name}: {what}")
        if not seen:
            missed.append(f"{name} misses {what}: {found or 'no message'}")
        shutil.rmtree(root)
    unplanted = CHECKS.keys() - {d[0] for d in DEFECTS}
    return missed + [f"no defect is planted for {name}" for name in sorted(unplanted)]


def missed_links(folder: Path) -> list[str]:
    "Dead links and empty pages that render_docs does not see."
    (folder / "a.html").write_text(
        '<main><h2 id="top">A</h2><p>words <a href="b.html#here">b</a></main>'
    )
    (folder / "b.html").write_text('<main><p id="here">b <a href="https://x.org">x</a></p></main>')
    good = [*dead_links(folder), *empty_pages(folder, least=1)]
    (folder / "b.html").write_text('<main></main><a href="a.html#no"></a><a href="c.html"></a>')
    bad = " ".join([*dead_links(folder), *empty_pages(folder, least=1)])
    wanted = ("a.html: b.html#here", "b.html: a.html#no", "b.html: c.html", "b.html: empty")
    return [f"complains: {g}" for g in good] + [f"misses {w}" for w in wanted if w not in bad]


def main() -> None:
    "Run all and report."
    with tempfile.TemporaryDirectory() as tmp:
        base = Path(tmp).resolve() / "good"
        make_project(base)
        missed = missed_defects(base)
        (base / "site").mkdir()
        missed += missed_links(base / "site")
    print("".join(f"FAIL {m}\n" for m in missed), end="")
    print(json.dumps({"planted": len(DEFECTS) + 4, "missed": len(missed)}))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

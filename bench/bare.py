"""What scripts for a lent GPU share. Measures nothing by itself.

Such a machine has torch and transformers of its own, this repository, and no way to install anything. Imported before
the package, this module makes the repository importable, stands in for fastcore where it is missing, and ends the
script in one line when something else is.
"""

import builtins
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGUN = time.perf_counter()
SHAPE = {  # Of Llama-3.2-1B
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
SMALL = {  # To try a script on a CPU
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}


def _patch(f: Callable | None = None, *, as_prop: bool = False, cls_method: bool = False) -> object:
    "A method for the class of the first parameter, as fastcore's decorator of this name does in the package."
    if f is None:
        return partial(_patch, as_prop=as_prop, cls_method=cls_method)
    cls = next(iter(f.__annotations__.values()))
    kind = property if as_prop else classmethod if cls_method else lambda f: f
    setattr(cls, f.__name__, kind(f))
    return f.__globals__.get(f.__name__, getattr(builtins, f.__name__, None))


def _delegates(to: Callable | None = None, **how) -> Callable:
    "Leaves a signature as it is: only `help` reads more from it."
    return lambda f: f


def stand_in() -> None:
    "Without fastcore, the two decorators of it that the package uses on its way."
    if importlib.util.find_spec("fastcore"):
        return
    whole = types.ModuleType("fastcore")
    whole.__path__ = []
    for name, members in {"basics": {"patch": _patch}, "meta": {"delegates": _delegates}}.items():
        part = types.ModuleType(f"fastcore.{name}")
        vars(part).update(members)
        sys.modules[part.__name__] = part
        setattr(whole, name, part)
    sys.modules["fastcore"] = whole


DATA = ("pandas", "pyarrow", "scipy", "mpmath", "accelerate")
NEEDS = {"gpu_sample.py": DATA, "gpu_evidence.py": DATA}  # Beside torch, transformers and numpy


def ready(script: str) -> None:
    "Make the repository importable; end the script in one line when a package is missing."
    sys.path.insert(0, str(ROOT))
    needed = ("torch", "transformers", "numpy", *NEEDS.get(script, ()))
    if missing := [p for p in needed if not importlib.util.find_spec(p)]:
        sys.exit(f"{script} needs {', '.join(needed)}; missing: {', '.join(missing)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stand_in()


ready(Path(sys.argv[0]).name)


def machine() -> dict:
    "Date, versions and device, for a result."
    import torch
    import transformers

    cuda = torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def write(path: str | Path, result: dict) -> None:
    "Keep what is known so far; a reader finds the old file or the new one, never half of one."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)


def seconds() -> float:
    "Since this script began."
    return time.perf_counter() - BEGUN

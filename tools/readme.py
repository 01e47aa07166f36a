"""Write README.md and its pictures from nbs/index.ipynb: `python tools/readme.py`.

Works without Quarto: hidden cells are left out, results are shown as text or Markdown, pictures go to nbs/images/.
"""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HIDE = re.compile(r"^#\s*\|\s*hide", re.M)
ECHO = re.compile(r"^#\s*\|\s*echo:\s*false", re.M)
DIRECTIVE = re.compile(r"^#\s*\|.*\n?", re.M)


def from_root(text: str) -> str:
    "Markdown of a page whose links to pages lead from the root of the project."
    return re.sub(r"\]\((?!http|#)([^)]+\.ipynb)", r"](nbs/\1", text)


def show_outputs(cell: dict, pictures: dict[str, bytes]) -> list[str]:
    "Markdown of what a cell printed, returned or drew; pictures are added to `pictures`."
    parts = []
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        if "image/png" in data:
            name = f"nbs/images/index-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode("".join(data["image/png"]))
            parts.append(f"![]({name})")
        elif "text/markdown" in data:
            parts.append(from_root("".join(data["text/markdown"]).rstrip()))
        elif text := "".join(out.get("text", data.get("text/plain", []))).rstrip():
            parts.append(f"```text\n{text}\n```")
    return parts


def readme(index: Path) -> tuple[str, dict[str, bytes]]:
    "README text and pictures by path, from the index page."
    parts, pictures = [], {}
    for cell in json.loads(index.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(from_root(source))
        elif not HIDE.search(source):
            code = DIRECTIVE.sub("", source).strip()
            parts += [] if ECHO.search(source) else [f"```python\n{code}\n```"]
            parts += show_outputs(cell, pictures)
    note = "<!-- Written by tools/readme.py from nbs/index.ipynb; edit that page instead. -->"
    return "\n\n".join([note, *parts]) + "\n", pictures


def stale(root: Path = ROOT) -> list[str]:
    "Files that differ from what the index page gives."
    text, pictures = readme(root / "nbs" / "index.ipynb")
    wanted = {"README.md": text.encode(), **pictures}
    return [n for n, b in wanted.items() if not (p := root / n).exists() or p.read_bytes() != b]


def main() -> None:
    "Write the files."
    text, pictures = readme(ROOT / "nbs" / "index.ipynb")
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    for name, data in pictures.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_bytes(data)
    print(f"README.md: {len(text.splitlines())} lines, {len(pictures)} pictures")


if __name__ == "__main__":
    main()

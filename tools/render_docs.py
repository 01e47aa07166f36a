"""Build the web site into _docs/: `python tools/render_docs.py` (make docs).

With Quarto on PATH this is nbdev-docs. Without it, nbdev's own processing and pandoc make plain pages
of the same names, which proves that every page renders, that none is empty and that links lead somewhere.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from check import pages as source_pages

ROOT = Path(__file__).resolve().parents[1]
NO_QUARTO = """\
docs: Quarto is not on PATH, so pandoc makes plain pages (no search, no theme).
docs: for the whole site get Quarto from https://quarto.org/docs/get-started/
docs: or with conda install -c conda-forge quarto, and run make docs again."""
STYLE = """\
body { display: flex; gap: 3em; max-width: 75em; margin: 2em auto; font: 16px/1.5 system-ui, sans-serif; padding: 0 1em }
nav { flex: 0 0 12em; font-size: 14px } nav ul { list-style: none; padding: 0 } main { min-width: 0; flex: 1 }
pre { background: #f5f5f5; padding: .6em; overflow-x: auto; font-size: 13px } img { max-width: 100% }
.output { border-left: 3px solid #ccc; padding-left: .8em; overflow-x: auto } a { color: #0b5394 }
table { border-collapse: collapse; font-size: 13px } td, th { border: 1px solid #ddd; padding: .2em .6em }"""


class Page(HTMLParser):
    "Ids, links and the number of words inside <main> of one HTML page."

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.n_words, self.depth = 0, 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.ids |= {values[k] for k in ("id", "name") if values.get(k)}
        self.links += [values[k] for k in ("href", "src") if values.get(k)]
        self.depth += tag == "main"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "main"

    def handle_data(self, data: str) -> None:
        self.n_words += len(data.split()) if self.depth else 0


def read_pages(folder: Path) -> dict[Path, Page]:
    "Every HTML page below `folder`."
    files = sorted(folder.rglob("*.html"))
    return {f.resolve(): Page(f.read_text(encoding="utf-8")) for f in files}


def dead_links(folder: Path) -> Iterator[str]:
    "Links of the site's pages to files or anchors that the site does not have."
    pages = read_pages(folder)
    for file, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            anchor = unquote(url.fragment)
            missing = not target.exists()
            if missing or (anchor and target in pages and anchor not in pages[target].ids):
                what = "no such file" if missing else "no such anchor"
                yield f"{file.relative_to(folder.resolve())}: {link}: {what}"


def empty_pages(folder: Path, least: int = 40) -> Iterator[str]:
    "Pages with fewer than `least` words."
    for file, page in read_pages(folder).items():
        if page.n_words < least:
            yield f"{file.relative_to(folder.resolve())}: empty ({page.n_words} words)"


def front_matter(nb: dict) -> dict:
    "Title, description and output file of a processed notebook."
    import yaml

    for cell in nb["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "raw" and text.startswith("---"):
            return yaml.safe_load(text.strip("-\n")) or {}
    return {}


def plain_cells(nb: dict) -> Iterator[dict]:
    "Cells as pandoc should show them: directives applied, printed markdown as markdown."
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        options = dict(re.findall(r"^#\|\s*([\w-]+):?[ \t]*(.*)$", source, re.M))
        if cell["cell_type"] == "raw":
            continue
        if cell["cell_type"] == "markdown":
            yield cell | {"source": source}
            continue
        body = "\n".join(s for s in source.splitlines() if not s.startswith("#|"))
        if options.get("output") == "asis":
            texts = ["".join(o.get("data", {}).get("text/markdown", "")) for o in cell["outputs"]]
            text = re.sub(r'\{target="_blank"[^}]*\}', "", "\n\n".join(texts))  # for Quarto only
            yield {"cell_type": "markdown", "metadata": {}, "source": text}
        elif options.get("include") != "false":
            hidden = options.get("echo") == "false"
            outputs = [] if options.get("output") == "false" else map(as_display, cell["outputs"])
            yield cell | {"source": "" if hidden else body, "outputs": list(outputs)}


def as_display(output: dict) -> dict:
    "A result without its run count, which pandoc would insist on."
    if output["output_type"] != "execute_result":
        return output
    return {"output_type": "display_data", "data": output["data"], "metadata": {}}


def html_body(nb: dict, folder: Path) -> str:
    "HTML of a processed notebook by pandoc; pictures go to folder/media."
    import pypandoc

    shown = {"cells": list(plain_cells(nb)), "nbformat": 4, "nbformat_minor": 5}
    shown["metadata"] = {"kernelspec": {"name": "python3", "language": "python"}}
    args = ["--mathml", "--wrap=none", "--syntax-highlighting=none", "--extract-media=media"]
    html = pypandoc.convert_text(
        json.dumps(shown), "html5", format="ipynb", extra_args=args, cworkdir=str(folder)
    )
    return re.sub(r"<pre[^>]*><code[^>]*>\s*</code></pre>", "", html)  # of cells that show no code


def site_map(proc: Path) -> dict[Path, tuple[Path, str]]:
    "Processed notebook -> its HTML file and title, both below the site's folder."
    found = {}
    for file in sorted(proc.rglob("*.ipynb")):
        matter = front_matter(json.loads(file.read_text(encoding="utf-8")))
        name = matter.get("output-file") or re.sub(r"^\d+[a-z]?_", "", file.stem) + ".html"
        below = file.relative_to(proc)
        found[below] = (below.parent / name, str(matter.get("title") or below.stem))
    return found


def navigation(pages: dict[Path, tuple[Path, str]], up: str) -> str:
    "The sidebar as a list of links; `up` leads from the page to the site's folder."
    import yaml

    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))

    def entries(items: list) -> Iterator[str]:
        for item in items:
            if isinstance(item, dict):
                yield f"<li><b>{escape(item['section'])}</b><ul>{''.join(entries(item['contents']))}</ul></li>"
            elif Path(item) in pages:
                html, title = pages[Path(item)]
                yield f'<li><a href="{up}{html.as_posix()}">{escape(title)}</a></li>'

    return f"<ul>{''.join(entries(config['website']['sidebar']['contents']))}</ul>"


def own_address() -> str:
    "Where the site will be, from pyproject.toml."
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return config["project"]["urls"]["Documentation"].rstrip("/")


def link_to_html(body: str, page: Path, pages: dict[Path, tuple[Path, str]]) -> str:
    "Links to notebooks, and to the site's own address, become links to its pages."

    def swap(m: re.Match) -> str:
        target = Path(*(page.parent / m[1]).parts)
        parts: list[str] = []
        for part in target.parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        if Path(*parts) not in pages:
            return m[0]
        html = pages[Path(*parts)][0].as_posix()
        return f'href="{up}{html}{m[2] or ""}"'

    up = "../" * (len(page.parts) - 1)
    body = body.replace(f'href="{own_address()}/', f'href="{up}')
    return re.sub(r'href="([^":#]+\.ipynb)(#[^"]*)?"', swap, body)


def write_plain(proc: Path, site: Path) -> int:
    "The whole site with pandoc. Returns the number of pages."
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    pages = site_map(proc)
    for page, (html, title) in pages.items():
        nb = json.loads((proc / page).read_text(encoding="utf-8"))
        up = "../" * (len(page.parts) - 1)
        body = link_to_html(html_body(nb, site), page, pages).replace(
            'src="media/', f'src="{up}media/'
        )
        words = escape(str(front_matter(nb).get("description", "")))
        words = re.sub(r"`([^`]*)`", r"<code>\1</code>", words)
        (site / html).parent.mkdir(parents=True, exist_ok=True)
        (site / html).write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}</style></head><body><nav>{navigation(pages, up)}</nav>"
            f"<main><h1>{escape(title)}</h1><p><i>{words}</i></p>{body}</main></body></html>",
            encoding="utf-8",
        )
    return len(pages)


def process_notebooks() -> Path:
    "nbdev's processing of every page, into _proc/: all anew, since a page links names of others."
    call = "proc_nbs('', n_workers=2, force=True)"
    code = f"from nbdev.serve import proc_nbs\nif __name__ == '__main__':\n    {call}\n"
    script = ROOT / "_proc.py"
    script.write_text(code, encoding="utf-8")
    try:
        run = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True)
    finally:
        script.unlink()
    if run.returncode:
        why = re.findall(r"^(?:Exception: )?(Error in notebook.*|\w*Error: .*)$", run.stderr, re.M)
        sys.exit(f"docs: a page could not be processed: {'; '.join(why[-2:]) or run.stderr[-500:]}")
    return ROOT / "_proc"


def main() -> None:
    "Command line."
    if shutil.which("quarto"):
        code = "from nbdev.quarto import nbdev_docs; nbdev_docs.__wrapped__(n_workers=2)"
        sys.exit(subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode)
    print(NO_QUARTO)
    site = ROOT / "_docs"
    n_pages = write_plain(process_notebooks(), site)
    made = {str(page) for page in site_map(ROOT / "_proc")}
    bad = [f"nbs/{page}: no page was made" for page in source_pages(ROOT) if page not in made]
    bad += [*dead_links(site), *empty_pages(site)]
    n_links = sum(len(p.links) for p in read_pages(site).values())
    print("".join(f"docs: FAIL {b}\n" for b in bad), end="")
    print(f"docs: {n_pages} pages in _docs/, {n_links} links, {len(bad)} failures")
    sys.exit(1 if bad or not n_pages else 0)


if __name__ == "__main__":
    main()

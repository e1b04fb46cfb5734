"""What mkdocs does beyond its plugins: pages nobody listed, links to sources, formulas without JavaScript.

In: the pages of docs/. Out: the same pages for a site that works from files, without a server or a network.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {"tutorial": "Tutorial", "guides": "Guides", "extend": "Extend", "results": "Results"}
"""Folder of docs/ -> the section of the navigation that holds all its pages."""
PYTHON = "api"
SHOWN = re.compile(r"^\[[^\]]*\]\(([^)]+)\)<!-- shown here -->$", re.MULTILINE)
"""A link alone in its line with this remark: the site shows the file itself."""
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#]+)\)")
OTHER_LANGUAGE = re.compile(r"^\[(?:中文|English)\]\([\w.-]+\.md\)\n", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
HAN = r"[\u3001-\u303f\u3400-\u9fff\uff01-\uff60]"
BROKEN_LINE = re.compile(rf"(?<={HAN})\n(?={HAN}|\[)")
"""Where a Chinese paragraph goes on in the next line: a browser would show a space."""
_linked: set[str] = set()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages that mkdocs.yml does not name at the end of their folder's section."""
    docs = Path(config.docs_dir)
    for folder, title in (*SECTIONS.items(), (PYTHON, "Python")):
        section = next((found for found in _sections(config.nav) if title in found), None)
        if section is None:
            continue
        named = set(_pages(section))
        pages = sorted(path for path in (docs / folder).glob("*.md") if ".zh." not in path.name)
        names = [path.relative_to(docs).as_posix() for path in pages]
        names.sort(key=lambda name: not name.endswith("/index.md"))
        section[title] += [name for name in names if name not in named]
    return config


def _sections(nav: Any) -> Iterator[dict[str, list[Any]]]:
    for item in nav or ():
        if isinstance(item, dict):
            for children in item.values():
                if isinstance(children, list):
                    yield item
                    yield from _sections(children)


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif nav:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(item)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Leads links to files of the repository to copies in the site; the language menu replaces the first line's link."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))
    up = "../" * page.file.dest_uri.count("/")

    def to_copy(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if path.startswith("docs/") or not (ROOT / path).is_file():
            return match[0]  # mkdocs checks it
        _linked.add(path)
        label = re.sub(r"`([^`]*)`", r"<code>\1</code>", match[1])
        return f'<a href="{up}sources/{path}.txt">{label}</a>'

    markdown = SHOWN.sub(
        lambda match: (ROOT / posixpath.normpath(posixpath.join(folder, match[1]))).read_text(
            "utf-8"
        ),
        markdown,
    )
    markdown = OTHER_LANGUAGE.sub("", markdown)
    markdown = LINK.sub(to_copy, markdown.replace(".zh.md", ".md"))
    pieces = zip(FENCED.split(markdown), [*FENCED.findall(markdown), ""], strict=True)
    return "".join(BROKEN_LINE.sub("", text) + code for text, code in pieces)


def on_page_content(content: str, **_: Any) -> str:
    """Writes formulas as MathML, which browsers show by themselves."""

    def to_mathml(match: re.Match[str]) -> str:
        return convert(html.unescape(match[3]), display="inline" if match[2] == "(" else "block")

    return FORMULA.sub(to_mathml, content)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Tells Chinese pages that their folder is the site: where the theme looks for the search index."""
    depth = page.file.dest_uri.count("/")
    if not page.file.dest_uri.startswith("zh/"):
        return output
    root, chinese = ("/".join([".."] * up) or "." for up in (depth, depth - 1))
    assert output.count(f'"base": "{root}"') == 1, page.file.dest_uri
    return output.replace(f'"base": "{root}"', f'"base": "{chinese}"')


@event_priority(-200)  # behind the plugins that write one index of all languages
def on_post_build(config: MkDocsConfig) -> None:
    """Copies the linked files of the repository, named .txt so that a browser shows them; divides the search index."""
    for path in sorted(_linked):
        target = Path(config.site_dir) / "sources" / f"{path}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    _divide_search(Path(config.site_dir))


def _divide_search(site: Path) -> None:
    """Writes one index for English pages and one for Chinese pages, whose theme looks in their own folder."""
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    parts: dict[str, list[dict[str, Any]]] = {"": [], "zh/": []}
    for entry in index["docs"]:
        part = "zh/" if entry["location"].startswith("zh/") else ""
        parts[part].append({**entry, "location": entry["location"].removeprefix(part)})
    for part, entries in parts.items():
        text = json.dumps({**index, "docs": entries}, ensure_ascii=False, separators=(",", ":"))
        folder = site / part / "search"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "search_index.json").write_text(text, "utf-8")
        # What browsers read where pages are files.
        (folder / "search_index.js").write_text(f"var __index = {text}", "utf-8")

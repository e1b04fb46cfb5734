"""Pages that are one HTML file in English and Chinese: nothing else is needed to look at them.

The reader's browser decides which language it shows, a button changes it. What is HTML here is said so; everything else
is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,"Noto Sans CJK SC","Microsoft YaHei",sans-serif;margin:2em auto;max-width:76em;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin:1.6em 0 .4em}figure{margin:0}figcaption{font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(24em,1fr));gap:1.2em}img{width:100%;height:auto}
table{border-collapse:collapse}td{padding:.15em 1.2em .15em 0;vertical-align:top;overflow-wrap:anywhere}
table.facts td:first-child{color:#555;white-space:nowrap}button{float:right}
:root[lang=en] .zh,:root[lang=zh] .en{display:none}
"""

_SCRIPT = """
const root=document.documentElement;
if(!root.dataset.told&&(navigator.language||"").toLowerCase().startsWith("zh"))root.lang="zh";
document.querySelector("button").onclick=()=>{root.lang=root.lang=="zh"?"en":"zh"};
"""


def document(title: str, parts: Sequence[str], style: str = "", language: str | None = None) -> str:
    """Returns the whole page.

    Args:
        title: Of the page, a text.
        parts: HTML that follows the title; empty parts are left out.
        style: More CSS.
        language: "zh" or "en", shown first; by default the browser's.
    """
    told = f"lang={html.escape(language)} data-told=1" if language else "lang=en"
    lines = [
        f"<!doctype html><html {told}><head><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{_STYLE}{style}</style></head><body><button>中文 / English</button><h1>{html.escape(title)}</h1>",
        *parts,
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def both(english: str, chinese: str) -> str:
    """Returns HTML of a text in both languages."""
    return (
        f"<span class=en>{html.escape(english)}</span><span class=zh>{html.escape(chinese)}</span>"
    )


def escaped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of `facts_table` of names that are texts."""
    return {html.escape(name): value for name, value in values.items()}


def facts_table(rows: Mapping[str, Any]) -> str:
    """Returns a table of two columns; names are HTML already, values are not."""
    cells = "".join(
        f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table class=facts>{cells}</table>"

"""A preparation's report as figures (PNG) and as one page that needs no other file (HTML)."""

from __future__ import annotations

import base64
import html
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmkit.corpus.steps.accounts import BINS_PER_OCTAVE
from glmkit.whole_files import write_text

if TYPE_CHECKING:
    from glmkit.tokens.prepare_report import PrepareReport

logger = logging.getLogger(__name__)

MOST_BARS = 20
"""Reasons and languages beyond so many are drawn as one bar."""

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:0 0 1.5em}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}"
)


def save_figures(report: PrepareReport, folder: Path) -> list[Path]:
    """Draws `lengths.png`, `languages.png` and `dropped.png`; without matplotlib it says so and draws nothing."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning('no figures: matplotlib is not installed (pip install "glmkit[corpus]")')
        return []
    drawings: dict[str, tuple[Callable[[Any, Any], None], Any]] = {
        "lengths": (_draw_lengths, report.lengths),
        "languages": (_draw_bars("Documents by language or script"), report.languages),
        "dropped": (_draw_bars("Dropped documents by reason"), report.dropped),
    }
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    names = []
    for name, (draw, values) in drawings.items():
        if not values:
            continue
        height = 0.6 + 0.3 * min(len(values), MOST_BARS + 1) if name != "lengths" else 3.6
        # Without the user's style and the version of matplotlib in it the file depends on the numbers alone.
        with style.context("default"):
            figure = Figure(figsize=(7.2, max(height, 1.5)), layout="constrained")
            draw(figure.add_subplot(), values)
            figure.savefig(temporary / f"{name}.png", dpi=110, metadata={"Software": None})
        names.append(f"{name}.png")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return [folder / name for name in names]


def save_page(report: PrepareReport, figures: list[Path], path: Path) -> None:
    """Writes the tables, the figures and a few dropped texts of each reason as one HTML page."""
    body = ["<h1>Prepared corpus</h1>"]
    for title, rows in report.tables().items():
        if len(rows) > 1:
            heading, *rest = (
                "".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows
            )
            lines = "".join(f"<tr>{row}</tr>" for row in rest)
            head = heading.replace("td>", "th>")
            body.append(f"<h2>{title}</h2><table><tr>{head}</tr>{lines}</table>")
    for figure in figures:
        data = base64.b64encode(figure.read_bytes()).decode()
        body.append(f'<p><img alt="{figure.stem}" src="data:image/png;base64,{data}"></p>')
    if report.examples:
        body.append("<h2>dropped texts</h2>")
    for example in report.examples:
        where = f"{example['step']}: {example['reason']} ({example['id']})"
        body.append(f"<p>{html.escape(where)}</p><pre>{html.escape(example['text'])}</pre>")
    page = (
        f'<!doctype html><html><head><meta charset="utf-8"><title>Prepared corpus</title><style>{_STYLE}</style>'
        f"</head><body>{''.join(body)}</body></html>\n"
    )
    write_text(path, page)


def _draw_lengths(axes: Any, lengths: dict[str, dict[int, int]]) -> None:
    for name, counts in lengths.items():
        if counts:
            bins = range(min(counts), max(counts) + 1)
            edges = [2 ** (one / BINS_PER_OCTAVE) for one in (*bins, bins[-1] + 1)]
            heights = [counts.get(one, 0) for one in bins]
            axes.stairs(heights, edges, fill=name == "read", alpha=0.35 if name == "read" else 1.0, linewidth=1.8, label=name)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("length in characters")
    axes.set_ylabel("documents")
    axes.set_title("Length of the documents")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bars(title: str) -> Callable[[Any, dict[str, int]], None]:
    def draw(axes: Any, counts: dict[str, int]) -> None:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        shown, rest = ordered[:MOST_BARS], ordered[MOST_BARS:]
        if rest:
            shown.append((f"{len(rest)} more", sum(count for _, count in rest)))
        names, numbers = zip(*reversed(shown), strict=True)
        bars = axes.barh(range(len(names)), numbers)
        axes.set_yticks(range(len(names)), names)
        axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
        axes.set_xscale("symlog" if max(numbers) > 50 * max(min(numbers), 1) else "linear")
        axes.margins(x=0.12)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)

    return draw

"""A run as one HTML file: curves, settings, environment, resumes; nothing else is needed to look at it.

In: log lines as Trainer keeps them, and facts about the run. Out: `report.html`, pictures embedded, in English and
Chinese (the reader's browser decides, a button changes it). Knows no model.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmkit.errors import missing_dependency
from glmkit.html_page import both, document, escaped, facts_table
from glmkit.whole_files import write_text


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        title: In English and Chinese.
        unit: Of the vertical axis.
        lines: Pairs of a key of the log lines and a label; a key with a star is every key of that form.
        logarithmic: Whether the vertical axis is.
        from_zero: Whether it begins at 0.
    """

    title: tuple[str, str]
    unit: str
    lines: tuple[tuple[str, str], ...]
    logarithmic: bool = False
    from_zero: bool = False


CHARTS = (
    Chart(
        ("Loss", "损失"),
        "nats per predicted token",
        (("loss", "training"), ("eval_loss", "held-out")),
    ),
    Chart(
        ("Held-out loss by objective", "各目标的验证损失"),
        "nats per predicted token",
        (("eval_*_loss", ""),),
    ),
    Chart(
        ("Training loss by objective and task", "各目标与任务的训练损失"),
        "nats per predicted token",
        (("loss_*", ""),),
    ),
    Chart(("Learning rate", "学习率"), "", (("learning_rate", "learning rate"),)),
    Chart(
        ("Gradient norm before clipping", "裁剪前的梯度范数"),
        "",
        (("grad_norm", "gradient norm"),),
        logarithmic=True,
    ),
    Chart(
        ("Speed", "速度"),
        "tokens per second",
        (("tokens_per_second", "read"), ("predicted_tokens_per_second", "predicted")),
        from_zero=True,
    ),
    Chart(
        ("Peak memory", "内存峰值"), "GiB", (("peak_memory_gib", "of one process"),), from_zero=True
    ),
    Chart(
        ("Shares", "占比"),
        "",
        (
            ("mfu", "model FLOPs utilisation (MFU)"),
            ("data_wait_ratio", "waiting for data"),
            ("padding_ratio", "padding"),
        ),
    ),
)


def write_page(
    path: Path,
    title: str,
    history: Sequence[Mapping[str, Any]],
    *,
    summary: Mapping[tuple[str, str], Any],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    resumes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes the page.

    Args:
        path: Of the HTML file.
        title: Of the page.
        history: Log lines, each with its `step`.
        summary: What is said first; names are pairs, English and Chinese.
        settings: The configuration, nested.
        environment: Software and hardware.
        resumes: For each time the run went on: `step` and `time`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    steps = [int(one["step"]) for one in resumes]
    pictures = "\n".join(
        f"<figure><figcaption>{both(*chart.title)}</figcaption>"
        f'<img alt="{html.escape(chart.title[0])}" src="data:image/png;base64,{picture}"></figure>'
        for chart in CHARTS
        if (picture := _picture(chart, history, steps))
    )
    went_on = {f"{one['time']}": f"step {one['step']}" for one in resumes}
    parts = [
        facts_table({both(*name): value for name, value in summary.items()}),
        f"<h2>{both('Curves', '曲线')}</h2>",
        f"<p>{both('Dashed lines: the run went on after an interruption.', '虚线：训练中断后继续处。')}</p>"
        if steps
        else "",
        f"<div class=charts>{pictures}</div>",
        f"<h2>{both('Interruptions', '中断与继续')}</h2>{facts_table(escaped(went_on))}"
        if went_on
        else "",
        f"<h2>{both('Settings', '设置')}</h2>",
        facts_table(escaped(flat(settings))),
        f"<h2>{both('Environment', '环境')}</h2>",
        facts_table(escaped(environment)),
    ]
    write_text(path, document(title, parts))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as `section.key`: value."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _picture(
    chart: Chart, history: Sequence[Mapping[str, Any]], resumes: Sequence[int]
) -> str | None:
    """Returns a chart as a PNG in base64, or None where the log has nothing of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "the report's pictures", "train") from error
    figure = Figure(figsize=(6, 3.4), dpi=110)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.15, right=0.98, top=0.97, bottom=0.14)  # a layout engine is slow
    for key, label in _keys(chart, history):
        points = [(line["step"], line[key]) for line in history if key in line]
        marker = "o" if len(points) < 40 else None
        axes.plot(
            *zip(*points, strict=True), label=label, linewidth=1.2, marker=marker, markersize=3
        )
    if not axes.lines:
        return None
    axes.legend(fontsize=8)
    for step in resumes:
        axes.axvline(step, color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(chart.unit)
    if chart.logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 20 * low:  # too few powers of ten to read the axis by
            axes.yaxis.set_minor_formatter("{x:g}")
    if chart.from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _keys(chart: Chart, history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns the keys of a chart that the log has, with their labels."""
    there = dict.fromkeys(key for line in history for key in line)
    found = []
    for key, label in chart.lines:
        start, star, end = key.partition("*")
        if star:
            found += [
                (one, one.removeprefix(start).removesuffix(end))
                for one in there
                if one.startswith(start) and one.endswith(end) and len(one) > len(start + end)
            ]
        elif key in there:
            found.append((key, label))
    return found

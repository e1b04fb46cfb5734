"""Pictures of numbers as SVG: text and lines in the page itself, in the reader's fonts, sharp at any size.

In: labels and numbers. Out: SVG elements that stand for themselves in HTML. No other package draws them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glmkit.evaluation.metrics import CONFIDENCE_BINS, confidence_bins

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
"""Of the models, in their order; they come again where there are more."""


@dataclass(frozen=True)
class Bar:
    """One number with its interval.

    Attributes:
        label: What it is of.
        value: The number.
        low: Lower end of the interval, or None.
        high: Upper end.
        colour: Of the mark.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    colour: str = COLOURS[0]


def interval_plot(bars: Sequence[Bar], *, zero_line: bool = False) -> str:
    """Returns one line for each number: a dot, its interval, the number written beside it.

    Args:
        bars: The numbers, at least one, all finite.
        zero_line: Whether 0 is marked, for differences.
    """
    left, width, right, row = 190, 380, 170, 26
    ends = [end for bar in bars for end in (bar.low, bar.high, bar.value) if end is not None]
    low, high, ticks = axis(min([*ends, 0.0] if zero_line else ends), max([*ends, 0.0] if zero_line else ends))  # fmt: skip
    height = row * len(bars) + 30

    def x(value: float) -> float:
        return left + width * (value - low) / (high - low)

    lines = [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 24}" stroke="#ddd"/>'
        f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{tick:g}</text>'
        for tick in ticks
    ]
    if zero_line:
        lines.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" y2="{height - 24}" stroke="#444" stroke-dasharray="4 3"/>')  # fmt: skip
    for number, bar in enumerate(bars):
        y = 4 + row * (number + 0.5)
        written = f"{bar.value:.3f}"
        lines.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{html.escape(_short(bar.label))}</text>')  # fmt: skip
        if bar.low is not None and bar.high is not None:
            written += f" ({bar.low:.3f}–{bar.high:.3f})"
            lines.append(f'<line x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}" stroke="{bar.colour}" stroke-width="3"/>')  # fmt: skip
        lines.append(f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="5" fill="{bar.colour}"/>')
        lines.append(f'<text x="{left + width + 12}" y="{y + 4}" fill="#555">{written}</text>')
    return _svg(left + width + right, height, lines)


def reliability_plot(
    series: Mapping[str, Sequence[tuple[float, bool]]], num_bins: int = CONFIDENCE_BINS
) -> str:
    """Returns how often models are right where they are so sure: on the diagonal, probabilities mean what they say.

    Args:
        series: Name of a model -> (confidence, right) of each example. Dots grow with the examples in their bin.
        num_bins: Bins of equal width.
    """
    left, size = 46, 230

    def x(value: float) -> float:
        return left + size * value

    def y(value: float) -> float:
        return 10 + size * (1 - value)

    lines = [f'<rect x="{left}" y="10" width="{size}" height="{size}" fill="none" stroke="#bbb"/>']
    lines.append(f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#bbb" stroke-dasharray="4 3"/>')  # fmt: skip
    for tick in (0, 0.5, 1):
        lines.append(f'<text x="{x(tick)}" y="{y(0) + 16}" text-anchor="middle" fill="#555">{tick:g}</text>')  # fmt: skip
        lines.append(f'<text x="{left - 6}" y="{y(tick) + 4}" text-anchor="end" fill="#555">{tick:g}</text>')  # fmt: skip
    for number, points in enumerate(series.values()):
        colour = COLOURS[number % len(COLOURS)]
        bins = in_bins(points, num_bins)
        path = " ".join(f"{x(sure):.1f},{y(right):.1f}" for sure, right, _ in bins)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')  # fmt: skip
        lines += [
            f'<circle cx="{x(sure):.1f}" cy="{y(right):.1f}" r="{2 + 6 * math.sqrt(count / len(points)):.1f}" '
            f'fill="{colour}" fill-opacity="0.6"/>'
            for sure, right, count in bins
        ]
    return _svg(left + size + 14, size + 34, lines)


def in_bins(
    points: Sequence[tuple[float, bool]], num_bins: int = CONFIDENCE_BINS
) -> list[tuple[float, float, int]]:
    """Returns mean confidence, share of right ones and number of each bin that is not empty; bins hold their upper edge."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    places = confidence_bins([sure for sure, _ in points], num_bins).tolist()
    for place, point in zip(places, points, strict=True):
        bins.setdefault(place, []).append(point)
    return [
        (
            sum(sure for sure, _ in some) / len(some),
            sum(right for _, right in some) / len(some),
            len(some),
        )
        for _, some in sorted(bins.items())
    ]


def axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Returns the ends of an axis and its ticks (1, 2 or 5 times a power of ten apart) for values from `low` to `high`."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(0.05, abs(low) * 0.05), high + max(0.05, abs(high) * 0.05)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return first * step, last * step, ticks


def _short(label: str, limit: int = 26) -> str:
    """Keeps the end: models' names differ there."""
    return label if len(label) <= limit else "…" + label[1 - limit :]


def _svg(width: int, height: int, lines: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="12" role="img">'
        + "".join(lines)
        + "</svg>"
    )

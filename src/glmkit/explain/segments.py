"""A text cut into what is coloured and what is not, for pages and pictures.

In: an explanation and one of its evidences. Out: segments in reading order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glmkit.explain.results import Evidence, Explanation, Unit

ROW = "□"
"""Stands behind the marker of an image, a sound or a clip for each of its rows, to be coloured."""


@dataclass(frozen=True)
class Segment:
    """A stretch of text.

    Attributes:
        text: Its characters.
        unit: Index of the unit that it is, or None.
        blank: Number of the blank (from 0) whose contents it is part of, or None.
    """

    text: str
    unit: int | None = None
    blank: int | None = None


def segments(explanation: Explanation, evidence: Evidence) -> list[Segment]:
    """Returns the text with its blanks filled as segments; a record's fields follow each other by lines."""
    if explanation.kind == "label":
        found: list[Segment] = []
        for name, text in explanation.facts["fields"].items():
            found += [*([Segment("\n")] if found else []), *_cut(text, evidence.units, name)]
        return found
    found, start = [], 0
    for number, (begin, end) in enumerate(explanation.blanks):
        found += _cut(explanation.text, evidence.units, "text", start, begin)
        content = explanation.evidence[number].content
        parts = list(_cut(content, evidence.units, f"blank {number + 1}")) or [Segment("∅")]
        found += [Segment(one.text, one.unit, number) for one in parts]
        start = end
    return [*found, *_cut(explanation.text, evidence.units, "text", start)]


def _cut(
    text: str, units: Sequence[Unit], source: str, start: int = 0, stop: int | None = None
) -> Iterator[Segment]:
    """Yields the segments of a part of a text; behind the marker of a medium one for each of its rows."""
    stop = len(text) if stop is None else stop
    first = start
    for number, unit in enumerate(units):
        medium = unit.index is not None and source == "text"
        if not (medium or unit.source == source) or not first <= unit.start < stop:
            continue
        if unit.start > start:
            yield Segment(text[start : unit.start])
        if medium and unit.start >= start:
            yield Segment(text[unit.start : unit.end])
        yield Segment(ROW if medium else text[unit.start : min(unit.end, stop)], number)
        start = min(unit.end, stop)
    if start < stop:
        yield Segment(text[start:stop])

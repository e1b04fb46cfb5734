"""A text cut into what is coloured and what is not, for pages and pictures.

In: an explanation and one of its evidences. Out: segments in reading order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glmkit.explain.results import Evidence, Explanation, Unit


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
    """Yields the segments of a part of a text."""
    stop = len(text) if stop is None else stop
    for number, unit in enumerate(units):
        if unit.source != source or not start <= unit.start < stop:
            continue
        if unit.start > start:
            yield Segment(text[start : unit.start])
        yield Segment(text[unit.start : min(unit.end, stop)], number)
        start = min(unit.end, stop)
    if start < stop:
        yield Segment(text[start:stop])

"""A text cut into what is coloured and what is not, for pages and pictures.

In: an explanation and one of its evidences. Out: segments in reading order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    held = explanation.facts.get("media", {})
    units: dict[str, dict[int, Unit]] = {}
    for index, unit in enumerate(evidence.units):
        where = unit.source if unit.index is None else held.get(unit.source, "text")
        units.setdefault(where, {})[index] = unit
    found: list[Segment] = []
    if explanation.kind == "label":
        for name, text in explanation.facts["fields"].items():
            found += [*([Segment("\n")] if found else []), *_cut(text, units.get(name, {}))]
        return found
    start, text = 0, explanation.text
    for number, (begin, end) in enumerate(explanation.blanks):
        found += _cut(text, units.get("text", {}), start, begin)
        content = explanation.evidence[number].content
        parts = list(_cut(content, units.get(f"blank {number + 1}", {}))) or [Segment("∅")]
        found += [Segment(one.text, one.unit, number) for one in parts]
        start = end
    return [*found, *_cut(text, units.get("text", {}), start)]


def _cut(
    text: str, units: Mapping[int, Unit], start: int = 0, stop: int | None = None
) -> Iterator[Segment]:
    """Yields the segments of a part of a text, of whose units (by number) some are within; behind a medium's marker its rows."""
    stop = len(text) if stop is None else stop
    first = start
    for number, unit in sorted(units.items(), key=lambda one: (one[1].start, one[0])):
        if not first <= unit.start < stop:
            continue
        if unit.start > start:
            yield Segment(text[start : unit.start])
        if unit.index is None:
            yield Segment(text[unit.start : min(unit.end, stop)], number)
        else:
            if unit.start >= start:
                yield Segment(text[unit.start : unit.end])
            yield Segment(ROW, number)
        start = min(unit.end, stop)
    if start < stop:
        yield Segment(text[start:stop])

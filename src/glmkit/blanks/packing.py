"""Which parts of which texts share a row, so that hardly any of a batch is padding.

In: lengths of texts, and how blanks are made. Out: rows, lists of `Slot`s, none longer than the row length. Reads no
ids: what room the blanks of a part will need is known before they are placed, because the objective and the span
lengths are drawn here. So a process can plan the rows of all processes, cheaply, and make its own alone.

Whole texts are packed best fit, the longest first; a text longer than a row is cut where rows end. Then the emptiest
rows are taken apart, and their texts are cut into parts that fill the gaps of the others.

Sources: best fit decreasing is Johnson's (1974); to pack whole documents before cutting any is the idea of "Fewer
Truncations Improve Language Modeling" (arXiv 2404.10830).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np

from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings, draw_objectives
from glmkit.blanks.spans import draw_span_lengths
from glmkit.errors import DataError

Row = list["Slot"]


class Slot(NamedTuple):
    """A place in a row, and the part of a text that goes there.

    Attributes:
        text: Index of the text.
        start: First token of the part.
        stop: Behind its last token.
        size: Room of the sample in tokens: the part, `[CLS]` if `needs_cls`, and what its blanks need.
        objective: One of `OBJECTIVES`; another name for what is not cut.
        needs_cls: Whether the part begins inside a document, so that `[CLS]` must be put before it.
        span_lengths: int64 [n], drawn lengths of the token objective's spans.
    """

    text: int
    start: int
    stop: int
    size: int
    objective: str
    needs_cls: bool = False
    span_lengths: np.ndarray | None = None

    @property
    def max_blanks(self) -> int:
        """Blanks that there is room for: each needs a mask and a start marker."""
        return (self.size - (self.stop - self.start) - self.needs_cls) // 2


def shortest_part(length: int, settings: ObjectiveSettings) -> int:
    """Returns the smallest part in tokens that a text is cut into to fill a row of `length`."""
    needed = 1 / max(settings.token_ratio, 1e-3) + 2 if not settings.document_weight else 0
    return min(max(8, length // 24, int(needed)), length // 3)


def pack(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Packs things that cannot be cut, best fit with the longest first.

    Args:
        sizes: In tokens, in any order.
        length: Room of a row, in tokens.

    Returns:
        For each row the indices of what is in it, ascending; rows in the order of their first index.

    Raises:
        DataError: Something is longer than a row.
    """
    if max(sizes, default=0) > length:
        raise DataError(
            f"an example of {max(sizes)} tokens does not fit into rows of {length}; "
            "cut it or raise the row length"
        )
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, row), ascending
    for index in np.argsort(-np.asarray(sizes, dtype=np.int64), kind="stable").tolist():
        best = bisect_left(rooms, (sizes[index], -1))
        if best < len(rooms):
            room, row = rooms.pop(best)
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(index)
        if room > sizes[index]:
            insort(rooms, (room - sizes[index], row))
    return sorted(sorted(row) for row in rows)


def plan_rows(
    lengths: Sequence[int],
    needs_cls: Sequence[bool],
    length: int,
    rng: np.random.Generator,
    settings: ObjectiveSettings,
    whole: Sequence[Slot] = (),
) -> list[Row]:
    """Divides texts among rows; every token of every text is in one slot.

    Args:
        lengths: Of the texts, in tokens.
        needs_cls: For each text, whether it begins inside a document.
        length: Room of a row, in tokens.
        rng: The only source of randomness.
        settings: How blanks will be made.
        whole: Slots that are packed as they are, none cut.

    Returns:
        The rows in random order. Texts too short for any blank (fewer than 3 tokens) are left out.

    Raises:
        DataError: One of `whole` is longer than a row.
    """
    cutter = _Cutter(length, rng, settings, sum(lengths))
    slots = list(whole)
    for text, (size, lacks) in enumerate(zip(lengths, needs_cls, strict=True)):
        start, lacks = 0, bool(lacks)
        while size + lacks - start > 2:
            slots.append(cutter.cut(text, start, size, length, lacks))
            start, lacks = slots[-1].stop, True
    rows = [[slots[i] for i in row] for row in pack([slot.size for slot in slots], length)]
    rows = _fill(rows, length, cutter)
    return [rows[i] for i in rng.permutation(len(rows))]


def padding_ratio(rows: Sequence[Row], length: int) -> float:
    """Returns the share of the rows' places that stay empty, 0 … 1."""
    return 1 - sum(slot.size for row in rows for slot in row) / max(1, len(rows) * length)


class _Cutter:
    """Cuts the beginning off a text so that the sample made of it fills a room."""

    def __init__(
        self, length: int, rng: np.random.Generator, settings: ObjectiveSettings, tokens: int
    ):
        self.shortest = shortest_part(length, settings)
        self.length, self._rng, self._settings = length, rng, settings
        self._draws = max(64, 2 * tokens // length)
        self._objectives: list[str] = []
        self._shorts: list[float] = []
        self._lengths = np.empty(0, np.int64)
        self._sums: list[int] = [0]
        self._next = 0

    def cut(self, text: int, start: int, end: int, room: int, needs_cls: bool) -> Slot:
        """Returns the slot of the part of `start` … `end` that fits into `room`.

        What is left behind it is nothing, or `shortest` tokens at least. A text that does not fit into `room` and is
        too short to be cut so is returned whole.
        """
        if not self._objectives:
            self._draw()
        objective, short = self._objectives.pop(), self._shorts.pop()
        available = end - start + needs_cls
        if short < self._settings.short_prob and available >= 2 * self.shortest:
            # Given that it is below short_prob, the number is evenly distributed below it.
            spare = min(room, available - self.shortest) - self.shortest
            room = self.shortest + int(short / self._settings.short_prob * max(0, spare))
        if available < 2 * self.shortest or available + self._blanks(objective, available) <= room:
            size = available
        else:
            size = room - self._blanks(objective, room)
            more = room - self._blanks(objective, size)
            if more + self._blanks(objective, more) <= room:
                size = more
            size = min(max(size, (room + 1) // 2), available - self.shortest)
        needed = self._blanks(objective, size)
        # Where blanks are very dense, or a text is too short to be cut, there is room for fewer of them.
        limit = room if size < available else self.length
        if size + needed > limit:
            needed = max(2, (limit - size) // 2 * 2)
        lengths = None
        if objective == "token":
            count = needed // 2 if int(self._settings.token_ratio * size) else 0
            lengths = self._lengths[self._next : self._next + count]
            self._next += count
        stop = start + size - needs_cls
        return Slot(text, start, stop, size + needed, objective, needs_cls, lengths)

    def _blanks(self, objective: str, size: int) -> int:
        """Returns how many tokens the blanks of a sample of `size` tokens need."""
        if objective == "document":
            return 2
        if (
            objective == "sentence"
        ):  # about enough for sentences of 15 tokens; there is no room for more
            return 2 * (2 + int(self._settings.sentence_ratio * size / 15))
        hidden = int(self._settings.token_ratio * size)
        while self._sums[-1] < self._sums[self._next] + hidden:
            self._draw_lengths(hidden)
        reached = bisect_left(self._sums, self._sums[self._next] + hidden, self._next)
        return 2 * max(1, reached - self._next)

    def _draw(self) -> None:
        self._objectives = draw_objectives(self._rng, self._settings, self._draws)
        self._shorts = self._rng.random(self._draws).tolist()

    def _draw_lengths(self, hidden: int) -> None:
        """Draws more span lengths and forgets those that are used."""
        count = max(256, self._draws * 16, hidden)
        drawn = draw_span_lengths(
            self._rng, count, self._settings.mean_span_length, self._settings.max_span_length
        )
        self._lengths = np.concatenate((self._lengths[self._next :], drawn))
        self._next = 0
        self._sums = [0, *self._lengths.cumsum().tolist()]


def _fill(rows: list[Row], length: int, cutter: _Cutter) -> list[Row]:
    """Takes the emptiest rows apart as long as what is in them fits into the gaps of the others."""
    used = [sum(slot.size for slot in row) for row in rows]
    gaps = [
        (size - length, row) for row, size in enumerate(used) if length - size >= cutter.shortest
    ]
    heapify(gaps)  # the largest gap first
    free, taken = -sum(gap for gap, _ in gaps), set()
    # Emptiest in text: if blanks counted, objectives that need few of them would be cut more often.
    text = [sum(slot.stop - slot.start for slot in row) for row in rows]
    for row in sorted(range(len(rows)), key=text.__getitem__):
        if any(slot.objective not in OBJECTIVES for slot in rows[row]):
            continue
        free -= length - used[row]
        # A text that is cut into parts needs some more room, for their [CLS] and blanks.
        if free < 1.1 * used[row]:
            break
        taken.add(row)
        left = _distribute(rows[row], rows, gaps, taken, cutter)
        if left:
            packed = pack([slot.size for slot in left], length)
            rows += [[left[i] for i in indices] for indices in packed]
            break
        free = -sum(gap for gap, other in gaps if other not in taken)
    return [row for index, row in enumerate(rows) if index not in taken]


def _distribute(
    slots: Row, rows: list[Row], gaps: list[tuple[int, int]], taken: set[int], cutter: _Cutter
) -> Row:
    """Cuts the texts of some slots to fill gaps, the largest first; returns slots for what found no place."""
    left: Row = []
    for slot in slots:
        start, lacks = slot.start, slot.needs_cls
        while start < slot.stop:
            while gaps and gaps[0][1] in taken:
                heappop(gaps)
            room = -gaps[0][0] if gaps else cutter.length
            part = cutter.cut(slot.text, start, slot.stop, room, lacks)
            start, lacks = part.stop, True
            if not gaps or part.size > room:  # neither fits as it is nor can be cut
                left.append(part)
                continue
            row = heappop(gaps)[1]
            rows[row].append(part)
            if room - part.size >= cutter.shortest:
                heappush(gaps, (part.size - room, row))
    return left

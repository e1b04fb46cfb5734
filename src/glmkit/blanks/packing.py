"""Several examples in one row, so that little of a batch is padding.

In: examples (or anything of known size) in the order of the stream. Out: rows, lists of what was put in, none
longer than the row length. Both ways are deterministic: the same stream gives the same rows. Knows sizes
only; `layout.collate_packed` makes the batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import count
from typing import Generic, TypeVar

from glmkit.blanks.layout import Example
from glmkit.errors import DataError

T = TypeVar("T")


class Packer(Generic[T]):
    """Packs a stream with best fit into a few open rows.

    Each item goes where it leaves the least room. When it fits nowhere and `max_open` rows are open, the
    fullest is closed and handed out. To resume, a caller keeps the places in the stream of the items that
    are still in `rows`, and adds those items again in their order.

    Attributes:
        length: Room of a row, in tokens.
        max_open: Rows that are open at the same time, at most.
    """

    def __init__(self, length: int, max_open: int = 16) -> None:
        self.length = length
        self.max_open = max_open
        self._items: dict[int, list[T]] = {}
        self._open: list[tuple[int, int]] = []  # (room left, number of the row), ascending
        self._numbers = count()

    @property
    def rows(self) -> list[list[T]]:
        """Items of the open rows, oldest row first."""
        return list(self._items.values())

    def add(self, item: T, size: int) -> list[T] | None:
        """Puts an item of `size` tokens into a row; returns the row that this fills or closes, if any.

        Raises:
            DataError: The item is longer than a row.
        """
        if size > self.length:
            raise DataError(
                f"an example of {size} tokens does not fit into rows of {self.length}; "
                "cut it or raise the row length"
            )
        if size == self.length:
            return [item]
        closed, best = None, bisect_left(self._open, (size, 0))
        if best < len(self._open):
            room, number = self._open.pop(best)
        else:
            if len(self._open) == self.max_open:
                closed = self._items.pop(self._open.pop(0)[1])
            room, number = self.length, next(self._numbers)
            self._items[number] = []
        self._items[number].append(item)
        if room == size:
            return self._items.pop(number)
        insort(self._open, (room - size, number))
        return closed

    def flush(self) -> list[list[T]]:
        """Closes all open rows and returns them, oldest first."""
        rows = self.rows
        self._items.clear()
        self._open.clear()
        return rows


def pack(examples: Sequence[Example], length: int) -> list[list[int]]:
    """Packs all examples at once, best fit with the longest first.

    Args:
        examples: In any order.
        length: Room of a row, in tokens.

    Returns:
        For each row the indices of its examples, ascending; rows in the order of their first index.

    Raises:
        DataError: An example is longer than a row.
    """
    packer: Packer[int] = Packer(length, max_open=len(examples))
    longest_first = sorted(range(len(examples)), key=lambda index: -len(examples[index]))
    closed = [packer.add(index, len(examples[index])) for index in longest_first]
    rows = [row for row in closed if row] + packer.flush()
    return sorted(sorted(row) for row in rows)

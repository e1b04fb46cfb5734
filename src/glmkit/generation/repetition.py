"""No n-gram twice, over a text that is longer than a blank.

In: the ids written before this blank. Out: a constraint. `no_repeat_ngram_size` looks at one blank alone; a text
written blank by blank would begin to repeat itself in the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


class NoRepeat:
    """Forbids the tokens that would complete an n-gram that was written before, in this blank or earlier."""

    def __init__(self, size: int, written: Sequence[int], vocab_size: int):
        """Makes the table of what was written.

        Args:
            size: n, at least 1, in tokens.
            written: Ids before the blank.
            vocab_size: Rows of the model's vocabulary.
        """
        self.size = size
        self.vocab_size = vocab_size
        self._written = list(map(int, written))
        self._followers = _followers(self._written, size)

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns all ids but those that would repeat an n-gram, or None where none would."""
        keep = self.size - 1
        before = self._written[-keep:] if keep else []
        here = [*before, *tokens]
        if len(here) < keep:
            return None
        last = tuple(here[len(here) - keep :])
        banned = self._followers.get(last, set()) | _followers(here, self.size).get(last, set())
        if not banned:
            return None
        return np.delete(np.arange(self.vocab_size), sorted(banned))


def _followers(ids: Sequence[int], size: int) -> dict[tuple[int, ...], set[int]]:
    """Returns for each (n-1)-gram the ids that came after it."""
    table: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for end in range(size - 1, len(ids)):
        table[tuple(ids[end - size + 1 : end])].add(ids[end])
    return table

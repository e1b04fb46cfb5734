"""Guessing the next tokens of a blank: what followed its last tokens earlier in the text.

In: part A, the blanks so far. Out: ids to be checked against the model. Summaries, corrections and quotations repeat their
text; where nothing repeats, nothing is guessed. (Prompt lookup decoding, Saxena 2023; a case of speculative decoding,
arXiv 2211.17192.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmkit.generation.prompts import Prompt

LONGEST, SHORTEST = 3, 2
"""Tokens that must have come before, at most and at least. One alone has too many continuations."""


def guess(
    prompt: Prompt, blanks: Sequence[Sequence[int]], most: int, writable: np.ndarray
) -> list[int]:
    """Returns up to `most` ids that may continue the last of the blanks.

    Args:
        prompt: Part A. What stands there before the blank counts as written before its first token.
        blanks: Ids of the blanks so far, the one being written last.
        most: Ids wanted.
        writable: bool [V], the ids that a blank may contain.
    """
    if most < 1:
        return []
    before = prompt.ids[: int(prompt.mask_indices[len(blanks) - 1])][-LONGEST:]
    ending = np.array([*before, *blanks[-1]][-LONGEST:], np.int64)
    text = np.concatenate([prompt.ids, *([-1, *blank] for blank in blanks)]).astype(np.int64)
    known = (text >= 0) & (text < len(writable))
    known[known] = writable[text[known]]
    for size in range(min(LONGEST, len(ending)), SHORTEST - 1, -1):
        windows = np.lib.stride_tricks.sliding_window_view(text[:-1], size)
        follows = np.flatnonzero((windows == ending[-size:]).all(1)) + size
        follows = follows[known[follows]]
        if len(follows):
            start = int(follows[-1])  # the latest: what a text repeats just now
            length = int(np.argmin([*known[start : start + most], False]))
            return text[start : start + length].tolist()
    return []

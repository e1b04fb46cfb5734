"""A text of any length -> examples in which each of its tokens is predicted once, from what is left of it.

In: ids of a text. Out: `Example`s of the end-of-text form of the document objective. Language-model scores and
language-model fine-tuning share it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.blanks.layout import Example, Piece, lay_out


def left_to_right_examples(ids: np.ndarray, specials: Any, max_positions: int) -> list[Example]:
    """Lays out a text so that each of its tokens is predicted exactly once, from what is left of it.

    The first window has part A `[CLS] [gMASK]` and as many tokens in part B as positions allow. A text that is longer
    goes on in windows of half that size, whose part A is `[CLS]`, the tokens before them (half the positions) and
    `[gMASK]`: the end-of-text form of the document objective.

    Args:
        ids: int64 [n], without special tokens.
        specials: A `SpecialTokenIds`.
        max_positions: The model's `max_sequence_length`.
    """
    half = max_positions // 2
    examples, start = [], 0
    while start < len(ids):
        stop = min(len(ids), start + (half if start else max_positions - 2))
        context = ids[max(0, start - half + 3) : start]
        part_a = np.concatenate(([specials.cls], context, [specials.gmask]))
        piece = Piece(len(part_a) - 1, ids[start:stop])
        examples.append(lay_out(part_a, [piece], specials.sop))
        start = stop
    return examples

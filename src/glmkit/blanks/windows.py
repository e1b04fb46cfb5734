"""A text of any length -> examples in which each of its tokens is predicted once, from what is left of it.

In: ids of a text. Out: `Example`s of the end-of-text form of the document objective. Language-model scores and
language-model fine-tuning share it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from glmkit.blanks.layout import IGNORE_INDEX, Example, Piece, lay_out


def left_to_right_examples(
    ids: np.ndarray,
    specials: Any,
    max_positions: int,
    *,
    stride: int | None = None,
    bidirectional: bool = True,
) -> list[Example]:
    """Lays out a text so that each of its tokens is predicted exactly once, from what is left of it.

    The first window has part A `[CLS] [gMASK]` and as many tokens in part B as positions allow. A text that is longer
    goes on in windows of half that size, whose part A is `[CLS]`, the tokens before them (half the positions) and
    `[gMASK]`: the end-of-text form of the document objective.

    Args:
        ids: int64 [n], without special tokens.
        specials: A `SpecialTokenIds`.
        max_positions: The model's `max_sequence_length`.
        stride: Tokens that a window after the first one predicts; by default, and at most, half the positions.
        bidirectional: Whether the tokens before those that a window predicts are in part A; else they are written in
            part B before them, unpredicted, and part A is `[CLS] [gMASK]` in every window.
    """
    half = max_positions // 2
    stride = min(stride or half, half)
    examples, start = [], 0
    while start < len(ids):
        stop = min(len(ids), start + (stride if start else max_positions - 2))
        context = ids[max(0, start - (2 * half - stride - 3)) : start]
        examples.append(continuation(context, ids[start:stop], specials, bidirectional))
        start = stop
    return examples


def continuation(
    context: np.ndarray, predicted: np.ndarray, specials: Any, bidirectional: bool = True
) -> Example:
    """Lays out tokens that are predicted from those before them, in part A or in part B; the end is not predicted."""
    shown = context if bidirectional else context[:0]
    part_a = np.concatenate(([specials.cls], shown, [specials.gmask]))
    written = predicted if bidirectional else np.concatenate((context, predicted))
    example = lay_out(part_a, [Piece(len(part_a) - 1, written)], specials.sop)
    if bidirectional or not len(context):
        return example
    labels = example.labels.copy()
    labels[len(part_a) : len(part_a) + len(context)] = IGNORE_INDEX
    return replace(example, labels=labels)

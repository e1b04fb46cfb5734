"""Samples of ids, and how to put an example's text back together."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from glmkit.blanks.layout import IGNORE_INDEX, Example
from glmkit.special_tokens import SpecialTokenIds

SPECIALS = SpecialTokenIds(
    cls=1, eos=2, pad=2, sop=3, eop=4, mask=5, smask=6, gmask=7, block=8
)  # fmt: skip
"""Ids from 10 are ordinary tokens; those divisible by 7 end a sentence."""
SENTENCE_ENDS = np.array([number >= 10 and number % 7 == 0 for number in range(200)])

samples = st.lists(
    st.one_of(st.integers(10, 199), st.integers(10, 199), st.sampled_from([7 * 9, 1, 2])),
    max_size=120,
).map(lambda ids: np.array(ids, dtype=np.int64))
seeds = st.integers(0, 2**32 - 1)


def document(length: int, seed: int = 0) -> np.ndarray:
    """`[CLS]`, ordinary tokens (some end sentences), end of text: `length` ids in all."""
    body = np.random.default_rng(seed).integers(10, 199, length - 2)
    return np.array([SPECIALS.cls, *body, SPECIALS.eos])


def contents(example: Example) -> list[tuple[int, list[int]]]:
    """(mask's place, contents from the labels without the end) of each piece of part B, in its order."""
    blocks = example.position_ids[1]
    starts = np.flatnonzero(blocks == 1)
    pieces = []
    for start, end in zip(starts, [*starts[1:], len(example)], strict=True):
        labels = example.labels[start:end].tolist()
        assert IGNORE_INDEX not in labels
        pieces.append(
            (int(example.position_ids[0, start]), [t for t in labels if t != SPECIALS.eop])
        )
    return pieces


def restored(example: Example) -> list[int]:
    """The text: part A with each mask replaced by its blank's contents."""
    inside = dict(contents(example))
    text: list[int] = []
    for place, token in enumerate(example.input_ids[: example.prefix_length].tolist()):
        text += inside.pop(place, [token])
    assert not inside
    return text

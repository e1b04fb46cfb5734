"""Guesses from the text, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glmkit.generation.lookup import guess
from glmkit.generation.prompts import Prompt
from glmkit.special_tokens import FIRST_MEDIA_ID

MASK, END, IMAGE = 0, 1, FIRST_MEDIA_ID
WRITABLE = np.array([False, False, *[True] * 18])


@pytest.mark.parametrize(
    ("ids", "blanks", "expected"),
    [
        ([5, 6, 7, 8, 9, MASK], [[5, 6]], [7, 8, 9]),  # up to the mask
        ([5, 6, 7, 8, 9, 10, 11, MASK], [[5, 6]], [7, 8, 9, 10]),  # no more than asked for
        ([5, 6, 7, END, 8, MASK], [[5, 6]], [7]),  # an end is never guessed
        ([5, 6, END, MASK], [[5, 6]], []),
        ([5, 6, 7, 5, 6, 8, END, MASK], [[5, 6]], [8]),  # the latest
        ([4, 5, 6, 7, END, 5, 6, 8, END, MASK], [[4, 5, 6]], [7]),  # the longest
        (
            [5, 6, 7, 9, 5, 6, MASK],
            [[]],
            [7, 9, 5, 6],
        ),  # before its first token: what stands before it
        ([5, 6, 7, 9, 5, MASK], [[6]], [7, 9, 5]),
        ([5, MASK, 6, 7, 8, MASK], [[11, 12, 13], [11, 12]], [13]),  # earlier blanks
        ([5, MASK, 9, MASK], [[11, 12], [13, 11, 12]], []),  # not across blanks
        ([9, MASK], [[5, 6, 7, 5, 6]], [7, 5, 6]),  # the blank itself
        ([5, 9, MASK], [[5]], []),  # one token is too little
        ([MASK], [[]], []),
        ([5, 25, 5, 25, 6, MASK], [[5, 25]], [6]),  # ids that are never written may come before
        ([5, 6, 7, IMAGE, IMAGE + 1, 5, MASK], [[6]], [7]),  # rows of an image are never guessed
        ([IMAGE, IMAGE + 1, 5, 6, 7, MASK, IMAGE, IMAGE + 1, MASK], [[8], []], [5, 6, 7]),
    ],
)
def test_what_followed_the_last_tokens(ids, blanks, expected):
    masks = np.flatnonzero(np.array(ids) == MASK)
    prompt = Prompt(np.array(ids), [""] * (len(masks) + 1), masks, torch.zeros(2, 4))
    assert guess(prompt, blanks, 4, WRITABLE) == expected
    assert guess(prompt, blanks, 0, WRITABLE) == []

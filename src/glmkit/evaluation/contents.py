"""What the blank of a filling task may contain: so many characters, of the kind that `tasks.hiding` hides.

In: a tokenizer, a number of characters. Out: a constraint for `fill`. What is hidden has no punctuation in it, so a
model that is told the number of characters is told this too, and so are the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glmkit.generation.constraints import Length
from glmkit.generation.spelling import token_texts

WITHIN_WORDS = " '’-"
"""What may stand between letters."""


class Letters:
    """Which tokens of a vocabulary are made of letters and digits (and what may stand between them); ends too.

    Attributes:
        fits: bool [vocabulary].
        spaces: bool [vocabulary], those of spaces alone.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        texts = token_texts(tokenizer, later=True)
        self.fits = np.array(
            [
                bool(text) and all(one.isalnum() or one in WITHIN_WORDS for one in text)
                for text in texts
            ]
        )
        self.spaces = np.array([bool(text) and not text.strip() for text in texts])
        ids = tokenizer.special_ids
        self.fits[[ids.eop, ids.eos]] = True


class Contents:
    """A blank of exactly `length` characters, made of letters."""

    def __init__(self, letters: Letters, length: int):
        self._letters = letters
        self._length = Length(letters.tokenizer, length, length)

    def allowed(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns the ids that may come next; see `generation.constraints.Constraint`."""
        following = self._length.allowed(tokens)
        assert following is not None  # a length always limits
        following = following[self._letters.fits[following]]
        text = self._letters.tokenizer.decode(list(tokens), skip_special_tokens=True)
        if text == text.rstrip() != "":
            return following
        # Spaces at the start count for nothing: a search that likes them would never come to the end.
        return following[~self._letters.spaces[following]]

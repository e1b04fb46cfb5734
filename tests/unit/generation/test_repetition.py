"""No n-gram twice over several blanks, against a search for repetitions by hand."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit.generation.repetition import NoRepeat


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_exactly_the_repetitions_are_forbidden(size: int):
    rng = np.random.default_rng(size)
    for _ in range(60):
        written = rng.integers(4, size=rng.integers(0, 12)).tolist()
        tokens = rng.integers(4, size=rng.integers(0, 8)).tolist()
        whole = [*written, *tokens]
        grams = {tuple(whole[i : i + size]) for i in range(len(whole) - size + 1)}
        expected = [
            token
            for token in range(4)
            if len(whole) < size - 1 or (*whole[len(whole) - size + 1 :], token) not in grams
        ]
        allowed = NoRepeat(size, written, 4).allowed(tokens)
        found = list(range(4)) if allowed is None else allowed.tolist()
        assert found == expected

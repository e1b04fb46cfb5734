from __future__ import annotations

import numpy as np
import pytest
from blank_samples import SENTENCE_ENDS, SPECIALS, document
from hypothesis import given
from hypothesis import strategies as st

from glmkit.blanks.layout import Example, collate_packed, dense_mask
from glmkit.blanks.objectives import ObjectiveSettings, make_any_example
from glmkit.blanks.packing import Packer, pack
from glmkit.errors import DataError

sizes_lists = st.lists(st.integers(1, 64), max_size=80)


def _example(size: int) -> Example:
    return Example(np.zeros(size), np.zeros((2, size)), np.zeros(size), size)


@given(sizes_lists, st.integers(1, 8))
def test_stream_is_packed_whole(sizes, max_open):
    packer: Packer[int] = Packer(64, max_open)
    rows = []
    for index, size in enumerate(sizes):
        row = packer.add(index, size)
        rows += [row] if row else []
        assert len(packer.rows) <= max_open
    left = packer.rows
    assert left == packer.flush()
    assert packer.rows == []
    rows += left
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= 64 for row in rows)
    assert all(row == sorted(row) for row in rows)


@given(sizes_lists)
def test_pack(sizes):
    rows = pack([_example(size) for size in sizes], 64)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    filled = [sum(sizes[index] for index in row) for row in rows]
    assert all(fill <= 64 for fill in filled)
    # Two rows that fit into one would have been one.
    assert sum(fill <= 32 for fill in filled) <= 1


def test_pack_is_deterministic_and_known():
    assert pack([_example(size) for size in (30, 50, 34, 14, 64, 1)], 64) == [
        [0, 2],
        [1, 3],
        [4],
        [5],
    ]


def test_best_fit_and_the_fullest_row_closed_first():
    packer: Packer[str] = Packer(10, max_open=2)
    assert packer.add("a", 6) is None
    assert packer.add("b", 5) is None
    assert packer.add("c", 4) == ["a", "c"]
    assert packer.add("d", 6) is None
    assert packer.add("e", 7) == ["d"]
    assert packer.flush() == [["b"], ["e"]]
    assert packer.add("f", 10) == ["f"]


def test_too_long():
    with pytest.raises(DataError, match="65 tokens does not fit into rows of 64"):
        pack([_example(65)], 64)


def test_packed_samples_do_not_see_each_other():
    """A packed row's mask is the samples' own masks along the diagonal, nothing else."""
    rng = np.random.default_rng(0)
    made = [
        make_any_example(document(n, seed=n), rng, SPECIALS, ObjectiveSettings(), SENTENCE_ENDS)
        for n in (30, 12, 50, 41, 8)
    ]
    examples = [example for _, example in made]
    rows = pack(examples, 100)
    batch = collate_packed([[examples[i] for i in row] for row in rows], pad=2, length=100)
    mask = dense_mask(batch)
    for number, row in enumerate(rows):
        expected, start = np.zeros((100, 100), bool), 0
        for index in row:
            size = len(examples[index])
            alone = dense_mask(collate_packed([[examples[index]]], pad=2, length=size))[0]
            expected[start : start + size, start : start + size] = alone
            start += size
        assert (mask[number] == expected).all()

from __future__ import annotations

import numpy as np
import pytest
from blank_samples import SENTENCE_ENDS, SPECIALS, samples, seeds
from hypothesis import given

from glmkit.blanks.layout import (
    IGNORE_INDEX,
    Example,
    Piece,
    collate,
    collate_packed,
    dense_mask,
    find_masks,
    lay_out,
)
from glmkit.blanks.objectives import ObjectiveSettings, make_any_example
from glmkit.errors import DataError


def _two_blanks() -> Example:
    pieces = [Piece(3, np.array([20, 21]), end=4), Piece(1, np.array([22]), end=4)]
    return lay_out([10, 5, 11, 5], pieces, sop=3)


def _made(ids: np.ndarray, seed: int) -> Example | None:
    made = make_any_example(
        ids, np.random.default_rng(seed), SPECIALS, ObjectiveSettings(), SENTENCE_ENDS
    )
    return None if made is None else made[1]


def test_find_masks():
    assert find_masks([9, 5, 7, 9, 6], (5, 6, 7)).tolist() == [1, 2, 4]


def test_lay_out():
    example = _two_blanks()
    assert example.input_ids.tolist() == [10, 5, 11, 5, 3, 20, 21, 3, 22]
    assert example.position_ids.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 1, 1],
        [0, 0, 0, 0, 1, 2, 3, 1, 2],
    ]
    assert example.labels.tolist() == [IGNORE_INDEX] * 4 + [20, 21, 4, 22, 4]
    assert example.prefix_length == 4
    assert len(example) == 9


def test_piece_without_end_and_unscored_piece():
    cut = lay_out([10, 5], [Piece(1, np.array([20, 21]))], sop=3)
    assert cut.input_ids.tolist() == [10, 5, 3, 20]
    assert cut.labels.tolist() == [IGNORE_INDEX, IGNORE_INDEX, 20, 21]
    given = lay_out([10, 5], [Piece(1, np.array([20, 21]), scored=False)], sop=3)
    assert given.input_ids.tolist() == [10, 5, 3, 20, 21]
    assert (given.labels == IGNORE_INDEX).all()


def test_corrupted_inputs_leave_the_labels():
    example = lay_out([5], [Piece(0, np.array([20]), end=4, inputs=np.array([8]))], sop=3)
    assert example.input_ids.tolist() == [5, 3, 8]
    assert example.labels.tolist() == [IGNORE_INDEX, 20, 4]


@given(samples, seeds)
def test_part_a_never_sees_part_b_and_part_b_is_causal(ids, seed):
    example = _made(ids, seed)
    if example is None:
        return
    n_a, mask = example.prefix_length, dense_mask(collate([example], pad=2))[0]
    assert mask[:, :n_a].all()
    assert not mask[:n_a, n_a:].any()
    n_b = len(example) - n_a
    assert (mask[n_a:, n_a:] == np.tri(n_b, dtype=bool)).all()


@given(samples, samples, seeds)
def test_left_padding_equals_right_padding(one, two, seed):
    """Fields of the real tokens, and whom they see, are the same on both sides."""
    examples = [example for ids in (one, two) if (example := _made(ids, seed)) is not None]
    if not examples:
        return
    length = max(map(len, examples)) + 3
    right, left = (collate(examples, 2, side=side, length=length) for side in ("right", "left"))
    masks = dense_mask(right), dense_mask(left)
    for row, example in enumerate(examples):
        n, gap = len(example), length - len(example)
        for name in ("input_ids", "position_ids", "labels", "attention_mask"):
            assert (right[name][row][..., :n] == left[name][row][..., gap:]).all(), name
            assert (left[name][row][..., gap:] == left[name][row][..., -n:]).all()
        assert left["prefix_lengths"][row] == right["prefix_lengths"][row] + gap
        assert (masks[0][row, :n, :n] == masks[1][row, gap:, gap:]).all()
        assert not masks[0][row, :, n:].any()
        assert not masks[1][row, :, :gap].any()


def test_padding_is_told_by_the_attention_mask_and_is_not_scored():
    batch = collate([_two_blanks(), lay_out([10, 5], [], sop=3)], pad=10)
    assert batch["attention_mask"].sum(axis=1).tolist() == [9, 2]
    assert batch["input_ids"][1, 2:].tolist() == [10] * 7
    assert (batch["labels"][1] == IGNORE_INDEX).all()
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_rows_that_are_too_short():
    with pytest.raises(DataError, match="9 tokens does not fit into rows of 8"):
        collate([_two_blanks()], pad=2, length=8)
    with pytest.raises(DataError, match="need 18 tokens; it has 17"):
        collate_packed([[_two_blanks(), _two_blanks()]], pad=2, length=17)

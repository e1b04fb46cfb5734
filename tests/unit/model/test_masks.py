from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import PAD, batch, example

from glmkit.blanks.layout import collate, collate_packed, dense_mask
from glmkit.errors import UserError
from glmkit.model.masks import additive_mask, block_mask, dense_visibility, mask_fields


def examples(seed=0):
    rng = np.random.default_rng(seed)
    return [
        example(rng, length, blank) for length, blank in [(9, 4), (5, 2), (12, 6), (4, 0), (7, 1)]
    ]


def fields_of(arrays):
    tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
    rows, length = tensors["input_ids"].shape
    return mask_fields(
        attention_mask=tensors.get("attention_mask"),
        prefix_lengths=tensors.get("prefix_lengths"),
        segment_ids=tensors.get("segment_ids"),
        block_positions=tensors["position_ids"][:, 1],
        batch_size=rows,
        query_length=length,
        past_length=0,
    ), (rows, length, 0, length)


def batches():
    yield collate(examples(), PAD)
    yield collate(examples(), PAD, side="left")
    one, two, three, four, five = examples()
    yield collate_packed([[one, two], [three, four], [five]], PAD, 32)


@pytest.mark.parametrize("arrays", list(batches()), ids=["right", "left", "packed"])
def test_masks_are_those_of_the_layout(arrays):
    fields, shape = fields_of(arrays)
    visible = dense_visibility(fields, *shape)
    np.testing.assert_array_equal(visible[:, 0].numpy(), dense_mask(arrays))


@pytest.mark.parametrize("arrays", list(batches()), ids=["right", "left", "packed"])
def test_block_masks_follow_the_same_rule(arrays):
    fields, (rows, length, past, keys) = fields_of(arrays)
    blocks = block_mask(fields, rows, length, past, keys)
    row = torch.arange(rows)[:, None, None]
    query, key = torch.arange(length)[:, None], torch.arange(length)
    followed = blocks.mask_mod(row, 0, query, key)
    np.testing.assert_array_equal(followed.numpy(), dense_mask(arrays))


def read(attention_mask=None, prefix_lengths=None, segment_ids=None, past=0, rows=2, length=3):
    return mask_fields(
        attention_mask=attention_mask,
        prefix_lengths=prefix_lengths,
        segment_ids=segment_ids,
        block_positions=torch.zeros(rows, length, dtype=torch.long),
        batch_size=rows,
        query_length=length,
        past_length=past,
    )


def test_new_tokens_see_the_cache_and_their_left_side():
    fields = read(prefix_lengths=torch.tensor([2, 2]), past=4)
    visible = dense_visibility(fields, 2, 3, 4, 7)
    assert visible[0, 0].int().tolist() == [
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1],
    ]


def test_keys_that_a_static_cache_has_not_filled_are_invisible():
    padding = torch.tensor([[0, 1, 1], [1, 1, 1]])
    dense = torch.ones(1, 1, 3, 3)
    for fields in (read(padding, torch.tensor([3, 3])), read(dense)):
        visible = dense_visibility(fields, 2, 3, 0, 8)
        assert visible.shape[2:] == (3, 8)
        assert not visible[..., 3:].any()
    blocks = block_mask(read(padding, torch.tensor([3, 3])), 2, 3, 0, 8)
    assert not blocks.mask_mod(torch.tensor(1), 0, torch.tensor(2), torch.tensor(5))


def test_padding_rows_get_finite_values():
    visible = torch.tensor([[True, False], [False, False]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        mask = additive_mask(visible, dtype)
        assert mask.dtype == dtype
        assert torch.isfinite(mask).all()
        assert torch.softmax(mask, -1)[1].tolist() == [0.5, 0.5]
    assert additive_mask(torch.ones(2, 2, dtype=torch.bool), torch.float32) is None


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 2), torch.ones(2, 3, 3), torch.ones(5), torch.ones(3, 1)]
)
def test_shapes_that_no_form_has(mask):
    with pytest.raises(UserError, match=r"fits none of the forms .* B=2, Q=3, K=3"):
        read(mask)


def test_packed_rows_stand_alone():
    segments = torch.ones(2, 3, dtype=torch.long)
    for extra in (
        {"attention_mask": torch.ones(2, 3)},
        {"prefix_lengths": torch.tensor([1, 1])},
        {"past": 2},
    ):
        with pytest.raises(UserError, match="segment_ids .* cannot be combined"):
            read(segment_ids=segments, **extra)


def test_batch_helper_is_the_layout():
    made = batch(examples())
    assert made["position_ids"].shape == (5, 2, made["input_ids"].shape[1])

from __future__ import annotations

import pytest
import torch
from checkpoint_samples import CONFIG, equal, shapes, weights

from glmkit.checkpoint.shards import merge_state_dicts, split_state_dict
from glmkit.errors import CheckpointError


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_merge_undoes_split_bit_for_bit(shards):
    state = weights(torch.float16)
    assert equal(merge_state_dicts(split_state_dict(state, shards)), state)


def test_each_rank_has_its_part_of_q_then_k_then_v():
    name = "transformer.layers.0.attention.query_key_value.bias"
    state = {name: torch.arange(12)}
    ranks = split_state_dict(state, 2)
    assert ranks[0][name].tolist() == [0, 1, 4, 5, 8, 9]
    assert ranks[1][name].tolist() == [2, 3, 6, 7, 10, 11]


def test_which_dimension_is_cut():
    ranks = split_state_dict(weights(), 2)
    h = CONFIG["hidden_size"]
    layer = "transformer.layers.1."
    expected = {
        "word_embeddings.weight": (CONFIG["vocab_size"] // 2, h),
        layer + "attention.query_key_value.weight": (3 * h // 2, h),
        layer + "attention.dense.weight": (h, h // 2),
        layer + "attention.dense.bias": (h,),
        layer + "mlp.dense_h_to_4h.weight": (2 * h, h),
        layer + "mlp.dense_h_to_4h.bias": (2 * h,),
        layer + "mlp.dense_4h_to_h.weight": (h, 2 * h),
        layer + "mlp.dense_4h_to_h.bias": (h,),
        layer + "input_layernorm.weight": (h,),
        "transformer.position_embeddings.weight": (CONFIG["max_sequence_length"] + 1, h),
    }
    for name, shape in expected.items():
        assert tuple(ranks[0][name].shape) == shape, name


@pytest.mark.parametrize(
    ("shards", "message"), [(5, r"word_embeddings.*\(48, 8\).*by 5"), (0, "1 or")]
)
def test_indivisible_is_an_error(shards, message):
    with pytest.raises(CheckpointError, match=message):
        split_state_dict(weights(), shards)


def test_thirds_must_be_divisible():
    config = {**CONFIG, "hidden_size": 6, "vocab_size": 48}
    assert shapes(config)["transformer.layers.0.attention.dense.weight"] == (6, 6)
    with pytest.raises(CheckpointError, match=r"query_key_value.*third of its rows \(6\)"):
        split_state_dict(weights(config=config), 4)


def test_shards_of_different_checkpoints_are_found_out():
    first, second = split_state_dict(weights(), 2)
    lost = {k: v for k, v in second.items() if k != "transformer.final_layernorm.bias"}
    with pytest.raises(CheckpointError, match="final_layernorm.bias in only one"):
        merge_state_dicts([first, lost])
    with pytest.raises(CheckpointError, match="final_layernorm.bias should be the same"):
        merge_state_dicts([first, {**second, "transformer.final_layernorm.bias": torch.ones(8)}])
    with pytest.raises(CheckpointError, match=r"word_embeddings.*\(24, 8\).*\(3, 8\)"):
        merge_state_dicts([first, {**second, "word_embeddings.weight": torch.ones(3, 8)}])

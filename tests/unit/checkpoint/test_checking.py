from __future__ import annotations

import pytest
import torch
from checkpoint_samples import shapes, weights

from glmkit.checkpoint import check_state_dict
from glmkit.errors import CheckpointError


def test_matching_weights_pass():
    check_state_dict(weights(), shapes())


def test_all_problems_in_one_error():
    state = weights()
    del state["transformer.final_layernorm.bias"]
    state["transformer.final_layernorm.weight"] = torch.zeros(9)
    state["transformer.final_layer_norm.bias"] = torch.zeros(8)
    with pytest.raises(CheckpointError) as error:
        check_state_dict(state, shapes(), source="folder")
    text = str(error.value)
    assert "in folder" in text
    assert "missing: transformer.final_layernorm.bias of shape (8,)" in text
    assert "wrong shape: transformer.final_layernorm.weight is (9,), expected (8,)" in text
    assert "unexpected: transformer.final_layer_norm.bias of shape (8,); did you mean" in text


def test_at_most_ten_are_listed():
    with pytest.raises(CheckpointError, match=rf"and {len(shapes()) - 10} more") as error:
        check_state_dict({}, shapes())
    assert str(error.value).count("missing:") == 10


def test_prefixes_may_be_missing_or_unexpected():
    state = weights()
    del state["transformer.final_layernorm.bias"]
    state["dense.weight"] = torch.zeros(8, 8)
    check_state_dict(
        state, shapes(), allow_missing=["transformer.final"], allow_unexpected=["dense."]
    )


def test_wrong_vocabulary_is_explained():
    expected = {"glm.word_embeddings.weight": (30592, 2)}
    state = {"glm.word_embeddings.weight": torch.zeros(50048, 2)}
    with pytest.raises(
        CheckpointError, match=r"\(50048, 2\), expected \(30592, 2\).*Chinese.*BERT"
    ):
        check_state_dict(state, expected)
    with pytest.raises(CheckpointError, match="another vocabulary:"):
        check_state_dict(
            {"word_embeddings.weight": torch.zeros(7, 2)}, {"word_embeddings.weight": (8, 2)}
        )

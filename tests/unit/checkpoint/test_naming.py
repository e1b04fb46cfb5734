from __future__ import annotations

import pytest
import torch
from checkpoint_samples import equal, weights

from glmkit.checkpoint.naming import plain_name, plain_names, published_names
from glmkit.errors import CheckpointError


@pytest.mark.parametrize("prefix", ["", "glm.", "module.", "module.model.", "model.glm."])
def test_prefixes_of_the_backbone_go(prefix):
    state = {prefix + name: tensor for name, tensor in weights().items()}
    assert equal(plain_names(state), weights())


def test_heads_keep_their_names():
    assert plain_name("dense.weight") == "dense.weight"
    assert plain_name("out_proj.bias") == "out_proj.bias"
    assert plain_name("transformerish.weight") == "transformerish.weight"


def test_copies_of_the_tied_projection_go():
    state = weights()
    copy = {**state, "lm_head.weight": state["word_embeddings.weight"].clone()}
    assert equal(plain_names(copy), state)
    untied = {**state, "lm_head.weight": torch.zeros(48, 8)}
    assert "lm_head.weight" in plain_names(untied)


def test_two_spellings_of_one_weight():
    state = {"glm.word_embeddings.weight": torch.zeros(1), "word_embeddings.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match="Both 'glm.word_embeddings.weight' and"):
        plain_names(state)


def test_the_prefix_is_written_only_beside_a_head():
    state = weights()
    assert set(published_names(state)) == set(state)
    headed = published_names({**state, "dense.weight": torch.zeros(1)})
    assert "glm.word_embeddings.weight" in headed
    assert "dense.weight" in headed

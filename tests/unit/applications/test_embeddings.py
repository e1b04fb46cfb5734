"""Embeddings: the mean of the final hidden states, whatever the company in a batch, however long the text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import glmkit
from conftest import golden_folder
from glmkit.errors import GenerationError


@pytest.fixture(scope="module", params=["native", "torch"])
def glm(request) -> glmkit.GLM:
    from glmkit.native import library

    if request.param == "native" and library.why_not():
        pytest.skip("the native decoder is not here")
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu", backend=request.param)


def test_it_is_the_mean_over_the_texts_tokens_read_as_part_a(glm: glmkit.GLM):
    text = "春眠不觉晓，处处[MASK]啼鸟。"  # here a mask is words like any others
    ids = glm.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids = [glm.tokenizer.cls_token_id, *ids, glm.tokenizer.special_ids.eos]
    length = len(ids)
    positions = torch.stack((torch.arange(length), torch.zeros(length, dtype=torch.long)))[None]
    model = glm.model.torch_model if hasattr(glm.model, "weights") else glm.model
    with torch.inference_mode():
        states = model.glm(
            input_ids=torch.tensor([ids]),
            position_ids=positions,
            prefix_lengths=torch.tensor([length]),
        ).last_hidden_state[0, 1:-1]
    mean = states.double().mean(0).numpy()
    vector = glm.embed(text)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert vector.dtype == np.float32


def test_company_and_length_change_nothing(glm: glmkit.GLM):
    texts = ["床前明月光", "", "长" * 500, "今天天气很好，我们去公园散步。"]
    together = glm.embed(texts, batch_size=3)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(vector, glm.embed(text), atol=1e-5)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert glm.embed([]) == []
    with pytest.raises(GenerationError, match="must be a string, not int"):
        glm.embed(["a", 3])

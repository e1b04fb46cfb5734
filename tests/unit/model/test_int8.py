"""A torch model with matrices of 8 bits: the numbers of the same matrices written out, wherever it is called."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from model_samples import batch, example, tiny_model

import glmkit
from conftest import golden_folder
from glmkit.checkpoint.quantized import NativeWeights
from glmkit.errors import ConfigError
from glmkit.generation.runner import Feed
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.int8 import Int8Embedding, Int8Linear, has_int8, int8_model, to_int8
from glmkit.native import loading
from glmkit.native.loading import load_model
from glmkit.native.model import unpacked
from glmkit.native.quantizing import quantize


def pair() -> tuple[GLMForConditionalGeneration, GLMForConditionalGeneration]:
    model = tiny_model(vocab_size=99, hidden_size=24, num_attention_heads=2)
    weights = NativeWeights.of(model.config, model.state_dict(), "int8")
    return int8_model(model.config, weights), unpacked(model.config, weights)


def fields() -> dict[str, torch.Tensor]:
    import numpy as np

    rng = np.random.default_rng(0)
    return batch([example(rng, length, 4) for length in (9, 20)], side="left")


def test_its_logits_and_gradients_are_those_of_the_matrices_written_out():
    found, expected = pair()
    layer = found.glm.transformer.layers[0]
    assert type(layer.attention.dense) is Int8Linear
    assert layer.attention.dense.steps.dtype == torch.int8
    torch.testing.assert_close(found(**fields()).logits, expected(**fields()).logits, rtol=1e-5, atol=1e-5)  # fmt: skip
    gradients = []
    for model in (found, expected):
        given = model.glm.word_embeddings(fields()["input_ids"]).detach().requires_grad_()
        more = {name: one for name, one in fields().items() if name not in ("input_ids", "labels")}
        model(inputs_embeds=given, **more).logits.square().sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_rounding_where_the_model_is_gives_the_same_numbers():
    model = tiny_model(vocab_size=99, hidden_size=24, num_attention_heads=2)
    weights = NativeWeights.of(model.config, model.state_dict(), "int8")
    packed, rounded = int8_model(model.config, weights), to_int8(copy.deepcopy(model), "cpu")
    assert has_int8(rounded)
    assert not has_int8(model)
    for one, other in zip(packed.modules(), rounded.modules(), strict=True):
        if isinstance(one, (Int8Linear, Int8Embedding)):
            assert torch.equal(one.steps, other.steps)
            assert torch.equal(one.scales, other.scales)
    assert torch.equal(packed(**fields()).logits, rounded(**fields()).logits)


def test_scales_stay_whole_in_sixteen_bits():
    model, _ = pair()
    before = model.glm.word_embeddings.scales.clone()
    half = copy.deepcopy(model).to(torch.bfloat16)
    words = half.glm.word_embeddings
    assert (words.steps.dtype, words.weight.dtype) == (torch.int8, torch.bfloat16)
    assert half(**fields()).logits.dtype == torch.bfloat16
    assert torch.equal(words.scales, before)
    found, expected = half(**fields()).logits.float(), model(**fields()).logits
    assert float((found - expected).norm() / expected.norm()) < 0.03


def test_it_is_saved_as_a_model_like_any_other(tmp_path):
    model, expected = pair()
    model.save_pretrained(tmp_path)
    again = GLMForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(again.glm.word_embeddings.weight, expected.glm.word_embeddings.weight)
    torch.testing.assert_close(again(**fields()).logits, expected(**fields()).logits)


def test_a_runner_reads_with_it():
    ids = [5, 6, 7, 8]
    feed = Feed(1, ids, range(4), [0] * 4, prefix=3)
    found = []
    for model in pair():
        runner = TorchRunner(model)
        runner.open()
        found += runner.forward([feed])
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_loaded_for_a_gpu_keeps_its_eight_bits(stored, monkeypatch, tmp_path):
    """Without one: what `load_model` would move there."""
    source = golden_folder("tiny-chinese").path
    if stored:
        quantize(source, tmp_path / "int8", "int8")
        source = tmp_path / "int8"
    monkeypatch.setattr(loading, "_on", lambda device, model, backend: model)
    if not stored:
        monkeypatch.setattr(
            "glmkit.model.int8.to_int8", lambda model, device: to_int8(model, "cpu")
        )
    model = load_model(
        source,
        device="cuda",
        dtype="bfloat16",
        quantization=None if stored else "int8",
    )
    assert has_int8(model)
    assert model.dtype == torch.bfloat16
    expected = glmkit.load(source, device="cpu", backend="torch", quantization=None if stored else "int8")  # fmt: skip
    words = expected.model.glm.word_embeddings.weight
    torch.testing.assert_close(model.glm.word_embeddings.weight, words.bfloat16())
    with pytest.raises(ConfigError, match="or take 'int8'"):
        load_model(source, device="cuda", dtype="bfloat16", quantization="int4")

"""Packed matrices: exact where they can be, near where they must round, refused where they are not whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import random_model

from glmkit.checkpoint.packing import FORMATS, is_whole, pack, unpack
from glmkit.checkpoint.quantized import FILE, NativeWeights, check_shapes
from glmkit.errors import CheckpointError, ConfigError
from glmkit.native import library


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 150), st.sampled_from(FORMATS), st.integers(0, 9))
def test_a_matrix_comes_back(rows: int, columns: int, format: str, seed: int):
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    packed = pack(weights, format)
    assert is_whole(packed)
    found = unpack(packed)
    assert found.shape == weights.shape
    if format == "float32":
        assert torch.equal(found, weights)
    elif format == "bfloat16":
        assert torch.equal(found, weights.bfloat16().float())
    elif format == "int8":  # half a step of the row's scale
        steps = weights.abs().amax(1, keepdim=True) / 127
        assert ((found - weights).abs() <= steps * 0.5001).all()
    else:  # never worse than the whole range in 15 steps, whose error is at most half a step (and a rounded zero point)
        filled = torch.nn.functional.pad(weights, (0, -columns % 32)).unflatten(1, (-1, 32))
        steps = (filled.amax(2).clamp_min(0) - filled.amin(2).clamp_max(0)) / 15
        errors = torch.nn.functional.pad(found - weights, (0, -columns % 32)).unflatten(1, (-1, 32))
        assert (errors.square().sum(2) <= 32 * (steps * 1.01).square()).all()


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_and_tiny_numbers_are_zeros(format: str):
    assert not unpack(pack(torch.zeros(3, 70), format)).any()
    tiny = torch.full((3, 70), 1e-9)
    assert torch.allclose(unpack(pack(tiny, format)), tiny, atol=1e-8)


def test_int4_finds_a_better_range_than_the_whole_one():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 256, generator=generator) ** 3  # long tails
    groups = weights.view(64, -1, 32)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = (high - low) / 15
    plain = (((groups - low) / scale).round() * scale + low).view_as(weights)
    found = unpack(pack(weights, "int4"))
    assert (found - weights).square().sum() < 0.97 * (plain - weights).square().sum()


@pytest.mark.parametrize("quantization", ["float32", "bfloat16", "int8", "int4"])
def test_saved_weights_are_the_same_bits(quantization: str, tmp_path):
    model = random_model(vocab_size=77, hidden_size=40, num_attention_heads=5)
    weights = NativeWeights.of(model.config, model.state_dict(), quantization)
    weights.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    loaded = NativeWeights.load(tmp_path)
    check_shapes(model.config, loaded, "here")
    assert loaded.quantization == quantization
    ours, theirs = weights._tensors(), loaded._tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    model = random_model(vocab_size=77)
    weights = NativeWeights.of(model.config, model.state_dict(), "int8")
    with pytest.raises(CheckpointError, match="Quantize the model again"):
        NativeWeights.load(tmp_path)
    weights.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="Quantize the model again"):
            NativeWeights.load(tmp_path)
    other = random_model(vocab_size=78).config
    with pytest.raises(CheckpointError, match=r"word_embeddings.*\(77, 64\).*\(78, 64\)"):
        check_shapes(other, weights, "here")
    name = "glm.word_embeddings.weight"
    short = dataclasses.replace(weights.matrices[name], data=weights.matrices[name].data[:-1])
    lying = NativeWeights("int8", {**weights.matrices, name: short}, weights.vectors)
    with pytest.raises(CheckpointError, match="word_embeddings"):
        check_shapes(model.config, lying, "here")
    with pytest.raises(ConfigError, match="no quantization 'int3'.*int4"):
        NativeWeights.of(model.config, model.state_dict(), "int3")


def test_packing_needs_no_native_decoder(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: pytest.fail("the library was asked for"))
    monkeypatch.setattr(library, "_find", lambda: "there is none")
    assert unpack(pack(torch.full((1, 3), 1.875), "int4")).tolist() == [[1.875, 1.875, 1.875]]
    assert library.why_not() == "there is none"

"""Packed matrices: exact where they can be, near where they must round, refused where they are not whole."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import random_model, wild_numbers
from safetensors.torch import load_file

from glmkit.checkpoint import packing
from glmkit.checkpoint.packing import FORMATS, as_numbers, is_whole, narrowed, pack, unpack, widened
from glmkit.checkpoint.quantized import FILE, NativeWeights, check_shapes
from glmkit.errors import CheckpointError, ConfigError
from glmkit.native import library


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 150), st.sampled_from(FORMATS), st.integers(0, 9))
def test_a_matrix_comes_back(rows: int, columns: int, format: str, seed: int):
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    packed = pack(weights, format)
    assert is_whole(packed)
    found = torch.from_numpy(unpack(packed))
    assert found.shape == weights.shape
    if format == "float32":
        assert torch.equal(found, weights)
    elif format == "bfloat16":
        assert torch.equal(found, weights.bfloat16().float())
    elif format == "float16":
        assert torch.equal(found, weights.half().float())
    elif format == "int8":  # half a step of the row's scale
        steps = weights.abs().amax(1, keepdim=True) / 127
        assert ((found - weights).abs() <= steps * 0.5001).all()
    else:  # never worse than the whole range in 15 steps, whose error is at most half a step (and a rounded zero point)
        filled = torch.nn.functional.pad(weights, (0, -columns % 32)).unflatten(1, (-1, 32))
        steps = (filled.amax(2).clamp_min(0) - filled.amin(2).clamp_max(0)) / 15
        errors = torch.nn.functional.pad(found - weights, (0, -columns % 32)).unflatten(1, (-1, 32))
        assert (errors.square().sum(2) <= 32 * (steps * 1.01).square()).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 150), st.sampled_from(FORMATS), st.integers(0, 9))
def test_any_number_type_and_any_cut_give_the_same(rows, columns, format, seed):
    """Tensors and arrays, of 16 or 32 bits; rows together or some at a time."""
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given_ = weights.to(dtype)
        expected = pack(given_.float(), format)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "AT_ONCE", 64)
            for other in (pack(given_, format), pack(as_numbers(given_), format)):
                assert other.parts.keys() == expected.parts.keys()
                for name, part in expected.parts.items():
                    assert np.array_equal(other.parts[name], part), name


def test_bfloat16_is_rounded_as_torch_rounds():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    numbers = np.concatenate(
        (bits.view(np.float32), np.array([np.inf, -np.inf, 0, -0.0], np.float32))
    )
    numbers = numbers[~np.isnan(numbers)]
    expected = torch.from_numpy(numbers).bfloat16()
    assert np.array_equal(narrowed(numbers), expected.view(torch.int16).numpy().view(np.uint16))
    assert np.isnan(widened(narrowed(np.array([np.nan], np.float32)))).all()
    assert np.array_equal(widened(narrowed(numbers)), expected.float().numpy())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 300), st.integers(0, 9), st.data())
def test_bfloat16_in_twelve_bits_loses_nothing(rows, columns, seed, data):
    """Whatever the bits are: of none, some or most of them the high byte has a code."""
    draw = np.random.default_rng(seed)
    bits = draw.integers(0, 2**16, (rows, columns), np.uint16)
    like = narrowed(draw.normal(size=(rows, columns)).astype(np.float32))
    bits = np.where(
        draw.random((rows, columns)) < data.draw(st.sampled_from([0, 0.01, 0.5, 1])), bits, like
    )
    packed = pack(bits, "bfloat16")
    assert is_whole(packed)
    assert np.array_equal(packing._decoded(packed)[:rows, :columns], bits)
    assert np.array_equal(unpack(packed), widened(bits), equal_nan=True)
    first = data.draw(st.integers(0, (rows - 1) // 16)) * 16
    some = packing.some_rows(packed, first, rows)
    assert is_whole(some)
    assert np.array_equal(packing._decoded(some)[: rows - first, :columns], bits[first:])


def test_bfloat16_takes_twelve_bits_of_weights_as_models_have_them():
    """Not of all: what is far from the others is kept apart, and takes eight bytes more."""
    draw = np.random.default_rng(0)
    for numbers in (
        draw.normal(size=(512, 512)),
        draw.standard_t(5, (512, 512)),
        draw.normal(size=(512, 512)) * (draw.random((512, 512)) < 0.5),
    ):
        packed = pack((0.02 * numbers).astype(np.float32), "bfloat16")
        assert sum(part.nbytes for part in packed.parts.values()) < 1.52 * numbers.size
    wild = pack(wild_numbers(512, 512), "bfloat16")
    assert 2 * numbers.size < sum(part.nbytes for part in wild.parts.values()) < 9.6 * numbers.size


def test_strays_that_are_none_are_refused():
    packed = pack(wild_numbers(70, 100), "bfloat16")
    begins = 70 // 16 + 2
    assert is_whole(packed)

    def changed(at: int, value: int) -> bool:
        strays = packed.strays.copy()
        strays[at] = value
        return is_whole(dataclasses.replace(packed, strays=strays))

    assert not changed(0, 1)  # before the first block
    assert not changed(begins - 1, packed.strays[begins - 1] + 1)  # more than there are
    assert not changed(2, packed.strays[1] - 1)  # an end before its beginning
    assert not changed(begins, 16 * 128)  # beyond the block
    assert not changed(begins, packed.strays[begins + 2])  # twice at one place
    assert not changed(begins + 2, packed.strays[begins])  # not in order
    assert changed(begins + 1, 0)
    for strays in (
        None,
        packed.strays[:-1],
        packed.strays[: begins - 1],
        packed.strays[:0],
        packed.strays.astype(np.int64),
    ):
        assert not is_whole(dataclasses.replace(packed, strays=strays))
    assert not is_whole(dataclasses.replace(packed, firsts=packed.firsts[:-1]))
    assert not is_whole(
        dataclasses.replace(pack(wild_numbers(70, 100), "int8"), strays=packed.strays)
    )


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_and_tiny_numbers_are_zeros(format: str):
    assert not unpack(pack(torch.zeros(3, 70), format)).any()
    tiny = torch.full((3, 70), 1e-9)
    assert np.allclose(unpack(pack(tiny, format)), tiny, atol=1e-8)


def test_int4_finds_a_better_range_than_the_whole_one():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 256, generator=generator) ** 3  # long tails
    groups = weights.view(64, -1, 32)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = (high - low) / 15
    plain = (((groups - low) / scale).round() * scale + low).view_as(weights)
    found = torch.from_numpy(unpack(pack(weights, "int4")))
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
    ours, theirs = weights._arrays(), loaded._arrays()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        assert np.array_equal(array, theirs[name]), name
    found = load_file(tmp_path / FILE)
    assert found.keys() == ours.keys()
    for name, tensor in found.items():
        assert np.array_equal(tensor.numpy(), ours[name]), name
    for name, tensor in weights.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


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
    lying.save(tmp_path)
    with pytest.raises(CheckpointError, match="word_embeddings.weight' is not a whole matrix"):
        NativeWeights.load(tmp_path)
    name = "glm.transformer.final_layernorm.bias"
    wide = {**weights.vectors, name: weights.vectors[name].astype(np.float16)}
    with pytest.raises(CheckpointError, match="final_layernorm.bias has the shape"):
        check_shapes(model.config, NativeWeights("int8", weights.matrices, wide), "here")
    with pytest.raises(ConfigError, match="no quantization 'int3'.*int4"):
        NativeWeights.of(model.config, model.state_dict(), "int3")


@functools.cache
def small_file(quantization: str) -> tuple[SimpleNamespace, dict, bytes]:
    """A model's sizes, and the header and the numbers of its file."""
    model = random_model(num_layers=1, hidden_size=16, num_attention_heads=2, vocab_size=20)
    with TemporaryDirectory() as folder:
        weights = NativeWeights.of(model.config, model.state_dict(), quantization)
        weights.save(Path(folder))
        content = (Path(folder) / FILE).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    fields = ("vocab_size", "hidden_size", "num_layers", "intermediate_size", "max_sequence_length", "block_position_encoding")  # fmt: skip
    sizes = SimpleNamespace(**{name: getattr(model.config, name) for name in fields})
    return sizes, json.loads(content[8:start]), content[start:]


wrong = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 3000) | st.sampled_from([2**40, 2**70, 1e300, "F32", "I8", "U64", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner),
    max_leaves=5,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_holds_what_it_says(data):
    """No header makes anything be read that is not in the file."""
    sizes, header, numbers = small_file(data.draw(st.sampled_from(["int4", "bfloat16"])))
    header = json.loads(json.dumps(header))
    recipe = header["__metadata__"]
    shapes = json.loads(recipe["matrices"])
    for _ in range(data.draw(st.integers(0, 2))):
        target = data.draw(st.sampled_from([header, recipe, shapes, *list(header.values())[1:]]))
        name = data.draw(st.sampled_from([*sorted(target), "more"]))
        if data.draw(st.booleans()):
            target[name] = data.draw(wrong | st.sampled_from(list(target.values()) or [0]))
        else:
            target.pop(name, None)
    if isinstance(recipe.get("matrices"), str):
        recipe["matrices"] = json.dumps(shapes)
    text = bytearray(json.dumps(header).encode())
    length = bytearray(len(text).to_bytes(8, "little"))
    for part in (text, length):
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 2]))):
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(length + text) + numbers[: data.draw(st.sampled_from([None, -1, 0]))]
    with TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(content)
        try:
            weights = NativeWeights.load(Path(folder))
            check_shapes(sizes, weights, "here")
        except CheckpointError:
            return
        assert all(one.tobytes() in content for one in weights._arrays().values())
        assert weights.nbytes <= len(numbers)


def test_packing_needs_no_native_decoder(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: pytest.fail("the library was asked for"))
    monkeypatch.setattr(library, "_find", lambda: "there is none")
    assert unpack(pack(torch.full((1, 3), 1.875), "int4")).tolist() == [[1.875, 1.875, 1.875]]
    assert library.why_not() == "there is none"

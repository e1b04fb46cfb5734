"""Devices by memory, by name and by machine; what a card can do; speed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from glmkit.choosing.devices import CARDS, GIB, Hardware, parse_hardware, this_machine
from glmkit.choosing.speed import (
    LAYER_SECONDS,
    NATIVE_BANDWIDTH_SHARE,
    NATIVE_LAYER_SECONDS,
    NATIVE_SHARE,
    Way,
    reading_seconds,
    training_seconds,
    writing_seconds,
)
from glmkit.choosing.words import Text
from glmkit.errors import ConfigError
from glmkit.model import GLMConfig
from glmkit.training.flops import PEAKS


@pytest.mark.parametrize("text", ["24GB", "1x24GB", "1 x 24 GiB", "24g", "1×24GB"])
def test_by_memory_it_is_the_slowest_such_card(text):
    found = parse_hardware(text)
    assert (found.count, found.memory, found.device) == (1, 24 * GIB, "cuda")
    same = [card for card in CARDS if card[1] == 24]
    assert found.bandwidth == min(card[2] for card in same) * 1e9
    assert found.usable == int(0.9 * 24 * GIB) - GIB


def test_memory_that_no_card_has_is_as_slow_as_the_slowest():
    found = parse_hardware("12GB")
    assert found.memory == 12 * GIB
    assert found.bandwidth == min(card[2] for card in CARDS) * 1e9


@pytest.mark.parametrize(
    ("text", "count", "memory"),
    [
        ("RTX 4090", 1, 24),
        ("2x NVIDIA GeForce RTX-3090", 2, 24),
        ("a100 80gb", 1, 80),
        ("A100-40GB", 1, 40),
        ("A100", 1, 40),
        ("8x h100", 8, 80),
        ("H100 PCIe", 1, 80),
        ("t4", 1, 16),
    ],
)
def test_by_name(text, count, memory):
    found = parse_hardware(text)
    assert (found.count, found.memory) == (count, memory * GIB)


def test_every_card_has_its_operations_and_is_found():
    peaks = {name: half for name, half, *_ in PEAKS}
    for name, gib, bandwidth, has_bfloat16 in CARDS:
        found = parse_hardware(f"{name} {gib}GB")
        assert found.flops == peaks[name] * 1e12
        assert found.bandwidth == bandwidth * 1e9
        assert found.dtype == ("bfloat16" if has_bfloat16 else "float16")


def test_this_machine():
    found = this_machine()
    if not torch.cuda.is_available():
        assert found.device == "cpu"
        assert found.dtype == "float32"
        assert parse_hardware("here").memory == parse_hardware("cpu").memory == found.memory
    assert found.memory > GIB
    assert 1e9 < found.bandwidth < 1e14
    assert 1e9 < found.flops < 1e16
    assert parse_hardware("cpu:16GB").memory == 16 * GIB


@pytest.mark.parametrize("text", ["banana", "0x24GB", "2x", "A100 24GB", "cpu:0GB", "9999GB"])
def test_what_means_nothing(text):
    with pytest.raises(ConfigError, match=r"1x24GB|cpu:16GB"):
        parse_hardware(text)


def test_speed_by_hand():
    """One layer, H = 2, I = 8, V = 10: 6 · 48 a token, 24 a pair, 120 a prediction."""
    config = GLMConfig(vocab_size=10, hidden_size=2, num_layers=1, num_attention_heads=1)
    slow = Hardware("slow", 2, GIB, 1e3, 1e3, "cuda", "float16", Text("", ""))
    step = 288 * 10 + 24 * 100 + 120 * 3
    once = training_seconds(config, slow, examples=7, row_length=10, predicted=3, epochs=1)
    assert once == pytest.approx(7 * step / (1e3 * 0.35 * 2))
    adapters = training_seconds(
        config, slow, examples=7, row_length=10, predicted=3, epochs=1, adapters=True
    )
    assert adapters == pytest.approx(once * 2 / 3)
    again = training_seconds(
        config, slow, examples=7, row_length=10, predicted=3, epochs=1, checkpointing=True
    )
    assert again == pytest.approx(once * 4 / 3)
    # A token reads all weights and the keys and values of 10 tokens, in two bytes each.
    half = Way("float16")
    read = 2 * (config.num_parameters + 10 * 2 * 2) / (1e3 * 0.6)
    assert writing_seconds(config, slow, half, 10) == pytest.approx(read + LAYER_SECONDS)
    fast_memory = Hardware("", 1, GIB, 1e3, 1e12, "cuda", "float16", Text("", ""))
    assert reading_seconds(config, fast_memory, half, 10) == pytest.approx(
        (288 * 10 + 24 * 100 + 120) / 3 / 350 + LAYER_SECONDS, rel=1e-6
    )
    # Texts see themselves alone.
    assert reading_seconds(config, fast_memory, half, 10, 3) == pytest.approx(
        3 * (288 * 10 + 24 * 100 + 120) / 3 / 350 + LAYER_SECONDS, rel=1e-6
    )
    assert writing_seconds(config, slow, half, 10, 32) > writing_seconds(config, slow, half, 10)


@pytest.mark.parametrize(
    ("dtype", "stored", "weight", "cached"),
    [
        ("float32", "float16", 2, 4),
        ("float32", "bfloat16", 1.5, 4),
        ("float32", None, 4, 4),
        ("int8", "float16", 1, 2),
        ("int4", "float16", 0.59375, 2),
    ],
)
def test_the_native_decoders_speed_by_hand(dtype, stored, weight, cached):
    """The model of the test above: what is read and what is computed, one after the other."""
    config = GLMConfig(vocab_size=10, hidden_size=2, num_layers=1, num_attention_heads=1)
    slow = Hardware("slow", 1, GIB, 1e3, 1e3, "cpu", "float32", Text("", ""))
    way = Way(dtype, "native", stored)
    read = (weight * config.num_parameters + cached * 10 * 4) / (1e3 * NATIVE_BANDWIDTH_SHARE)
    computed = (288 + 24 * 10 + 120) / 3 / (1e3 * NATIVE_SHARE[dtype])
    assert writing_seconds(config, slow, way, 10) == pytest.approx(read + computed + NATIVE_LAYER_SECONDS)  # fmt: skip


RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"


def measured_of(page: str) -> dict:
    return json.loads((RESULTS / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("shape", ["large", "2b", "10b"])
@pytest.mark.parametrize(("name", "dtype"), [("graphs", "bfloat16"), ("int8", "int8")])
def test_captured_steps_are_estimated_as_they_were_measured(shape, name, dtype):
    """127 tokens read, the middle of 128 written; what is promised is a factor of two."""
    measured = measured_of("generate_h200_2026-11.json")["results"][shape][f"glmkit {name}"]
    way, config, card = Way(dtype, "graphs"), GLMConfig.preset(shape), parse_hardware("H200")
    for texts in (1, 64, 256):
        speed = texts / writing_seconds(config, card, way, 191, texts)
        found = median(measured[f"decode {texts}"])
        assert speed == pytest.approx(found, rel=0.35 if name == "graphs" else 0.5)

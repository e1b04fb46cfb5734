"""The memory of filling blanks against torch's allocator: within a tenth, whatever the shape."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from glmkit.errors import ConfigError
from glmkit.generation.decoding import TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.memory import inference_memory
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration

sys.path.append(str(Path(__file__).parents[1] / "training"))
from memory_samples import peak_bytes


def write(config: GLMConfig, rows: int, read: int, written: int, dtype: torch.dtype) -> None:
    """Builds a model, reads `rows` prompts and writes so many tokens of each one's blank."""
    model = GLMForConditionalGeneration(config).to(dtype).eval()
    settings = DecodingSettings(max_new_tokens=written, min_new_tokens=written)
    chooser = TokenChooser(settings, [], [1], config.vocab_size)
    prompt = Prompt(np.full(read, 5), ["", ""], np.array([read - 1]))
    engine = Engine(TorchRunner(model), 2, config.max_sequence_length, max_batch=rows)
    tickets = [engine.submit(Request(prompt, chooser)) for _ in range(rows)]
    for _ in engine.run():
        pass
    assert all(len(one.samples[0][0].tokens) == written for one in tickets)


# layers, hidden, vocabulary; texts, tokens read, tokens written
MANY_WEIGHTS = (6, 256, 2000, 1, 64, 8)
LONG_TEXTS = (2, 128, 1000, 4, 400, 8)
BIG_CACHE = (8, 64, 1000, 16, 128, 120)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(MANY_WEIGHTS, "float32"), (LONG_TEXTS, "float32"), (BIG_CACHE, "float32")],
)
def test_the_estimate_is_within_a_tenth_of_what_is_allocated(shape, dtype):
    layers, hidden, vocabulary, rows, read, written = shape
    config = GLMConfig(
        num_layers=layers,
        hidden_size=hidden,
        vocab_size=vocabulary,
        num_attention_heads=4,
        max_sequence_length=512,
    )
    measured = peak_bytes(lambda: write(config, rows, read, written, getattr(torch, dtype)))
    estimate = inference_memory(
        config, batch_size=rows, input_tokens=read, output_tokens=written, dtype=dtype
    )
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def test_parts_by_hand():
    """large-chinese: 24 layers, H = 1024; two texts of 100 tokens, 20 written."""
    config = GLMConfig.preset("large-chinese")
    half = inference_memory(config, batch_size=2, input_tokens=100, output_tokens=20)
    assert half.weights == 2 * config.num_parameters
    assert half.cache == 2 * 120 * 24 * 2 * 1024 * 2
    whole = inference_memory(
        config, batch_size=2, input_tokens=100, output_tokens=20, dtype="float32"
    )
    assert whole.weights == 2 * half.weights
    sizes = [inference_memory(config, dtype=name).weights for name in ("int4", "int8", "bfloat16")]
    assert sizes == sorted(sizes)
    assert half.weights / 4 < sizes[0] < sizes[1] < half.weights


@pytest.mark.parametrize(
    ("dtype", "stored", "weight", "number"),
    [
        ("float32", "float16", 2, 4),
        ("float32", "bfloat16", 1.5, 4),
        ("float32", "float32", 4, 4),
        ("bfloat16", "float16", 1.5, 2),
        ("int8", "float16", 1, 2),
        ("int4", "float16", 0.59375, 2),
    ],
)
def test_parts_of_the_native_decoder_by_hand(dtype, stored, weight, number):
    """Matrices and the word embedding packed, vectors in float32; pages of 32 tokens: 120 tokens take 128."""
    config = GLMConfig.preset("large-chinese")
    found = inference_memory(config, batch_size=2, input_tokens=100, output_tokens=20, dtype=dtype, backend="native", stored=stored)  # fmt: skip
    packed = 24 * 12 * 1024**2 + 50048 * 1024
    assert found.weights == weight * packed + 4 * (config.num_parameters - packed)
    assert found.cache == 2 * 128 * 24 * 2 * 1024 * number
    assert found.working == 200 * 1024 * (4 * 10 + 1.25 * 5) + 2 * 50048 * 5
    assert found.peak == found.weights + found.cache + found.working


def test_what_is_refused():
    with pytest.raises(ConfigError, match="'bf16'; there are float32, bfloat16"):
        inference_memory(GLMConfig.preset("base"), dtype="bf16")
    with pytest.raises(ConfigError, match="batch_size = 0"):
        inference_memory(GLMConfig.preset("base"), batch_size=0)

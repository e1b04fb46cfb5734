"""Kernels that begin early (`generation.early_kernels`) against torch's operations on the same GPU: Hopper or later."""

from __future__ import annotations

from importlib import import_module
from random import Random

import numpy as np
import pytest
import torch

from glmkit.generation.graphs import GraphDecoder
from glmkit.generation.runner import Feed
from glmkit.generation.steps import PlainKernels, likeliest, off
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.model.int8 import to_int8

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def early(device):
    if device.type == "cpu":
        pytest.skip("on a CPU Triton's interpreter runs them: tests/unit/generation/test_early_kernels.py")  # fmt: skip
    if torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("kernels begin early from Hopper on")
    return import_module("glmkit.generation.early_kernels")


@pytest.fixture
def random(device):
    draw = torch.Generator(device).manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=draw, device=device).bfloat16()


@torch.inference_mode()
def test_each_tuned_matrix(early, random, record_property):
    worst = 0.0
    for size, width, rows in early.TUNED:
        rows = rows or 50_304  # which programs do not divide evenly
        norm = torch.nn.LayerNorm(width)
        norm.weight, norm.bias = (torch.nn.Parameter(random(width)) for _ in range(2))
        vector, matrix, scales = random(1, width), random(rows, width), None
        if size == 1:
            matrix = (40 * matrix.float()).clamp(-127, 127).to(torch.int8)
            scales = random(rows).float().abs() / 40
        bias = random(rows)
        for options in ({"norm": norm, "act": "gelu"}, {"residual": random(1, rows)}, {}):
            given = (vector, matrix, bias)
            pair = [one.matvec(*given, scales=scales, **options) for one in (early, PlainKernels)]
            worst = max(worst, off(*pair))
    record_property("largest difference", f"{worst:.4f}")
    assert worst < 0.02


@pytest.mark.parametrize("texts", [1, 2, 64, 256])
@torch.inference_mode()
def test_attention(early, random, device, texts):
    """One text whose first keys are read early; a few, and so many that each head is one warp's."""
    heads, size, options = 32, 64, {"early": True} if texts == 1 else {}
    kernels = import_module("glmkit.generation.kernels")
    held = [random(texts + 1, heads, 640, size) for _ in range(2)]
    slots = torch.randperm(texts, device=device)
    for places in (0, 1, 255, 256, 600):
        places = (
            torch.full((texts,), places, device=device) - torch.arange(texts, device=device) % 7
        )
        places, mixed, pair = places.clamp(min=0), random(texts, 3 * heads * size), []
        for one, more in ((kernels, options), (PlainKernels, {})):
            cache = [tensor.clone() for tensor in held]
            pair.append((one.attend(mixed, *cache, slots, places, 640, **more), cache))
        assert off(pair[0][0], pair[1][0]) < 0.02
        assert all(torch.equal(*both) for both in zip(pair[0][1], pair[1][1], strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_the_likeliest_token(early, random, device, dtype):
    for vocabulary in (200, 30_592, 50_304):
        logits = (3 * random(1, vocabulary)).to(getattr(torch, dtype))
        barred = torch.rand(3, vocabulary, device=device) < 0.5
        which = torch.tensor([1], device=device)
        found = early.choose(logits, barred, which)
        torch.testing.assert_close(found, likeliest(logits, barred, which), atol=1e-3, rtol=0)
        barred[1] = True
        assert not early.choose(logits, barred, which)[1].isfinite().any()


@pytest.mark.parametrize("eight_bits", [False, True])
@torch.inference_mode()
def test_a_step_of_the_shapes_of_2b(early, device, eight_bits, record_property):
    """One layer of it, captured; the check that a workspace makes takes the kernels, and they write what torch does."""
    torch.manual_seed(0)
    config = GLMConfig(num_layers=1, hidden_size=2048, num_attention_heads=32, vocab_size=9000, max_sequence_length=512)  # fmt: skip
    model = GLMForConditionalGeneration(config).eval().to(device)
    model = (to_int8(model, device) if eight_bits else model).bfloat16()
    decoder, found = GraphDecoder(model), []
    for runner in (decoder.make_runner(), TorchRunner(model)):
        rng, handle = Random(2), runner.open()
        ids = [[rng.randrange(9000) for _ in range(count)] for count in (300, *[1] * 20)]
        answers = []
        for number, some in enumerate(ids):
            at = [300 + number] * len(some) if number else [*range(len(some))]
            answers += runner.forward([Feed(handle, some, at, [number] * len(some), 0 if number else 299)])  # fmt: skip
        found.append(torch.from_numpy(np.concatenate(answers)))
        runner.close(handle)
    (workspace,) = decoder._idle
    (step,) = [step for (tokens, _), step in workspace._steps.items() if tokens == 1]
    tried: dict = {"triton": step}
    workspace._try("early", tried, 0)
    assert "early" in tried
    record_property("way", step.way)
    assert off(*found) < 0.05

"""A step of one token by one kernel (`generation.one_kernel`) against torch's operations on the same GPU: Hopper or later.

On a CPU its source is compiled for fibers instead: tests/unit/generation/test_one_kernel.py.
"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from one_kernel_samples import check_next, filled_rows, uneven

from glmkit.generation.captured import CapturedStep
from glmkit.generation.graphs import GraphDecoder
from glmkit.generation.one_kernel import OneKernel
from glmkit.generation.runner import Feed
from glmkit.generation.steps import Stepper, likeliest, off
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.model.int8 import to_int8

pytestmark = pytest.mark.gpu

PLACES = (0, 1, 7, 63, 64, 65, 129, 190, 333, 512, 600)


@pytest.fixture(autouse=True)
def hopper(device):
    if device.type == "cpu" or torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("the kernel is for Hopper and later")
    pytest.importorskip("cuda.bindings.driver")


def model_of(device, hidden: int, heads: int, vocabulary: int, eight_bits: bool, dtype=torch.bfloat16, layers: int = 2):  # fmt: skip
    torch.manual_seed(0)
    config = GLMConfig(num_layers=layers, hidden_size=hidden, num_attention_heads=heads, vocab_size=vocabulary, max_sequence_length=1024)  # fmt: skip
    model = uneven(GLMForConditionalGeneration(config).eval().to(device))
    return (to_int8(model, device) if eight_bits else model).to(dtype)


SIZES = [
    pytest.param(1024, 16, 50_048, torch.bfloat16, id="large"),
    pytest.param(2048, 32, 50_304, torch.float16, id="2b"),
    pytest.param(4096, 64, 50_048, torch.bfloat16, id="10b"),
    pytest.param(768, 12, 30_592, torch.bfloat16, id="base"),
]


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize(("hidden", "heads", "vocabulary", "dtype"), SIZES)
@torch.inference_mode()
def test_steps(device, hidden, heads, vocabulary, dtype, eight_bits, record_property):
    """Logits, keys and values, and the likeliest token; each step reads what the one before has chosen."""
    model = model_of(device, hidden, heads, vocabulary, eight_bits, dtype)
    rows = filled_rows(model, 3, 640)
    barred = torch.rand(4, vocabulary, device=device) < 0.5
    kernel, stepper, worst, best = OneKernel(model, rows.buffers, barred), Stepper(model), 0.0, None
    for number, place in enumerate(PLACES):
        inputs = torch.tensor([[7 + number], [place], [number % 3], [number % 2], [place], [number % 4], [0]], device=device)  # fmt: skip
        if best is not None:
            inputs[0] = best[0]
        plain = [one.clone() for one in rows.buffers]
        expected = stepper.logits(inputs, plain, place + 1, "torch")
        if best is not None:
            inputs[0] = -1
        logits, best = kernel(inputs)
        worst = max(worst, off(logits, expected))
        assert all(off(*pair) < 0.03 for pair in zip(rows.buffers, plain, strict=True))
        torch.testing.assert_close(best, likeliest(logits, barred, inputs[5]), atol=1e-3, rtol=1e-4)
    record_property("largest difference", f"{worst:.4f}")
    assert worst < 0.03


@torch.inference_mode()
def test_any_time_of_the_day(device):
    """A thousand steps whose blocks meet other work on the device: the same bits, whoever was first."""
    model = model_of(device, 1024, 16, 50_048, False, layers=4)
    rows = filled_rows(model, 2, 256)
    barred = torch.zeros(1, 50_048, dtype=torch.bool, device=device)
    kernel, side = OneKernel(model, rows.buffers, barred), torch.cuda.Stream()
    inputs = torch.tensor([[9], [3], [1], [0], [200], [0], [0]], device=device)
    first, noise = kernel(inputs)[0].clone(), torch.randn(512, 512, device=device)
    differing = torch.zeros((), dtype=torch.long, device=device)
    for number in range(1000):
        if number % 3 == 0:
            with torch.cuda.stream(side):
                noise @ noise
        differing += (kernel(inputs)[0] != first).any()
    assert int(differing) == 0


@pytest.mark.parametrize("eight_bits", [False, True])
def test_a_runner_that_tries_it(device, eight_bits, record_property):
    """Captured and tried as one of the ways; chosen tokens are likely for torch too, also where steps begin ahead."""
    model = model_of(device, 1024, 16, 9008, eight_bits)
    decoder, plain = GraphDecoder(model, tried=("early", "one")), TorchRunner(model)
    barred, rng = [np.arange(9008) % 5 == 0], Random(0)
    for turn in range(2):
        runner = decoder.make_runner()
        handles = [one.open() for one in (runner, plain)]
        if turn:  # its room was given back: steps are captured anew
            decoder._stepper.ways[1] = "one"
            runner._workspace._forget()
        ids = [rng.randrange(9008) for _ in range(300)]
        for one, handle in zip((runner, plain), handles, strict=True):
            one.forward([Feed(handle, ids, range(300), [0] * 300, 299)])
        token = 3
        for number in range(40):
            token = check_next(runner, plain, handles, token, number, barred)
        workspace = runner._workspace
        (step,) = [step for (tokens, _), step in workspace._steps.items() if tokens == 1]
        if turn:
            assert step.way == "one"
        else:
            record_property("way", step.way)
            tried: dict = {"triton": CapturedStep(workspace, 1, 0, "triton")}
            workspace._try("one", tried, 0)
            assert "one" in tried
        runner.close(handles[0])

"""The kernel of a whole step against torch's operations: its source compiled for the CPU, every thread a fiber (`emulated_cuda.h`).

What only a GPU can show (its own instructions, speed, captured graphs) is in tests/gpu.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from one_kernel_samples import check_next, filled_rows, uneven

from glmkit.generation import one_kernel
from glmkit.generation.captured import CapturedStep
from glmkit.generation.graphs import GraphDecoder
from glmkit.generation.one_kernel import Arguments, OneKernel, macros
from glmkit.generation.runner import Feed
from glmkit.generation.steps import PlainKernels, Stepper, likeliest, off
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.model.int8 import to_int8

HERE = Path(__file__).parent
COMPILER = shutil.which("c++") or shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Returns what launches the kernel on the CPU, in an order of fibers that a seed decides."""
    folder, libraries = tmp_path_factory.mktemp("kernels"), {}

    def launch(given: dict[str, str], arguments: Arguments, seed: int = 0) -> None:
        options = [f"-D{name}={value}" for name, value in given.items()]
        name = hashlib.sha256(" ".join(options).encode()).hexdigest()[:16]
        if name not in libraries:
            library = folder / f"{name}.so"
            kernel = Path(one_kernel.__file__).with_name(one_kernel.SOURCE)
            command = [COMPILER, "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-DEMULATED", f'-DKERNEL="{kernel}"', *options, str(HERE / "emulated_cuda.cpp"), "-o", str(library)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert not done.returncode, done.stderr[:3000]
            libraries[name] = ctypes.CDLL(str(library)).run
            libraries[name].restype = ctypes.c_char_p
        trouble = libraries[name](ctypes.byref(arguments), ctypes.c_uint(seed))
        assert trouble is None, trouble.decode()

    return launch


def model_of(hidden: int, heads: int, dtype: torch.dtype = torch.bfloat16, **options):
    torch.manual_seed(1)
    config = GLMConfig(hidden_size=hidden, num_attention_heads=heads, **{"num_layers": 2, "vocab_size": 208, "max_sequence_length": 512, **options})  # fmt: skip
    return uneven(GLMForConditionalGeneration(config).eval()).to(dtype)


CASES = [
    pytest.param({"hidden": 256, "heads": 4}, [0, 1, 64, 65, 300], id="parts of a head"),
    pytest.param({"hidden": 256, "heads": 8, "dtype": torch.float16, "hidden_act": "relu", "block_position_encoding": False}, [0, 40, 200], id="float16"),
    pytest.param({"hidden": 384, "heads": 6, "hidden_act": "gelu", "num_layers": 1}, [129], id="a width of three"),
]  # fmt: skip


@needs_compiler
@pytest.mark.parametrize(("sizes", "places"), CASES)
@pytest.mark.parametrize("eight_bits", [False, True])
@torch.inference_mode()
def test_steps(emulated, sizes, places, eight_bits):
    """Logits, cache and the likeliest token are those of torch's step, one step after the other."""
    model = model_of(**sizes)
    if eight_bits:
        model = to_int8(model, torch.device("cpu"))
    ours, theirs = (filled_rows(model, 3, 384) for _ in range(2))
    for one, other in zip(ours.buffers, theirs.buffers, strict=True):
        other.copy_(one)
    barred = torch.rand(4, model.config.vocab_size) < 0.5
    barred[3] = True
    kernel = OneKernel(model, ours.buffers, barred, emulated)
    stepper, best = Stepper(model), torch.empty(0)
    for number, place in enumerate(places):
        inputs = torch.tensor([[7 + number], [place], [number % 3], [number % 2], [place], [number % 4], [0]])  # fmt: skip
        if number:  # what the step before has chosen
            inputs[0] = int(best[0])
        expected = stepper.logits(inputs, theirs.buffers, place + 1, "torch")
        if number:
            inputs[0] = -1
        logits, best = kernel(inputs)
        assert off(logits, expected) < 0.03
        for one, other in zip(ours.buffers, theirs.buffers, strict=True):
            assert off(one, other) < 0.03
            other.copy_(one)  # the next step begins with the same
        wanted = likeliest(logits, barred, inputs[5])
        if number % 4 == 3:
            assert not best[1].isfinite().any()
        else:
            torch.testing.assert_close(best, wanted, atol=1e-4, rtol=1e-4)
            assert not barred[number % 4, int(best[0])]


@needs_compiler
@torch.inference_mode()
def test_any_order_of_blocks(emulated):
    """Blocks that run ahead or fall behind change no bit."""
    model = model_of(256, 4, num_layers=1)
    held = filled_rows(model, 2, 256)
    barred = torch.zeros(1, model.config.vocab_size, dtype=torch.bool)
    found = []
    for seed in range(3):
        kernel = OneKernel(model, held.buffers, barred, lambda *given, seed=seed: emulated(*given, seed))  # fmt: skip
        for place in (200, 201):
            logits, best = kernel(torch.tensor([[9], [3], [1], [0], [place], [0]]))
            found.append((place, logits.clone(), best.clone()))
    for place, logits, best in found:
        first = next(one for one in found if one[0] == place)
        assert torch.equal(logits, first[1])
        assert torch.equal(best, first[2])


@needs_compiler
@torch.inference_mode()
def test_a_runner_that_begins_ahead(emulated, monkeypatch):
    """A text whose next step begins before its token is known, one that comes between, and rows that grow."""
    monkeypatch.setattr(one_kernel, "launched", emulated)
    model = model_of(256, 4, num_layers=1)
    for one in model.parameters():
        one.mul_(3 if one.dim() > 1 else 1)  # so that what is read changes what is chosen
    decoder, plain = GraphDecoder(model, captures=False), TorchRunner(model)
    runner, chosen, started = decoder.make_runner(), [], []
    kept = CapturedStep.begin
    monkeypatch.setattr(CapturedStep, "begin", lambda *given: started.append(len(given) > 2) or kept(*given))  # fmt: skip
    pairs = [[one.open() for one in (runner, plain)] for _ in range(2)]
    decoder._stepper.kernels = PlainKernels  # a step is Triton's, or its
    decoder._stepper.ways[1] = "one"
    ids = [*range(5, 75)]
    for pair in pairs:
        for one, handle in zip((runner, plain), pair, strict=True):
            one.forward([Feed(handle, ids, range(70), [0] * 70, 69)])
    barred = [np.arange(208) % 5 == 0]
    token = 3
    for number in range(12):
        pair = pairs[number in (4, 5, 9)]
        token = check_next(runner, plain, pair, token, number, barred)
        chosen.append(token)
    assert any(started)
    assert len(set(chosen)) > 1
    for pair in pairs:
        runner.close(pair[0])


def test_sizes_that_it_has_no_kernel_for():
    large = GLMConfig(hidden_size=1024, num_attention_heads=16, num_layers=24, vocab_size=50048)
    given = macros(large, torch.bfloat16, False, 132)
    assert [given[name] for name in ("BLOCKS", "WARPS", "SLOTS")] == ["128", "8", "12"]
    assert macros(large, torch.bfloat16, False, 108)["BLOCKS"] == "64"
    for changed, dtype, processors in (
        ({}, torch.float32, 132),
        ({}, torch.bfloat16, 15),
        ({"vocab_size": 50001}, torch.bfloat16, 132),
        ({"num_attention_heads": 4}, torch.bfloat16, 132),
        ({"hidden_size": 1008, "num_attention_heads": 12}, torch.bfloat16, 132),
    ):
        config = GLMConfig(**{**large.to_dict(), **changed})
        with pytest.raises(ValueError, match="float32|rows of the vocabulary|a width of"):
            macros(config, dtype, False, processors)

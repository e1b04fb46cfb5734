"""Kernels that begin early against torch's operations: in Triton's interpreter, without waiting, whose instructions it does not know.

It has to be told before it is imported: TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os

import pytest
import torch

from glmkit.generation.rows import StaticRows
from glmkit.generation.steps import PlainKernels, Stepper, likeliest, off
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.model.int8 import to_int8

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 is not set", allow_module_level=True)

from glmkit.generation import early_kernels, kernels


def dot4_plain(words, fours):
    """As `early_kernels.dot4`, by shifts."""
    total = words * 0
    for i in range(4):
        total += ((words << (24 - 8 * i)) >> 24) * ((fours << (24 - 8 * i)) >> 24)
    return total


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of infinity and NaN


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    for module in (kernels, early_kernels):
        monkeypatch.setattr(module, "gdc_wait", lambda: None)
        monkeypatch.setattr(module, "gdc_launch_dependents", lambda: None)
        monkeypatch.setattr(module, "launched", lambda early: {})
    monkeypatch.setattr(early_kernels, "dot4", dot4_plain)


def random(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(width: int, dtype: torch.dtype) -> torch.nn.LayerNorm:
    one = torch.nn.LayerNorm(width)
    one.weight = torch.nn.Parameter(random(width, dtype=dtype, seed=7))
    one.bias = torch.nn.Parameter(random(width, dtype=dtype, seed=8))
    return one


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize(("rows", "tuned"), [(96, (4, 4, 3)), (64, (4, 8, 1)), (301, (8, 8, 5))])
@torch.inference_mode()
def test_a_matrix_times_a_vector(monkeypatch, eight_bits, rows, tuned):
    """Rows that the programs divide evenly and an LM head's that they do not; all that may stand beside the product."""
    width = 64
    shape = (1 if eight_bits else 2, width, rows if rows <= 4 * width else 0)
    monkeypatch.setattr(early_kernels, "TUNED", {shape: tuned})
    monkeypatch.setattr(kernels, "matvec", None)  # it does not take its place
    vector, matrix, scales = random(1, width), random(rows, width, seed=1), None
    if eight_bits:
        matrix = (40 * matrix.float()).clamp(-127, 127).to(torch.int8)
        scales = random(rows, dtype=torch.float32, seed=2).abs() / 40
    beside = {"norm": norm(width, torch.float16), "act": "gelu", "residual": random(1, rows, seed=3)}  # fmt: skip
    for bias, names in ((None, ["norm"]), (random(rows, seed=4), beside)):
        options = {"scales": scales, **{name: beside[name] for name in names}}
        given = vector, matrix, bias
        pair = [one.matvec(*given, **options) for one in (early_kernels, PlainKernels)]
        assert off(*pair) < 3e-3


@torch.inference_mode()
def test_a_vector_with_one_large_number_beside_whole_numbers(monkeypatch):
    """It is rounded beside its largest number: the others keep 16 bits beside that, zero stays zero, infinity is no number."""
    monkeypatch.setattr(early_kernels, "TUNED", {(1, 128, 32): (4, 4, 2)})
    matrix = (40 * random(32, 128).float()).clamp(-127, 127).to(torch.int8)
    scales, vector = torch.full((32,), 0.01), random(1, 128, seed=1)
    vector[0, 5] = 900.0
    found = early_kernels.matvec(vector, matrix, scales=scales)
    expected = vector.double() @ (matrix * scales[:, None]).double().T
    assert float((found - expected).abs().max()) < float(900 / 32500 / 2 * 0.01 * matrix.double().abs().sum(1).max()) + 0.5  # fmt: skip
    vector[0, 5] = -900.0
    both = [early_kernels.matvec(one, matrix, scales=scales) for one in (vector, -vector)]
    assert off(both[0], -both[1]) < 1e-3
    assert not early_kernels.matvec(0 * vector, matrix, scales=scales).any()
    vector[0, 5] = torch.inf
    assert not early_kernels.matvec(vector, matrix, scales=scales).isfinite().any()


def test_tuned_shapes_are_cut_evenly():
    for (size, width, rows), (warps, at_once, times) in early_kernels.TUNED.items():
        assert size in (1, 2)
        for number in (width, warps, at_once):
            assert number & (number - 1) == 0
        assert rows % (at_once * times) == 0
        assert rows == 0 or rows <= 4 * width


@pytest.mark.parametrize("size", [16, 20])
@torch.inference_mode()
def test_attention_whose_first_keys_are_read_early(monkeypatch, size):
    """One block of keys, several, none; the token's own key is written."""
    heads = 3
    held = [random(2, heads, 600, size, seed=seed) for seed in (1, 2)]
    for place in (0, 255, 256, 599):
        at = [torch.tensor([1]), torch.tensor([place])]
        mixed, pair = random(1, 3 * heads * size, seed=place), []
        for one, options in ((kernels, {"early": True}), (PlainKernels, {})):
            cache = [tensor.clone() for tensor in held]
            pair.append((one.attend(mixed, *cache, *at, 600, **options), cache))
        assert off(pair[0][0], pair[1][0]) < 3e-3
        assert all(torch.equal(*both) for both in zip(pair[0][1], pair[1][1], strict=True))


@torch.inference_mode()
def test_attention_of_many_texts(monkeypatch):
    """From `MANY` heads on each is one warp's, by blocks of few keys; texts of one token and of several."""
    monkeypatch.setattr(kernels, "MANY", 2)
    heads, size = 2, 64
    held = [random(3, heads, 128, size, seed=seed) for seed in (1, 2)]
    at = [torch.tensor([0, 2, 2, 2, 1]), torch.tensor([3, 64, 65, 66, 0])]
    mixed, pair = random(5, 3 * heads * size), []
    for one in (kernels, PlainKernels):
        cache = [tensor.clone() for tensor in held]
        pair.append(one.attend(mixed, *cache, *at, 128))
    assert off(*pair) < 3e-3


@pytest.mark.parametrize("vocabulary", [70, 1024, 5000])
@torch.inference_mode()
def test_the_likeliest_token(vocabulary):
    """Also where most are barred, some are equal, or a number is none."""
    logits, barred = 5 * random(4, vocabulary), torch.rand(3, vocabulary) < 0.3
    logits[1, [7, 60]] = logits[1].max() + 1
    barred[:2, [7, 60]] = False
    barred[1, torch.arange(vocabulary) != 60] = True
    which = torch.tensor([0, 0, 1, 2])
    found = early_kernels.choose(logits, barred, which)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, likeliest(logits, barred, which), atol=1e-4, rtol=0)
    assert found[0, 1:3].tolist() == [7, 60]
    barred[1] = True
    logits[0, 3], barred[0, 3] = torch.nan, False
    logits[3], barred[2, 3] = torch.nan, False
    found = early_kernels.choose(logits, barred, which)
    assert found[1].isfinite().tolist() == [False, True, False, False]


@pytest.mark.parametrize(("eight_bits", "blocks"), [(False, True), (True, False)])
@torch.inference_mode()
def test_a_whole_step(monkeypatch, eight_bits, blocks):
    """Logits and keys of a step that begins early beside those of torch's, in 16 bits, with kernels for some of its shapes."""
    torch.manual_seed(0)
    config = GLMConfig(num_layers=1, hidden_size=64, num_attention_heads=2, vocab_size=300, max_sequence_length=64, block_position_encoding=blocks)  # fmt: skip
    model = GLMForConditionalGeneration(config).eval().half()
    if eight_bits:
        model = to_int8(model, "cpu").half()
    size = 1 if eight_bits else 2
    tuned = {(size, 64, 192): (4, 8, 3), (size, 64, 256): (4, 8, 4), (size, 256, 64): (4, 4, 4), (size, 64, 0): (4, 8, 7)}  # fmt: skip
    monkeypatch.setattr(early_kernels, "TUNED", tuned)
    stepper, found = Stepper(model, kernels), []
    for way in ("early", "torch"):
        rows = StaticRows(config.num_layers)
        rows.reserve(1, 32)
        rows.settle(torch.zeros(1, 2, 1, 32, dtype=torch.float16))
        for place in range(3):
            inputs = torch.tensor([[11 * place + 3], [place], [place % 3], [0], [place], [0]])
            logits = stepper.logits(inputs, rows.buffers, 32, way)
        found.append((logits, torch.stack([one[0, :, :3] for one in rows.buffers])))
        barred = torch.zeros(1, 300, dtype=torch.bool)
        assert int(stepper.likeliest(logits, barred, inputs[5], way)[0]) == int(logits.argmax())
    for one, other in zip(*found, strict=True):
        assert off(one, other) < 0.02

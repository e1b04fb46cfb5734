"""Reading prompts one behind the other, against reading each from scratch; the same kernels' check as steps' have."""

from __future__ import annotations

import os
from random import Random

import numpy as np
import pytest
import torch
from test_runner import MODEL, POSITIONS, Tokens, check, random_feed

from glmkit.generation.graphs import GraphDecoder
from glmkit.generation.prefill import QUERIES, Layout, fill
from glmkit.generation.rows import Row
from glmkit.generation.runner import Feed
from glmkit.generation.steps import CHECKS, off, triton_kernels


def test_what_a_pass_is_told():
    """Two texts of 70 and 3 tokens: three blocks; what is left over is in the spare row and in no block."""
    layout = Layout(tokens=80, blocks=4, wanted=4)
    flat = np.full(layout.numbers, 99)
    tokens, blocks, wanted, barred = layout.parts(flat)
    feeds = [
        Feed(1, range(70), range(100, 170), [0] * 70, prefix=69, num_logits=2),
        Feed(2, [7, 8, 9], [1, 1, 1], [1, 2, 3]),
    ]
    fill(tokens, blocks, wanted, feeds, [Row(3), Row(0, 40)], spare=5)
    assert tokens[:, 69].tolist() == [69, 169, 0, 3, 69]
    assert tokens[:, 71].tolist() == [8, 1, 2, 0, 41]
    assert tokens[:, 73:].T.tolist() == [[0, 0, 0, 5, 0]] * 7
    assert blocks.T.tolist() == [[3, 0, QUERIES, 0, 69], [3, QUERIES, 70 - QUERIES, QUERIES, 69], [0, 70, 3, 40, 0], [0] * 5]  # fmt: skip
    assert wanted.tolist() == [68, 69, 72, 0]
    assert barred.tolist() == [99] * 4
    assert np.shares_memory(tokens, flat)


@pytest.mark.parametrize(
    "length", [1, 15, 16, 17, QUERIES - 1, QUERIES, QUERIES + 1, 2 * QUERIES, 130]
)
def test_lengths_beside_those_of_blocks_and_passes(length):
    decoder, rng = GraphDecoder(MODEL, captures=False), Random(length)
    for texts in (1, 3):
        runner, known = decoder.make_runner(), dict[int, Tokens]()
        feeds = []
        for number in range(texts):
            known[handle := runner.open()] = Tokens()
            triples = [(rng.randrange(40), rng.randrange(POSITIONS), rng.randrange(9)) for _ in range(length + number)]  # fmt: skip
            known[handle].read, known[handle].prefix = triples, rng.randint(0, length)
            feeds.append(
                Feed(handle, *zip(*triples, strict=True), known[handle].prefix, number % 2)
            )
        check(runner, feeds, known)
        for _ in range(2):
            check(runner, [random_feed(rng, one, known[one], 3) for one in known], known)
        for handle in known:
            runner.close(handle)


def test_kernels_that_are_wrong_are_not_used(monkeypatch, caplog):
    """Where they are not there, too."""
    given = torch.device("cpu"), torch.float32, (2, 8, "gelu")
    monkeypatch.setitem(CHECKS, "steps", lambda *_: 0.5)
    assert triton_kernels("steps", *given) is None
    assert "their results are 0.5 off" in caplog.text
    monkeypatch.setitem(CHECKS, "steps", lambda *_: float("nan"))
    assert triton_kernels("steps", *given) is None
    monkeypatch.setitem(CHECKS, "steps", lambda *_: 1e-6)
    assert triton_kernels("steps", *given) is not None


def test_a_number_that_is_none_is_far_off():
    """The largest of several differences took NaN for nothing."""
    expected = torch.tensor([1.0, -4.0])
    assert off(torch.tensor([1.0, -3.0]), expected) == 0.25
    assert max(0.0, off(torch.tensor([float("nan"), -4.0]), expected)) == float("inf")


@pytest.mark.parametrize("name", CHECKS)
def test_triton_kernels_compute_what_torch_does(name):
    """In Triton's interpreter where there is no GPU (it has to be told before it is imported: TRITON_INTERPRET=1)."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("TRITON_INTERPRET=1 is not set")
    from importlib import import_module

    kernels = import_module(f"glmkit.generation.{name}")
    for dtype, allowed in (
        (torch.float32, 1e-5),
        (torch.float16, 2e-3),
    ):  # its products of bfloat16 are wrong
        for sizes in ((2, 8, "gelu"), (3, 20, "gelu_new"), (2, 64, "relu")):
            assert CHECKS[name](kernels, torch.device("cpu"), dtype, *sizes) <= allowed

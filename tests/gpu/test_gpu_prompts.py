"""Prompts read in captured passes, and weights of 8 bits, against torch's plain operations on the same device."""

from __future__ import annotations

import copy
import gc
from random import Random

import numpy as np
import pytest
import torch

import glmkit
from glmkit.generation.arrays import log_softmax
from glmkit.generation.captured import CapturedStep
from glmkit.generation.decoding import TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.graphs import GraphDecoder, GraphRunner
from glmkit.generation.prefill import PlainPrefill, bucket
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.steps import WAYS
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.model.int8 import has_int8, to_int8

pytestmark = pytest.mark.gpu

VOCABULARY, POSITIONS = 200, 1100

EDGES = (1, 16, 17, 64, 65, 128, 129, 512, 513)
"""Lengths beside those of blocks and of captured passes."""


@pytest.fixture(scope="module")
def model(device) -> GLMForConditionalGeneration:
    """Random weights so large that every input changes every output; heads of 64, as the published models have."""
    torch.manual_seed(0)
    config = GLMConfig(num_layers=2, hidden_size=128, num_attention_heads=2, vocab_size=VOCABULARY, max_sequence_length=POSITIONS, hidden_act="gelu_new")  # fmt: skip
    model = GLMForConditionalGeneration(config).eval().to(device)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    return model


def decoder_of(model) -> GraphDecoder:
    return GraphDecoder(model, captures=None if model.device.type == "cuda" else False)


def feed(rng: Random, handle: int, length: int, wanted: int = 1, prefix: int | None = None) -> Feed:
    ids = [rng.randrange(VOCABULARY) for _ in range(length)]
    positions = [rng.randrange(POSITIONS) for _ in range(length)]
    blocks = [rng.randrange(9) for _ in range(length)]
    prefix = length - 1 if prefix is None else prefix
    return Feed(handle, ids, positions, blocks, prefix, wanted)


def check(found: list, expected: list, allowed: float) -> None:
    """Compares logits in units of their spread."""
    found, expected = np.concatenate(found), np.concatenate(expected)
    assert np.abs(found - expected).max() / expected.std() < allowed


def check_kernels(decoder: GraphDecoder, device) -> None:
    """On a GPU all of it is Triton's and captured, or the rest would be a comparison of torch with itself."""
    stepper = decoder._stepper
    if device.type == "cuda":
        assert stepper.kernels is not None
        assert stepper.prefill not in (None, PlainPrefill)
        assert any(workspace._prompts for workspace in decoder._idle)


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_one_prompt_of_any_length(model, device, dtype, allowed):
    """Read three times each: one by one, captured, played again; and a token after it, which sees what was cached."""
    model = copy.deepcopy(model).to(getattr(torch, dtype))
    decoder = decoder_of(model)
    for length in EDGES if dtype == "float32" else (17, 128, 513):
        for turn in range(3):
            found = []
            for runner in (decoder.make_runner(), TorchRunner(model)):
                rng = Random(1000 * turn + length)
                handle = runner.open()
                wanted = min(length, 1 + turn % 2)
                answers = runner.forward([feed(rng, handle, length, wanted)])
                answers += runner.forward([Feed(handle, [7], [3], [2])])
                runner.close(handle)
                found.append(answers)
            check(*found, allowed)
    check_kernels(decoder, device)


@pytest.mark.parametrize("texts", [1, 2, 3, 5, 16])
def test_prompts_of_different_lengths_at_once(model, device, texts):
    """Part A of none, some or all of a text; logits after none, one or several tokens; rows that were others' before."""
    decoder = decoder_of(model)
    lengths = [Random(texts).choice([1, 30, 64, 100, 300]) + one for one in range(texts)]
    for turn in range(3):
        found = []
        for runner in (decoder.make_runner(), TorchRunner(model)):
            rng = Random(turn)
            handles = [runner.open() for _ in lengths]
            feeds = [
                feed(rng, handle, length, number % 3 % (length + 1), (length, length // 2, 0)[number % 3])
                for number, (handle, length) in enumerate(zip(handles, lengths, strict=True))
            ]  # fmt: skip
            answers = runner.forward(feeds)
            for handle in handles:
                answers += runner.forward([Feed(handle, [rng.randrange(VOCABULARY)], [3], [2])])
            found.append(answers)
            for handle in handles:
                runner.close(handle)
        check(*found, 1e-3)
    check_kernels(decoder, device)


def test_the_likeliest_token_after_each_prompt(model, device):
    decoder = decoder_of(model)
    barred = [np.zeros(VOCABULARY, bool), np.arange(VOCABULARY) % 2 == 0]
    for turn in range(3):
        runner, plain, rng = decoder.make_runner(), TorchRunner(model), Random(turn)
        handles = [[one.open() for _ in range(3)] for one in (runner, plain)]
        feeds = [feed(rng, handle, 40 * (handle + 1)) for handle in handles[0]]
        given = [Feed(one.sequence, one.ids, one.positions, one.blocks, one.prefix, barred=[barred[number % 2]]) for number, one in enumerate(feeds)]  # fmt: skip
        logits = plain.forward(feeds)
        for number, ([(token, score)], row) in enumerate(
            zip(runner.forward(given), logits, strict=True)
        ):
            row = log_softmax(np.where(barred[number % 2], -np.inf, row[0]))
            assert token == int(row.argmax())
            assert score == pytest.approx(float(row.max()), abs=1e-3)
        for handle in handles[0]:
            runner.close(handle)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one"])  # which is for 16 bits
def test_a_step_of_one_token_however_its_matrices_are_multiplied(model, device, way):
    """Which is the fastest is chosen by measuring; each is to write the same, however soon a kernel begins."""
    if (
        way == "early"
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < (9, 0)
    ):
        pytest.skip("kernels begin early from Hopper on")
    for eight_bits in (False, True):
        used = to_int8(copy.deepcopy(model), device) if eight_bits else model
        decoder, found = decoder_of(used), []
        for runner in (decoder.make_runner(), TorchRunner(used)):
            rng = Random(2)
            handle = runner.open()
            if decoder._stepper is not None:
                decoder._stepper.ways[1] = way
            answers = runner.forward([feed(rng, handle, 70)])
            for _ in range(40):
                answers += runner.forward([feed(rng, handle, 1, prefix=0)])
            runner.close(handle)
            found.append(answers)
        check(*found, 1e-3)


@pytest.mark.parametrize(("texts", "eight_bits"), [(1, False), (1, True), (23, False), (23, True)])
def test_steps_that_are_begun_before_their_tokens_are_known(model, device, texts, eight_bits, monkeypatch):  # fmt: skip
    """Texts of one and of two blanks, which end one after the other, and others that come instead: as written step by step."""
    begun, begin = [], CapturedStep.begin
    monkeypatch.setattr(CapturedStep, "begin", lambda *some: begun.append(len(some) > 2) or begin(*some))  # fmt: skip
    used = to_int8(copy.deepcopy(model), device) if eight_bits else model
    decoder, found = decoder_of(used), []
    for runner in (decoder.make_runner(), TorchRunner(used), decoder.make_runner()):
        rng, engine = Random(texts), Engine(runner, 0, POSITIONS, max_batch=8)
        tickets = []
        for _ in range(texts):
            most = rng.randint(30, 50)
            settings = DecodingSettings(max_new_tokens=most, min_new_tokens=rng.randint(5, most))
            chooser = TokenChooser(settings, [1, 2], [*range(3, 9)], VOCABULARY - 2)
            masks = np.array([2, 5][: rng.choice([1, 1, 1, 2])])
            ids = np.array([rng.randrange(10, VOCABULARY) for _ in range(rng.randint(9, 90))])
            tickets.append(engine.submit(Request(Prompt(ids, [""] * (len(masks) + 1), masks), chooser)))  # fmt: skip
        for _ in engine.run():
            pass
        assert not any(ticket.error for ticket in tickets)
        found.append([blank.tokens for ticket in tickets for blank in ticket.samples[0]])
    assert found[0] == found[1] == found[2]
    assert sum(begun) > len(begun) / 3


def test_a_capture_outlives_graphs_that_become_garbage(model, device):
    """A decoder that is gone, in a cycle, is collected while another captures: its graphs must not be destroyed just then."""
    before = gc.get_threshold()
    for _ in range(3):
        decoder, rng = decoder_of(model), Random(3)
        runner = decoder.make_runner()
        handle = runner.open()
        gc.set_threshold(1, 1, 1)  # collects again and again
        try:
            for count in (70, 1, 1, 2, 3):
                runner.forward([feed(rng, handle, count, prefix=count if count > 3 else 0)])
        finally:
            gc.set_threshold(*before)
        runner.close(handle)
        decoder.cycle = decoder
        del decoder, runner


def test_more_tokens_than_a_pass_reads(model, device, monkeypatch):
    """Several passes, and one text longer than a pass."""
    from glmkit.generation import prefill

    monkeypatch.setattr(prefill, "LARGEST", 256)
    found = []
    for runner in (decoder_of(model).make_runner(), TorchRunner(model)):
        rng = Random(5)
        feeds = [feed(rng, runner.open(), length) for length in (100, 90, 80, 300, 20)]
        found.append(runner.forward(feeds))
    check(*found, 1e-3)


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_eight_bits_multiply_as_the_matrices_written_out(model, device, dtype, allowed):
    """Prompts, steps of one token and of many, each as Triton reads int8, beside torch and the same matrices written out."""
    small = to_int8(copy.deepcopy(model), device).to(getattr(torch, dtype))
    assert has_int8(small)
    decoder = decoder_of(small)
    found = []
    for runner in (decoder.make_runner(), TorchRunner(small)):
        rng, answers = Random(1), []
        handles = [runner.open() for _ in range(5)]
        for length in (30, 100, 30):
            answers += runner.forward([feed(rng, handle, length) for handle in handles])
            for count in (1, 3, 20):
                for some in (handles[:1], handles):
                    feeds = [feed(rng, one, count, count, 0) for one in some]
                    answers += runner.forward(feeds)
            for handle in handles:
                runner.truncate(handle, 0)
        for handle in handles:
            runner.close(handle)
        found.append(answers)
    check(*found, allowed)
    assert isinstance(decoder.make_runner(), GraphRunner)
    if device.type == "cuda":
        assert decoder._stepper.int8 is not None


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_glm_mini_in_eight_bits_on_a_gpu(device, quantization):
    """Its folder has int8 weights; on a GPU they stay so, and in float32 it writes what those of a CPU's torch write."""
    if device.type == "cpu":
        pytest.skip("on a CPU the native decoder has them")
    texts = ["北京是[MASK]的首都，也是[MASK]。", "The capital of France is [MASK].", "春天[gMASK]"]
    glm = glmkit.load(device="cuda", dtype="float32", quantization=quantization)
    assert has_int8(glm.model)
    plain = glmkit.load(device="cpu", dtype="float32", backend="torch", quantization=quantization)
    for _ in range(2):
        found, expected = (one.fill(texts, max_new_tokens=20) for one in (glm, plain))
        assert [one.text for one in found] == [one.text for one in expected]
    assert glm.model.make_runner.__self__._stepper.int8 is not None
    half = glmkit.load(device="cuda")
    assert half.model.dtype == torch.bfloat16
    assert half.perplexity(texts[1]) == pytest.approx(plain.perplexity(texts[1]), rel=0.05)


def test_sizes_of_passes_waste_little():
    """At most 16 tokens or an eighth; eight sizes between a power of two and the next."""
    for tokens in range(1, 3000):
        size = bucket(tokens)
        assert size % 16 == 0
        assert tokens <= size <= max(tokens + 15, tokens * 9 / 8)
    assert len({bucket(tokens) for tokens in range(513, 1025)}) == 8

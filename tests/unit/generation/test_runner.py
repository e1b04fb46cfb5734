"""The runner against reading each sequence from scratch: whatever was read together, forked, forgotten or closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
import torch

from glmkit.generation.runner import Feed
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration

VOCABULARY = 40
POSITIONS = 200


def tiny(layers: int = 2, **config) -> GLMForConditionalGeneration:
    """A model of random weights large enough that every input changes every output."""
    torch.manual_seed(1)
    sizes = {"num_layers": layers, "hidden_size": 16, "num_attention_heads": 2}
    config = {"vocab_size": VOCABULARY, "max_sequence_length": POSITIONS, **sizes, **config}
    model = GLMForConditionalGeneration(GLMConfig(**config)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(10)
    return model


MODEL = tiny()


@dataclass
class Tokens:
    """What a sequence has read, token by token: (id, position, block)."""

    read: list[tuple[int, int, int]] = field(default_factory=list)
    prefix: int = 0

    def logits(self, count: int, model=MODEL) -> torch.Tensor:
        """Returns the logits after the last `count` tokens, all read at once by a model without a cache."""
        fed = torch.tensor(self.read).T[None]
        prefix = torch.tensor([self.prefix])
        with torch.inference_mode():
            output = model(input_ids=fed[:, 0], position_ids=fed[:, 1:], prefix_lengths=prefix)
        return output.logits[0, len(self.read) - count :].float()


def random_feed(rng: Random, handle: int, tokens: Tokens, longest: int) -> Feed:
    count = rng.randint(1, longest)
    triples = [tuple(map(rng.randrange, (VOCABULARY, POSITIONS, 9))) for _ in range(count)]
    prefix = 0 if tokens.read else rng.randint(0, count)
    tokens.prefix = tokens.prefix if tokens.read else prefix
    tokens.read += triples
    return Feed(handle, *zip(*triples, strict=True), prefix, rng.randint(0, count))


def check(runner: TorchRunner, feeds: list[Feed], known: dict[int, Tokens]) -> None:
    for feed, logits in zip(feeds, runner.forward(feeds), strict=True):
        expected = known[feed.sequence].logits(feed.num_logits)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def random_calls(rng: Random, runner: TorchRunner, rounds: int, lengths: Sequence[int]) -> None:
    """Opens, forks, forgets, closes and reads at random; what is read must be what reading from scratch gives."""
    known = dict[int, Tokens]()
    for _ in range(rounds):
        for _ in range(rng.randint(0 if known else 1, 3)):
            known[runner.open()] = Tokens()
        for handle in rng.choices(sorted(known), k=rng.randint(0, 2)):
            known[runner.fork(handle)] = Tokens(list(known[handle].read), known[handle].prefix)
        for handle in rng.choices(sorted(known), k=rng.randint(0, 2)):
            tokens = known[handle]
            kept = rng.choice([0, *range(tokens.prefix, len(tokens.read) + 1)])
            runner.truncate(handle, kept)
            tokens.read, tokens.prefix = tokens.read[:kept], min(kept, tokens.prefix)
        some = rng.sample(sorted(known), rng.randint(1, len(known)))
        longest = rng.choice(lengths)
        check(runner, [random_feed(rng, one, known[one], longest) for one in some], known)
        for handle in rng.sample(sorted(known), rng.randint(0, min(2, len(known)))):
            runner.close(handle)
            del known[handle]
        assert {handle: runner.length(handle) for handle in known} == {
            handle: len(tokens.read) for handle, tokens in known.items()
        }
    for handle in known:
        runner.close(handle)


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_calls_equals_reading_from_scratch(seed: int):
    """Prompts and later tokens mixed, of any lengths; forks, forgetting and closing in between."""
    random_calls(Random(seed), TorchRunner(MODEL), 8, (1, 1, 3, 60))


@pytest.mark.parametrize("seed", range(40))
def test_with_the_last_sequence_all_memory_is_given_back(seed: int):
    runner = TorchRunner(MODEL)
    random_calls(Random(seed), runner, 8, (1, 1, 3, 60))
    assert runner._cache.buffers == [None] * 4


def prompt(handle: int, length: int, seed: int = 0) -> Feed:
    ids = torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))
    return Feed(handle, ids.tolist(), range(length), [0] * length, prefix=length)


def test_similar_prompts_are_read_in_one_pass_and_tokens_of_all_rows_in_one():
    runner, shapes = TorchRunner(MODEL), []
    hook = MODEL.glm.word_embeddings.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(inputs[0].shape))
    )
    handles = [runner.open() for _ in range(5)]
    lengths = (30, 100, 33, 110, 40)
    runner.forward([prompt(*pair) for pair in zip(handles, lengths, strict=True)])
    assert shapes == [(3, 40), (2, 110)]
    runner.forward([Feed(handle, [1], [1], [1]) for handle in handles])
    new = runner.open()
    runner.forward([prompt(new, 20), *(Feed(handle, [1], [1], [1]) for handle in handles)])
    hook.remove()
    assert shapes[2:] == [(5, 1), (1, 20), (5, 1)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_number_types(dtype):
    """Rows of unequal lengths give what each gives alone, and logits are float32."""
    model = tiny().to(dtype)
    together, alone = TorchRunner(model), TorchRunner(model)
    handles = [together.open() for _ in range(3)]
    together.forward([prompt(handle, 5 + 9 * handle, handle) for handle in handles])
    found = together.forward([Feed(handle, [3, 4], [2, 2], [1, 2]) for handle in handles])
    for handle, logits in zip(handles, found, strict=True):
        one = alone.open()
        alone.forward([prompt(one, 5 + 9 * handle, handle)])
        (expected,) = alone.forward([Feed(one, [3, 4], [2, 2], [1, 2])])
        assert logits.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=0.05, atol=0.05 * float(expected.std()))


def test_eager_attention():
    model = tiny(attn_implementation="eager")
    runner, known = TorchRunner(model), {}
    for length in (4, 9):
        known[(handle := runner.open())] = Tokens()
        feed = prompt(handle, length, length)
        known[handle].read += zip(feed.ids, feed.positions, feed.blocks, strict=True)
        known[handle].prefix = length
    feeds = [prompt(handle, len(tokens.read), len(tokens.read)) for handle, tokens in known.items()]
    check(runner, feeds, known)
    for tokens in known.values():
        tokens.read.append((7, 2, 1))
    check(runner, [Feed(handle, [7], [2], [1]) for handle in known], known)


def test_a_pass_that_fails_leaves_every_sequence_as_it_was():
    runner = TorchRunner(MODEL)
    one, other, new = runner.open(), runner.open(), runner.open()
    runner.forward([prompt(one, 6), prompt(other, 8)])
    token = Feed(one, [3], [2], [1])
    with pytest.raises(ValueError, match="position 999"):
        runner.forward([prompt(new, 5), token, Feed(other, [3], [999], [1])])
    assert [runner.length(handle) for handle in (one, other, new)] == [6, 8, 0]
    (logits,) = runner.forward([token])
    tokens = Tokens([*zip(prompt(one, 6).ids, range(6), [0] * 6, strict=True), (3, 2, 1)], 6)
    np.testing.assert_allclose(logits, tokens.logits(1), rtol=1e-4, atol=1e-4)


def test_calls_that_make_no_sense_are_mistakes_of_the_caller():
    runner = TorchRunner(MODEL)
    handle = runner.open()
    for wrong in (
        lambda: Feed(handle, [], [], []),
        lambda: Feed(handle, [1], [1, 2], [0]),
        lambda: Feed(handle, [1], [1], [0], prefix=2),
        lambda: Feed(handle, [1], [1], [0], num_logits=2),
        lambda: runner.forward([prompt(handle, 3), prompt(handle, 3)]),
        lambda: runner.truncate(handle, 1),
    ):
        with pytest.raises(AssertionError):
            wrong()
    runner.forward([prompt(handle, 3)])
    with pytest.raises(AssertionError):
        runner.forward([prompt(handle, 3)])
    runner.close(handle)
    with pytest.raises(KeyError):
        runner.length(handle)

"""Perplexity: against full-forward logits, against the uniform model, and the same in any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glmkit.blanks.windows import left_to_right_examples
from glmkit.errors import DataError
from glmkit.evaluation.perplexity import (
    bits_per_character,
    left_to_right,
    on_blanks,
    perplexity,
    score_texts,
)
from glmkit.evaluation.scoring import encode, text_log_probabilities
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.train import train_tokenizer

TEXTS = [
    "春江潮水连海平。",
    "",
    "Hello, world! 😀",
    "海上明月共潮生。滟滟随波千万里。" * 6,
    "[MASK] 花",
    "月",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 5, 330, "bpe")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=384,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        max_sequence_length=24,
        initializer_range=0.5,
    )
    return GLMForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def uniform(model):
    flat = GLMForConditionalGeneration(model.config).eval()
    with torch.no_grad():
        flat.glm.word_embeddings.weight.zero_()
    return flat


def test_equals_the_full_forward_pass(model, tokenizer):
    ids, values = text_log_probabilities(model, tokenizer, [TEXTS[0]])[0]
    special = tokenizer.special_ids
    rows = torch.tensor([[special.cls, special.gmask, special.sop, *ids[:-1].tolist()]])
    n = len(ids)
    positions = torch.tensor([[[0, 1] + [1] * n, [0, 0, *range(1, n + 1)]]])
    with torch.no_grad():
        logits = model(rows, position_ids=positions, prefix_lengths=torch.tensor([2])).logits
    expected = logits[0, 2:].log_softmax(-1)[range(n), ids]
    assert values == pytest.approx(expected.numpy(), rel=1e-5)
    assert perplexity(model, tokenizer, [TEXTS[0]]) == pytest.approx(
        math.exp(-float(expected.mean())), rel=1e-5
    )


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(uniform, tokenizer):
    sums = left_to_right(uniform, tokenizer, TEXTS)
    assert sums.perplexity() == pytest.approx(384, rel=1e-5)
    assert sums.characters == sum(map(len, TEXTS))
    assert sums.bytes == sum(len(text.encode()) for text in TEXTS)
    nats = sums.tokens * math.log(384)
    assert sums.perplexity("byte") == pytest.approx(math.exp(nats / sums.bytes), rel=1e-5)
    assert sums.bits_per_character == pytest.approx(nats / math.log(2) / sums.characters, rel=1e-5)
    for objective in ("token", "document"):
        blanks = on_blanks(uniform, tokenizer, TEXTS, objective=objective)
        assert blanks.perplexity() == pytest.approx(384, rel=1e-5)


def test_every_token_of_a_long_text_is_scored_once_in_order(tokenizer):
    ids = np.tile(encode(tokenizer, TEXTS[3]), 3)
    examples = left_to_right_examples(ids, tokenizer.special_ids, 24)
    assert len(examples) > 3
    scored = np.concatenate([one.labels[one.labels >= 0] for one in examples])
    assert scored.tolist() == ids.tolist()
    assert max(one.position_ids.max() for one in examples) <= 24
    assert max(len(one) for one in examples) <= 24 + 1


def test_a_batch_equals_single_texts(model, tokenizer):
    together = score_texts(model, tokenizer, TEXTS, batch_size=4)
    for text, score in zip(TEXTS, together, strict=True):
        alone = score_texts(model, tokenizer, [text], batch_size=1)[0]
        assert score.tokens == alone.tokens
        assert score.token_log_probabilities == pytest.approx(
            alone.token_log_probabilities, rel=1e-4, abs=1e-5
        )


def test_blanks_are_the_same_in_every_call_and_batch(model, tokenizer):
    first, again = (on_blanks(model, tokenizer, TEXTS, seed=1) for _ in range(2))
    assert first == again
    single = on_blanks(model, tokenizer, TEXTS, seed=1, batch_size=1)
    assert single.log_probability == pytest.approx(first.log_probability, rel=1e-5)
    assert (single.tokens, single.characters) == (first.tokens, first.characters)
    assert on_blanks(model, tokenizer, TEXTS, seed=2) != first


def test_empty_texts_and_unknown_units_are_defined(model, tokenizer):
    assert score_texts(model, tokenizer, [""])[0].log_probability == 0
    with pytest.raises(DataError, match="at least one token"):
        perplexity(model, tokenizer, ["", ""])
    with pytest.raises(DataError, match="unit='word' is not one of"):
        perplexity(model, tokenizer, ["月"], unit="word")
    assert bits_per_character(model, tokenizer, ["月"]) > 0

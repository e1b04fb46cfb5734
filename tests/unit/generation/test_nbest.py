"""The n likeliest fillings, against all fillings there are, scored one by one from scratch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from generation_samples import TEXTS

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.errors import GenerationError
from glmkit.generation.constraints import Choices
from glmkit.generation.infill import fill, make_chooser
from glmkit.generation.prompts import build_prompt
from glmkit.generation.settings import DecodingSettings

WORDS = ["天气", "很好", "北京的天气", "a", "好"]


def log_probability(model, tokenizer, text: str, contents: list[list[int]]) -> float:
    """The log-probability of contents of all blanks, laid out as in training and read once."""
    prompt, ids = build_prompt(tokenizer, text, 500), tokenizer.special_ids
    pieces = [
        Piece(int(mask), np.array(tokens, np.int64), ids.eop)
        for mask, tokens in zip(prompt.mask_indices, contents, strict=True)
    ]
    batch = collate([lay_out(prompt.ids, pieces, ids.sop)], ids.pad)
    inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
    labels = inputs.pop("labels")[0]
    with torch.no_grad():
        logits = model(**inputs).logits[0].float()
    chooser = make_chooser(model, tokenizer, DecodingSettings())
    logits[:, len(tokenizer) :] = -torch.inf
    logits[:, chooser.forbidden] = -torch.inf
    total = 0.0
    for place in (labels != -100).nonzero().flatten().tolist():
        row = logits[place].clone()
        if inputs["input_ids"][0, place] == ids.sop:  # a blank has one token at least
            row[chooser.ends] = -torch.inf
        scores = row.log_softmax(-1)
        ends = int(labels[place]) == ids.eop
        total += float(scores[chooser.ends].logsumexp(-1) if ends else scores[labels[place]])
    return total


@pytest.mark.parametrize("text", ["今天[MASK]。", "I like [MASK] and [MASK]."])
def test_the_n_best_are_the_best_of_all(glm, text: str):
    model, tokenizer = glm
    limit = Choices.of_texts(tokenizer, WORDS)
    ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS}
    blanks = text.count("[MASK]")
    everything = sorted(
        (
            (log_probability(model, tokenizer, text, [ids[word] for word in words]), words)
            for words in itertools.product(WORDS, repeat=blanks)
        ),
        reverse=True,
    )
    result = fill(model, tokenizer, [text], DecodingSettings(), constraints=[limit], n=5)[0]
    found = [tuple(candidate.blanks) for candidate in result.candidates]
    assert found == [words for _, words in everything[:5]]
    for candidate, (score, words) in zip(result.candidates, everything, strict=False):
        assert candidate.score == pytest.approx(score, abs=1e-3)
        assert candidate.probability == pytest.approx(np.exp(score), rel=1e-3)
        expected = text
        for word in words:
            expected = expected.replace("[MASK]", word, 1)
        assert candidate.text.replace(" ", "") == expected.replace(" ", "")
    assert result.text == result.candidates[0].text
    assert sum(result.scores) == pytest.approx(result.candidates[0].score, abs=1e-3)
    for place, options in enumerate(result.alternatives):
        assert options[0][1] >= max(
            candidate.score
            for candidate in result.candidates
            if candidate.blanks[place] == options[0][0]
        )


def test_probabilities_are_shares_of_one_whole(glm):
    result = fill(*glm, [TEXTS[1]], DecodingSettings(max_new_tokens=1), n=100)[0]
    probabilities = [candidate.probability for candidate in result.candidates]
    assert len(probabilities) == len({candidate.text for candidate in result.candidates}) == 100
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1


def test_texts_together_are_as_texts_alone(glm):
    settings = DecodingSettings(max_new_tokens=3)
    together = fill(*glm, TEXTS, settings, n=3)
    for text, result in zip(TEXTS, together, strict=True):
        alone = fill(*glm, [text], settings, n=3)[0]
        assert alone == result
        assert len(result.candidates) == 3
        assert len(result.blanks) == max(1, text.count("MASK]"))
        assert all(len(blank) for blank in result.blanks)


@pytest.mark.parametrize(
    ("n", "settings", "words"),
    [
        (0, {}, "n=0 must be a whole number from 1 to 100"),
        (2.5, {}, "n=2.5"),
        (3, {"do_sample": True, "seed": 1}, "cannot be combined with do_sample"),
        (3, {"stop": "x", "repetition_penalty": 2.0}, "with repetition_penalty, stop"),
    ],
)
def test_what_cannot_be_searched_is_refused(glm, n, settings: dict, words: str):
    with pytest.raises(GenerationError, match=words):
        fill(*glm, ["今天[MASK]"], DecodingSettings(**settings), n=n)


def test_constraints_that_allow_nothing_are_named(glm):
    class Nothing:
        def allowed(self, tokens):
            return np.empty(0, np.int64)

    with pytest.raises(GenerationError, match="no way to fill the blanks"):
        fill(*glm, ["今天[MASK]"], DecodingSettings(), n=2, constraints=[Nothing()])

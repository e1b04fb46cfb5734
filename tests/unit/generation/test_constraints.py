"""Constraints against random models and adversarial logits: never broken, in every way of decoding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from glmkit.errors import GenerationError
from glmkit.generation.constraints import All, Choices, Constraint, Length
from glmkit.generation.decoding import BlankTokens
from glmkit.generation.infill import fill, make_chooser, stream
from glmkit.generation.settings import DecodingSettings
from glmkit.tokens.blanked import encode_plain

CITIES = ["北京", "上海", "New York", "", "北京市海淀区", "[MASK]<|endofpiece|>"]
SAMPLING = {"do_sample": True, "temperature": 3.0, "seed": 7}


class Nothing:
    def allowed(self, tokens):
        return np.empty(0, np.int64)


@pytest.mark.parametrize("settings", [{}, SAMPLING, {"num_beams": 3, "num_return_sequences": 3}])
def test_choices_are_kept_by_greedy_sampling_and_beams(glm, settings: dict):
    """Several blanks and a batch: a constraint for each blank, one for all, or none."""
    model, tokenizer = glm
    cities = Choices.of_texts(tokenizer, CITIES[:3])
    animals = Choices.of_texts(tokenizer, ["猫", "狗"])
    results = fill(
        model,
        tokenizer,
        ["[MASK]的动物是[MASK]，也有[MASK]。", "去[MASK]还是[MASK]？", "我在[MASK]"],
        DecodingSettings(max_new_tokens=12, **settings),
        constraints=[[cities, animals, None], cities, None],
    )
    assert results[0].blanks[0] in CITIES
    assert results[0].blanks[1] in ("猫", "狗")
    assert results[0].finished[:2] == [True, True]
    assert set(results[1].blanks) <= set(CITIES)
    assert results[2].blanks[0] not in CITIES  # the free blank really is free
    for (_, *others), allowed in zip(results[0].alternatives[:2], (CITIES, "猫狗"), strict=False):
        assert all(text in allowed and np.isfinite(score) for text, score in others)


def test_choices_as_the_contents_of_a_blank_even_where_they_look_special(glm):
    model, tokenizer = glm
    for text in CITIES:
        settings = DecodingSettings(max_new_tokens=40, min_new_tokens=0)
        only = Choices.of_texts(tokenizer, [text])
        assert fill(model, tokenizer, ["去[MASK]吧"], settings, constraints=[only])[0].blanks == [
            text
        ]
        assert "".join(stream(model, tokenizer, "去[MASK]吧", settings, only)).strip() == text


def test_batch_equals_one_by_one_under_constraints(glm):
    model, tokenizer = glm
    texts = ["[MASK]在[MASK]", "很长很长的一句话，说的是[MASK]。", "x"]
    limits = [Length(tokenizer, 2, 4), Choices.of_texts(tokenizer, CITIES[:3]), None]
    settings = DecodingSettings(max_new_tokens=9, **SAMPLING)
    together = fill(model, tokenizer, texts, settings, constraints=limits)
    for text, limit, result in zip(texts, limits, together, strict=True):
        (alone,) = fill(model, tokenizer, [text], settings, constraints=[limit])
        assert alone.blanks == result.blanks
        assert alone.scores == pytest.approx(result.scores, rel=1e-4)


def test_the_score_is_the_models_own(glm):
    """A forced answer gets the log-probability that the model gives it, not that of the only choice left (0)."""
    model, tokenizer = glm
    settings = DecodingSettings(max_new_tokens=8)
    (free,) = fill(model, tokenizer, ["去[MASK]"], settings)
    (forced,) = fill(
        model,
        tokenizer,
        ["去[MASK]"],
        settings,
        constraints=[Choices.of_texts(tokenizer, ["北京"])],
    )
    beams = DecodingSettings(max_new_tokens=8, num_beams=2)
    (searched,) = fill(
        model, tokenizer, ["去[MASK]"], beams, constraints=[Choices.of_texts(tokenizer, ["北京"])]
    )
    assert forced.scores[0] < free.scores[0] / len(free.blanks[0]) < 0
    # beams do not renormalise after leaving out special tokens: a shade lower
    assert searched.scores[0] == pytest.approx(forced.scores[0], abs=0.05)


def write(chooser, limit, seed: int) -> list[int]:
    """Writes a blank with random logits; for odd seeds what is forbidden is likeliest, for some the end is."""
    stream = np.random.default_rng(seed)
    blank = BlankTokens()
    while len(blank.tokens) < 20:
        logits = stream.standard_normal(chooser.num_tokens + 8, np.float32) * 10
        logits[chooser.ends] += 100 * (seed % 3 == 0)
        if seed % 2:
            logits[limit.allowed(blank.tokens)] -= 1000
        token, _ = chooser.choose(logits, blank, stream, limit)
        if token in chooser.ends:
            return blank.tokens
        blank.tokens.append(token)
    raise AssertionError("the blank never ended")


def test_lengths_hold_in_every_vocabulary(golden):
    from glmkit import GLMTokenizer

    tokenizer = GLMTokenizer.from_pretrained(golden.path)
    chooser = make_chooser(None, tokenizer, DecodingSettings(min_new_tokens=0))
    for unit, minimum, maximum in itertools.product(("tokens", "characters"), (0, 2), (2, 9)):
        limit = Length(tokenizer, minimum, maximum, unit)
        seen = set()
        for seed in range(4):
            tokens = write(chooser, limit, seed)
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            length = len(tokens) if unit == "tokens" else len(text)
            assert minimum <= length <= maximum, (text, tokens)
            seen.add(length)
        assert minimum == maximum or len(seen) > 1


def test_all_obeys_each(glm):
    _, tokenizer = glm
    both = All(Choices.of_texts(tokenizer, ["北京", "内蒙古自治区"]), Length(tokenizer, 4))
    expected = encode_plain(tokenizer, "内蒙古自治区")
    assert both.allowed(expected).tolist() == [tokenizer.eop_token_id]
    assert both.allowed([]) is not None
    assert isinstance(both, Constraint)


@pytest.mark.parametrize("settings", [{}, SAMPLING, {"num_beams": 2}])
def test_the_unsatisfiable_is_an_error_not_a_loop(glm, settings: dict):
    model, tokenizer = glm
    chosen = DecodingSettings(max_new_tokens=5, **settings)
    with pytest.raises(GenerationError, match="nothing may follow the first 0 tokens.*Nothing"):
        fill(model, tokenizer, ["去[MASK]"], chosen, constraints=[Nothing()])
    short = All(Length(tokenizer, 0, 1), Choices.of_texts(tokenizer, ["北京市海淀区"]))
    with pytest.raises(GenerationError, match="nothing may follow the first .* tokens.*All"):
        fill(model, tokenizer, ["一", "去[MASK]"], chosen, constraints=[None, short])


def test_settings_that_leave_nothing_are_named(glm):
    model, tokenizer = glm
    with pytest.raises(GenerationError, match="no_repeat_ngram_size=1"):
        fill(
            model,
            tokenizer,
            ["[MASK]"],
            DecodingSettings(no_repeat_ngram_size=1, max_new_tokens=9),
            constraints=[Choices([[5, 5, 5]], tokenizer.eop_token_id)],
        )


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([None], "2 texts and constraints for 1"),
        ([None, [None]], "the text has 2 blanks, the list for it has 1"),
        ([None, [3, None]], "3 is no constraint: it has no method allowed"),
    ],
)
def test_constraints_that_do_not_match_are_refused(glm, constraints, message: str):
    with pytest.raises(GenerationError, match=message):
        fill(*glm, ["a", "[MASK][MASK]"], DecodingSettings(), constraints=constraints)


def test_impossible_constraints_are_refused(glm):
    _, tokenizer = glm
    with pytest.raises(GenerationError, match="at least one thing"):
        Choices([], 1)
    with pytest.raises(GenerationError, match="minimum=3.*maximum=2"):
        Length(tokenizer, 3, 2)


class Answers:
    """A constraint of somebody else's, whatever it answers."""

    def __init__(self, answer):
        self.answer = answer

    def allowed(self, tokens):
        return self.answer


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_lists_of_ids_and_empty_arrays_are_answers(glm, settings: dict):
    """`np.array([])` is float64, which no index may be."""
    model, tokenizer = glm
    chosen = DecodingSettings(max_new_tokens=3, min_new_tokens=0, **settings)
    end = tokenizer.special_ids.eop
    (ended,) = fill(model, tokenizer, ["去[MASK]"], chosen, constraints=[Answers([end])])
    assert ended.blanks == [""]
    both = All(Answers([end]), Length(tokenizer, 0, 4))
    assert fill(model, tokenizer, ["去[MASK]"], chosen, constraints=[both])[0].blanks == [""]
    with pytest.raises(GenerationError, match="nothing may follow"):
        fill(model, tokenizer, ["去[MASK]"], chosen, constraints=[Answers(np.array([]))])


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (5, "must return ids.*it returned int$"),
        ({1, 2}, "it returned set$"),
        (np.array([2.0]), r"it returned float64 \[1\]"),
        (np.ones(9, bool), r"it returned bool \[9\] \(np.flatnonzero makes ids of a mask\)"),
        (np.array([10**9]), "returned ids from 1000000000 to 1000000000; the model has 0 to"),
        (np.array([-1, 3]), "returned ids from -1 to 3"),
    ],
)
def test_answers_that_are_no_ids_say_what_is_wanted(glm, settings: dict, answer, said: str):
    model, tokenizer = glm
    chosen = DecodingSettings(max_new_tokens=3, **settings)
    with pytest.raises(GenerationError, match=r"Answers\.allowed .*" + said):
        fill(model, tokenizer, ["去[MASK]"], chosen, constraints=[Answers(answer)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Answers, "Answers is a class; give an object of it"),
        (lambda tokens: [1], "is no constraint: it has no method allowed"),
        (r"\d+", "is no constraint: it has no method allowed"),
    ],
)
def test_what_is_no_constraint_is_refused(glm, given, said: str):
    model, tokenizer = glm
    with pytest.raises(GenerationError, match=said):
        fill(model, tokenizer, ["去[MASK]"], DecodingSettings(), constraints=[given])

"""The same text and question, as GLM, BERT and GPT read it."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.comparison.layouts import Question, layout_of, peer_layout
from glmkit.special_tokens import SpecialTokenIds

SPECIALS = SpecialTokenIds(cls=1, eos=2, pad=0, sop=3, eop=4, mask=5, smask=6, gmask=7)
FAMILIES = ("glm", "bert", "gpt")
INSIDE = Question(np.array([1, 20, 21]), np.array([30, 31]), np.array([40]))
AT_THE_END = Question(np.array([1, 20, 21]), np.array([30, 31]))
RNG = np.random.default_rng(0)


def labels(example) -> list[int]:
    return example.labels[example.labels != IGNORE_INDEX].tolist()


@pytest.mark.parametrize("question", [INSIDE, AT_THE_END], ids=["inside", "at the end"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_predicts_each_token_of_the_answer_once(family, question):
    examples = layout_of(family, SPECIALS, 50).scoring(question)
    assert [token for one in examples for token in labels(one)] == [30, 31]


def test_a_blank_of_glm():
    example = layout_of("glm", SPECIALS, 50).training(INSIDE, RNG)
    assert example.input_ids.tolist() == [1, 20, 21, 5, 40, 3, 30, 31]
    assert example.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 3, 3], [0, 0, 0, 0, 0, 1, 2, 3]]
    assert labels(example) == [30, 31, SPECIALS.eop]


def test_a_blank_of_gpt_is_written_behind_its_text():
    example = layout_of("gpt", SPECIALS, 50).training(INSIDE, RNG)
    assert example.input_ids.tolist() == [1, 20, 21, 5, 40, 3, 30, 31]
    assert example.position_ids.tolist() == [list(range(8)), [0] * 8]
    assert example.labels.tolist() == [IGNORE_INDEX] * 5 + [30, 31, SPECIALS.eop]


def test_a_blank_of_bert_has_a_mask_for_each_token():
    example = layout_of("bert", SPECIALS, 50).training(INSIDE, RNG)
    assert example.input_ids.tolist() == [1, 20, 21, 5, 5, 40]
    assert example.labels.tolist() == [IGNORE_INDEX] * 3 + [30, 31, IGNORE_INDEX]


def test_bert_fills_token_by_token_where_it_is_asked_to():
    example = layout_of("bert", SPECIALS, 50).next_token(INSIDE, np.array([33]))
    assert example.input_ids.tolist() == [1, 20, 21, 33, 5, 40]
    assert np.flatnonzero(example.labels != IGNORE_INDEX).tolist() == [4]


def test_a_text_is_gone_on_with():
    glm, bert, gpt = (layout_of(family, SPECIALS, 50) for family in FAMILIES)
    assert glm.training(AT_THE_END, RNG).input_ids.tolist() == [1, 20, 21, 7, 3, 30]
    assert labels(glm.training(AT_THE_END, RNG)) == [30, 31]  # a text has no end marker here
    assert gpt.training(AT_THE_END, RNG).input_ids.tolist() == [1, 20, 21, 30]
    assert labels(gpt.training(AT_THE_END, RNG)) == [30, 31]
    seen = {tuple(bert.training(AT_THE_END, RNG).input_ids.tolist()) for _ in range(30)}
    assert seen == {(1, 20, 21, 5), (1, 20, 21, 30, 5)}


@pytest.mark.parametrize("question", [INSIDE, AT_THE_END], ids=["inside", "at the end"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_next_does_not_depend_on_the_answer(family, question):
    layout = layout_of(family, SPECIALS, 50)
    other = Question(question.left, np.array([8, 9]), question.right)
    written = np.array([33])
    one, two = layout.next_token(question, written), layout.next_token(other, written)
    assert one.input_ids.tolist() == two.input_ids.tolist()
    assert len(labels(one)) == 1


def test_gpt_predicts_every_token_but_the_first():
    example = peer_layout("gpt", SPECIALS, 50).pretraining(np.array([1, 20, 21, 2]), RNG)
    assert example is not None
    assert example.input_ids.tolist() == [1, 20, 21]
    assert example.labels.tolist() == [20, 21, 2]
    assert peer_layout("gpt", SPECIALS, 50).pretraining(np.array([1]), RNG) is None


def test_bert_masks_what_its_paper_says():
    """15 % of the tokens, of them 80 % masked, 10 % another token, 10 % as they are; never the markers."""
    rng = np.random.default_rng(3)
    ids = np.concatenate(([1], rng.integers(10, 5000, 40_000), [2]))
    example = peer_layout("bert", SPECIALS, 5000).pretraining(ids, rng)
    assert example is not None
    chosen = example.labels != IGNORE_INDEX
    assert chosen.sum() == 6000
    assert not chosen[0] and not chosen[-1]  # noqa: PT018
    assert (example.labels[chosen] == ids[chosen]).all()
    assert (example.input_ids[~chosen] == ids[~chosen]).all()
    masked = (example.input_ids[chosen] == SPECIALS.mask).mean()
    kept = (example.input_ids[chosen] == ids[chosen]).mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.02)
    assert peer_layout("bert", SPECIALS, 50).pretraining(np.array([1, 2]), rng) is None

"""Scoring choices, against every choice laid out and run by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmkit import GLMTokenizer
from glmkit.blanks.choices import build_tree
from glmkit.blanks.layout import Piece, lay_out
from glmkit.errors import GenerationError
from glmkit.evaluation.scoring import label_log_probabilities
from glmkit.generation import choices as module
from glmkit.generation.choices import score_choices
from glmkit.generation.prompts import build_prompt
from glmkit.tokens.blanked import encode_content

TEXTS = [
    "这家店总的来说，很[MASK]。",
    "凯旋门位于意大利米兰市古城堡旁。1807年为纪念[MASK]而建，门高25米。",
    "北京是",
    "",
    "I have two [MASK] at home.",
    "a <|endofpiece|> [CLS] b [sMASK]",
]
CHOICES = ["好", "好吃", "好吃极了", "差", "", "good", "<|endofpiece|>", "凯旋门凯旋门凯旋门"]


def one_by_one(model, tokenizer, text: str, choices: list[str]) -> list[float]:
    """Each choice as an example of its own: the layout of training."""
    prompt, ids = (
        build_prompt(tokenizer, text, model.config.max_sequence_length),
        tokenizer.special_ids,
    )
    mask = int(prompt.mask_indices[0])
    scores = []
    for choice in choices:
        tokens = encode_content(tokenizer, prompt.parts[0], int(prompt.ids[mask]), choice)
        example = lay_out(prompt.ids, [Piece(mask, np.array(tokens, np.int64), ids.eop)], ids.sop)
        scores.append(label_log_probabilities(model, [example], ids.pad)[0].sum())
    return scores


@pytest.mark.parametrize("nodes", [512, 3])
def test_scores_equal_choices_run_one_by_one(glm, monkeypatch, nodes: int):
    """Neither shared beginnings, other choices, a batch's padding nor reading in steps change a score."""
    monkeypatch.setattr(module, "NODES", nodes)
    model, tokenizer = glm
    together = score_choices(model, tokenizer, TEXTS, CHOICES, batch_size=4)
    for text, scores in zip(TEXTS, together, strict=True):
        expected = one_by_one(model, tokenizer, text, CHOICES)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_every_vocabulary_and_a_list_for_each_prompt(golden):
    from glmkit import GLMForConditionalGeneration

    tokenizer = GLMTokenizer.from_pretrained(golden.path)
    model = GLMForConditionalGeneration.from_pretrained(golden.path, dtype="float32").eval()
    texts, choices = ["a [MASK] b", "今天 [MASK]"], [["dog", "cat sat"], ["好", "很好", "好"]]
    scores = score_choices(model, tokenizer, texts, choices)
    for text, some, found in zip(texts, choices, scores, strict=True):
        np.testing.assert_allclose(
            found, one_by_one(model, tokenizer, text, some), rtol=1e-4, atol=1e-4
        )
    assert scores[1][0] == scores[1][2]


def test_ids_may_stand_for_a_choice_and_a_prompt_for_a_text(glm):
    model, tokenizer = glm
    prompt = build_prompt(tokenizer, TEXTS[0], 128)
    ids = tokenizer("好", add_special_tokens=False)["input_ids"]
    [by_ids] = score_choices(model, tokenizer, [prompt], [[ids, "好"]])
    assert by_ids[0] == by_ids[1]
    assert score_choices(model, tokenizer, [], ["好"]) == []


def test_what_cannot_be_scored_is_named(glm):
    model, tokenizer = glm
    with pytest.raises(GenerationError, match="the text has several"):
        score_choices(model, tokenizer, ["[MASK]和[MASK]"], ["好"])
    with pytest.raises(GenerationError, match="choices must be a list of texts"):
        score_choices(model, tokenizer, ["很[MASK]"], "好")
    with pytest.raises(GenerationError, match="given for 2 prompts, but there are 1"):
        score_choices(model, tokenizer, ["很[MASK]"], [["好"], ["差"]])
    with pytest.raises(GenerationError, match="no choices to score"):
        score_choices(model, tokenizer, ["很[MASK]"], [[]])
    with pytest.raises(
        GenerationError, match=r"a choice has \d+ tokens, but a blank of this model holds"
    ):
        score_choices(model, tokenizer, ["很[MASK]"], ["字" * 2000])


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=12))
def test_a_tree_spells_its_choices_and_sees_only_their_paths(choices: list[list[int]]):
    tree = build_tree(choices, sop=9)
    sees = tree.visibility()
    for choice, end in zip(choices, tree.ends, strict=True):
        path = np.flatnonzero(sees[end])
        assert tree.tokens[path].tolist() == [9, *choice]
        assert tree.depths[path].tolist() == list(range(len(choice) + 1))
    distinct = {tuple(choice[:n]) for choice in choices for n in range(len(choice) + 1)}
    assert len(tree) == len(distinct)

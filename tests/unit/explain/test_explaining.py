"""Explanations: what they say is so, and the model is as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from explain_samples import ANSWER, CAUSE, decided_glm
from glmkit.applications.heads import Head
from glmkit.errors import GenerationError, MissingDependencyError, UserError
from glmkit.explain import results
from glmkit.explain.attention import read_with_maps, rollout
from glmkit.explain.filling import Filling
from glmkit.explain.lens import layer_log_probabilities
from glmkit.explain.scoring import scores_of
from glmkit.generation.choices import score_choices
from glmkit.model import GLMForSequenceClassification
from glmkit.tasks.task import load_task
from understanding_samples import random_glm

pytest.importorskip("captum", reason="captum is not installed")

TWO = ("好吃，[MASK]足，量[MASK]。", ["味道", "大"])
ENGLISH = ("The room was [MASK] and the staff were friendly.", ["clean"])
SHOTS = "好吃：好\n太慢了：差\n味道足：[MASK]"


@pytest.mark.parametrize(
    ("text", "blanks"), [TWO, ENGLISH, ("", None), ("<|endofpiece|> 𠮷 [CLS]", ["好"])]
)
def test_attributions_sum_to_the_difference_of_scores(text, blanks):
    settings = {"blanks": blanks} if blanks else {"max_new_tokens": 3}
    found = random_glm().explain(text, **settings)
    for one in found.evidence:
        gradients = one.attributions["integrated_gradients"]
        difference = gradients.score - gradients.baseline_score
        assert gradients.complete
        assert gradients.values.sum() == pytest.approx(difference, rel=0.01, abs=1e-3)
        assert gradients.score == pytest.approx(one.score, abs=1e-4)
        assert len(one.units) == len(gradients.values)
        assert one.probability == pytest.approx(np.exp(one.score))


def test_the_score_is_that_of_scoring():
    glm = random_glm()
    text, (content,) = ENGLISH
    [scored] = score_choices(glm.model, glm.tokenizer, [text], [content])
    found = glm.explain(text, blanks=[content], methods=[])
    assert found.evidence[0].score == pytest.approx(float(scored[0]), abs=1e-4)
    assert np.prod([one.probability for one in found.evidence[0].steps]) == pytest.approx(
        found.evidence[0].probability, rel=1e-4
    )


def test_what_decides_is_found():
    glm = decided_glm()
    found = glm.explain(f"送餐{CAUSE}慢了，菜都凉了：[MASK]。", blanks=[ANSWER]).evidence[0]
    for method in ("integrated_gradients", "ablation"):
        (first, value), (_, second), *_ = found.top(method)
        assert first.text == CAUSE
        assert value > 10 * abs(second)
    without = glm.explain("送餐很慢了，菜都凉了：[MASK]。", blanks=[ANSWER]).evidence[0]
    assert without.score < found.score - 0.5


def test_a_blank_is_explained_by_earlier_blanks_and_not_by_later_ones():
    glm = decided_glm()
    found = glm.explain("送餐[MASK]，菜[MASK]。", blanks=[CAUSE, ANSWER])
    assert {unit.source for unit in found.evidence[0].units} == {"text"}
    assert found.evidence[1].top("ablation")[0][0].source == "blank 1"
    assert found.evidence[1].top("ablation")[0][0].text == CAUSE


def test_rollout_is_a_product_of_layers_whose_rows_sum_to_one():
    first = np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]]])
    second = np.array([[[0.5, 0.5], [0.0, 1.0]]] * 2)
    low, high = np.array([[1, 0], [0.25, 0.75]]), np.array([[0.75, 0.25], [0, 1]])
    np.testing.assert_allclose(rollout(np.stack((first, second))), high @ low)
    glm = random_glm()
    [attention] = glm.explain(TWO[0], blanks=TWO[1], methods="attention_rollout").attention
    np.testing.assert_allclose(rollout(attention.weights).sum(-1), 1, rtol=1e-5)


def test_part_a_never_looks_at_part_b():
    [attention] = random_glm().explain(TWO[0], blanks=TWO[1], methods=[]).attention
    assert attention.tokens[: attention.prefix_length].count("[MASK]") == 2
    assert not attention.part("A", "B").any()
    assert attention.part("B", "A").all()
    assert not np.triu(attention.part("B", "B"), 1).any()
    np.testing.assert_allclose(attention.weights.sum(-1), 1, rtol=1e-5)
    assert ((attention.shares() > 0) & (attention.shares() <= 1)).all()
    with pytest.raises(UserError, match="parts 'A' and 'B'"):
        attention.part("C", "A")


def test_the_last_layer_of_the_lens_is_the_model():
    glm = random_glm()
    filling = Filling.of(glm.model, glm.tokenizer, *TWO)
    rows, _ = filling.rows("word")
    _, hidden = read_with_maps(glm.model, rows)
    places = rows.predictions.places
    found = layer_log_probabilities(glm.model, hidden, 0, places)
    assert len(found) == glm.model.config.num_layers + 1
    inputs = {
        "input_ids": rows.ids,
        "position_ids": rows.positions,
        "prefix_lengths": rows.prefix_lengths,
    }
    with torch.no_grad():
        logits = glm.model(**{key: torch.from_numpy(one) for key, one in inputs.items()}).logits
    torch.testing.assert_close(found[-1], logits[0, places].log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was():
    glm = random_glm()
    model = glm.model
    before = {name: one.clone() for name, one in model.state_dict().items()}
    model.train()
    model.glm.transformer.layers[0].mlp.eval()
    modes = [one.training for one in model.modules()]
    implementation = model.config._attn_implementation
    try:
        glm.explain(TWO[0], blanks=TWO[1])
        with pytest.raises(UserError):
            glm.explain(TWO[0], blanks=TWO[1], baseline="nothing")
        assert [one.training for one in model.modules()] == modes
    finally:
        model.eval()
    assert model.config._attn_implementation == implementation != "eager"
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())


def test_it_works_where_gradients_are_off():
    glm = random_glm()
    with torch.inference_mode():
        found = glm.explain(ENGLISH[0], blanks=ENGLISH[1], methods="integrated_gradients")
    assert found.evidence[0].attributions["integrated_gradients"].complete


def test_the_same_model_in_training_mode_gives_the_same():
    glm = random_glm()
    expected = glm.explain(ENGLISH[0], blanks=ENGLISH[1], methods="ablation").to_dict()
    glm.model.train()
    try:
        assert glm.explain(ENGLISH[0], blanks=ENGLISH[1], methods="ablation").to_dict() == expected
    finally:
        glm.model.eval()


def test_without_a_blank_the_continuation_is_explained():
    found = random_glm().explain("好吃", max_new_tokens=2, methods="ablation")
    assert found.text == "好吃[gMASK]"
    assert found.filled == "好吃" + found.evidence[0].content
    assert not found.facts["given"]


def test_a_list_gives_a_list():
    glm = random_glm()
    texts = [TWO[0], ENGLISH[0]]
    found = glm.explain(texts, blanks=[TWO[1], ENGLISH[1]], methods="ablation")
    assert [one.to_dict() for one in found] == [
        glm.explain(text, blanks=blanks, methods="ablation").to_dict() for text, blanks in (TWO, ENGLISH)
    ]  # fmt: skip
    with pytest.raises(UserError, match="contents for 1 texts were given, but there are 2"):
        glm.explain(texts, blanks=[["a"]])


def test_a_text_that_is_too_long_is_cut_on_the_left(caplog):
    glm = random_glm()
    text = "送餐太慢了，菜都凉了。" * 20 + "味道[MASK]。"
    found = glm.explain(text, blanks=["好"], methods="ablation")
    assert "cut on the left" in caplog.text
    assert text.endswith(found.text)
    assert len(found.text) < 100
    assert found.evidence[0].units[-1].text == "。"
    assert found.text[slice(*found.blanks[0])] == "[MASK]"
    with pytest.raises(GenerationError, match="would lose 1 of its blanks"):
        glm.explain("味道[MASK]。" + "送餐太慢了，菜都凉了。" * 20, blanks=["好"])
    with pytest.raises(GenerationError, match="contents of blank 1 are"):
        glm.explain("味道[MASK]。", blanks=["送餐太慢了" * 40])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blanks": ["a"]}, "the text has 2 blanks, given was 1 contents"),
        ({"blanks": "ab"}, "the text has 2 blanks, given was 'ab'"),
        ({"methods": "gradient"}, "there is no method 'gradient'"),
        ({"methods": ["ablations"]}, "did you mean 'ablation'"),
        ({"baseline": "zero"}, "baseline='zero' must be one of mask, pad, mean"),
        ({"unit": "letter"}, "unit='letter' must be 'word' or 'token'"),
        ({"top_k": 0}, "top_k=0 must be a whole number"),
        ({"label": "好"}, "label='好' is of a classification"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"task": "sentiment", "num_beams": 2}, "num_beams=2 says how blanks are filled"),
        ({"task": "sentiment", "blanks": ["a", "b"]}, "says how blanks are filled"),
        (
            {"task": "sentiment", "label": "goood"},
            "the label 'goood' is not one of positive, negative",
        ),
        ({"task": "dialogue"}, "is not a classification"),
    ],
)
def test_mistakes_are_said(settings, message):
    with pytest.raises(UserError, match=message):
        random_glm().explain(TWO[0], **settings)


def test_without_captum_the_extra_is_named_and_attention_works(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(MissingDependencyError, match=r"glmkit\[explain\]"):
        random_glm().explain(TWO[0], blanks=TWO[1])
    found = random_glm().explain(TWO[0], blanks=TWO[1], methods="attention_rollout")
    assert 0 < found.evidence[0].attributions["attention_rollout"].values.sum() < 1


def test_examples_of_a_prompt_are_left_out_one_by_one():
    glm = random_glm()
    found = glm.explain(SHOTS, blanks=["好"], methods=[]).evidence[0]
    assert [one.text for one in found.examples] == ["好吃：好", "太慢了：差"]
    without = glm.explain("太慢了：差\n味道足：[MASK]", blanks=["好"], methods=[]).evidence[0]
    assert found.examples[0].contribution == pytest.approx(found.score - without.score, abs=1e-4)
    apart = SHOTS.replace("\n", "##")
    assert not glm.explain(apart, blanks=["好"], methods=[]).evidence[0].examples
    assert (
        len(glm.explain(apart, blanks=["好"], methods=[], separator="##").evidence[0].examples) == 2
    )


@pytest.mark.parametrize(
    "text", ["送餐太慢了，菜都凉了", "The room was clean.", "", "a [MASK] <|endofpiece|>"]
)
def test_a_label_s_log_odds_are_explained(text):
    glm = random_glm()
    found = glm.explain(text, task="sentiment")
    [scores] = glm.label_scores([text], "sentiment")
    classified = glm.classify(text, "sentiment")
    one = found.evidence[0]
    assert one.name == {"1": "positive", "0": "negative"}[classified.label]
    assert one.score == pytest.approx(abs(scores[0] - scores[1]), abs=1e-4)
    assert found.probabilities[one.name] == pytest.approx(
        classified.probabilities[classified.label], abs=1e-5
    )
    gradients = one.attributions["integrated_gradients"]
    assert gradients.values.sum() == pytest.approx(
        gradients.score - gradients.baseline_score, rel=0.01, abs=1e-3
    )
    other = next(name for name in found.probabilities if name != one.name)
    against = glm.explain(text, task="sentiment", label=other, methods="ablation").evidence[0]
    np.testing.assert_allclose(
        against.attributions["ablation"].values, -one.attributions["ablation"].values, atol=1e-4
    )
    assert len(found.attention) == 2


def test_labels_of_one_s_own_are_those_of_classify():
    glm = random_glm()
    labels = ["体育", "正文", "标题"]
    found, classified = (
        glm.explain("菜都凉了", labels=labels, methods="ablation"),
        glm.classify("菜都凉了", labels=labels),
    )
    assert found.evidence[0].name == classified.label
    assert found.probabilities == pytest.approx(classified.probabilities, abs=1e-5)


def test_a_long_text_is_shortened_as_its_task_says():
    glm = random_glm()
    text = "送餐太慢了，菜都凉了！" * 20
    found = glm.explain(text, task="sentiment", methods="ablation")
    [scores] = glm.label_scores([text], "sentiment")
    assert found.evidence[0].score == pytest.approx(abs(scores[0] - scores[1]), abs=1e-4)
    assert text.startswith(found.text)
    assert len(found.text) < len(text)


def test_records_of_several_fields_have_units_of_each():
    task = replace(
        load_task("sentiment"),
        name="pair",
        fields={"first": "", "second": "", "label": ""},
        patterns={"zh": ["{first}\n{second}\n很[MASK]。"]},
        shorten=None,
    )
    found = random_glm().explain(
        {"first": "好吃", "second": "送餐慢"}, task=task, methods="ablation"
    )
    assert found.text == "好吃\n送餐慢"
    assert [unit.source for unit in found.evidence[0].units] == ["first"] * 2 + ["second"] * 3


def test_a_head_is_explained_too():
    glm = random_glm()
    settings = {"num_labels": 2, "pool_token": "mean"}
    config = type(glm.model.config)(**{**_config(glm.model.config), **settings})
    torch.manual_seed(3)
    model = GLMForSequenceClassification(config).eval()
    head = Head(model, glm.tokenizer, load_task("sentiment"), None)
    found = glm.explain("送餐太慢了，菜都凉了", task="sentiment", head=head)
    classified = glm.sentiment("送餐太慢了，菜都凉了", head=head)
    assert found.evidence[0].name == classified.label
    assert found.probabilities == pytest.approx(classified.probabilities, abs=1e-4)
    assert found.evidence[0].attributions["integrated_gradients"].complete
    assert found.evidence[0].lens is None
    assert not found.evidence[0].steps


def test_what_prints_and_what_is_data():
    found = random_glm().explain(TWO[0], blanks=TWO[1])
    text = str(found)
    assert text.startswith("好吃，味道足，量大。\nblank 1: 味道")
    assert "integrated_gradients (" in text
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["evidence"][1]["content"] == "大"
    assert "attention" not in data
    assert len(found.to_dict(attention=True)["attention"][0]["weights"]) == 2


def test_a_unit_left_out_is_a_text_without_it():
    glm = random_glm()
    filling = Filling.of(glm.model, glm.tokenizer, TWO[0], TWO[1])
    rows, units = filling.rows("word")
    shorter, _ = Filling.of(glm.model, glm.tokenizer, TWO[0].replace("吃", ""), TWO[1]).rows("word")
    eaten = next(n for n, unit in enumerate(units) if unit.text == "吃")
    made = rows.without([eaten])
    for name in ("ids", "positions", "visible", "prefix_lengths"):
        np.testing.assert_array_equal(getattr(made, name), getattr(shorter, name))
    found = scores_of(glm.model, [rows, made, rows.replaced([eaten], glm.tokenizer.mask_token_id)])
    np.testing.assert_allclose(found[1], scores_of(glm.model, [shorter])[0], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_probabilities_are_read_at_any_size():
    assert [results.probability(one) for one in (0.5, 0.0, 2e-7)] == ["50.0%", "0.0%", "2.0e-07"]


def _config(config):
    kept = ("vocab_size", "hidden_size", "num_layers", "num_attention_heads", "max_sequence_length", "initializer_range", "num_tokens", "cls_token_id", "eos_token_id", "pad_token_id", "mask_token_id")  # fmt: skip
    return {name: getattr(config, name) for name in kept}

"""Faithfulness: an order that is known to be right is measured as right, a wrong one as wrong."""

from __future__ import annotations

import numpy as np
import pytest

from explain_samples import ANSWER, CAUSE, decided_glm
from glmkit.errors import UserError
from glmkit.explain.faithfulness import (
    METRICS,
    Curves,
    compare,
    curves,
    order_of,
    question_of,
    random_orders,
)
from glmkit.tasks.task import load_task
from understanding_samples import random_glm


def test_the_order_that_starts_with_the_cause_is_best():
    glm = decided_glm()
    found = glm.explain(f"送餐{CAUSE}慢了，菜都凉了：[MASK]。", blanks=[ANSWER], methods=[])
    question = question_of(glm.model, glm.tokenizer, found)
    cause = next(n for n, unit in enumerate(found.evidence[0].units) if unit.text == CAUSE)
    size = len(found.evidence[0].units)
    right = order_of(np.arange(size) == cause)
    assert right[0] == cause
    for removal in ("drop", "mask"):
        mask = glm.tokenizer.mask_token_id
        best, worst = curves(glm.model, question, [right, right[::-1]], removal=removal, mask=mask)
        tokens = len(found.evidence[0].steps) or len(question.rows.predictions.of(0))
        assert best.deletion[0] == pytest.approx(found.evidence[0].score / tokens, abs=1e-4)
        assert best.insertion[-1] == pytest.approx(best.deletion[0], abs=1e-5)
        assert best.deletion[-1] == pytest.approx(best.insertion[0], abs=1e-5)
        good, bad = best.metrics(), worst.metrics()
        assert good["deletion"] < bad["deletion"]
        assert good["insertion"] > bad["insertion"]
        assert good["comprehensiveness"] > bad["comprehensiveness"] + 0.1
        assert good["sufficiency"] < bad["sufficiency"]
    with pytest.raises(UserError, match="removal="):
        curves(glm.model, question, [right], removal="mask")
    with pytest.raises(UserError, match="removal="):
        curves(glm.model, question, [right], removal="cut")


def test_of_a_label_it_is_the_probability():
    glm = random_glm()
    found = glm.explain("送餐太慢了，菜都凉了", task="sentiment", methods="attention_rollout")
    question = question_of(glm.model, glm.tokenizer, found, load_task("sentiment"))
    order = order_of(found.evidence[0].attributions["attention_rollout"].values)
    [one] = curves(glm.model, question, [order])
    assert one.deletion[0] == pytest.approx(found.evidence[0].probability, abs=1e-5)


def test_metrics_by_hand():
    steps = np.arange(11)
    one = Curves(1.0 - steps / 10, np.where(steps > 0, 1.0, 0.0)).metrics()
    assert one == pytest.approx(
        {
            "deletion": 0.5,
            "insertion": 0.95,
            "comprehensiveness": (0.1 + 0.2 + 0.5) / 3,
            "sufficiency": 0.0,
        }
    )


def test_differences_are_positive_where_a_method_is_better():
    same = dict.fromkeys(METRICS, 0.5)
    better = {"deletion": 0.2, "insertion": 0.8, "comprehensiveness": 0.7, "sufficiency": 0.1}
    found = compare({"method": [better] * 4, "random": [same] * 4})
    assert all(one["difference"] > 0 and one["low"] > 0 for one in found["method"].values())
    assert all(one["difference"] == 0 for one in found["random"].values())


def test_random_orders_are_of_their_seeds():
    first, second, again = random_orders(20, [0, 1, 0])
    assert sorted(first) == list(range(20))
    assert (first == again).all()
    assert (first != second).any()

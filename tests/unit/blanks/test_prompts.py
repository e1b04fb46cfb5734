"""What the recorded input builders leave open: errors, and settings that no recorded call uses."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit.blanks.prompts import generation_inputs, multiple_choice_inputs
from glmkit.errors import GenerationError

IDS = np.array([[1, 10, 5, 2], [1, 6, 2, 2]])
REAL = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


def _generation(**kwargs):
    defaults = {"mask_ids": (5, 6, 7), "sop": 3, "eop": 4, "pad": 2, "max_gen_length": 5}
    return generation_inputs(IDS, REAL, **{**defaults, **kwargs})


def test_targets_are_padded_and_only_they_are_scored():
    batch = _generation(targets=[[20, 21, 22], [23]])
    assert batch["input_ids"][:, 4:].tolist() == [[3, 20, 21, 22], [3, 23, 4, 2]]
    assert batch["labels"][:, 4:].tolist() == [[20, 21, 22, 4], [23, 4, -100, -100]]
    assert (batch["labels"][:, :4] == -100).all()
    assert batch["position_ids"][:, 0, 4:].tolist() == [[2] * 4, [1] * 4]
    padded = _generation(targets=[[20], [21]], padding=True)
    assert padded["input_ids"].shape == (2, 9)


def test_an_empty_target_is_only_an_end():
    batch = _generation(targets=[[], [23]])
    assert batch["labels"][:, 4:].tolist() == [[4, -100], [23, 4]]


def test_one_target_for_each_prompt():
    with pytest.raises(GenerationError, match="1 targets were given for 2 prompts"):
        _generation(targets=[[20]])


def test_no_mask():
    with pytest.raises(GenerationError, match="Cannot find mask token"):
        _generation(mask_ids=(7,))


@pytest.mark.parametrize(
    ("choices", "max_length", "message"),
    [
        ([[[20]]], None, "choices for 1 prompts"),
        ([[[20], []], [[21]]], None, "choice has no tokens"),
        ([[[20], [21]], [[21], [22, 23]]], 6, "need 7 tokens, more than max_length=6"),
    ],
)
def test_choices_that_do_not_fit(choices, max_length, message):
    ids = np.where(IDS == 6, 5, IDS)
    with pytest.raises(GenerationError, match=message):
        multiple_choice_inputs(ids, REAL, choices, mask_id=5, sop=3, max_length=max_length)

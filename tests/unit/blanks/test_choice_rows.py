"""Choices in one row are what they are alone: to the model, in any company, in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glmkit.blanks.choice_rows import collate_choices
from glmkit.blanks.layout import Piece, collate, lay_out
from unit.model.model_samples import EOP, MASK, PAD, SOP, prompt, tiny_model


def rows(rng: np.random.Generator):
    """Part A's and choices of several lengths."""
    return [
        (np.array(prompt(rng, 6 + 4 * n)), [rng.integers(0, 80, m) for m in (1, 2 + n, 1)[: 2 + n]])
        for n in range(2)
    ]


def scores(model, batch):
    """Returns float32 [B, C], the log-probability of each choice."""
    inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
    row, place, token, choice = inputs.pop("predictions")
    with torch.no_grad():
        logits = model(**inputs).logits.log_softmax(-1)
    found = torch.zeros(int(row.max()) + 1, int(choice.max()) + 1)
    return found.index_put((row, choice), logits[row, place, token], accumulate=True)


def collated(some):
    return collate_choices(some, mask_ids=(MASK,), sop=SOP, eop=EOP, pad=PAD)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_choice_in_a_row_is_the_choice_alone(implementation):
    model, some = tiny_model(implementation=implementation), rows(np.random.default_rng(0))
    together = scores(model, collated(some))
    for (part_a, choices), found in zip(some, together.tolist(), strict=True):
        mask = int(np.flatnonzero(part_a == MASK)[0])
        for choice, score in zip(choices, found, strict=False):
            one = collate([lay_out(part_a, [Piece(mask, choice, EOP)], SOP)], PAD)
            inputs = {name: torch.from_numpy(array) for name, array in one.items()}
            with torch.no_grad():
                alone = -model(**inputs).token_losses.sum().item()
            assert score == pytest.approx(alone, abs=1e-4)
    backwards = [(part_a, choices[::-1]) for part_a, choices in some[::-1]]
    found = scores(model, collated(backwards))
    for row, (_, choices) in enumerate(some):
        there = found[len(some) - 1 - row, : len(choices)].flip(0)
        torch.testing.assert_close(there, together[row, : len(choices)], atol=1e-4, rtol=0)


def test_common_beginnings_are_read_once_and_padding_by_nobody():
    rng = np.random.default_rng(1)
    long = (np.array(prompt(rng, 30)), [np.array([1, 2]), np.array([1, 3]), np.array([1])])
    batch = collated([*rows(rng), long])
    assert batch["input_ids"].shape[1] == 30 + 4  # the start marker, 1, 2 and 3
    padding = batch["input_ids"] == PAD
    assert padding.any()
    assert not batch["attention_mask"][:, 0][
        np.broadcast_to(padding[:, None], batch["attention_mask"][:, 0].shape)
    ].any()
    # What is predicted: each choice's tokens and an end for each.
    last = batch["predictions"][:, batch["predictions"][0] == 2]
    assert last.shape[1] == 2 + 2 + 1 + 3
    assert (last[2] == EOP).sum() == 3

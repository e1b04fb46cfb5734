"""What the tests of `generation.one_kernel` have in common, on a CPU and on a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glmkit.generation.arrays import log_softmax
from glmkit.generation.rows import StaticRows
from glmkit.generation.runner import Feed


def uneven(model):
    """Gives a model gains and offsets that are not ones and zeros."""
    for name, one in model.named_parameters():
        if one.dim() == 1:
            one.data.copy_((1.0 if name.endswith("norm.weight") else 0.0) + 0.2 * torch.randn_like(one))  # fmt: skip
    return model


def filled_rows(model, rows: int, capacity: int) -> StaticRows:
    """Returns a cache full of random keys and values."""
    config, held = model.config, StaticRows(model.config.num_layers)
    held.reserve(rows, capacity)
    heads, weight = config.num_attention_heads, model.glm.transformer.position_embeddings.weight
    held.settle(weight.new_empty(1, heads, 1, config.hidden_size // heads))
    for one in held.buffers:
        one.normal_()
    return held


def check_next(runner, plain, handles, token: int, number: int, barred: list[np.ndarray]) -> int:
    """Reads a token with a runner that chooses and one that does not; returns what is chosen, which both find likely."""
    feeds = [Feed(handle, [token], [9], [number], barred=barred, goes_on=True) for handle in handles]  # fmt: skip
    [[(token, score)]] = runner.forward(feeds[:1])
    [logits] = plain.forward([replace(feeds[1], barred=None)])
    logits = log_softmax(np.where(barred[0], -np.inf, logits[0]))
    assert score == pytest.approx(logits.max(), abs=0.05)
    assert logits[token] == pytest.approx(logits.max(), abs=0.05)
    return token

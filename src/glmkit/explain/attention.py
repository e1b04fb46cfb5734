"""Attention maps by layer and head, and their rollout through the layers.

In: a model and `Rows`. Out: maps (float32) and for each unit the share of attention that reaches it. The prefix mask is
used as it is: part A never looks at part B, so nothing of a blank's contents flows back into the text.

Source: attention rollout, Abnar & Zuidema 2020 (arXiv 2005.00928): heads are averaged, the residual stream is half of
each layer, the layers are multiplied.

Shapes: L layers, N heads, R rows, S places, U units.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from glmkit.applications.heads import is_head
from glmkit.explain.rows import Rows

_switching = threading.RLock()


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Lets a model compute its attention by the eager code, which returns maps; then all is as before.

    One thread at a time. Another thread that runs the model meanwhile gets the same numbers to rounding, by the eager
    code, for that moment.
    """
    configs = {id(one.config): one.config for one in model.modules() if hasattr(one, "config")}
    with _switching:
        before = {key: one._attn_implementation for key, one in configs.items()}
        try:
            for one in configs.values():
                one._attn_implementation = "eager"
            yield
        finally:
            for key, one in configs.items():
                one._attn_implementation = before[key]


@torch.no_grad()
def read_with_maps(model: Any, rows: Rows) -> tuple[list[np.ndarray], list[torch.Tensor]]:
    """Returns for each row the maps float32 [L, N, s, s], padding left out; and L + 1 hidden states [R, S, H].

    The hidden states are the embedding sum and each layer's output, before the final LayerNorm.
    """
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(rows.ids).to(model.device),
        "position_ids": torch.from_numpy(rows.positions).to(model.device),
        "attention_mask": torch.from_numpy(rows.visible[:, None].astype(np.float32)).to(model.device),
    }  # fmt: skip
    if rows.media is not None:
        inputs["media_embeds"] = rows.media.detach().to(model.device)
    with eager_attention(model):
        output = model.glm(**inputs, output_attentions=True, output_hidden_states=True)
    maps = torch.stack([one.float().cpu() for one in output.attentions]).numpy()
    sizes = rows.lengths.tolist()
    return [maps[:, row, :, :size, :size] for row, size in enumerate(sizes)], list(
        output.hidden_states
    )


def rollout(weights: np.ndarray) -> np.ndarray:
    """Returns float64 [s, s]: how much of what a place ends with began at each place; rows sum to 1.

    Args:
        weights: [L, N, s, s].
    """
    size = weights.shape[-1]
    total = np.eye(size)
    for layer in weights:
        mixed = 0.5 * layer.mean(0, dtype=np.float64) + 0.5 * np.eye(size)
        total = mixed / mixed.sum(-1, keepdims=True) @ total
    return total


def rollout_of_units(
    model: Any, rows: Rows, maps: list[np.ndarray], content: int, num_units: int
) -> np.ndarray:
    """Returns float64 [U]: what reaches each unit from the places that predict a content, the mean over them and rows.

    What reaches special tokens, the question's words and the content itself is not in it, so that the sum is below 1.
    """
    total = np.zeros(num_units + 1)
    for row, weights in enumerate(maps):
        flow = rollout(weights)[_asking_places(model, rows, content, row)].mean(0)
        units = rows.units[row, : len(flow)]
        total += np.bincount(
            np.where(units < 0, num_units, units), weights=flow, minlength=num_units + 1
        )
    return total[:num_units] / len(maps)


def _asking_places(model: Any, rows: Rows, content: int, row: int) -> np.ndarray:
    """Returns the places whose states say what is explained: those that predict the content, or that a head pools."""
    if not is_head(model):
        return np.unique(rows.predictions.places[rows.predictions.of(content, row)])
    length = int(rows.lengths[row])
    pooled = {"mean": np.arange(length), "last": np.array([length - 1])}
    return pooled.get(str(model.config.pool_token), np.array([0]))

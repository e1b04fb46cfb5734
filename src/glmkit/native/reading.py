"""A batch of `blanks.layout.collate` -> what the native decoder's runner is fed, row by row.

In: fields of a batch as arrays, or as tensors on the CPU. Out: whether the decoder reads it, and a `Feed` of each row.

Shapes: B rows, L tokens of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.generation.runner import Feed

READ = {"input_ids", "position_ids", "attention_mask", "prefix_lengths", "media_embeds"}
"""Fields of a batch that the native decoder reads."""


def is_arrays(batch: dict[str, Any]) -> bool:
    """Returns whether a batch is of arrays, not of torch's tensors."""
    return any(isinstance(batch.get(name), np.ndarray) for name in READ - {"media_embeds"})


def readable(batch: dict[str, Any]) -> bool:
    """Returns whether the decoder reads a batch: rows of real tokens side by side, whose part A is known."""
    given = {name for name, value in batch.items() if value is not None}
    if not {"input_ids", "position_ids"} <= given <= READ:
        return False
    if not is_arrays(batch):
        import torch

        if torch.is_grad_enabled():
            return False
    if "attention_mask" not in given:
        return True
    ids, mask = np.asarray(batch["input_ids"]), np.asarray(batch["attention_mask"])
    if mask.ndim != 2 or mask.shape != ids.shape or "prefix_lengths" not in given:
        return False
    edges = np.diff(np.pad(mask != 0, ((0, 0), (1, 1)))).sum(1)
    return bool((edges <= 2).all())


def row_feed(batch: dict[str, Any], row: int, sequence: int, num_logits: int | None = None) -> Feed:
    """Returns what a sequence reads of a batch's row: its real tokens.

    Args:
        batch: `input_ids` [B, L], `position_ids` [B, 2, L] and perhaps other fields of `blanks.layout.collate`.
        row: Which one; it has a real token.
        sequence: Handle of an empty sequence, or of one that has read what came before.
        num_logits: Of how many last tokens; by default of all.
    """
    ids, positions = np.asarray(batch["input_ids"][row]), np.asarray(batch["position_ids"][row])
    mask, prefixes = batch.get("attention_mask"), batch.get("prefix_lengths")
    real = np.arange(len(ids)) if mask is None else np.flatnonzero(np.asarray(mask[row]))
    prefix = 0 if prefixes is None else max(0, int(prefixes[row]) - int(real[0]))
    places, blocks = positions[:, real].tolist()
    count = len(real) if num_logits is None else num_logits
    return Feed(
        sequence, ids[real].tolist(), places, blocks, prefix, count, batch.get("media_embeds")
    )

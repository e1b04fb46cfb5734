"""Model-parallel shards of a GLM <-> whole tensors. Pure functions of state dicts; exact inverses.

The training code splits the vocabulary by rows, the fused query-key-value per third (each rank has its part
of Q, then of K, then of V), the widening MLP matrix by rows, and the two output projections by columns.
Everything else is a copy on every rank. Source: THUDM/GLM, `mpu/layers.py`, `mpu/transformer.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glmkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

# (names, dimension to cut, number of equal parts to cut separately)
_SPLITS = (
    (re.compile(r"(^|\.)word_embeddings\.weight$"), 0, 1),
    (re.compile(r"\.query_key_value\.(weight|bias)$"), 0, 3),
    (re.compile(r"\.dense_h_to_4h\.(weight|bias)$"), 0, 1),
    (re.compile(r"\.(attention\.dense|mlp\.dense_4h_to_h)\.weight$"), 1, 1),
)


def split_state_dict(state_dict: State, shards: int) -> list[State]:
    """Returns one state dict per model-parallel rank.

    Raises:
        CheckpointError: A tensor's dimension cannot be cut into `shards` equal parts.
    """
    if shards < 1:
        raise CheckpointError(f"shards={shards}: the number of shards must be 1 or more.")
    ranks: list[State] = [{} for _ in range(shards)]
    for name, tensor in state_dict.items():
        for rank, part in zip(ranks, _cut(name, tensor, shards), strict=True):
            rank[name] = part
    return ranks


def merge_state_dicts(ranks: Sequence[State]) -> State:
    """Returns the whole tensors of several model-parallel ranks, given in rank order.

    Raises:
        CheckpointError: The ranks differ in names, in the shape of a tensor, or in a tensor of which each
            has a copy.
    """
    if len(ranks) == 1:
        return dict(ranks[0])
    first = ranks[0]
    for rank, state in enumerate(ranks[1:], start=1):
        if differing := sorted(set(first) ^ set(state)):
            raise CheckpointError(
                f"Model-parallel ranks 0 and {rank} do not hold the same tensors: {_some(differing)} "
                "in only one of them. Are they shards of one checkpoint?"
            )
        for name, tensor in state.items():
            if tensor.shape != first[name].shape:
                raise CheckpointError(
                    f"{name}: rank 0 has shape {tuple(first[name].shape)}, rank {rank} has "
                    f"{tuple(tensor.shape)}. Are they shards of one checkpoint?"
                )
    return {name: _join(name, [state[name] for state in ranks]) for name in first}


def _split_of(name: str) -> tuple[int, int] | None:
    for pattern, dimension, parts in _SPLITS:
        if pattern.search(name):
            return dimension, parts
    return None


def _cut(name: str, tensor: torch.Tensor, shards: int) -> list[torch.Tensor]:
    split = _split_of(name)
    if split is None or shards == 1:
        return [tensor] * shards
    dimension, parts = split
    if tensor.shape[dimension] % (parts * shards):
        what = "each third of its rows" if parts == 3 else "rows" if dimension == 0 else "columns"
        raise CheckpointError(
            f"{name} of shape {tuple(tensor.shape)} cannot be cut into {shards} shards: {what} "
            f"({tensor.shape[dimension] // parts}) must be divisible by {shards}."
        )
    import torch

    chunks = [part.chunk(shards, dimension) for part in tensor.chunk(parts, dimension)]
    return [torch.cat([part[rank] for part in chunks], dimension) for rank in range(shards)]


def _join(name: str, pieces: list[torch.Tensor]) -> torch.Tensor:
    split = _split_of(name)
    if split is None:
        for rank, piece in enumerate(pieces[1:], start=1):
            if not piece.is_meta and not piece.equal(pieces[0]):
                raise CheckpointError(
                    f"{name} should be the same on every model-parallel rank, but ranks 0 and {rank} differ. "
                    "Are they shards of one checkpoint?"
                )
        return pieces[0]
    dimension, parts = split
    import torch

    by_part = zip(*(piece.chunk(parts, dimension) for piece in pieces), strict=True)
    return torch.cat([torch.cat(part, dimension) for part in by_part], dimension)


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

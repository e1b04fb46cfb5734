"""The many spellings of a GLM's weight names <-> one.

Published files have no prefix, those saved from a head class have `glm.`, training wrappers add `module.`
or `model.`. Here the backbone's weights have none; heads keep their own names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from glmkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound="torch.Tensor | np.ndarray")

PREFIX = "glm."

HEADS = ("dense.", "out_proj.", "tag_proj.")
"""Prefixes of the weights that lie beside the backbone: the classification head's two, the tagging head's."""

_BACKBONE = re.compile(r"(?:(?:module|model|glm)\.)*((?:word_embeddings|transformer)\..*)")
_TIED = "lm_head.weight"


def plain_name(name: str) -> str:
    """Returns a backbone weight's name without any wrapper's prefix; other names as they are."""
    match = _BACKBONE.fullmatch(name)
    return match.group(1) if match else name


def plain_names(state_dict: dict[str, T]) -> dict[str, T]:
    """Returns the weights under plain names, without a copy of the tied output projection.

    Raises:
        CheckpointError: Two names stand for the same weight.
    """
    origins: dict[str, str] = {}
    plain: dict[str, T] = {}
    for name, tensor in state_dict.items():
        short = plain_name(name)
        if short in plain:
            raise CheckpointError(f"Both {origins[short]!r} and {name!r} stand for {short!r}.")
        origins[short], plain[short] = name, tensor
    embedding = plain.get("word_embeddings.weight")
    # An untied projection stays, and will be an unexpected weight: GLM's is tied.
    if _TIED in plain and embedding is not None and _equal(plain[_TIED], embedding):
        del plain[_TIED]
    return plain


def _equal(one: Any, other: Any) -> bool:
    """Returns whether two tensors, or two arrays, are the same."""
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one.equal(other)


def head_names(state_dict: dict[str, torch.Tensor]) -> list[str]:
    """Returns the names that are not the backbone's."""
    return [name for name in state_dict if not _BACKBONE.fullmatch(name)]


def published_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the names to write: plain as published, or `glm.` + plain where the weights include a head.

    transformers loads a file with heads only if its backbone has the prefix.
    """
    heads = set(head_names(state_dict))
    if not heads:
        return dict(state_dict)
    return {n if n in heads else PREFIX + n: tensor for n, tensor in state_dict.items()}

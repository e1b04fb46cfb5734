"""A state dict against the names and shapes that a model expects: nothing, or one error with all problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from glmkit.errors import CheckpointError, nearest

if TYPE_CHECKING:
    import torch

VOCABULARIES = {30592: "BERT", 50048: "Chinese SentencePiece", 50304: "GPT-2 or RoBERTa"}
"""Rows of the word embedding (padded) of the published vocabularies."""


def check_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    expected: Mapping[str, Sequence[int]],
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    source: object = None,
    limit: int = 10,
) -> None:
    """Checks that the weights are exactly those that a model expects.

    Args:
        state_dict: Name -> tensor.
        expected: Name -> shape, with the same spelling of names as `state_dict`.
        allow_missing: Prefixes of expected names that may be absent (a new head, for instance).
        allow_unexpected: Prefixes of names that may be there without being expected.
        source: The folder, for the message.
        limit: How many problems to list.

    Raises:
        CheckpointError: Tensors are missing, unexpected or mis-shaped; one message lists them.
    """
    problems = []
    for name, shape in expected.items():
        if name not in state_dict:
            if not name.startswith(tuple(allow_missing)):
                problems.append(f"missing: {name} of shape {tuple(shape)}")
        elif tuple(state_dict[name].shape) != tuple(shape):
            found = tuple(state_dict[name].shape)
            hint = _vocabulary_hint(name, found, tuple(shape))
            problems.append(f"wrong shape: {name} is {found}, expected {tuple(shape)}{hint}")
    for name, tensor in state_dict.items():
        if name not in expected and not name.startswith(tuple(allow_unexpected)):
            shape_found = tuple(tensor.shape)
            problems.append(f"unexpected: {name} of shape {shape_found}{nearest(name, expected)}")
    if problems:
        where = f" in {source}" if source else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:limit])
        more = f"\n  ... and {len(problems) - limit} more" if len(problems) > limit else ""
        raise CheckpointError(f"The weights{where} do not fit the configuration:{listed}{more}")


def _vocabulary_hint(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if not name.endswith("word_embeddings.weight") or len(found) != 2 or found[0] == wanted[0]:
        return ""
    kinds = [
        f"{rows} rows are those of the {VOCABULARIES[rows]} vocabulary"
        for rows in (found[0], wanted[0])
        if rows in VOCABULARIES
    ]
    detail = f" ({'; '.join(kinds)})" if kinds else ""
    return (
        f" - another vocabulary{detail}: vocab_size in the configuration, the weights and the tokenizer must "
        "belong together"
    )

"""The one place that tells the native decoder's arrays from torch's tensors, and what both are asked for.

In: a model and arrays; what it answered. Out: what that model takes; NumPy. A model that has `takes_arrays` is given arrays and
answers with arrays, so that nothing of torch is imported for it; any other one gets tensors on its device.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    Values = torch.Tensor | np.ndarray


def takes_arrays(model: Any) -> bool:
    """Returns whether a model reads and answers NumPy arrays (the native decoder)."""
    return bool(getattr(model, "takes_arrays", False))


def reading(model: Any) -> AbstractContextManager[Any]:
    """Returns the context in which a model is read: without gradients."""
    if takes_arrays(model):
        return nullcontext()
    import torch

    return torch.inference_mode()


def for_model(model: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the fields of a batch as the model takes them."""
    if takes_arrays(model):
        return dict(arrays)
    import torch

    return {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}


def as_array(values: Values) -> np.ndarray:
    """Returns what a model answered as an array, of the same type or, where NumPy does not have it, float32."""
    if isinstance(values, np.ndarray):
        return values
    values = values.detach().cpu()
    return (
        values.float() if values.is_floating_point() and values.itemsize < 4 else values
    ).numpy()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns float32 log-probabilities of logits […, V]; of a row of -inf they are not numbers."""
    with np.errstate(invalid="ignore"):
        shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_probabilities(logits: Values) -> np.ndarray:
    """Returns float32 [T, V] of a model's logits."""
    if isinstance(logits, np.ndarray):
        return log_softmax(logits)
    return as_array(logits.float().log_softmax(-1))


def log_probabilities_at(logits: Values, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Returns float32 [n]: the log-probability of `tokens[i]` in row `rows[i]` of logits [T, V]; both int64 [n]."""
    if isinstance(logits, np.ndarray):
        return logits[rows, tokens] - _log_sums(logits)[rows]
    import torch

    where = torch.from_numpy(rows).to(logits.device), torch.from_numpy(tokens).to(logits.device)
    return as_array(logits.float().log_softmax(-1)[where])


def _log_sums(logits: np.ndarray) -> np.ndarray:
    """Returns float32 [T], the logarithms of the sums of exp(logits [T, V]), some rows at a time: they stay in the cache."""
    found = np.empty(len(logits), np.float32)
    for start in range(0, len(logits), 16):
        some = logits[start : start + 16]
        top = some.max(-1)
        found[start : start + 16] = top + np.log(np.exp(some - top[:, None]).sum(-1))
    return found


def likeliest(logits: Values, barred: Sequence[int] = ()) -> np.ndarray:
    """Returns int64 [T]: the likeliest token in each row of logits [T, V] that is not barred."""
    if len(barred):
        logits = logits.copy() if isinstance(logits, np.ndarray) else logits.clone()
        logits[:, list(barred)] = -np.inf
    best: Any = logits.argmax(-1)
    return as_array(best)


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Returns int64 [≤ n]: where the n largest of values [V] are, the largest first, the first of equal ones first."""
    n = min(n, len(values))
    if n < len(values):
        least = np.partition(values, len(values) - n)[len(values) - n]
        places = np.flatnonzero(values >= least)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:n]

"""Rows -> the scores of contents, from embeddings (so that they have gradients) or from many rows at once.

In: a model and `Rows`. Out: log-probabilities of contents in nats, and of them the one number that is explained: of a
blank its content's log-probability, its end included; of a label its log-odds, log p(label) - log p(all others).

Shapes: N variants of the same rows, R rows, S places, H hidden, T predictions, C contents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glmkit.applications.heads import is_head
from glmkit.explain.rows import Predictions, Rows, stack
from glmkit.model.modeling import embed

MAX_PLACES = 8192
"""Places N·R·S that are read at once."""
MAX_LOGITS = 2**24
"""Logits N·T·V that are held at once."""

Objective = Callable[[torch.Tensor], torch.Tensor]
"""Scores [N, C] -> the number explained [N]."""


def content_objective(content: int) -> Objective:
    """Returns the log-probability of one content."""
    return lambda scores: scores[:, content]


def label_objective(label: int, free: np.ndarray | None = None) -> Objective:
    """Returns the log-odds of a label, log p(label) - log Σ p(others), after a softmax over the labels' scores.

    Args:
        label: Index of the label.
        free: float [labels], scores that a text without content has, to be taken off; or None.
    """

    def log_odds(scores: torch.Tensor) -> torch.Tensor:
        if free is not None:
            scores = scores - torch.as_tensor(free, dtype=scores.dtype, device=scores.device)
        others = [place for place in range(scores.shape[1]) if place != label]
        return scores[:, label] - scores[:, others].logsumexp(1)

    return log_odds


def scores_from_embeddings(model: Any, rows: Rows, embeddings: torch.Tensor) -> torch.Tensor:
    """Returns float32 [N, C]: each content's log-probability, the mean over rows.

    Args:
        model: A `GLMForConditionalGeneration` or `GLMForSequenceClassification` in evaluation mode.
        rows: The rows.
        embeddings: [N, R, S, H], of words; positions are added by the model.
    """
    variants, count, length = embeddings.shape[:3]
    hidden_size = embeddings.shape[3]
    inputs: dict[str, Any] = {
        "inputs_embeds": embeddings.reshape(variants * count, length, hidden_size),
        "position_ids": _repeated(rows.positions, variants, model.device),
    }
    if is_head(model):
        real = np.arange(length) < rows.lengths[:, None]
        inputs["attention_mask"] = _repeated(real.astype(np.int64), variants, model.device)
        scores = model(**inputs).logits.float().log_softmax(-1)
        return scores.view(variants, count, -1).mean(1)
    visible = rows.visible[:, None].astype(np.float32)
    inputs["attention_mask"] = _repeated(visible, variants, model.device)
    hidden = model.glm(**inputs).last_hidden_state.view(variants, count, length, hidden_size)
    asked = rows.predictions
    places = torch.from_numpy(asked.rows), torch.from_numpy(asked.places)
    return _sums(model, hidden[:, places[0], places[1]], asked.tokens, asked.contents, asked.num_contents) / count  # fmt: skip


@torch.no_grad()
def scores_of(model: Any, variants: Sequence[Rows]) -> np.ndarray:
    """Returns float64 [n, C]: what `scores_from_embeddings` says of each of many `Rows`, read in batches."""
    found: list[np.ndarray] = []
    order = sorted(range(len(variants)), key=lambda number: -variants[number].ids.shape[1])
    start = 0
    while start < len(order):
        size = variants_at_once(model, variants[order[start]])  # the longest of those left
        chosen = [variants[number] for number in order[start : start + size]]
        found += list(_scores_of_batch(model, chosen))
        start += size
    results = np.empty((len(variants), found[0].shape[0] if found else 0))
    results[order] = found
    return results


def variants_at_once(model: Any, rows: Rows) -> int:
    """Returns how many variants of some rows are read together, so that memory stays small."""
    by_places = MAX_PLACES // max(1, rows.ids.size)
    by_logits = MAX_LOGITS // max(1, len(rows.predictions.tokens) * model.config.vocab_size)
    return max(1, min(by_places, by_logits))


def embeddings_of(model: Any, rows: Rows) -> torch.Tensor:
    """Returns [R, S, H], the embeddings of the rows' words and media, without gradient, on the model's device."""
    media = None if rows.media is None else rows.media.detach().to(model.device)
    with torch.no_grad():
        ids = torch.from_numpy(rows.ids).to(model.device)
        return embed(model.glm.word_embeddings, ids, media).clone()


def _scores_of_batch(model: Any, variants: Sequence[Rows]) -> np.ndarray:
    """Reads variants that may differ in their lengths as the rows of one batch."""
    count = variants[0].ids.shape[0]
    asked = [one.predictions for one in variants]
    predictions = Predictions(
        rows=np.concatenate([one.rows + n * count for n, one in enumerate(asked)]),
        places=np.concatenate([one.places for one in asked]),
        tokens=np.concatenate([one.tokens for one in asked]),
        contents=np.concatenate([one.contents + n * one.num_contents for n, one in enumerate(asked)]),
        num_contents=sum(one.num_contents for one in asked),
    )  # fmt: skip
    # Variants of one question: what media mean is the same in all of them.
    merged = stack([row for one in variants for row in one.each()], predictions, variants[0].media)
    embeddings = embeddings_of(model, merged)[None]
    if is_head(model):
        # Each variant's rows are averaged by themselves.
        rows = embeddings.view(len(variants) * count, 1, *embeddings.shape[2:])
        single = [scores_from_embeddings(model, _row(merged, n), one[None]) for n, one in enumerate(rows)]  # fmt: skip
        scores = torch.cat(single).view(len(variants), count, -1).mean(1)
    else:
        scores = scores_from_embeddings(model, merged, embeddings) * len(variants)
    return scores.view(len(variants), -1).double().cpu().numpy()


def _row(rows: Rows, number: int) -> Rows:
    """Returns one row of a head's rows."""
    here = slice(number, number + 1)
    return replace(
        rows,
        **{name: getattr(rows, name)[here] for name in ("ids", "positions", "visible", "units", "lengths", "prefix_lengths")},
    )  # fmt: skip


def _repeated(array: np.ndarray, times: int, device: Any) -> torch.Tensor:
    """Returns an array [R, …] as a tensor [times · R, …]."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))


def _sums(
    model: Any, hidden: torch.Tensor, tokens: np.ndarray, contents: np.ndarray, num_contents: int
) -> torch.Tensor:
    """Returns float32 [N, C] from the states [N, T, H] that predict `tokens`."""
    result = torch.zeros(hidden.shape[0], num_contents, device=hidden.device)
    step = max(1, MAX_LOGITS // (max(1, hidden.shape[0]) * model.config.vocab_size))
    for start in range(0, len(tokens), step):
        here = slice(start, start + step)
        chosen = torch.from_numpy(tokens[here]).to(hidden.device).expand(hidden.shape[0], -1)
        logits = model.lm_head(hidden[:, here]).float()
        found = logits.gather(-1, chosen[..., None])[..., 0] - logits.logsumexp(-1)
        owners = torch.from_numpy(contents[here]).to(hidden.device)
        result = result.index_add(1, owners, found)
    return result

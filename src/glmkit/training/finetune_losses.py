"""The loss of a batch of one task, and what its answers are held to be: choices compared, a head's classes, tokens.

In: a model and a batch of `FinetuneStream`. Out: sums of losses, and scores. Knows no trainer.

Shapes: B samples, C choices, P places of part B, V vocabulary, T predicted tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from glmkit.blanks.layout import IGNORE_INDEX


def batch_loss(
    model: Any, batch: Mapping[str, Any], smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of the batch's losses, and what a mean divides it by (summed weights, or tokens).

    Args:
        model: A `GLMForConditionalGeneration`, or one with the head that the task needs, or what wraps it.
        batch: Of `FinetuneStream`; where it has no `weights` all are 1.
        smoothing: Share of the target that is spread over all choices or tokens.
    """
    if "tags" in batch:
        logits = model(**batch["inputs"]).logits.float().flatten(0, 1)
        tags, options = batch["tags"].flatten(), {"ignore_index": IGNORE_INDEX, "reduction": "sum"}
        loss = F.cross_entropy(logits, tags, label_smoothing=smoothing, **options)  # type: ignore[arg-type]
        return loss, torch.tensor(float(batch["tokens"]))
    if "right" not in batch:
        loss = _token_loss(model, batch["inputs"], smoothing)
        return loss, torch.tensor(float(batch["tokens"]))
    losses = choice_losses(choice_scores(model, batch), batch["right"], smoothing)
    weights = batch.get("weights", torch.ones(len(losses))).to(losses.device)
    return (losses * weights).sum(), weights.sum().cpu()


def choice_scores(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Returns float32 [B, C]: a choice's log-probability in nats, its end included, or a head's logits.

    Rows with fewer than C choices are filled up with minus infinity.
    """
    if "predictions" not in batch:
        return model(**batch["inputs"]).logits.float()
    row, place, token, choice = batch["predictions"]
    logits = model(**batch["inputs"], logits_to_keep=-int(place.min())).logits
    found = logits.float().log_softmax(-1)[row, place, token]
    sizes = batch["num_choices"]
    scores = found.new_zeros(len(sizes), int(sizes.max()))
    scores = scores.index_put((row, choice), found, accumulate=True)
    missing = torch.arange(scores.shape[1], device=scores.device) >= sizes[:, None]
    return scores.masked_fill(missing, -torch.inf)


def choice_losses(
    scores: torch.Tensor, right: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Returns float32 [B]: the cross-entropy of each row's right choice among its choices."""
    log_shares = scores.log_softmax(-1)
    losses = -log_shares.gather(1, right[:, None])[:, 0]
    if not smoothing:
        return losses
    exists = torch.isfinite(scores)
    evenly = -log_shares.masked_fill(~exists, 0.0).sum(1) / exists.sum(1)
    return (1 - smoothing) * losses + smoothing * evenly


def _token_loss(model: Any, inputs: Mapping[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    """Returns the sum over all predicted tokens."""
    if not smoothing:
        return model(**inputs, num_items_in_batch=1).loss
    labels = inputs["labels"]
    fields = {name: value for name, value in inputs.items() if name != "labels"}
    places = torch.arange(labels.shape[1], device=labels.device)
    first = int(places[(labels != IGNORE_INDEX).any(0)].min())
    logits = model(**fields, logits_to_keep=labels.shape[1] - first).logits
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        labels[:, first:].flatten(),
        ignore_index=IGNORE_INDEX,
        label_smoothing=smoothing,
        reduction="sum",
    )

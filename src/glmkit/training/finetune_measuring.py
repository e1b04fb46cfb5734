"""Held-out samples -> loss, accuracy and what was chosen for each: the numbers that a fine-tuning run steers by.

In: a model and a task's held-out samples. Out: `Measured`. Of a task with several patterns the mean of the shares'
logarithms decides, as in inference. A sample's numbers do not depend on its batch. Texts that are written are measured by
`evaluation`, which training does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from glmkit.special_tokens import SpecialTokenIds
from glmkit.tasks.agreement import entity_f1, macro_f1
from glmkit.tasks.tagging import Tagged, decode_tags
from glmkit.training.finetune_data import TaskSamples
from glmkit.training.finetune_losses import batch_loss, choice_losses, choice_scores
from glmkit.training.finetune_stream import Prepare, held_out_batches


@dataclass(frozen=True)
class Measured:
    """What held-out samples of one task gave.

    Attributes:
        metrics: `loss` (nats per sample, or per predicted token of an answer), and `accuracy`, `macro_f1` of classes; of tagging
            `accuracy` of tags and `entity_f1` of spans.
        predictions: With choices, for each sample where it stands, its right choice, the chosen one, all shares; of tagging the
            right spans and those found.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]] = field(default_factory=list)


@torch.no_grad()
def measure(
    model: Any,
    task: TaskSamples,
    specials: SpecialTokenIds,
    *,
    rows: int,
    head: bool = False,
    prepare: Prepare | None = None,
    autocast: Callable[[], Any] = nullcontext,
    move: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch,
) -> Measured:
    """Measures a model on a task's held-out samples.

    Args:
        model: What `batch_loss` takes; it is in its mode of before afterwards.
        task: Its `valid` is read.
        specials: Ids of the special tokens.
        rows: Samples of a batch.
        head: Whether the model has a head for this task.
        prepare: Makes tensors of media.
        autocast: Makes the context that the model runs in.
        move: Brings a batch to the model's device.
    """
    was_training = model.training
    model.eval()
    try:
        with autocast():
            if task.has_choices:
                return _measure_choices(model, task, specials, rows, head, move, prepare)
            if task.task.kind == "tagging":
                return _measure_tags(model, task, specials, rows, move)
            return _measure_tokens(model, task, specials, rows, move, prepare)
    finally:
        model.train(was_training)


def summarise(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns `eval_<metric>`, the mean over tasks of what all of them have, and of several `eval_<task>_<metric>`."""
    names = [
        name
        for name in ("loss", "accuracy", "macro_f1", "entity_f1")
        if all(name in one for one in found.values())
    ]
    means = {
        f"eval_{name}": sum(one[name] for one in found.values()) / len(found) for name in names
    }
    if len(found) == 1:
        return means
    return {
        **means,
        **{
            f"eval_{task}_{name}": value
            for task, one in found.items()
            for name, value in one.items()
        },
    }


def _measure_choices(
    model: Any,
    task: TaskSamples,
    specials: SpecialTokenIds,
    rows: int,
    head: bool,
    move: Any,
    prepare: Prepare | None,
) -> Measured:
    samples = task.valid
    sums: list[torch.Tensor | None] = [None] * len(samples)
    for pattern in range(max(len(sample.variants) for sample in samples)):
        for indices, batch in held_out_batches(
            samples, specials, rows, pattern=pattern, head=head, prepare=prepare
        ):
            shares = choice_scores(model, move(batch)).log_softmax(1).double().cpu()
            sizes = batch.get("num_choices", torch.full((len(indices),), shares.shape[1])).tolist()
            for index, size, row in zip(indices, sizes, shares, strict=True):
                before, row = sums[index], row[:size]
                sums[index] = row if before is None else before + row
    losses, predictions = [], []
    right, chosen = [], []
    for sample, total in zip(samples, sums, strict=True):
        assert total is not None
        assert sample.right is not None
        # A mean of logarithms, and their shares again.
        log_shares = (total / len(sample.variants)).log_softmax(0)
        losses.append(choice_losses(log_shares[None], torch.tensor([sample.right])).item())
        right.append(sample.right)
        chosen.append(int(log_shares.argmax()))
        predictions.append(
            {
                "where": sample.where,
                "right": sample.right,
                "chosen": chosen[-1],
                "probabilities": log_shares.exp().tolist(),
            }
        )
    hits = sum(r == c for r, c in zip(right, chosen, strict=True))
    metrics = {"loss": sum(losses) / len(losses), "accuracy": hits / len(losses)}
    if task.labels:
        metrics["macro_f1"] = macro_f1(right, chosen)
    return Measured(metrics, predictions)


def _measure_tokens(
    model: Any,
    task: TaskSamples,
    specials: SpecialTokenIds,
    rows: int,
    move: Any,
    prepare: Prepare | None,
) -> Measured:
    total, count = 0.0, 0.0
    for _, batch in held_out_batches(
        task.valid, specials, rows, pattern=0, head=False, prepare=prepare
    ):
        loss, tokens = batch_loss(model, move(batch))
        total, count = total + loss.item(), count + tokens.item()
    mean = total / count
    return Measured({"loss": mean, "perplexity": math.exp(min(mean, 700.0))})


def _measure_tags(
    model: Any, task: TaskSamples, specials: SpecialTokenIds, rows: int, move: Any
) -> Measured:
    total, hits, count = 0.0, 0, 0
    right: dict[int, list[Any]] = {}
    found: dict[int, list[Any]] = {}
    for indices, batch in held_out_batches(task.valid, specials, rows, pattern=0, head=False):
        batch = move(batch)
        scores = model(**batch["inputs"]).logits.float().log_softmax(-1).cpu()
        for index, row in zip(indices, scores, strict=True):
            sample = task.valid[index].variants[0]
            assert isinstance(sample, Tagged)
            own, tags = row[sample.places], torch.from_numpy(sample.tags)
            total -= own.gather(1, tags[:, None]).sum().item()
            hits += int((own.argmax(1) == tags).sum())
            count += len(tags)
            right[index] = sample.spans
            found[index] = [one for one, _ in decode_tags(task.task, sample.units, own.numpy())]
    order = range(len(task.valid))
    f1 = entity_f1([found[index] for index in order], [right[index] for index in order])
    predictions = [
        {"where": task.valid[index].where, "right": right[index], "chosen": found[index]}
        for index in order
    ]
    return Measured({"loss": total / count, "accuracy": hits / count, "entity_f1": f1}, predictions)

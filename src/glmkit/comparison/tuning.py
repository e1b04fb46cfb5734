"""The same fine-tuning for every family, by transformers' Trainer: examples in, a changed model out.

In: a pretrained model, a list of `Example`s in the order of training, with classes or without. Out: nothing; the model's
weights are changed. Seeds decide everything; a run of minutes is not resumed but made again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from glmkit.blanks.layout import Example, collate_packed
from glmkit.comparison.models import states
from glmkit.comparison.settings import TuningSettings
from glmkit.model.modeling import GLMOutput

_SAME = ("bf16", "fp16", "use_cpu", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay")
"""Pretraining's `TrainingArguments` that fine-tuning keeps."""


class Classifier(nn.Module):
    """A linear head on the mean of a model's last hidden states, the same for all families.

    Args:
        model: Of any family.
        num_labels: C classes.
        width: H of the model.
    """

    def __init__(self, model: Any, num_labels: int, width: int):
        super().__init__()
        self.model = model
        self.norm = nn.LayerNorm(width)  # the families' last states differ in scale
        self.linear = nn.Linear(width, num_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, classes: torch.Tensor | None = None, **batch: torch.Tensor) -> GLMOutput:
        """Returns `logits` [B, C], and the loss where `classes` [B] are given."""
        real = (batch["segment_ids"] > 0).to(torch.float32)
        mean = torch.einsum("bsh,bs->bh", states(self.model, batch).float(), real)
        logits = self.linear(self.norm(mean / real.sum(1, keepdim=True)))
        loss = None if classes is None else nn.functional.cross_entropy(logits, classes)
        return GLMOutput(loss=loss, logits=logits)


def collated(
    examples: Sequence[Example], pad: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Returns a batch, one example a row: `input_ids`, `labels`, `segment_ids` [B, L], `position_ids` [B, 2, L]."""
    longest = max(len(example) for example in examples)
    batch = collate_packed([[example] for example in examples], pad, longest)
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}


def tune(
    model: Any,
    examples: Sequence[Example],
    settings: TuningSettings,
    pretraining: dict[str, Any],
    pad: int,
    seed: int,
    classes: Sequence[int] | None = None,
) -> None:
    """Trains a model in place; it ends on the device that it was trained on, in evaluation mode.

    Args:
        model: A model of any family, or a `Classifier`.
        examples: `settings.steps` · `settings.rows`, in the order of training.
        settings: Steps, rows, rate.
        pretraining: `TrainingArguments` of pretraining.
        pad: Id that fills up rows.
        seed: Of dropout.
        classes: For a `Classifier`, the class of each example.
    """
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            **{name: pretraining[name] for name in _SAME if name in pretraining},
            output_dir=folder,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.rows,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=0.1,
            max_grad_norm=1.0,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = _Ordered(
            model=model,
            args=args,
            train_dataset=_Rows(examples, classes),
            data_collator=lambda rows: _batch(rows, pad),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()


class _Ordered(Trainer):
    """Reads its examples as they come: their order is drawn already, alike for all families."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        rows: Any = self.train_dataset
        return SequentialSampler(rows)


class _Rows(Dataset):
    """Examples with their classes."""

    def __init__(self, examples: Sequence[Example], classes: Sequence[int] | None):
        self._examples, self._classes = examples, classes

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Example, int | None]:
        return self._examples[index], None if self._classes is None else self._classes[index]


def _batch(rows: Sequence[tuple[Example, int | None]], pad: int) -> dict[str, torch.Tensor]:
    batch = collated([example for example, _ in rows], pad)
    if rows[0][1] is not None:
        del batch["labels"]
        batch["classes"] = torch.tensor([one for _, one in rows])
    return batch

"""`GLMTrainer`: transformers' Trainer over a stream of packed batches, resumable to the bit.

In: a model, `TrainingArguments`, a `PretrainingStream`, held-out batches. Out: an updated model, checkpoints, logged
numbers. What it adds to Trainer: batches come from the stream, whose place is in every checkpoint; checkpoints appear
whole or not at all; losses are logged for each objective; a loss that is not finite stops before the weights change.
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.blanks.objectives import OBJECTIVES
from glmkit.errors import UserError
from glmkit.training import checkpoints
from glmkit.training.data import PretrainingStream
from glmkit.training.meters import Window, means, sums_by_index

logger = logging.getLogger(__name__)

STATE_FILE = "glmkit_state.json"

_NOT_FOR_THE_MODEL = ("objective_ids", "documents")


class NonFiniteLossError(UserError):
    """The loss or the gradient is not a finite number; says at which step and on which documents."""


class GLMTrainer(Trainer):
    """Trains on a `PretrainingStream`.

    Args:
        model: A `GLMForConditionalGeneration`.
        args: `max_steps` and `output_dir` are needed.
        stream: Endless batches.
        held_out: Batches that are evaluated every `eval_steps`, with all objectives in them.
        tokenizer: Saved with every checkpoint.
        callbacks: As in Trainer.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        stream: PretrainingStream,
        held_out: list[dict[str, Any]],
        tokenizer: Any,
        callbacks: list[Any] | None = None,
    ):
        args.ignore_data_skip = True  # the stream goes to its place itself
        args.logging_nan_inf_filter = False  # such a loss stops the run
        super().__init__(
            model=model,
            args=args,
            train_dataset=stream,  # type: ignore[arg-type]
            eval_dataset=held_out,  # type: ignore[arg-type]
            callbacks=callbacks,
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_Restore(self))
        self.stream, self.held_out, self.tokenizer = stream, held_out, tokenizer
        self.names: tuple[str, ...] = OBJECTIVES
        self._window = Window(self.names)
        # What a checkpoint keeps beside weights and optimizer, each with state_dict (for JSON) and load_state_dict.
        self.parts: dict[str, Any] = {"stream": self.stream, "window": self._window}
        self._restored: dict[str, Any] | None = None
        self._documents: list[list[list[int]]] = []
        self._save_under: Path | None = None

    # -- batches -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """Returns the stream: rows are already batched, and divided among the processes."""
        return self.stream

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        self._documents = [batch["documents"] for batch in batches]
        return batches, num_items

    # -- loss ----------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        fields = {name: value for name, value in inputs.items() if name not in _NOT_FOR_THE_MODEL}
        self._window.count(inputs)
        loss, outputs = super().compute_loss(model, fields, True, num_items_in_batch)
        if self._next_step_is_logged():
            self._window.losses += self._loss_sums(outputs, inputs)
        if not torch.isfinite(loss):
            raise self._not_finite("loss")
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # With fp16 the loss scaler expects infinite gradients and skips the step itself.
        if norm is not None and not self.args.fp16 and not math.isfinite(float(norm)):
            raise self._not_finite("gradient")
        return norm

    def _not_finite(self, what: str) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"the {what} of step {self.state.global_step + 1} is not finite; the weights were not changed by it. The "
            f"documents of its batch in {self.stream.store.folder}: {self._documents}. Lower trainer.learning_rate or "
            "trainer.max_grad_norm, use bf16 or fp32 instead of fp16, or remove these documents; then run the same "
            "command again: it goes on from the last checkpoint."
        )

    def _next_step_is_logged(self) -> bool:
        step = self.state.global_step + 1
        return step % self.state.logging_steps == 0 or (step == 1 and self.args.logging_first_step)

    def _loss_sums(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Returns float64 [2, names] on the CPU: sums of the loss, and predicted tokens, by objective."""
        indices = inputs["objective_ids"][inputs["labels"] != IGNORE_INDEX]
        return sums_by_index(outputs["token_losses"], indices, len(self.names))

    # -- evaluation ----------------------------------------------------------------------------------------------

    def held_out_losses(self) -> dict[str, float]:
        """Returns the loss per predicted token of the held-out rows: `eval_loss`, `eval_<objective>_loss`."""
        began = time.monotonic()
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        sums = torch.zeros(2, len(self.names), dtype=torch.float64)
        for batch in self.held_out:
            inputs = self._prepare_inputs(batch)
            fields = {n: value for n, value in inputs.items() if n not in _NOT_FOR_THE_MODEL}
            with torch.no_grad(), self.accelerator.autocast():
                outputs = model(**fields, return_logits=False)
            sums += self._loss_sums(outputs, inputs)
        model.train(was_training)
        self._window.pause(time.monotonic() - began)
        return {f"eval_{name}": value for name, value in means(sums, self.names).items()}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Logs and returns `held_out_losses`."""
        metrics = self.held_out_losses()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    # -- logging -------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self._window.close())
        self.state.epoch = self.stream.epochs
        super().log(logs, start_time)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_under or self.args.output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.tokenizer.save_pretrained(output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes `checkpoint-N` under another name and renames it when all of it is on the disk."""
        began, run = time.monotonic(), Path(str(self.args.output_dir))
        self._save_under = run / checkpoints.PARTIAL
        written = self._save_under / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._save_under = None
        if self.args.should_save:
            state = {
                "loss": self._tr_loss.item(),
                "last_logged": self._globalstep_last_logged,
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
            }
            (written / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(written, run / written.name)
            checkpoints.keep_newest(run, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
        self._window.pause(time.monotonic() - began)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        text = (Path(resume_from_checkpoint) / STATE_FILE).read_text(encoding="utf-8")
        self._restored = json.loads(text)
        self._restore_parts()

    @property
    def totals(self) -> tuple[int, int, int]:
        """Real tokens, places and predicted tokens that this process has read in the whole run."""
        real, places, predicted = self._window.totals.tolist()
        return real, places, predicted

    def load(self, checkpoint: Path) -> None:
        """Loads the weights and the place of a checkpoint without training on."""
        self._load_from_checkpoint(str(checkpoint))

    def _restore_parts(self) -> None:
        assert self._restored is not None
        for name, part in self.parts.items():
            part.load_state_dict(self._restored["parts"][name])

    def restore_window(self) -> None:
        """Goes on with the sums between two log lines where the checkpoint was between them."""
        self._window.begin()
        if self._restored is not None:
            self._tr_loss.fill_(self._restored["loss"])
            self._globalstep_last_logged = self._restored["last_logged"]
            self._restored = None


class _Restore(TrainerCallback):
    """Lets the trainer restore what Trainer resets when it begins."""

    def __init__(self, trainer: GLMTrainer):
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._trainer.restore_window()

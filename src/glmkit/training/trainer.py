"""`GLMTrainer`: transformers' Trainer over a stream of packed batches, resumable to the bit.

In: a model, `TrainingArguments`, a `PretrainingStream`, held-out batches. Out: an updated model, checkpoints
(`ResumableTrainer`), logged numbers. What it adds: batches come from the stream, whose place is in every checkpoint;
losses are logged for each objective; a loss that is not finite stops before the weights change; a step that is a spike
is skipped and the weights are averaged, where the settings say so.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.errors import UserError
from glmkit.training import distributed
from glmkit.training.average import AverageSettings, WeightAverage
from glmkit.training.data import PretrainingStream
from glmkit.training.flops import StepFlops
from glmkit.training.masters import MasterAdamW
from glmkit.training.meters import Window, means, sums_by_index
from glmkit.training.muon import Muon, parameter_groups
from glmkit.training.peaks import peak_flops
from glmkit.training.resumable import ResumableTrainer
from glmkit.training.spikes import SpikeGuard, SpikeSettings

logger = logging.getLogger(__name__)

_NOT_FOR_THE_MODEL = ("objective_ids", "documents")


class NonFiniteLossError(UserError):
    """The loss or the gradient is not a finite number; says at which step and on which documents."""


class GLMTrainer(ResumableTrainer):
    """Trains on a `PretrainingStream`.

    Args:
        model: A `GLMForConditionalGeneration`; weights in bfloat16 get float32 masters.
        args: `max_steps` and `output_dir` are needed.
        stream: Endless batches.
        held_out: Batches that are evaluated every `eval_steps`, with all objectives in them.
        tokenizer: Saved with every checkpoint.
        callbacks: As in Trainer.
        average: Whether and how the weights are averaged.
        spikes: Whether and when a step is skipped.
        use_muon: Whether `Muon` takes the place of `args.optim`.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        stream: PretrainingStream,
        held_out: list[dict[str, Any]],
        tokenizer: Any,
        callbacks: list[Any] | None = None,
        average: AverageSettings | None = None,
        spikes: SpikeSettings | None = None,
        use_muon: bool = False,
    ):
        args.ignore_data_skip = True  # the stream goes to its place itself
        args.logging_nan_inf_filter = False  # such a loss stops the run
        optimizer = None
        if model.dtype == torch.bfloat16:
            _, settings = self.get_optimizer_cls_and_kwargs(args)
            optimizer = (MasterAdamW, settings)
        super().__init__(
            model=model,
            args=args,
            tokenizer=tokenizer,
            train_dataset=stream,  # type: ignore[arg-type]
            eval_dataset=held_out,  # type: ignore[arg-type]
            callbacks=callbacks,
            optimizer_cls_and_kwargs=optimizer,
        )
        if use_muon:
            self.optimizer_cls_and_kwargs = (Muon, self._muon_settings(model, args))
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_Steps(self))
        self.stream, self.held_out = stream, held_out
        self.names = stream.objective_names
        self._window = Window(
            self.names, StepFlops.of(model.config), self._gathered, is_first=args.process_index == 0
        )
        self.parts |= {"stream": self.stream, "window": self._window}
        self.average: WeightAverage | None = None
        if average is not None and average.is_on:
            self.average = WeightAverage(model, average)
        self.spikes: SpikeGuard | None = None
        if spikes is not None and spikes.is_on:
            self.spikes = self.parts["spikes"] = SpikeGuard(spikes)
        self._step_loss = torch.zeros((), device=args.device)
        self._documents: list[list[list[int]]] = []

    def _muon_settings(self, model: Any, args: TrainingArguments) -> dict[str, Any]:
        decayed = self.get_decay_parameter_names(model)
        return {
            "params": parameter_groups(model, decayed, args.weight_decay),
            "lr": args.learning_rate,
            "betas": (args.adam_beta1, args.adam_beta2),
            "eps": args.adam_epsilon,
        }

    # -- batches -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """Returns the stream: rows are already batched, and divided among the processes."""
        return self.stream

    def get_batch_samples(self, epoch_iterator: Any, *args: Any) -> Any:
        batches, num_items = super().get_batch_samples(self._window.timed(epoch_iterator), *args)
        self._documents = [batch["documents"] for batch in batches]
        for batch in batches:
            self._window.count(batch)
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
        loss, outputs = super().compute_loss(model, fields, True, num_items_in_batch)
        if self._next_step_is_logged():
            self._window.losses += self._loss_sums(outputs, inputs)
        if not torch.isfinite(loss):
            raise self._not_finite("loss")
        self._step_loss += loss.detach()
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        finite = math.isfinite(float(norm))
        # With fp16 the loss scaler expects infinite gradients and skips the step itself.
        if not finite and not self.args.fp16:
            raise self._not_finite("gradient")
        if self.spikes is not None and finite:
            self._skip_spike(model, self.spikes, float(norm))
        self._step_loss.zero_()
        return norm

    def _skip_spike(self, model: Any, guard: SpikeGuard, norm: float) -> None:
        """Drops the gradients of a step that is a spike: an optimizer leaves weights without a gradient alone."""
        # The same numbers on all processes, so that all decide alike.
        numbers = torch.stack((self._step_loss.float(), torch.full_like(self._step_loss, norm)))
        loss, norm = self.accelerator.reduce(numbers, "mean").tolist()
        if guard.skips(loss, norm):
            model.zero_grad(set_to_none=True)
            logger.warning(
                "step %d is skipped, its loss is %.4g and its gradient's norm %.4g; the documents of its batch in %s: %s",
                self.state.global_step + 1,
                loss,
                norm,
                self.stream.store.folder,
                self._documents,
            )

    def _gathered(self, vector: torch.Tensor) -> torch.Tensor:
        """Returns a vector [n] of every process: [processes, n]."""
        if self.accelerator.num_processes == 1:
            return vector[None]
        return self.accelerator.gather(vector[None].to(self.args.device))

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
        processes, last = self.args.world_size, len(self.held_out) - 1
        for first in range(0, len(self.held_out), processes):
            # Each process reads one of the next batches; a divided model needs all of them in every pass.
            index = first + self.args.process_index
            inputs = self._prepare_inputs(self.held_out[min(index, last)])
            fields = {n: value for n, value in inputs.items() if n not in _NOT_FOR_THE_MODEL}
            with torch.no_grad(), self.accelerator.autocast():
                outputs = model(**fields, return_logits=False)
            if index <= last:
                sums += self._loss_sums(outputs, inputs)
        sums = distributed.summed(sums)
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
            if self.spikes is not None:
                logs["skipped_steps"] = self.spikes.skipped
        self.state.epoch = self.stream.epochs
        super().log(logs, start_time)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        began = time.monotonic()
        super()._save_checkpoint(model, trial)
        self._window.pause(time.monotonic() - began)

    def _save_own_state(self, folder: Path) -> None:
        super()._save_own_state(folder)
        if self.average is not None:
            self.average.save(folder, writes=self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint))

    @property
    def totals(self) -> tuple[int, int, int]:
        """Real tokens, places and predicted tokens that all processes have read in the whole run."""
        return self._window.totals_of_all()

    def begin(self) -> None:
        """Also starts the clock of the first log line."""
        super().begin()
        model: Any = self.model
        dtype = model.dtype
        if self.args.bf16 or self.args.fp16:
            dtype = torch.bfloat16 if self.args.bf16 else torch.float16
        self._window.peak_flops, source = peak_flops(self.args.device, dtype)
        logger.info("peak for MFU: %.4g FLOP/s (%s)", self._window.peak_flops, source)
        self._window.begin()


class _Steps(TrainerCallback):
    """Lets the trainer average the weights after each step."""

    def __init__(self, trainer: GLMTrainer):
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if self._trainer.average is not None:
            self._trainer.average.update(state.global_step)

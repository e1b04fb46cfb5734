"""`FinetuneTrainer`: transformers' Trainer over batches of labelled samples, which keeps the best weights.

In: a model (or a `PeftModel`), `TrainingArguments`, a `FinetuneStream`, held-out samples. Out: `best/`, the weights of the
best evaluation so far, in a folder that loads; checkpoints (`ResumableTrainer`); logged numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from glmkit.checkpoint.adapters import ADAPTER_WEIGHTS
from glmkit.errors import CheckpointError
from glmkit.model.adapters import save_adapter, set_adapter_weights
from glmkit.model.virtual_tokens import without_warnings_of_peft
from glmkit.training import checkpoints, distributed
from glmkit.training.finetune_data import TaskSamples
from glmkit.training.finetune_losses import batch_loss
from glmkit.training.finetune_measuring import measure, summarise
from glmkit.training.finetune_settings import BestSettings
from glmkit.training.finetune_stream import FinetuneStream
from glmkit.training.resumable import ResumableTrainer, stored_weights
from glmkit.training.trainer import NonFiniteLossError

BEST = "best"
"""Folder, in that of the run, of the best weights."""


class FinetuneTrainer(ResumableTrainer):
    """Trains on a `FinetuneStream`.

    Args:
        model: What to train; a `PeftModel` trains and saves its adapter alone.
        args: `max_steps` and `output_dir` are needed.
        stream: Endless batches.
        tasks: Samples of the tasks, of which `valid` is evaluated.
        tokenizer: Saved with every checkpoint.
        best: Which evaluation is the best, and when to stop.
        smoothing: Of labels.
        callbacks: As in Trainer.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        stream: FinetuneStream,
        tasks: Sequence[TaskSamples],
        tokenizer: Any,
        *,
        best: BestSettings,
        smoothing: float = 0.0,
        callbacks: list[Any] | None = None,
    ):
        args.ignore_data_skip = True  # the stream goes to its place itself
        args.logging_nan_inf_filter = False  # such a loss stops the run
        super().__init__(
            model=model,
            args=args,
            tokenizer=tokenizer,
            train_dataset=stream,  # type: ignore[arg-type]
            eval_dataset=stream,  # type: ignore[arg-type]  # evaluate() reads the tasks' own
            callbacks=callbacks,
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_EvaluateLast())
        self.loss_is_scaled_for_ga = True
        self.stream, self.tasks, self.smoothing = stream, tasks, smoothing
        self.best = Best(best)
        self.parts |= {"stream": stream, "best": self.best}
        self._where: list[str] = []

    def get_train_dataloader(self) -> Any:
        """Returns the stream: samples are already batched, and divided among the processes."""
        return self.stream

    # -- loss ----------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Returns the batches of one step, each with the factor that makes their sums one mean.

        Of each task it is the mean over its samples (or tokens) of the whole step, all processes together; tasks count
        by their batches.
        """
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        items = torch.zeros(len(self.tasks), dtype=torch.float64)
        turns = [0] * len(self.tasks)
        for batch in batches:
            items[batch["task"]] += batch.get("tokens") or batch["weights"].sum()
            turns[batch["task"]] += 1
        items = distributed.summed(items)
        for batch in batches:
            share = turns[batch["task"]] / num_batches
            # Gradients are averaged over the processes afterwards.
            batch["scale"] = share / float(items[batch["task"]]) * self.args.world_size
        self._where = [one for batch in batches for one in batch["where"]]
        return batches, None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        total, _ = batch_loss(model, inputs, self.smoothing)
        loss: torch.Tensor = total * inputs["scale"]
        if not torch.isfinite(loss):
            raise self._not_finite("loss")
        return (loss, None) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not self.args.fp16 and not math.isfinite(float(norm)):
            raise self._not_finite("gradient")
        return norm

    def _not_finite(self, what: str) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"the {what} of step {self.state.global_step + 1} is not finite; the weights were not changed by it. Its "
            f"records: {', '.join(self._where)}. Lower trainer.learning_rate or trainer.max_grad_norm, or use bf16 or "
            "float32 instead of fp16; then run the same command again: it goes on from the last checkpoint."
        )

    # -- evaluation ----------------------------------------------------------------------------------------------

    def held_out_metrics(self) -> dict[str, float]:
        """Returns the metrics of the held-out samples, of each task and their means: `eval_<metric>` and more."""
        model = self.accelerator.unwrap_model(self.model)
        found = {
            task.name: measure(
                model,
                task,
                self.stream.specials,
                rows=self.args.per_device_eval_batch_size,
                head=self.stream.head,
                prepare=self.stream.prepare,
                autocast=self.accelerator.autocast,
                move=self._prepare_inputs,
            ).metrics
            for task in self.tasks
        }
        return summarise(found)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Logs and returns `held_out_metrics`; keeps the weights if they are the best so far."""
        # Those of process 0, whose weights are saved: in others a norm's statistics (ResNet), or rounding, may differ, and with
        # them what is the best, and whether to go on.
        metrics = distributed.all_as_first(self.held_out_metrics())
        self.log(dict(metrics))
        if self.state.global_step and self.best.is_better(metrics, self.state.global_step):
            self._save_best()
        if self.best.stopped:
            # Saved, so that a run that is killed now is not trained on.
            self.control.should_training_stop = self.control.should_save = True
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        self.state.epoch = self.stream.epochs
        super().log(logs, start_time)

    # -- weights -------------------------------------------------------------------------------------------------

    def _save_best(self) -> None:
        run = Path(str(self.args.output_dir))
        if self.args.should_save:
            self._save(str(run / checkpoints.PARTIAL / BEST))
            checkpoints.publish(run / checkpoints.PARTIAL / BEST, run / BEST)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with without_warnings_of_peft():
            super()._save(output_dir, state_dict)
        model = self.accelerator.unwrap_model(self.model)
        if self.args.should_save and hasattr(model, "peft_config"):
            save_adapter(model, Path(output_dir or str(self.args.output_dir)))
        if self.args.should_save and output_dir is not None:
            (Path(output_dir) / "training_args.bin").unlink(
                missing_ok=True
            )  # a pickle; config.yaml says it

    def load_weights(self, folder: Path) -> None:
        """Loads weights that `_save` wrote."""
        self._set_weights(self.accelerator.unwrap_model(self.model), read_weights(folder))

    def _set_weights(self, model: Any, weights: dict[str, Any]) -> None:
        if hasattr(model, "peft_config"):
            set_adapter_weights(model, weights)
        else:
            super()._set_weights(model, weights)


class _EvaluateLast(TrainerCallback):
    """Evaluates after the last step, whatever `eval_steps` is."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_evaluate = True


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of a folder, of an adapter's the adapter's.

    Raises:
        CheckpointError: There are none.
    """
    weights = stored_weights(folder)
    if not weights:
        raise CheckpointError(f"{folder} holds no weights ({ADAPTER_WEIGHTS} or model.safetensors)")
    return weights


class Best:
    """The best evaluation so far.

    Attributes:
        step: Its step; None before the first.
        value: Of the metric, larger is better.
        since: Evaluations since then.
        stopped: Whether patience is at an end.
    """

    def __init__(self, settings: BestSettings):
        self.settings = settings
        self.step: int | None = None
        self.value = -math.inf
        self.since = 0
        self.stopped = False

    def metric(self, metrics: dict[str, float]) -> str:
        """Returns the metric that counts."""
        name: str = self.settings.metric
        if name == "auto":
            known = (one for one in ("entity_f1", "accuracy") if f"eval_{one}" in metrics)
            name = next(known, "loss")
        return name if f"eval_{name}" in metrics else "loss"

    def is_better(self, metrics: dict[str, float], step: int) -> bool:
        """Returns whether the metrics of a step are the best so far, and remembers them if so."""
        name = self.metric(metrics)
        value = metrics[f"eval_{name}"] * (-1 if name == "loss" else 1)
        if value > self.value + (self.settings.min_delta if self.step is not None else 0):
            self.step, self.value, self.since = step, value, 0
            return True
        self.since += 1
        self.stopped = self.settings.patience is not None and self.since >= self.settings.patience
        return False

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {
            "step": self.step,
            "value": self.value if self.step is not None else None,
            "since": self.since,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.step, self.since, self.stopped = state["step"], state["since"], state["stopped"]
        self.value = -math.inf if state["value"] is None else state["value"]

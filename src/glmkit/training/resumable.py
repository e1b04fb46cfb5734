"""`ResumableTrainer`: transformers' Trainer whose checkpoints appear whole or not at all and fit any number of processes.

In: a model, `TrainingArguments`, how the model is divided. Out: `checkpoint-N` folders, and a trainer that goes on from
one to the bit, or with another number of processes from the same weights, optimizer and place in the data. A checkpoint
holds `state/` (torch.distributed.checkpoint: optimizer, and weights where the model is divided), `model.safetensors`
(where it is not), `scheduler.pt`, the random generators of each process, Trainer's own state, and `glmkit_state.json`.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint import CheckpointException
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from glmkit.checkpoint.adapters import MEDIA_FOLDER
from glmkit.errors import CheckpointError, ConfigError
from glmkit.training import checkpoints, distributed

logger = logging.getLogger(__name__)

STATE_FILE = "glmkit_state.json"
STATE_FOLDER = "state"
SCHEDULER_FILE = "scheduler.pt"


class ResumableTrainer(Trainer):
    """A Trainer that knows how to stop and go on.

    Attributes:
        parts: What a checkpoint keeps beside weights, optimizer and scheduler: name -> an object with `state_dict`
            (JSON can hold it; called in all processes) and `load_state_dict`.

    Args:
        model: A model of transformers; divided already (`distributed.divide`) or whole.
        args: As in Trainer.
        tokenizer: Saved with every checkpoint.
        **options: As in Trainer.
    """

    def __init__(self, model: Any, args: TrainingArguments, tokenizer: Any, **options: Any):
        self.divided = distributed.is_divided(model)
        # With torch_compile: one layer is compiled for all, and what depends on the data (how many tokens are predicted) is not.
        os.environ.setdefault("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", "true")
        super().__init__(model=model, args=args, **options)
        # Trainer then neither wraps the model in DDP nor moves it.
        self.is_distributed_loading_by_transformers = self.divided
        self.tokenizer = tokenizer
        self.parts: dict[str, Any] = {}
        self._restored: dict[str, Any] | None = None
        self._save_under: Path | None = None
        self.add_callback(_Restore(self))

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if not self.divided:  # else its parts are where they belong
            super()._move_model_to_device(model, device)

    # -- writing -------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_under or self.args.output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or str(self.args.output_dir)
        if self.divided:  # the weights are in the state folder
            self.accelerator.unwrap_model(self.model).config.save_pretrained(folder)
        else:
            super()._save(folder, state_dict)
        self.tokenizer.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        model = self.accelerator.unwrap_model(self.model)
        distributed.save_state(Path(output_dir) / STATE_FOLDER, model, self._plain_optimizer())
        if self.args.should_save:
            assert self.lr_scheduler is not None
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes `checkpoint-N` under another name and renames it when all of it is on the disk.

        Raises:
            CheckpointError: It could not be written, as on a full disk; earlier checkpoints are untouched.
        """
        run = Path(str(self.args.output_dir))
        self._save_under = run / checkpoints.PARTIAL
        written = self._save_under / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self._save_own_state(written)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.publish(written, run / written.name)
                checkpoints.keep_newest(run, self.args.save_total_limit)
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            raise self._not_written(written, error) from error
        finally:
            self._save_under = None
        self.accelerator.wait_for_everyone()

    def _save_own_state(self, folder: Path) -> None:
        state = {
            "rows_per_step": self.rows_per_step,
            "losses": distributed.gathered(self._tr_loss.item()),  # one of each process
            "last_logged": self._globalstep_last_logged,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        if self.args.should_save:
            (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _not_written(self, written: Path, error: BaseException) -> CheckpointError:
        run = Path(str(self.args.output_dir))
        if self.args.should_save:
            checkpoints.clean(run)  # what was written of it takes the room that is missing
        found = checkpoints.checkpoints(run)
        last = f"the last good one is {found[-1].name}" if found else "there is no earlier one"
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return CheckpointError(
            f"{run / written.name} could not be written ({reason[-1]}); {last}. Make room on the disk, or lower "
            f"trainer.save_total_limit ({self.args.save_total_limit}; one more is there while it is written), then run "
            "the same command again: it goes on from the last good checkpoint."
        )

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self, checkpoint: Path) -> None:
        """Loads the weights and the place of a checkpoint without training on."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Reads weights and parts.

        Raises:
            ConfigError: A step of the checkpoint's run had another number of rows.
        """
        folder = Path(resume_from_checkpoint)
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["rows_per_step"] != self.rows_per_step:
            raise ConfigError(
                f"{folder} was trained with {state['rows_per_step']} rows a step, now there are {self.rows_per_step} "
                f"({self.args.world_size} process(es) of {self.args.per_device_train_batch_size} rows, accumulated "
                f"{self.args.gradient_accumulation_steps} times). Set data.rows_per_step = {state['rows_per_step']}, "
                "and the accumulation follows from it."
            )
        target = self.accelerator.unwrap_model(self.model)
        if distributed.holds_weights(folder / STATE_FOLDER):
            distributed.load_weights(folder / STATE_FOLDER, target)
        else:
            self._set_weights(target, stored_weights(folder) if distributed.rank() == 0 else {})
        self._restored = state
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])

    def _set_weights(self, model: Any, weights: dict[str, Any]) -> None:
        """Gives the model what its checkpoint's `*.safetensors` hold (in process 0; nothing elsewhere)."""
        distributed.set_whole_weights(model, weights)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        model = self.accelerator.unwrap_model(self.model)
        distributed.load_optimizer(Path(checkpoint) / STATE_FOLDER, model, self._plain_optimizer())
        assert self.lr_scheduler is not None
        scheduler = torch.load(Path(checkpoint) / SCHEDULER_FILE, weights_only=True)
        self.lr_scheduler.load_state_dict(scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        text = (Path(checkpoint) / STATE_FILE).read_text(encoding="utf-8")
        if len(json.loads(text)["losses"]) == self.args.world_size:
            super()._load_rng_state(checkpoint)
        else:
            self.seed_process()

    # -- beginning -----------------------------------------------------------------------------------------------

    @property
    def rows_per_step(self) -> int:
        """Rows of the global batch."""
        rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return rows * self.args.world_size

    def seed_process(self) -> None:
        """Gives each process random numbers (dropout) of its own, fixed by the seed, the step and its number."""
        key = f"{self.args.seed} {self.state.global_step} {self.args.process_index}"
        set_seed(zlib.crc32(key.encode()))

    def begin(self) -> None:
        """Restores what Trainer resets when it begins: the sum of losses since the last log line."""
        if self._restored is not None:
            losses = self._restored["losses"]
            same = len(losses) == self.args.world_size
            loss = losses[self.args.process_index] if same else sum(losses) / len(losses)
            self._tr_loss.fill_(loss)
            self._globalstep_last_logged = self._restored["last_logged"]
            self._restored = None
        elif self.args.world_size > 1:
            self.seed_process()

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizer
        while hasattr(optimizer, "optimizer"):  # accelerate's wrapper
            optimizer = optimizer.optimizer
        return optimizer


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of a folder, and those of what reads media in it under `media.`; empty where there are none."""
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights.update(safetensors.torch.load_file(path))
    for path in sorted((folder / MEDIA_FOLDER).glob("*.safetensors")):
        own = safetensors.torch.load_file(path)
        weights.update({f"{MEDIA_FOLDER}.{name}": value for name, value in own.items()})
    return weights


class _Restore(TrainerCallback):
    """Tells the trainer that it begins."""

    def __init__(self, trainer: ResumableTrainer):
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._trainer.begin()

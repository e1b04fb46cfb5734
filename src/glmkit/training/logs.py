"""Where a run's numbers go while it runs: `log.jsonl`, TensorBoard, the logger and a progress bar's function."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glmkit.errors import missing_dependency

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, all steps, newest numbers) after every step."""

_TITLES = {"eval_loss": "held-out loss", "loss": "loss", "tokens_per_second": "tokens/s"}


class RunLog(TrainerCallback):
    """Writes each log line; after a resume the lines are those of one uninterrupted run.

    Args:
        run: Folder of the run.
        progress: For a progress bar.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, progress: Progress | None = None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_dependency("tensorboard", "pretraining", "train") from error
        self._make_writer = SummaryWriter
        self._run, self._progress = run, progress
        self._newest: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        # Lines behind the checkpoint that the run goes on from are written again.
        self._file = (self._run / "log.jsonl").open("w", encoding="utf-8")
        for line in state.log_history:
            self._write(line)
        self._writer = self._make_writer(
            str(self._run / "tensorboard"), purge_step=state.global_step + 1
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        self._newest.update(logs)
        self._write(state.log_history[-1])
        for name, value in logs.items():
            group = "held-out" if name.startswith("eval_") else "train"
            self._writer.add_scalar(
                f"{group}/{name.removeprefix('eval_')}", value, state.global_step
            )
        shown = (f"{title} {logs[name]:,.4g}" for name, title in _TITLES.items() if name in logs)
        logger.info("step %d of %d: %s", state.global_step, state.max_steps, ", ".join(shown))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._progress is not None and state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._newest)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            self._file.close()
            self._writer.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

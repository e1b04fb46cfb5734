"""Being asked to stop: on SIGTERM or Ctrl-C a run saves a checkpoint after the step it is in, and ends.

In: signals to any process of the run. Out: `TrainerControl` that saves and stops in all of them, then a
`TrainingStopped`. A second signal ends the process at once.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glmkit.errors import UserError
from glmkit.training.distributed import any_process

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What Slurm, Kubernetes and torchrun send before they kill, and Ctrl-C."""


class TrainingStopped(UserError):
    """A signal ended the run early; says after which step, and that it can go on."""


class StopOnSignal(TrainerCallback):
    """Saves and stops after the step in which a signal came. To be used in a `with` statement around the training."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows none
            self._before = {one: signal.signal(one, self._receive) for one in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        asked = any_process(self.received is not None, args.device)
        if asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        logger.warning(
            "%s: saving a checkpoint after this step; again to stop at once", self.received.name
        )

    def _restore(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

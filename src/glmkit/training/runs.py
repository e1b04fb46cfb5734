"""A run's folder: whose it is, whether it is finished, and training in it that a signal or a full disk interrupts.

In: a configuration that can be saved, a trainer. Out: a folder that holds this run and no other. Pretraining and
fine-tuning share it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from pathlib import Path
from typing import Any

from glmkit.config import load_config, save_config, to_values
from glmkit.errors import CheckpointError, ConfigError
from glmkit.training import checkpoints
from glmkit.training.interruption import StopOnSignal, TrainingStopped

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def claim(config: Any, run: Path, may_change: Collection[str]) -> bool:
    """Makes the folder this run's; returns whether the run is finished.

    Args:
        config: A dataclass of sections.
        run: The folder.
        may_change: Keys that may differ from those of the run in it.

    Raises:
        ConfigError: The folder holds a run with other settings, or something else.
    """
    saved = run / "config.yaml"
    if saved.is_file():
        before, now = _flat(to_values(load_config(type(config), saved))), _flat(to_values(config))
        different = [
            key
            for key in {**before, **now}
            if before.get(key) != now.get(key) and key.rpartition(".")[2] not in may_change
        ]
        if different:
            raise ConfigError(
                f"{run} holds a run with other settings (different: {', '.join(different)}). Choose another "
                "trainer.output_dir, or remove that folder."
            )
        if (run / "report.json").is_file():
            return True
        checkpoints.clean(run)
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ConfigError(
            f"trainer.output_dir = {str(run)!r} is not empty and holds no run; choose a folder of its own"
        )
    run.mkdir(parents=True, exist_ok=True)
    save_config(config, saved)
    return False


def train(trainer: Any, checkpoint: Path | None) -> None:
    """Trains to the end, or until a signal or an error.

    Raises:
        CheckpointError: The disk is full.
        TrainingStopped: SIGTERM or Ctrl-C; a checkpoint was saved.
    """
    run = Path(str(trainer.args.output_dir))
    with StopOnSignal() as stop:
        trainer.add_callback(stop)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise CheckpointError(
                f"{run}: {error.strerror}. The checkpoints in it are intact; make room on the disk, then run the same "
                "command again."
            ) from error
    if stop.stopped:
        raise TrainingStopped(
            f"stopped by a signal after step {trainer.state.global_step} of {trainer.args.max_steps}; a checkpoint was "
            f"saved in {run}: run the same command again to go on"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
        flat.update(inner)
    return flat

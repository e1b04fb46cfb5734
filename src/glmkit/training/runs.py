"""A run's folder: whose it is, whether it is finished, and training in it that a signal or a full disk interrupts.

In: a configuration that can be saved, a trainer. Out: a folder that holds this run and no other. Pretraining and
fine-tuning share it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from glmkit.config import load_config, save_config, to_values
from glmkit.errors import CheckpointError, ConfigError, missing_dependency
from glmkit.training import checkpoints
from glmkit.training.interruption import StopOnSignal, TrainingStopped
from glmkit.training.settings import RENAMED

LOCK = ".lock"
"""A file by which several processes agree on who does what (`whole_files.locked`)."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def claim(
    config: Any,
    run: Path,
    may_change: Collection[str],
    excuse: Callable[[set[str], dict[str, Any], dict[str, Any]], bool] = lambda *_: False,
) -> bool:
    """Makes the folder this run's; returns whether the run is finished.

    Args:
        config: A dataclass of sections.
        run: The folder.
        may_change: Keys that may differ from those of the run in it.
        excuse: Says of other keys that differ (`section.key`), and the values before and now, whether they may too.

    Raises:
        ConfigError: The folder holds a run with other settings, or something else.
    """
    saved = run / "config.yaml"
    if saved.is_file():
        before, now = to_values(load_config(type(config), saved)), to_values(config)
        old, new = _two_levels(before), _two_levels(now)
        different = [
            key
            for key in {**old, **new}
            if old.get(key) != new.get(key) and key.rpartition(".")[2] not in may_change
        ]
        if different and not excuse(set(different), before, now):
            raise ConfigError(
                f"{run} holds a run with other settings (different: {', '.join(different)}). Choose another "
                "trainer.output_dir, or remove that folder."
            )
        if (run / "report.json").is_file():
            return True
        checkpoints.clean(run)
    elif run.exists() and (not run.is_dir() or any(one.name != LOCK for one in run.iterdir())):
        raise ConfigError(
            f"trainer.output_dir = {str(run)!r} is not empty and holds no run; choose a folder of its own"
        )
    run.mkdir(parents=True, exist_ok=True)
    save_config(config, saved)
    return False


def arguments(purpose: str, **given: Any) -> TrainingArguments:
    """Returns Trainer's arguments; with torchrun, processes know each other from here on.

    Args:
        purpose: What accelerate is needed for, as a message says it.
        **given: Fields of `TrainingArguments`.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise missing_dependency("accelerate", purpose, "train") from error
    known = TrainingArguments.__dataclass_fields__
    return TrainingArguments(
        **{name if name in known else RENAMED.get(name, name): one for name, one in given.items()}
    )


def train(trainer: Any, checkpoint: Path | None) -> None:
    """Trains to the end, or until a signal or an error.

    Args:
        trainer: A `ResumableTrainer` with a `stream`.
        checkpoint: To go on from.

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
        finally:
            trainer.stream.close()
    if stop.stopped:
        raise TrainingStopped(
            f"stopped by a signal after step {trainer.state.global_step} of {trainer.args.max_steps}; a checkpoint was "
            f"saved in {run}: run the same command again to go on"
        )


def _two_levels(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what sections hold under `section.key`."""
    flat: dict[str, Any] = {}
    for section, value in values.items():
        inner = (
            {f"{section}.{key}": one for key, one in value.items()}
            if isinstance(value, dict)
            else None
        )
        flat.update({section: value} if inner is None else inner)
    return flat

"""Several adapters on one base: each task's own LoRA or virtual tokens, one at work at a time, the base in memory once.

In: a loaded `GLM` and folders of adapters. Out: the same `GLM`, which answers as the chosen adapter was trained to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmkit.applications.calibration import Calibration, load_calibrations
from glmkit.applications.heads import Head, is_classifier, load_head, stored_tasks
from glmkit.applications.tagging import Tagger, is_tagger, load_tagger
from glmkit.checkpoint import resolve
from glmkit.checkpoint.adapters import MEDIA_FOLDER
from glmkit.errors import ConfigError, nearest, require_torch
from glmkit.multimodal.reader import MediaReader, load_reader
from glmkit.tasks.task import Task


@dataclass(frozen=True)
class Adapter:
    """One adapter on the base.

    Attributes:
        tokens: Its virtual tokens, or None where it is LoRA.
        calibrations, tasks, head, tagger, media: What its folder says, as `GLM` has them.
    """

    tokens: Any
    calibrations: dict[str, Calibration]
    tasks: dict[str, Task]
    head: Head | None
    tagger: Tagger | None
    media: MediaReader | None = None


class Adapting:
    """What `GLM` inherits.

    Attributes:
        model, calibrations, tasks, head, tagger, media: As `GLM` has them; `set_adapter` changes them.
    """

    model: Any
    calibrations: dict[str, Calibration]
    tasks: dict[str, Task]
    head: Head | None
    tagger: Tagger | None
    media: MediaReader | None

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that were loaded."""
        return sorted(self._adapters)

    @property
    def _adapters(self) -> dict[str, Adapter]:
        return self.__dict__.setdefault("_loaded_adapters", {})

    def load_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """Loads an adapter beside others; `set_adapter` puts it to work.

        The base is read by torch from then on: adapters are not in the native decoder. One adapter works at a time, for all
        callers, so set it between requests, not while some are answered.

        Args:
            folder: What `glmkit finetune` wrote as `model/` (or `adapter/`), trained on this model.
            name: By default the folder's, or of a run's `model/` the run's.

        Returns:
            The name.

        Raises:
            CheckpointError: No adapter, or one of another base.
            ConfigError: The name is taken.
            MissingDependencyError: PEFT or torch is not installed.
        """
        require_torch("An adapter", "适配器")
        from glmkit.model.shared_base import attach_adapter

        path = resolve(folder)
        found = path.resolve()
        given = name or (found.parent.name if found.name in ("model", "adapter") else found.name)
        # transformers and PEFT make a module's name of it.
        given = given.replace(".", "-")
        if given in self._adapters:
            raise ConfigError(f"there is an adapter {given!r} already; give another name=")
        model = getattr(self.model, "torch_model", self.model)
        was_active = self.__dict__.get("_active_adapter")
        tokens = attach_adapter(model, path, given)
        if not self._adapters:
            self.__dict__["_base"] = Adapter(
                None, self.calibrations, self.tasks, self.head, self.tagger, self.media
            )
        self.model = model
        tasks = stored_tasks(path)
        with_head = len(tasks) == 1 and is_classifier(path)
        head = load_head(path, model, shared=True) if with_head else None
        tagger = load_tagger(path, model, shared=True) if is_tagger(path) else None
        media = self.__dict__["_base"].media  # an adapter that was trained without any leaves it
        if (path / MEDIA_FOLDER).is_dir():
            media = load_reader(path, model.device)
        self._adapters[given] = Adapter(tokens, load_calibrations(path), tasks, head, tagger, media)
        self.set_adapter(was_active)
        return given

    def set_adapter(self, name: str | None) -> None:
        """Lets an adapter work, or with None the base alone.

        Raises:
            ConfigError: No adapter of that name was loaded.
        """
        if name is not None and name not in self._adapters:
            raise ConfigError(
                f"there is no adapter {name!r}{nearest(name, self._adapters) or '.'} Loaded are {', '.join(self.adapters) or 'none'}"
            )
        self.__dict__["_active_adapter"] = name
        if name is None and not self._adapters:
            return
        chosen = self.__dict__["_base"] if name is None else self._adapters[name]
        from glmkit.model.shared_base import rest, wake

        if name is None:
            rest(self.model)
        else:
            wake(self.model, name, chosen.tokens)
        self.calibrations, self.tasks = dict(chosen.calibrations), dict(chosen.tasks)
        self.head, self.tagger, self.media = chosen.head, chosen.tagger, chosen.media

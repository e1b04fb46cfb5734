"""An exponential moving average of the weights: a model that is often better than the last step's.

In: a model, after each optimizer step. Out: its averaged weights (float32), in every checkpoint, and in the model's
place for a while. The mean is torch's own (`torch.optim.swa_utils`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

FILE = "average.safetensors"
"""In a checkpoint."""


@dataclass(frozen=True)
class AverageSettings:
    """An average of the weights; by default there is none."""

    decay: float | None = None
    """Share of the old average that is kept at each step, such as 0.999 or 0.9999. null: no average."""
    from_step: int = 0
    """Optimizer step whose weights it begins with; the first steps' are far from any good."""
    export: Literal["beside", "instead"] = "beside"
    """Where it goes at the end: `model-average/` beside `model/`, or into `model/` itself."""

    @property
    def is_on(self) -> bool:
        """Whether there is an average."""
        return self.decay is not None

    def problems(self) -> list[str]:
        """Returns what is wrong with the values."""
        found = []
        if self.decay is not None and not 0 < self.decay < 1:
            found.append(f"average.decay = {self.decay!r} must be between 0 and 1")
        if self.from_step < 0:
            found.append(f"average.from_step = {self.from_step!r} must be at least 0")
        return found


class WeightAverage:
    """The average of a model's trainable weights.

    Args:
        model: Its parameters are read at each update; they may be of any number type.
        settings: With a decay.
    """

    def __init__(self, model: torch.nn.Module, settings: AverageSettings):
        assert settings.decay is not None
        self.settings = settings
        self._model = model
        self._mean = get_ema_multi_avg_fn(settings.decay)
        self._weights: list[torch.Tensor] = []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after optimizer step `step` in."""
        if step < self.settings.from_step:
            return
        current = [weight.detach().float() for weight in self._model.parameters()]
        if self._weights:
            self._mean(self._weights, current, step)
        else:
            self._weights = [weight.clone() for weight in current]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average in the model's place; the model's own weights come back at the end."""
        own = [weight.detach().clone() for weight in self._model.parameters()]
        self._put(self._weights or own)
        try:
            yield
        finally:
            self._put(own)

    def save(self, folder: Path, *, writes: bool = True) -> None:
        """Writes the average, whole, into a checkpoint's folder; all processes call it, the first one `writes`."""
        names = [name for name, _ in self._model.named_parameters()]
        whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in self._weights]
        if writes:
            save_file(dict(zip(names, whole, strict=False)), folder / FILE)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote, on any number of processes."""
        read = load_file(folder / FILE)
        self._weights = [
            _placed_as(weight, read[name])
            for name, weight in self._model.named_parameters()
            if read  # else the average had not begun
        ]

    @torch.no_grad()
    def _put(self, weights: list[torch.Tensor]) -> None:
        for weight, value in zip(self._model.parameters(), weights, strict=True):
            weight.copy_(value)


def _placed_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Returns `value` where `weight` is, divided as it is."""
    if isinstance(weight, DTensor):
        value = value.to(weight.device_mesh.device_type)
        return distribute_tensor(value, weight.device_mesh, weight.placements)
    return value.to(weight.device)


def exported(average: WeightAverage | None) -> dict[str, Any]:
    """Returns the folders that a run leaves, each with what puts its weights into the model."""
    if average is None:
        return {"model": nullcontext}
    if average.settings.export == "instead":
        return {"model": average.applied}
    return {"model": nullcontext, "model-average": average.applied}

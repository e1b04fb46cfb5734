"""Skipping optimizer steps whose loss or gradient leaps: a bad batch leaves no mark on the weights.

In: each step's loss and gradient norm. Out: whether to skip it. A pure function of what it has seen, so that a
resumed run, and every process of a run, decides alike.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SpikeSettings:
    """When an optimizer step is skipped; by default never."""

    loss_factor: float | None = None
    """Skip where the loss is more than so many times its running median; 1.5 to 2 is usual. null: never."""
    grad_norm_factor: float | None = None
    """Skip where the gradient's norm is more than so many times its running median; 5 to 10 is usual. null: never."""
    window: int = 100
    """Steps of the running median. Nothing is skipped before so many were seen."""
    patience: int = 10
    """After so many skipped steps in a row the new level is accepted and the medians begin anew."""

    @property
    def is_on(self) -> bool:
        """Whether anything can be skipped."""
        return self.loss_factor is not None or self.grad_norm_factor is not None

    def problems(self) -> list[str]:
        """Returns what is wrong with the values."""
        found = [
            f"spikes.{name} = {value!r} must be above 1"
            for name in ("loss_factor", "grad_norm_factor")
            if (value := getattr(self, name)) is not None and value <= 1
        ]
        found += [
            f"spikes.{name} = {getattr(self, name)!r} must be at least 1"
            for name in ("window", "patience")
            if getattr(self, name) < 1
        ]
        return found


class SpikeGuard:
    """Compares each step with the running medians of those before it.

    Attributes:
        skipped: Steps skipped in the whole run.
        row: Steps skipped since the last one that was not.
    """

    def __init__(self, settings: SpikeSettings):
        self.settings = settings
        self.skipped = self.row = 0
        self._losses: deque[float] = deque(maxlen=settings.window)
        self._norms: deque[float] = deque(maxlen=settings.window)

    def skips(self, loss: float, grad_norm: float) -> bool:
        """Returns whether a step is a spike, and takes its numbers in if it is not."""
        settings = self.settings
        if len(self._losses) == settings.window and (
            _leaps(loss, self._losses, settings.loss_factor)
            or _leaps(grad_norm, self._norms, settings.grad_norm_factor)
        ):
            self.row += 1
            if self.row <= settings.patience:
                self.skipped += 1
                return True
            self._losses.clear()
            self._norms.clear()
        self.row = 0
        self._losses.append(loss)
        self._norms.append(grad_norm)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps; JSON can hold it."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "skipped": self.skipped,
            "row": self.row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._losses = deque(state["losses"], self.settings.window)
        self._norms = deque(state["norms"], self.settings.window)
        self.skipped, self.row = state["skipped"], state["row"]


def _leaps(value: float, before: deque[float], factor: float | None) -> bool:
    return factor is not None and value > factor * statistics.median(before)

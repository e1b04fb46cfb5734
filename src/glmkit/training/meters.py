"""What is measured between two log lines: losses by objective, tokens, speed.

In: batches and hidden states as they pass. Out: numbers to log. Knows no trainer; `state_dict` lets a run that is
resumed between two log lines log what an uninterrupted one would.

Shapes: T predicted tokens of a batch, N names (objectives).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from glmkit.blanks.layout import IGNORE_INDEX


class Window:
    """What was read since the last log line.

    Args:
        names: Of the objectives, in the order of their indices in a batch's `objective_ids`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.counts = torch.zeros(3, dtype=torch.int64)  # real tokens, places, predicted tokens
        self.totals = torch.zeros(3, dtype=torch.int64)  # the same since the run began
        self.losses = torch.zeros(2, len(names), dtype=torch.float64)
        self.started = time.monotonic()

    def count(self, inputs: dict[str, Any]) -> None:
        """Counts a micro-batch."""
        real, predicted = inputs["segment_ids"] > 0, inputs["labels"] != IGNORE_INDEX
        counts = torch.stack(
            (real.sum(), torch.tensor(real.numel()).to(real.device), predicted.sum())
        ).cpu()
        self.counts += counts
        self.totals += counts

    def close(self) -> dict[str, float]:
        """Returns the numbers to log, of this process, and begins anew."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        real, places, predicted = self.counts.tolist()
        logs = {
            **{
                f"loss_{name.removesuffix('_loss')}": value
                for name, value in means(self.losses, self.names).items()
                if name != "loss"
            },
            "tokens_per_second": real / seconds,
            "predicted_tokens_per_second": predicted / seconds,
            "padding_ratio": 1 - real / places if places else 0.0,
            "tokens": self.totals[0].item(),
            "predicted_tokens": self.totals[2].item(),
        }
        self.counts.zero_()
        self.losses.zero_()
        self.begin()
        return logs

    def begin(self) -> None:
        """Starts the clock."""
        self.started = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent on training."""
        self.started += seconds

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps; JSON can hold it."""
        return {"counts": self.counts.tolist(), "totals": self.totals.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.counts = torch.tensor(state["counts"])
        self.totals = torch.tensor(state["totals"])


def sums_by_index(losses: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
    """Returns float64 [2, `size`] on the CPU: sums of losses [T], and their number, by index [T] (int64)."""
    sums = torch.zeros(2, size, dtype=torch.float64, device=losses.device)
    sums[0].index_add_(0, indices, losses.double())
    sums[1].index_add_(0, indices, torch.ones_like(losses, dtype=torch.float64))
    return sums.cpu()


def means(sums: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """Returns `loss` and `<name>_loss` of sums [2, N]; names without a token are left out."""
    totals, tokens = sums.tolist()
    result = {"loss": sum(totals) / max(1.0, sum(tokens))}
    for name, total, count in zip(names, totals, tokens, strict=True):
        if count:
            result[f"{name}_loss"] = total / count
    return result

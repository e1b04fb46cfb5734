"""What is measured between two log lines: losses by objective, tokens, speed, utilisation, memory, waiting.

In: batches and losses as they pass. Out: numbers to log, of all processes together. Knows no trainer; `state_dict`
lets a run that is resumed between two log lines log what an uninterrupted one would.

Shapes: B rows, L tokens of a row, T predicted tokens of a batch, N names (objectives).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.training.flops import StepFlops

MACHINE_DEPENDENT = (
    "tokens_per_second",
    "predicted_tokens_per_second",
    "mfu",
    "data_wait_ratio",
    "peak_memory_gib",
)
"""Names of logged numbers that differ from run to run; all others are the same to the bit on a CPU."""

_TOKENS, _PLACES, _PREDICTED, _PAIRS = range(4)


class Window:
    """What was read since the last log line.

    Args:
        names: Of the objectives, in the order of their indices in a batch's `objective_ids`.
        flops: Of the model.
        gather: Returns a vector [n] of all processes, [processes, n]; by default there is one process.
        is_first: Whether this is the first process, which takes the sums of a checkpoint.
    """

    def __init__(
        self,
        names: Sequence[str],
        flops: StepFlops,
        gather: Callable[[torch.Tensor], torch.Tensor] = lambda vector: vector[None],
        *,
        is_first: bool = True,
    ) -> None:
        self.names, self.flops, self.gather = tuple(names), flops, gather
        self.is_first = is_first
        self.peak_flops = 0.0
        self.counts = torch.zeros(4, dtype=torch.float64)  # real tokens, places, predictions, pairs
        self.totals = torch.zeros(4, dtype=torch.float64)  # the same since the run began
        self.losses = torch.zeros(2, len(self.names), dtype=torch.float64)
        self.waited = 0.0
        self._seconds_before = 0.0
        self.begin()

    def count(self, batch: dict[str, Any]) -> None:
        """Counts a micro-batch (on the CPU, so that no GPU is waited for)."""
        segments = batch["segment_ids"]
        lengths = sample_lengths(segments).double()
        counts = torch.tensor(
            (
                lengths.sum(),
                segments.numel(),
                (batch["labels"] != IGNORE_INDEX).sum(),
                lengths.square().sum(),
            ),
            dtype=torch.float64,
        )
        self.counts += counts
        self.totals += counts

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Passes batches on, measuring how long each was waited for."""
        while True:
            began = time.monotonic()
            batch = next(batches)
            self.waited += time.monotonic() - began
            yield batch

    def close(self) -> dict[str, float]:
        """Returns the numbers to log and begins anew; all processes call it together."""
        seconds = max(self._seconds(), 1e-9)
        own = torch.tensor((self.waited, peak_memory()), dtype=torch.float64)
        gathered = self.gather(
            torch.cat((self.counts, self.totals, own, self.losses.flatten()))
        ).cpu()
        sums = gathered.sum(0)
        tokens, places, predicted, pairs = sums[:4].tolist()
        work = self.flops.total(tokens, pairs, predicted) / len(gathered)
        losses = means(sums[10:].view(2, -1), self.names)
        logs = {
            **{f"loss_{n.removesuffix('_loss')}": v for n, v in losses.items() if n != "loss"},
            "tokens_per_second": tokens / seconds,
            "predicted_tokens_per_second": predicted / seconds,
            "mfu": work / seconds / self.peak_flops if self.peak_flops else 0.0,
            "data_wait_ratio": sums[8].item() / len(gathered) / seconds,
            "peak_memory_gib": gathered[:, 9].max().item() / 2**30,
            "padding_ratio": 1 - tokens / places if places else 0.0,
            "tokens": int(sums[4]),
            "predicted_tokens": int(sums[6]),
        }
        self.counts.zero_()
        self.losses.zero_()
        self.waited = self._seconds_before = 0.0
        self.begin()
        return logs

    def begin(self) -> None:
        """Starts the clock."""
        self.started = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent on training."""
        self.started += seconds

    def totals_of_all(self) -> tuple[int, int, int]:
        """Returns real tokens, places and predicted tokens of all processes in the whole run."""
        tokens, places, predicted, _ = self.gather(self.totals).cpu().sum(0).tolist()
        return int(tokens), int(places), int(predicted)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, of all processes together; JSON can hold it."""
        sums = self.gather(torch.cat((self.counts, self.totals))).cpu().sum(0).tolist()
        return {
            "counts": sums[:4],
            "totals": sums[4:],
            "seconds": self._seconds(),
            "waited": self.waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, on any number of processes: the first takes all."""
        share = 1.0 if self.is_first else 0.0
        self.counts = torch.tensor(state["counts"], dtype=torch.float64) * share
        self.totals = torch.tensor(state["totals"], dtype=torch.float64) * share
        self._seconds_before, self.waited = state["seconds"], state["waited"]

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self.started


def sample_lengths(segment_ids: torch.Tensor) -> torch.Tensor:
    """Returns how many tokens each sample of packed rows (int64 [B, L], 0 = padding) has, 0 for none."""
    size = int(segment_ids.max()) + 1
    rows = torch.arange(len(segment_ids))[:, None] * size
    counts = torch.bincount((segment_ids + rows).flatten(), minlength=len(segment_ids) * size)
    return counts.view(-1, size)[:, 1:].flatten()


def peak_memory() -> float:
    """Returns the most memory that this process has used, in bytes: on its GPU, or where it has none, resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def sums_by_index(losses: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
    """Returns float64 [2, `size`] on the CPU: sums of losses [T], and their number, by index [T] (int64)."""
    losses, indices = losses.cpu().double(), indices.cpu()
    sums = torch.zeros(2, size, dtype=torch.float64)
    sums[0].index_add_(0, indices, losses)
    sums[1].index_add_(0, indices, torch.ones_like(losses))
    return sums


def means(sums: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """Returns `loss` and `<name>_loss` of sums [2, N]; names without a token are left out."""
    totals, tokens = sums.tolist()
    result = {"loss": sum(totals) / max(1.0, sum(tokens))}
    for name, total, count in zip(names, totals, tokens, strict=True):
        if count:
            result[f"{name}_loss"] = total / count
    return result

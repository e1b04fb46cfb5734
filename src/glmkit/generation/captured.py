"""What a `GraphRunner` computes with: decode steps captured once as CUDA graphs, and the memory at fixed addresses that they read.

In: numbers for each token of a step. Out: logits, and the likeliest token that is not barred. Which sequence has which row the
runner knows. Without a GPU the same steps run uncaptured.

Shapes: T tokens of a step, V vocabulary.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from glmkit.generation.rows import Rows, StaticRows
from glmkit.generation.runner import Feed
from glmkit.generation.steps import Stepper, likeliest

logger = logging.getLogger(__name__)

BARRED = 16
"""Sets of tokens that may not be chosen which are held at a time; a request has one or two."""

_capturing = threading.Lock()


class CapturedStep:
    """A step of T tokens at fixed addresses: a CUDA graph, or the same operations called one by one."""

    def __init__(self, workspace: Workspace, tokens: int, limit: int, fused: bool):
        """Prepares the step; on a GPU it runs twice on the spare row to be captured.

        Args:
            workspace: Whose rows it reads.
            tokens: T.
            limit: As `Stepper.logits` takes it, and so is `fused`.
            fused: Whether Triton multiplies by the matrices.
        """
        self.fused = fused
        self._workspace, self._limit = workspace, limit
        device, gpu = workspace.device, workspace.captures
        self._staged = torch.zeros(6, tokens, dtype=torch.long, pin_memory=gpu)
        self._staged[3] = workspace.rows.spare
        self._inputs = self._staged.to(device)
        self._graph: Any = None
        if gpu:
            self._capture()

    def __call__(self, columns: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads tokens.

        Args:
            columns: int64 [6, up to T]: as `Stepper.logits` takes them, and which set of tokens is barred.

        Returns:
            Logits [T, V] and what `likeliest` returns; both change with the next call.
        """
        count = columns.shape[1]
        staged = self._staged.numpy()
        staged[:, :count] = columns
        staged[:, count:] = 0
        staged[3, count:] = self._workspace.rows.spare
        # The last step's answers have been waited for, so what was staged for it has long been copied.
        self._inputs.copy_(self._staged, non_blocking=True)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._outputs

    def seconds(self, times: int = 7) -> float:
        """Returns what the captured step takes on the device, with no keys to attend to: the median of a few."""
        self._inputs.copy_(self._staged)
        found = []
        for _ in range(times):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._graph.replay()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1e3)
        return sorted(found)[times // 2]

    def _run(self) -> tuple[torch.Tensor, torch.Tensor]:
        workspace = self._workspace
        logits = workspace.stepper.logits(
            self._inputs, workspace.rows.buffers, self._limit, self.fused
        )
        return logits, likeliest(logits, workspace.barred, self._inputs[5])

    def _capture(self) -> None:
        with _capturing, torch.cuda.device(self._workspace.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._run()  # what libraries set up at their first call is not to be captured
                self._run()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._workspace.pool, capture_error_mode="thread_local"
            ):
                self._outputs = self._run()
            self._graph = graph


class Workspace:
    """What the sequences of one runner are read with: cache, captured steps, barred tokens; used by one runner at a time."""

    def __init__(self, stepper: Stepper, captures: bool):
        model = stepper.model
        self.stepper, self.captures = stepper, captures
        self.device: torch.device = model.device
        self.rows = StaticRows(model.config.num_layers)
        self.barred = torch.zeros(BARRED, model.config.vocab_size, dtype=torch.bool, device=self.device)  # fmt: skip
        self.usable = True
        self.pool: Any = None
        self._size = (0, 0)
        self._steps: dict[tuple[int, int], CapturedStep] = {}
        self._known: list[np.ndarray] = []

    def step(self, tokens: int, longest: int) -> CapturedStep:
        """Returns the step for so many tokens at places below `longest`; captures it where it is the first."""
        if self._size != self.rows.size:
            self._steps.clear()  # they know the addresses that were
            self.pool = torch.cuda.graph_pool_handle() if self.captures else None
            self.rows.settle(self._like())
            self._size = self.rows.size
        tokens = 1 << (tokens - 1).bit_length()
        # Triton's attention goes as far as each row does; torch's reads as far as is said when it is captured.
        limit = 0 if self.stepper.kernels else min(self._size[1], max(128, 1 << (longest - 1).bit_length()))  # fmt: skip
        if (tokens, limit) not in self._steps:
            self._steps[tokens, limit] = self._captured(tokens, limit)
        return self._steps[tokens, limit]

    def _captured(self, tokens: int, limit: int) -> CapturedStep:
        """Returns a step; that of one token multiplies with Triton's kernel if it is the faster one here."""
        if tokens > 1 or self.stepper.kernels is None:
            return CapturedStep(self, tokens, limit, False)
        if self.stepper.fuses is None and not self.captures:
            self.stepper.fuses = True
        if self.stepper.fuses is not None:
            return CapturedStep(self, tokens, limit, self.stepper.fuses)
        pair = [CapturedStep(self, tokens, limit, fused) for fused in (False, True)]
        seconds = [one.seconds() for one in pair]
        logger.debug("a step of one token: %.3g s with torch's matrices, %.3g s with Triton's", *seconds)  # fmt: skip
        self.stepper.fuses = seconds[1] <= seconds[0]
        return pair[self.stepper.fuses]

    def discard(self) -> None:
        """Gives all memory back at once, also where a runner without sequences still knows the rows."""
        self._steps.clear()
        Rows.free(self.rows)
        self._size = self.rows.size

    def barred_rows(self, feeds: Sequence[Feed], everywhere: bool) -> list[int]:
        """Returns the rows of `barred` for each wanted place of feeds, or, `everywhere`, for each of their tokens.

        Places that want logits, or nothing, get row 0.
        """
        wanted = {id(one): one for feed in feeds for one in feed.barred or ()}
        known = {*map(id, self._known)}
        if missing := {name: one for name, one in wanted.items() if name not in known}:
            if len(self._known) + len(missing) > BARRED:
                self._known, missing = [], wanted
            for one in missing.values():
                row = self.barred[len(self._known)]
                row.fill_(True)  # rows of the vocabulary that are no tokens too
                row[: len(one)] = torch.from_numpy(one).to(self.device)
                self._known.append(one)
        place = {id(one): number for number, one in enumerate(self._known)}
        rows = []
        for feed in feeds:
            rows += [0] * (len(feed.ids) - feed.num_logits) if everywhere else []
            rows += [place[id(one)] for one in feed.barred] if feed.barred else [0] * feed.num_logits  # fmt: skip
        return rows

    def _like(self) -> torch.Tensor:
        config, weight = self.stepper.model.config, self.stepper.model.glm.word_embeddings.weight
        heads = config.num_attention_heads
        return weight.new_empty(1, heads, 1, config.hidden_size // heads)

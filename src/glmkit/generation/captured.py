"""What a `GraphRunner` computes with: decode steps captured once as CUDA graphs, and the memory at fixed addresses that they read.

In: numbers for each token of a step. Out: logits, and the likeliest token that is not barred. Which sequence has which row the
runner knows. Without a GPU the same steps run uncaptured.

Shapes: T tokens of a step, V vocabulary.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from glmkit.generation.one_kernel import OneKernel
from glmkit.generation.prefill import LARGEST, QUERIES, Layout, bucket, fill, read
from glmkit.generation.rows import Row, Rows, StaticRows
from glmkit.generation.runner import Feed
from glmkit.generation.steps import Stepper, likeliest, off

logger = logging.getLogger(__name__)

BARRED = 16
"""Sets of tokens that may not be chosen which are held at a time; a request has one or two."""

PROMPTS = 48
"""Sizes of passes over prompts that stay captured; of more, those that were not needed for longest are forgotten."""

WARY = 16
"""Most steps that are not begun ahead after one that was in vain; of few texts it is as many as they are."""

_capturing = threading.Lock()


def captured(
    work: Callable[[], Any], device: torch.device, pool: Any, tries: int
) -> tuple[Any, Any]:
    """Returns a CUDA graph of a piece of work, and the tensors that it fills; runs the work `tries` times before."""
    with _capturing, torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(
                tries
            ):  # what libraries set up at their first call is not to be captured
                work()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with (
            _garbage_kept(),
            torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
        ):
            outputs = work()
    return graph, outputs


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """No garbage is collected: to destroy a graph of a model that is gone would end the capture of another."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Begun:
    """A step that has been begun.

    Attributes:
        columns: int64 [6, up to T], what it reads; ids of a step begun ahead are known once the step before is done.
        logits: [T, V], until the next step begins.
        best: What `likeliest` returns, on the device and until then.
    """

    def __init__(
        self, columns: np.ndarray, outputs: tuple[torch.Tensor, torch.Tensor], host: Any, done: Any
    ):
        self.columns = columns
        self.logits, self.best = outputs
        self._host, self._done = host, done

    @cached_property
    def chosen(self) -> np.ndarray:
        """float64 [2, T]: the likeliest tokens and their log-probabilities; waits for them, for nothing that was begun later.

        To be read before the step after the next one begins.
        """
        if self._done is not None:
            self._done.synchronize()
        return self._host.numpy().copy()


@dataclass
class Ahead:
    """A step that was begun before its tokens were known: with those that the step before chooses.

    Attributes:
        step: It.
        sequences: Handles whose tokens it reads, one of each.
        before: The step that chooses them.
        order: For each sequence its place there.
    """

    step: Begun
    sequences: Sequence[int]
    before: Begun
    order: np.ndarray

    def places(self, sequences: Sequence[int], columns: np.ndarray) -> np.ndarray | None:
        """Returns where in it sequences' tokens are, or None if it has not read just these."""
        known = self.step.columns
        known[0] = self.before.chosen[0, self.order]
        if sequences == self.sequences:
            found = np.arange(len(sequences))
        else:
            place = {one: number for number, one in enumerate(self.sequences)}
            if not place.keys() >= set(sequences):
                return None
            found = np.array([place[one] for one in sequences])
        return found if np.array_equal(known[:, found], columns) else None


class CapturedStep:
    """A step of T tokens at fixed addresses: a CUDA graph, or the same operations called one by one."""

    def __init__(self, workspace: Workspace, tokens: int, limit: int, way: str):
        """Prepares the step; on a GPU it runs twice on the spare row to be captured.

        Args:
            workspace: Whose rows it reads.
            tokens: T.
            limit: As `Stepper.logits` takes it, and so is `way`.
            way: One of `steps.WAYS`.
        """
        self.way, self.limit = way, limit
        self._workspace = workspace
        device, gpu = workspace.device, workspace.captures
        # Two of each, as a step may be begun while the numbers of the one before are on their way.
        self._turn = 0
        self._staged = [torch.zeros(7, tokens, dtype=torch.long, pin_memory=gpu) for _ in range(2)]
        self._chosen = [torch.zeros(2, tokens, dtype=torch.double, pin_memory=gpu) for _ in range(2)]  # fmt: skip
        for staged in self._staged:
            staged[3] = workspace.rows.spare
        self._inputs = self._staged[0].to(device)
        self._one = OneKernel(workspace.stepper.model, workspace.rows.buffers, workspace.barred) if way == "one" else None  # fmt: skip
        self._graph: Any = None
        if gpu:
            self._graph, self._outputs = captured(self._run, device, workspace.pool, 2)

    def begin(
        self, columns: np.ndarray, before: Begun | None = None, order: np.ndarray | None = None
    ) -> Begun:
        """Begins to read tokens.

        Args:
            columns: int64 [6, up to T]: as `Stepper.logits` takes them, and which set of tokens is barred.
            before: The step that chooses the tokens, which need not be done; by default they are those of `columns`.
            order: [up to T], each token's place there.
        """
        count = columns.shape[1]
        self._turn = 1 - self._turn
        staged = self._staged[self._turn].numpy()
        staged[:6, :count] = columns
        staged[:, count:] = 0
        staged[3, count:] = self._workspace.rows.spare
        knows = self._one is not None and before is not None and before.best is self._one.best
        if knows:  # the token is where the kernel has written it
            staged[0] = -1
        elif order is not None:
            staged[6, :count] = order
        self._inputs.copy_(self._staged[self._turn], non_blocking=True)
        if before is not None and not knows:
            self._inputs[0].copy_(before.best[0].index_select(0, self._inputs[6]))
        if self._graph is None:
            outputs, done = self._run(), None
        else:
            self._graph.replay()
            outputs, done = self._outputs, torch.cuda.Event()
        host = self._chosen[self._turn]
        host.copy_(outputs[1], non_blocking=True)
        if done is not None:
            done.record()
        return Begun(columns, outputs, host, done)

    def seconds(self, times: int = 7) -> float:
        """Returns what the captured step takes on the device, with no keys to attend to: the median of a few."""
        self._inputs.copy_(self._staged[0])
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
        if self._one is not None:
            return self._one(self._inputs)
        logits = workspace.stepper.logits(
            self._inputs, workspace.rows.buffers, self.limit, self.way
        )
        return logits, workspace.stepper.likeliest(
            logits, workspace.barred, self._inputs[5], self.way
        )


class PromptPass:
    """A pass over up to T tokens of prompts: called one by one the first time, and captured before the second.

    Args:
        workspace: Whose rows it fills.
        tokens: T.
        blocks: B, of one text's tokens each (`prefill`).
        wanted: W, tokens whose logits may be wanted.
        captures: Whether it is to be captured now.
    """

    def __init__(self, workspace: Workspace, tokens: int, blocks: int, wanted: int, captures: bool):
        self._workspace, layout = workspace, Layout(tokens, blocks, wanted)
        gpu = workspace.device.type == "cuda"
        self._staged = torch.zeros(layout.numbers, dtype=torch.long, pin_memory=gpu)
        self._numpy = layout.parts(self._staged.numpy())
        self._inputs = self._staged.to(workspace.device)
        self._parts = layout.parts(self._inputs)
        self._graph: Any = None
        if captures:
            fill(*self._numpy[:3], [], [], workspace.rows.spare)
            self._inputs.copy_(self._staged)
            self._graph, self._outputs = captured(self._run, workspace.device, workspace.pool, 0)

    @property
    def is_captured(self) -> bool:
        """Whether it is a CUDA graph."""
        return self._graph is not None

    def __call__(
        self, feeds: Sequence[Feed], rows: Sequence[Row], barred: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads prompts; returns logits [W, V] and what `likeliest` returns, both until the next call.

        Args:
            feeds: What is read.
            rows: Of each feed.
            barred: For each place that is wanted its row of barred tokens.
        """
        fill(*self._numpy[:3], feeds, rows, self._workspace.rows.spare)
        self._numpy[3][:] = 0
        self._numpy[3][: len(barred)] = barred
        self._inputs.copy_(self._staged, non_blocking=True)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._outputs

    def _run(self) -> tuple[torch.Tensor, torch.Tensor]:
        workspace = self._workspace
        tokens, blocks, wanted, barred = self._parts
        logits = read(workspace.stepper, tokens, blocks, wanted, workspace.rows.buffers)
        return logits, likeliest(logits, workspace.barred, barred)


class Workspace:
    """What the sequences of one runner are read with: cache, captured steps, barred tokens; used by one runner at a time."""

    def __init__(self, stepper: Stepper, captures: bool):
        model = stepper.model
        self.stepper, self.captures = stepper, captures
        self.device: torch.device = model.device
        self.rows = StaticRows(model.config.num_layers)
        self.barred = torch.zeros(BARRED, model.config.vocab_size, dtype=torch.bool, device=self.device)  # fmt: skip
        self.captures_prompts = captures
        self.usable = True
        self.pool: Any = None
        self._size = (0, 0)
        self.ahead: Ahead | None = None
        self._wary = 0
        self._steps: dict[tuple[int, int], CapturedStep] = {}
        self._prompts: dict[tuple[int, int, int], PromptPass] = {}
        self._met: set[tuple[int, int, int]] = set()
        self._known: list[np.ndarray] = []

    def step(self, tokens: int, longest: int) -> CapturedStep:
        """Returns the step for so many tokens at places below `longest`; captures it where it is the first."""
        self._settle()
        tokens = 1 << (tokens - 1).bit_length()
        # Triton's attention goes as far as each row does; torch's reads as far as is said when it is captured.
        limit = 0 if self.stepper.kernels else min(self._size[1], max(128, 1 << (longest - 1).bit_length()))  # fmt: skip
        if (tokens, limit) not in self._steps:
            self._steps[tokens, limit] = self._captured(tokens, limit)
        return self._steps[tokens, limit]

    def begin(
        self, step: CapturedStep, columns: np.ndarray, sequences: Sequence[int]
    ) -> tuple[Begun, np.ndarray]:
        """Returns a step that reads one token of each sequence, begun now or ahead, and where in it they are."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and (places := ahead.places(sequences, columns)) is not None:
            return ahead.step, places
        if ahead is not None:
            self._wary = min(len(sequences), WARY)
        return step.begin(columns), np.arange(len(sequences))

    def go_ahead(
        self,
        step: CapturedStep,
        before: Begun,
        order: np.ndarray,
        columns: np.ndarray,
        sequences: Sequence[int],
    ) -> None:
        """Begins to read what a step chooses after each sequence's token, while that step is not done.

        Args:
            step: That reads it, if there is room.
            before: The step.
            order: Each sequence's place there.
            columns: What it reads of each.
            sequences: Their handles.
        """
        if self._wary:
            self._wary -= 1
            return
        columns = columns + np.array([[0], [0], [1], [0], [1], [0]])
        longest = int(columns[4].max()) + 1
        if longest <= min(self._size[1], step.limit or longest):
            self.ahead = Ahead(step.begin(columns, before, order), sequences, before, order)

    def rest(self) -> None:
        """Is told that all sequences are closed."""
        self.ahead, self._wary = None, 0

    def prompts(self, tokens: int, texts: int, wanted: int) -> PromptPass:
        """Returns the pass for so many tokens of so many texts; captures it the second time that it is asked for.

        Args:
            tokens: Of all texts.
            texts: How many.
            wanted: Tokens whose logits are wanted.
        """
        self._settle()
        texts, wanted = (1 << max(0, one - 1).bit_length() for one in (texts, wanted))
        size = bucket(tokens), texts, wanted
        found = self._prompts.pop(size, None)
        if found is None:
            found = self._new_pass(size)
        if found.is_captured:
            self._prompts[size] = found  # the last one needed
            while len(self._prompts) > PROMPTS:
                del self._prompts[next(iter(self._prompts))]
        return found

    def _new_pass(self, size: tuple[int, int, int]) -> PromptPass:
        captures = self.captures_prompts and size in self._met and size[0] <= LARGEST
        self._met.add(size)
        tokens, texts, wanted = size
        sizes = tokens, -(-tokens // QUERIES) + texts, wanted
        try:
            return PromptPass(self, *sizes, captures)
        except RuntimeError as error:  # no memory for what it would keep, among others
            if not captures:
                raise
            self.captures_prompts = False
            logger.warning("prompts are read without CUDA graphs: %s", str(error).strip().splitlines()[0])  # fmt: skip
            return PromptPass(self, *sizes, False)

    def _settle(self) -> None:
        """Makes rows what was reserved; whatever was captured knows the addresses that were."""
        if self._size != self.rows.size:
            self._forget()
            self.pool = torch.cuda.graph_pool_handle() if self.captures else None
            self.rows.settle(self._like())
            self._size = self.rows.size

    def _captured(self, tokens: int, limit: int) -> CapturedStep:
        """Returns a step, the fastest here of those that there are: by Triton's matrices for one token or weights of 8 bits."""
        stepper = self.stepper
        if stepper.kernels is None or not (tokens == 1 or stepper.int8 is not None):
            return CapturedStep(self, tokens, limit, "torch")
        if tokens not in stepper.ways and not self.captures:
            stepper.ways[tokens] = "triton"
        if tokens in stepper.ways:
            return CapturedStep(self, tokens, limit, stepper.ways[tokens])
        tried = {way: CapturedStep(self, tokens, limit, way) for way in ("torch", "triton")}
        if tokens == 1 and torch.cuda.get_device_capability(self.device) >= (9, 0):
            for way in stepper.tried:
                self._try(way, tried, limit)
        seconds = {way: one.seconds() for way, one in tried.items()}
        logger.debug("seconds of a step of %d, by how its matrices are multiplied: %s", tokens, seconds)  # fmt: skip
        stepper.ways[tokens] = way = min(seconds, key=lambda one: seconds[one])
        return tried[way]

    def _try(self, way: str, tried: dict[str, CapturedStep], limit: int) -> None:
        """Adds a step of another way, if it can be captured and writes four tokens as Triton's does."""
        try:
            step = CapturedStep(self, 1, limit, way)
            for number in range(4):
                columns = np.array([[number]] * 3 + [[self.rows.spare], [number], [0]])
                expected = tried["triton"].begin(columns).logits.clone()
                begun = step.begin(columns)
                found, best = begun.logits, begun.best
                # In 16 bits two orders of adding up differ by a few hundredths in deep models.
                allowed = 0.01 if found.dtype == torch.float32 else 0.05
                if not (difference := off(found, expected)) <= allowed:
                    raise ArithmeticError(f"its logits are {difference:.2g} off")
                chosen = likeliest(found, self.barred, step._inputs[5])
                if not torch.allclose(best, chosen, atol=1e-3, equal_nan=True):
                    raise ArithmeticError(f"it chooses {best.tolist()} for {chosen.tolist()}")
            tried[way] = step
        except Exception as error:  # an older driver, sizes that it is not for: the others do
            said = logger.info if isinstance(error, ValueError | ImportError) else logger.warning
            said("steps of one token are not computed by the way %r (%s: %s)", way, type(error).__name__, str(error).strip().splitlines()[0])  # fmt: skip

    def _forget(self) -> None:
        """Drops what was captured; a step that was begun ahead may still run."""
        if self.captures:
            torch.cuda.synchronize(self.device)
        self.ahead = None
        self._steps.clear()
        self._prompts.clear()

    def discard(self) -> None:
        """Gives all memory back at once, also where a runner without sequences still knows the rows."""
        self._forget()
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
                self.ahead = None
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
        config, weight = self.stepper.model.config, self.stepper.model.glm.transformer.position_embeddings.weight  # fmt: skip
        heads = config.num_attention_heads
        return weight.new_empty(1, heads, 1, config.hidden_size // heads)

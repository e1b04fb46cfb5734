"""The runner: sequences of tokens in, logits out; what was read stays cached.

In: for each of several sequences the tokens that it reads next, with their 2-D positions. Out: logits after the last of
them, NumPy arrays wherever they were computed. `Runner` is what the engine and the search for the n likeliest ask of a model: the
native decoder's is `native.runner`, torch's `generation.torch_runner`. It knows no blanks, no settings and no text, and never
chooses a token. A runner serves one caller at a time (the engine has the lock).

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from glmkit.errors import GenerationError


@dataclass(frozen=True)
class Feed:
    """Tokens that one sequence reads next.

    Attributes:
        sequence: Handle from `Runner.open` or `Runner.fork`.
        ids: At least one id.
        positions: The position of each.
        blocks: The block position of each.
        prefix: The first `prefix` of them see each other (part A; only into an empty sequence). The rest, and all of a later
            feed, see what came before and themselves.
        num_logits: Logits are wanted after the last `num_logits` tokens.
        media: [M, H], a torch tensor: the rows that ids from `FIRST_MEDIA_ID` on mean, or None where there are no such ids.
        barred: For each place whose logits are wanted a bool array [≤ V], the tokens that may not stand there. A runner that
            `chooses` may answer with the likeliest others instead of logits.
        goes_on: What the sequence most likely reads next: True, what is chosen after its last token, at the same position and one
            block position further (a runner may begin with that before it is told); False, nothing; None, nobody knows.
    """

    sequence: int
    ids: Sequence[int]
    positions: Sequence[int]
    blocks: Sequence[int]
    prefix: int = 0
    num_logits: int = 1
    media: Any = None
    barred: Sequence[np.ndarray] | None = None
    goes_on: bool | None = None

    def __post_init__(self) -> None:
        assert 1 <= len(self.ids) == len(self.positions) == len(self.blocks), self
        assert 0 <= self.prefix <= len(self.ids), self
        assert 0 <= self.num_logits <= len(self.ids), self
        assert self.barred is None or len(self.barred) == self.num_logits, self


Answer = np.ndarray | list[tuple[int, float]]
"""Logits, or at each place the likeliest token that is not barred with its log-probability among those (not finite if all are)."""


class Runner(Protocol):
    """A model that reads sequences of its own.

    One with the attribute `chooses` takes feeds with `barred` too, so that logits need not leave its device.
    """

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""

    def fork(self, sequence: int) -> int:
        """Returns the handle of a copy that goes on by itself."""

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens (0, or part A and more: its tokens have seen each other)."""

    def close(self, sequence: int) -> None:
        """Forgets a sequence; its handle is never given again."""

    def length(self, sequence: int) -> int:
        """Returns the number of tokens that a sequence has read."""

    def forward(self, feeds: Sequence[Feed]) -> list[np.ndarray]:
        """Reads each feed, at most one for a sequence.

        Returns:
            For each feed float32 [num_logits, V]. Where an exception comes instead, no sequence has grown.

        Raises:
            GenerationError: Ids of media without their rows, or rows that are not as wide as the model.
        """


METHODS = ("open", "fork", "truncate", "close", "length", "forward")
"""Of a `Runner`."""


def check_runner(runner: Any) -> None:
    """Refuses what is no runner.

    Raises:
        GenerationError: It lacks a method.
    """
    if lacks := [name for name in METHODS if not callable(getattr(runner, name, None))]:
        raise GenerationError(
            f"{type(runner).__name__} is no runner: it lacks {', '.join(lacks)}; see glmkit.generation.runner.Runner"
        )


def check_answers(runner: Any, feeds: Sequence[Feed], answers: Any) -> list[Any]:
    """Returns what a runner's `forward` answered to feeds.

    Raises:
        GenerationError: It is no list with a float32 array [num_logits, V] for each feed, or with what the runner chose.
    """
    said, given = f"{type(runner).__name__}.forward returned", type(answers).__name__
    if not isinstance(answers, list | tuple) or len(answers) != len(feeds):
        given = f"{len(answers)} answers" if isinstance(answers, list | tuple) else given
        raise GenerationError(f"{said} {given} for {len(feeds)} feeds; it must return a list with one for each")  # fmt: skip
    for feed, answer in zip(feeds, answers, strict=True):
        if isinstance(answer, list):
            continue  # chosen by the runner
        given = type(answer).__name__
        if isinstance(answer, np.ndarray):
            if answer.dtype == np.float32 and answer.shape[:-1] == (feed.num_logits,):
                continue
            given = f"an array {answer.dtype} {list(answer.shape)}"
        raise GenerationError(f"{said} {given} for a feed; it must return a NumPy array float32 [{feed.num_logits}, V]")  # fmt: skip
    return list(answers)


def make_runner(model: Any) -> Runner:
    """Returns a model's own runner (a `NativeModel` has one), or one on torch; it holds no sequence yet."""
    if hasattr(model, "make_runner"):
        return model.make_runner()
    from glmkit.generation.torch_runner import TorchRunner

    return TorchRunner(model)


def follow(runner: Runner, sequences: Sequence[int], parents: Sequence[int]) -> list[int]:
    """Returns a sequence for each parent's child: the parent's own for the first, copies for the others.

    Args:
        runner: Whose sequences they are; those without a child are closed.
        sequences: Handles.
        parents: For each child the place of its parent in `sequences`.
    """
    for place, sequence in enumerate(sequences):
        if place not in parents:
            runner.close(sequence)
    return [
        runner.fork(sequences[parent]) if parent in parents[:place] else sequences[parent]
        for place, parent in enumerate(parents)
    ]

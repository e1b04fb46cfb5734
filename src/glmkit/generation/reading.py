"""Part A read once, then possible contents of its blank, in as many steps as one likes, on the same cache.

In: a model and prompts, then nodes of trees of contents. Out: hidden states of the nodes. Scoring of given choices and
the search among many (`choices`, `spans`) stand on it.

Shapes: B prompts, S tokens of the longest part A, Q nodes read now, F nodes read before, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from glmkit.blanks.layout import collate, lay_out
from glmkit.generation.arrays import for_model, log_probabilities_at, reading
from glmkit.generation.prompts import Prompt
from glmkit.generation.runner import Feed, make_runner

LOGIT_ROWS = 512
"""Nodes whose logits [512, V] are held at once."""


FORKS = 64
"""Paths that are read at once by a runner; each may copy the end of part A."""


class Reader(Protocol):
    """A batch of B prompts whose part A has been read."""

    def read(self, tokens: np.ndarray, positions: np.ndarray, sees: np.ndarray) -> Any:
        """Reads more nodes and returns their hidden states [B, Q, H], as the model has them (an array or a tensor).

        Args:
            tokens: int64 [B, Q].
            positions: int64 [B, 2, Q], position and block position.
            sees: bool [B, Q, F + Q], which nodes of part B each one sees: the path to it from the blank's start and itself, in
                the order in which they were read. All see part A. A node that sees nothing is no node, its state any.
        """


def make_reader(model: Any, prompts: Sequence[Prompt], specials: Any) -> Reader:
    """Returns what reads possible contents of each prompt's one blank; errors as `torch_reader.BlankReader`.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode, or a model that stands for one.
        prompts: B prompts with one blank each.
        specials: The tokenizer's `special_ids`.
    """
    runner = make_runner(model)
    if hasattr(runner, "states"):  # the native decoder's: forks share what they have read
        return ForkReader(runner, prompts, specials, model.config.hidden_size)
    from glmkit.generation.torch_reader import BlankReader

    return BlankReader(model, prompts, specials)


class ForkReader:
    """A `Reader` on a runner that gives states: of the nodes to be read each path is a sequence that goes on from part A.

    Args:
        runner: With `states`, and forks that share what they have read.
        prompts: B prompts with one blank each.
        specials: The tokenizer's `special_ids`.
        width: H.

    Raises:
        GenerationError: Embeddings of media that are not as wide as the model.
    """

    def __init__(self, runner: Any, prompts: Sequence[Prompt], specials: Any, width: int):
        self._runner, self._width = runner, width
        self._part_a = [runner.open() for _ in prompts]
        self._nodes: list[list[tuple[int, int, int]]] = [[] for _ in prompts]
        feeds = []
        for sequence, one in zip(self._part_a, prompts, strict=True):
            part_a = lay_out(one.ids, [], specials.sop)
            ids, (places, zeros) = part_a.input_ids.tolist(), part_a.position_ids.tolist()
            feeds.append(
                Feed(sequence, ids, places, zeros, part_a.prefix_length, 0, one.embeddings)
            )
        runner.forward(feeds)

    def read(self, tokens: np.ndarray, positions: np.ndarray, sees: np.ndarray) -> np.ndarray:
        """See `Reader`; what several paths of one call share is read with each of them."""
        states = np.zeros((*tokens.shape, self._width), np.float32)
        paths: list[tuple[int, np.ndarray, int]] = []  # prompt, nodes, how many of them are new
        before = sees.shape[2] - sees.shape[1]
        for row, nodes in enumerate(self._nodes):
            nodes += zip(tokens[row].tolist(), *positions[row].tolist(), strict=True)
            ways = [np.flatnonzero(seen) for seen in sees[row]]
            inner = {node for way in ways for node in way[:-1].tolist()}
            paths += [
                (row, way, int((way >= before).sum()))
                for way in ways
                if len(way) and int(way[-1]) not in inner
            ]
        for start in range(0, len(paths), FORKS):
            some = paths[start : start + FORKS]
            forks = [self._runner.fork(self._part_a[row]) for row, _, _ in some]
            feeds = []
            for fork, (row, way, new) in zip(forks, some, strict=True):
                ids, places, blocks = zip(*(self._nodes[row][node] for node in way), strict=True)
                feeds.append(Feed(fork, ids, places, blocks, num_logits=new))
            for (row, way, new), found in zip(some, self._runner.states(feeds), strict=True):
                states[row, way[-new:] - before] = found
            for fork in forks:
                self._runner.close(fork)
        return states


def part_a_inputs(
    model: Any, rows: Sequence[Any], specials: Any, side: str = "right"
) -> dict[str, Any]:
    """Returns what a model takes to read texts that are part A throughout: fields of `layout.collate`, as `arrays.for_model` has them.

    Args:
        model: The model.
        rows: Ids of each text, B of them, a sequence or an array.
        specials: The tokenizer's `special_ids`.
        side: Where rows are filled up, "right" or "left".
    """
    batch = collate([lay_out(row, [], specials.sop) for row in rows], specials.pad, side=side)
    del batch["labels"]
    return for_model(model, batch)


def log_probabilities(model: Any, hidden: Any, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Returns float64 [n]: the log-probability (nats) of `tokens[i]` after the state `hidden[rows[i]]`.

    Args:
        model: The model whose head it is.
        hidden: [N, H], what a `Reader` of it gave.
        rows: int64 [n].
        tokens: int64 [n].
    """
    result = np.empty(len(rows))
    with reading(model):
        for start in range(0, len(hidden), LOGIT_ROWS):
            here = np.flatnonzero((rows >= start) & (rows < start + LOGIT_ROWS))
            logits = model.lm_head(hidden[start : start + LOGIT_ROWS])
            result[here] = log_probabilities_at(logits, rows[here] - start, tokens[here])
    return result

"""Beam search of each blank: of the beginnings the best few are written on, and the best contents kept.

In: a model, a request. Out: contents of its blanks, each with alternatives. The same search as transformers' (`_beam_search` of its
`generation/utils.py`): what ends among the best `num_beams` continuations of a step competes by its log-probability over its length to
the power `length_penalty`; the search ends where that of the best beam, over its length so far, is no better than all that have ended.
Constraints and penalties look at the blank, not at part A.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.blanks.layout import Piece, lay_out
from glmkit.generation.arrays import largest, log_softmax
from glmkit.generation.constraints import Constraint, allowed_ids
from glmkit.generation.decoding import BlankTokens, TokenChooser, nothing_allowed
from glmkit.generation.guidance import GuidedRunner
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed, Runner, follow
from glmkit.generation.warping import MIN_SCORE, penalized, penalizes


@dataclass(frozen=True)
class _Beam:
    """Contents of the blank so far, an end marker included.

    Attributes:
        tokens: Their ids.
        gains: The log-probability of each, in nats.
        total: Their sum, in float32 as they are compared.
    """

    tokens: tuple[int, ...] = ()
    gains: tuple[float, ...] = ()
    total: np.float32 = np.float32(0)


def search(
    runner: Runner, request: Request, sop: int, max_positions: int
) -> list[list[BlankTokens]]:
    """Returns for each blank the contents found, the best first; later blanks see the best contents of earlier ones.

    Args:
        runner: The model.
        request: The text, how it is chosen, a constraint (or None) for each blank, what it is led away from.
        sop: Id of the start marker.
        max_positions: The model's `max_sequence_length`.

    Raises:
        GenerationError: What a blank may be leaves nothing.
    """
    written: list[Piece] = []
    guided, found = GuidedRunner(runner), []
    for place, mask in enumerate(request.prompt.mask_indices.tolist()):
        here = _search_blank(guided, request, place, written, sop, max_positions)
        written.append(Piece(mask, np.asarray(here[0].tokens), scored=False))
        found.append(here)
    return found


def _search_blank(
    runner: GuidedRunner,
    request: Request,
    place: int,
    written: Sequence[Piece],
    sop: int,
    max_positions: int,
) -> list[BlankTokens]:
    """Returns the contents found for the blank at `place`, behind those that are written."""
    prompt, chooser, constraint = request.prompt, request.chooser, request.constraints[place]
    settings, ends = chooser.settings, set(chooser.ends.tolist())
    most, longest = settings.num_beams, settings.longest(max_positions)
    mask = int(prompt.mask_indices[place])
    blank = Piece(mask, np.empty(0, np.int64), scored=False)
    example = lay_out(prompt.ids, [*written, blank], sop)
    ids, prefix = example.input_ids.tolist(), example.prefix_length
    positions, blocks = example.position_ids.tolist()
    handle = runner.open(request.guidance)
    feeds = [Feed(handle, ids, positions, blocks, prefix, media=prompt.embeddings)]
    running, ended = [_Beam()], list[tuple[float, _Beam]]()
    while running:
        logits = np.concatenate(runner.forward(feeds))
        rows = [
            _weighed(row, beam.tokens, chooser, constraint, guided=request.guidance is not None)
            for row, beam in zip(logits, running, strict=True)
        ]
        size = len(running[0].tokens) + 1
        weight = size**settings.length_penalty
        going_on: list[tuple[int, _Beam]] = []
        # As many that they cannot all end.
        for rank, (parent, beam) in enumerate(_grown(running, rows, most * (1 + len(ends)))):
            if rank >= most and len(going_on) == most:
                break
            if size == longest or beam.tokens[-1] in ends or (chooser.stop and chooser.stop.cut(list(beam.tokens))):  # fmt: skip
                if rank < most:
                    ended.append((float(beam.total) / weight, beam))
            else:
                going_on.append((parent, beam))
        ended = sorted(ended, key=lambda one: -one[0])[:most]
        running = [beam for _, beam in going_on]
        if running and len(ended) == most and float(running[0].total) / weight <= ended[-1][0]:
            running, going_on = [], []
        handles = follow(
            runner, [feed.sequence for feed in feeds], [parent for parent, _ in going_on]
        )
        feeds = [
            Feed(handle, [beam.tokens[-1]], [mask], [size + 1])
            for handle, beam in zip(handles, running, strict=True)
        ]
    if not ended:
        raise nothing_allowed(constraint, size - 1, settings)
    return [
        _until_end(list(beam.tokens), list(beam.gains), ends, chooser)
        for _, beam in ended[: settings.num_return_sequences]
    ]


def _weighed(
    logits: np.ndarray,
    tokens: Sequence[int],
    chooser: TokenChooser,
    constraint: Constraint | None,
    *,
    guided: bool,
) -> np.ndarray:
    """Returns float32 [V]: log-probabilities of what may follow the tokens of a blank, -inf where nothing may.

    They are among all tokens, special ones too; of a guided distribution among those that may be written.
    """
    if guided:
        scores = log_softmax(chooser.masked(logits, len(tokens)))
    else:
        scores = chooser.masked(log_softmax(logits), len(tokens))
    if penalizes(chooser.settings):
        scores = penalized(scores, chooser.settings, tokens)
    ids = allowed_ids(constraint, tokens, len(scores))
    if ids is not None:
        kept = scores[ids]
        scores = np.full_like(scores, MIN_SCORE)
        scores[ids] = kept
    return scores


def _grown(
    running: Sequence[_Beam], rows: Sequence[np.ndarray], most: int
) -> list[tuple[int, _Beam]]:
    """Returns the best continuations of all beams, each with its parent's place; the best first."""
    totals = np.concatenate([beam.total + row for beam, row in zip(running, rows, strict=True)])
    found = []
    for place in largest(totals, most).tolist():
        parent, token = divmod(place, len(rows[0]))
        gain, beam = float(rows[parent][token]), running[parent]
        if gain > MIN_SCORE:
            grown = _Beam((*beam.tokens, token), (*beam.gains, gain), totals[place])
            found.append((parent, grown))
    return found


def _until_end(
    tokens: list[int], scores: list[float], ends: set[int], chooser: TokenChooser
) -> BlankTokens:
    length = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    stop: Any = chooser.stop
    if stop and (cut := stop.cut(tokens[:length])):
        written = cut.kept + 1
        while stop.cut(tokens[:written]) is None:  # up to the token that completed the stop string
            written += 1
        kept = [*tokens[: cut.kept], *cut.rest]
        return BlankTokens(kept, scores[:written], finished=True, text=cut.text)
    return BlankTokens(tokens[:length], scores[: length + 1], finished=length < len(tokens))

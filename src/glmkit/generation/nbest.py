"""The n likeliest ways to fill all blanks of a text together, with their probabilities.

In: a runner, a prompt, n. Out: candidates, best first. One beam search goes through all blanks: ways that differ in the
first blank compete with the second one written already, so that the best text wins and not the best beginning. A
log-probability is not divided by lengths and nothing else is preferred: exp of it is the probability of these very
contents, end markers included.

Shapes: H ways being written (one sequence of the runner each), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glmkit.blanks.layout import Piece, lay_out
from glmkit.errors import GenerationError
from glmkit.generation.arrays import largest, log_softmax
from glmkit.generation.constraints import Constraint, allowed_ids
from glmkit.generation.decoding import MIN_SCORE, TokenChooser
from glmkit.generation.guidance import GuidedRunner
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed, Runner, follow
from glmkit.generation.settings import DecodingSettings

MOST = 100
"""Most candidates of a text."""

_UNUSED = ("do_sample", "num_return_sequences", "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "stop", "prompt_lookup_num_tokens")  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way to fill the blanks, perhaps unfinished.

    Attributes:
        blanks: Token ids of each blank that is finished or being written.
        scores: Log-probability of each of them (nats), the end marker included where it is finished.
        finished: Whether the last blank of the text has ended.
    """

    blanks: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    finished: bool = False

    @property
    def score(self) -> float:
        """Log-probability of all that is written, in nats."""
        return sum(self.scores)

    def with_token(self, token: int, gain: float) -> Way:
        """Returns the way with one more token in its last blank."""
        last = (*self.blanks[-1], token)
        return Way((*self.blanks[:-1], last), (*self.scores[:-1], self.scores[-1] + gain))

    def with_end(self, gain: float, *, open_next: bool) -> Way:
        """Returns the way with its last blank ended."""
        scores = (*self.scores[:-1], self.scores[-1] + gain)
        if open_next:
            return Way((*self.blanks, ()), (*scores, 0.0))
        return Way(self.blanks, scores, finished=True)


def check_settings(n: int, settings: DecodingSettings) -> None:
    """Refuses settings that a search for the n likeliest cannot follow.

    Raises:
        GenerationError: They are named.
    """
    if not isinstance(n, int) or not 1 <= n <= MOST:
        raise GenerationError(f"n={n!r} must be a whole number from 1 to {MOST}")
    unused = [
        name for name in _UNUSED if getattr(settings, name) != getattr(DecodingSettings, name)
    ]
    if unused:
        raise GenerationError(
            f"n={n} searches for the likeliest texts as they are; it cannot be combined with {', '.join(unused)}"
        )


def search(runner: Runner, request: Request, sop: int, max_positions: int, n: int) -> list[Way]:
    """Returns up to n finished ways, best first; a blank that reaches `max_new_tokens` must end there.

    Args:
        runner: The model.
        request: The text, what its blanks may contain, what leads it away (log-probabilities are then those of the
            guided distribution); the settings passed `check_settings`.
        sop: Id of the start marker.
        max_positions: The model's `max_sequence_length`.
        n: Ways wanted; `num_beams` of the settings, or 2n, are kept while searching.

    Raises:
        GenerationError: The constraints allow nothing.
    """
    prompt, chooser, constraints = request.prompt, request.chooser, request.constraints
    guided = GuidedRunner(runner)
    beams = max(2 * n, chooser.settings.num_beams)
    longest = chooser.settings.longest(max_positions)
    first = Piece(int(prompt.mask_indices[0]), np.empty(0, np.int64), scored=False)
    example = lay_out(prompt.ids, [first], sop)
    positions, blocks = example.position_ids.tolist()
    ids, prefix = example.input_ids.tolist(), example.prefix_length
    handle = guided.open(request.guidance)
    feeds = [Feed(handle, ids, positions, blocks, prefix, media=prompt.embeddings)]
    running, finished = [Way(((),), (0.0,))], list[Way]()
    while running:
        logits = np.concatenate(guided.forward(feeds))
        grown = _grow(running, logits, chooser, constraints, beams, longest)
        finished += [way for _, way in grown if way.finished]
        finished = sorted(finished, key=lambda way: -way.score)[:n]
        # A log-probability only falls: what is below the n-th finished one stays there.
        least = finished[-1].score if len(finished) == n else MIN_SCORE
        kept = sorted(
            (pair for pair in grown if not pair[1].finished),
            key=lambda pair: -pair[1].score,
        )
        kept = [(parent, way) for parent, way in kept if way.score > least][:beams]
        running = [way for _, way in kept]
        handles = follow(guided, [feed.sequence for feed in feeds], [parent for parent, _ in kept])
        feeds = [
            _next_feed(handle, way, prompt, sop)
            for handle, way in zip(handles, running, strict=True)
        ]
    if not finished:
        raise GenerationError(
            "no way to fill the blanks is allowed by the constraints together with min_new_tokens="
            f"{chooser.settings.min_new_tokens} and max_new_tokens={chooser.settings.max_new_tokens}; loosen them"
        )
    return finished


def _grow(
    running: list[Way],
    logits: np.ndarray,
    chooser: TokenChooser,
    constraints: Sequence[Constraint | None],
    beams: int,
    longest: int,
) -> list[tuple[int, Way]]:
    """Returns (row of the parent, way) of the ways that the best tokens, and each end, make of `running`.

    Args:
        running: H ways.
        logits: [H, V].
        chooser: What is forbidden.
        constraints: One for each blank.
        beams: Tokens of each way that are looked at.
        longest: Most tokens of a blank.
    """
    grown = list[tuple[int, Way]]()
    for row, (way, values) in enumerate(zip(running, logits, strict=True)):
        blank, number = way.blanks[-1], len(way.blanks) - 1
        values = log_softmax(chooser.masked(values, len(blank)))
        end = float(np.logaddexp.reduce(values[chooser.ends]))
        allowed = allowed_ids(constraints[number], blank, len(values))
        if allowed is not None:
            limited = np.full_like(values, MIN_SCORE)
            limited[allowed] = values[allowed]
            values = limited
            if not np.isin(chooser.ends, allowed).any():
                end = MIN_SCORE
        if end > MIN_SCORE:
            grown.append((row, way.with_end(end, open_next=number + 1 < len(constraints))))
        if len(blank) < longest:
            values[chooser.ends] = MIN_SCORE
            tokens = largest(values, beams)
            grown += [
                (row, way.with_token(token, gain))
                for token, gain in zip(tokens.tolist(), values[tokens].tolist(), strict=True)
                if gain > MIN_SCORE
            ]
    return grown


def _next_feed(sequence: int, way: Way, prompt: Prompt, sop: int) -> Feed:
    """Returns what is read next: the last token, or the next start marker."""
    position = int(prompt.mask_indices[len(way.blanks) - 1])
    blank = way.blanks[-1]
    return Feed(sequence, [blank[-1] if blank else sop], [position], [len(blank) + 1])

"""Guidance: a text is led away from what the model would write in another context (classifier-free guidance).

In: a prompt, a prompt against it, a scale. Out: a `Runner` whose logits are those of the first, pushed away from those of the second:
second + scale * (first - second). Both read the same blanks, each at its own positions. Scale 1 is the prompt alone; above 1 what
distinguishes the prompts counts more. Everything that asks a runner (engine, beams, the n likeliest) is guided alike.

Source: Sanchez et al. 2023, *Stay on topic with Classifier-Free Guidance* (arXiv 2306.17806), the form for language models. Its
log-probabilities may be logits as well: they differ by a constant, which the next softmax takes away.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glmkit.blanks.layout import lay_out
from glmkit.errors import GenerationError
from glmkit.generation.prompts import Prompt
from glmkit.generation.runner import Feed, Runner, check_answers, check_runner
from glmkit.generation.settings import DecodingSettings

DEFAULT_SCALE = 1.5
"""Of a request that names a prompt to be led away from and no scale; the paper's usual choice."""


@dataclass(frozen=True)
class Guidance:
    """What a text is led away from.

    Attributes:
        prompt: The text's own prompt.
        against: The other prompt, with as many blanks.
        scale: Above 0; 1 leaves the text as it is.

    Raises:
        GenerationError: The prompts have different numbers of blanks.
    """

    prompt: Prompt
    against: Prompt
    scale: float

    def __post_init__(self) -> None:
        own, other = len(self.prompt.mask_indices), len(self.against.mask_indices)
        if own != other:
            raise GenerationError(
                f"negative_prompt: the text has {own} blanks and the one against it {other}; the same contents are read in "
                "both, so give both as many"
            )

    def position(self, position: int) -> int:
        """Returns where a blank's tokens stand in the other prompt."""
        [place] = np.flatnonzero(self.prompt.mask_indices == position)
        return int(self.against.mask_indices[place])

    def feed(self, feed: Feed, sequence: int) -> Feed:
        """Returns what the other prompt's sequence reads when the text's reads `feed`."""
        ids, blocks = feed.ids[feed.prefix :], feed.blocks[feed.prefix :]
        positions = [self.position(one) for one in feed.positions[feed.prefix :]]
        if not feed.prefix:
            return replace(feed, sequence=sequence, positions=positions)
        part_a = lay_out(self.against.ids, [], sop=-1)
        own, (places, zeros) = part_a.input_ids.tolist(), part_a.position_ids.tolist()
        return Feed(
            sequence,
            [*own, *ids],
            [*places, *positions],
            [*zeros, *blocks],
            part_a.prefix_length,
            feed.num_logits,
            self.against.embeddings,
        )

    def length(self, length: int) -> int:
        """Returns how much the other sequence keeps where the text's keeps `length` tokens, its part A among them (or 0)."""
        return length and length - len(self.prompt.ids) + len(self.against.ids)

    def guided(self, logits: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns the logits of the guided distribution, float32 like those given."""
        return other + np.float32(self.scale) * (logits - other)


class GuidedRunner:
    """A runner of which each sequence may be guided; a guided one is two of the model's, read in one pass.

    Raises:
        GenerationError: It lacks a method of `Runner`.
    """

    def __init__(self, runner: Runner):
        check_runner(runner)
        self._runner = runner
        self.chooses = getattr(runner, "chooses", False)
        self._beside: dict[int, tuple[int, Guidance]] = {}

    def open(self, guidance: Guidance | None = None) -> int:
        """Returns the handle of a new, empty sequence."""
        return self._paired(self._runner.open(), guidance, self._runner.open)

    def fork(self, sequence: int) -> int:
        """Returns the handle of a copy that goes on by itself."""
        other, guidance = self._beside.get(sequence, (0, None))
        return self._paired(self._runner.fork(sequence), guidance, lambda: self._runner.fork(other))

    def _paired(self, sequence: int, guidance: Guidance | None, make: Any) -> int:
        if guidance is not None:
            try:
                self._beside[sequence] = make(), guidance
            except BaseException:
                self._runner.close(sequence)
                raise
        return sequence

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self._runner.truncate(sequence, length)
        if sequence in self._beside:
            other, guidance = self._beside[sequence]
            self._runner.truncate(other, guidance.length(length))

    def close(self, sequence: int) -> None:
        """Forgets a sequence."""
        self._runner.close(sequence)
        if sequence in self._beside:
            self._runner.close(self._beside.pop(sequence)[0])

    def length(self, sequence: int) -> int:
        """Returns the number of tokens that a sequence has read, in the text's own prompt."""
        return self._runner.length(sequence)

    def forward(self, feeds: Sequence[Feed]) -> list[np.ndarray]:
        """Reads each feed, at most one for a sequence; returns float32 [num_logits, V] for each, guided where it is.

        Raises:
            GenerationError: The runner answers with something else.
        """
        guided = [place for place, feed in enumerate(feeds) if feed.sequence in self._beside]
        pairs = [self._beside[feeds[place].sequence] for place in guided]
        others = [
            guidance.feed(feeds[place], other)
            for place, (other, guidance) in zip(guided, pairs, strict=True)
        ]
        asked = [*feeds, *others]
        read = check_answers(self._runner, asked, self._runner.forward(asked))
        for place, (_, guidance), away in zip(guided, pairs, read[len(feeds) :], strict=True):
            read[place] = guidance.guided(read[place], away)
        return read[: len(feeds)]


def guidance_of(
    prompt: Prompt, against: Prompt | None, settings: DecodingSettings
) -> Guidance | None:
    """Returns what leads a prompt's text away, or None.

    Raises:
        GenerationError: Different numbers of blanks, or a scale without a prompt to be led away from.
    """
    if against is None:
        if settings.guidance_scale is not None:
            raise GenerationError(
                f"guidance_scale={settings.guidance_scale} says how far a text is led away from another prompt; give that "
                "prompt (negative_prompt), or leave the scale out"
            )
        return None
    scale = DEFAULT_SCALE if settings.guidance_scale is None else settings.guidance_scale
    return Guidance(prompt, against, scale)

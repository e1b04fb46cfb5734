"""Guessing the next tokens of a blank with a smaller model of the same vocabulary (speculative decoding, arXiv 2211.17192).

In: the engine's slots. Out: their guesses, which the large model checks in one pass. A guess counts only where it is what would
have been chosen anyway, drawn or likeliest, so that nothing but the time depends on the assistant.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glmkit.errors import GenerationError
from glmkit.generation.request import Slot, Token
from glmkit.generation.runner import Feed, Runner, make_runner

logger = logging.getLogger(__name__)

CONFIDENCE = 0.4
"""Probability below which the assistant stops guessing (transformers' `assistant_confidence_threshold`)."""


class Assistant:
    """A model that guesses for a larger one, whose attribute `assistant` it becomes.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode, or a `NativeModel`.
        num_tokens: Most tokens that it guesses at a step.

    Raises:
        GenerationError: `num_tokens` below 1.
    """

    def __init__(self, model: Any, num_tokens: int = 4):
        if num_tokens < 1:
            raise GenerationError(
                f"num_assistant_tokens={num_tokens} must be at least 1; leave assistant_model out to write without one"
            )
        self.model, self.num_tokens = model, num_tokens

    def make_drafter(self) -> Drafter:
        """Returns what guesses for one engine."""
        positions = self.model.config.max_sequence_length
        return Drafter(make_runner(self.model), positions, self.num_tokens)


@dataclass(eq=False)
class _Draft:
    """A slot in the assistant: its sequence there, what that has read, what it reads next, how many guesses are still wanted."""

    slot: Slot
    sequence: int
    known: list[Token] = field(default_factory=list)
    rest: list[Token] = field(default_factory=list)
    wanted: int = 0

    def feed(self) -> Feed:
        ids, positions, blocks = zip(*self.rest, strict=True)
        prefix = 0 if self.known else len(self.slot.request.prompt.ids)
        return Feed(self.sequence, ids, positions, blocks, prefix)

    def add(self, logits: np.ndarray) -> bool:
        """Adds the likeliest token after what was read, if it is likely; returns whether to guess on."""
        self.known += self.rest
        slot = self.slot
        values = slot.request.chooser.masked(logits, slot.written + len(slot.guesses))
        token = int(values.argmax())
        likely = 1 / np.exp(values - values[token]).sum() >= CONFIDENCE
        if not likely or not slot.request.chooser.writable[token]:
            return False
        slot.guess([token])
        self.rest = slot.guesses[-1:]
        self.wanted -= 1
        return self.wanted > 0


class Drafter:
    """What an assistant has read of the slots of one engine.

    Args:
        runner: The assistant; the drafter alone uses it.
        max_positions: Its `max_sequence_length`; longer prompts get no guesses.
        num_tokens: Most guesses of a slot at a step.
    """

    def __init__(self, runner: Runner, max_positions: int, num_tokens: int):
        self._runner, self._max_positions, self.num_tokens = runner, max_positions, num_tokens
        self._drafts: dict[Slot, _Draft] = {}
        self._refused: set[Slot] = set()

    def guess(self, slots: Iterable[Slot]) -> None:
        """Adds guesses to slots that have none; all of them are read together."""
        drafts = [draft for slot in slots if (draft := self._synced(slot)) is not None]
        while drafts:
            read = self._read(drafts)
            drafts = [
                draft
                for draft, logits in zip(drafts, read, strict=True)
                if logits is not None and draft.add(logits[0])
            ]

    def fork(self, slot: Slot, other: Slot) -> None:
        """Lets another sample of a slot's request go on from what was read of it."""
        if draft := self._drafts.get(slot):
            sequence = self._runner.fork(draft.sequence)
            self._drafts[other] = _Draft(other, sequence, list(draft.known))

    def close(self, slot: Slot) -> None:
        """Forgets a slot."""
        self._refused.discard(slot)
        if draft := self._drafts.pop(slot, None):
            self._runner.close(draft.sequence)

    def _synced(self, slot: Slot) -> _Draft | None:
        """Returns a slot's draft, which remembers nothing that the text has not; None where the assistant cannot help."""
        prompt, (_, _, block) = slot.request.prompt, slot.pending[-1]
        wanted = min(self.num_tokens, slot.room, self._max_positions - block)
        too_long = len(prompt.ids) > self._max_positions + 1
        if wanted < 1 or too_long or prompt.embeddings is not None or slot in self._refused:
            return None
        draft = self._drafts.get(slot)
        if draft is None:
            draft = self._drafts[slot] = _Draft(slot, self._runner.open())
        text = slot.read + slot.pending
        same = min(len(draft.known), len(text) - 1)
        while draft.known[:same] != text[:same]:
            same -= 1
        if same < len(prompt.ids):  # part A is read as a whole
            same = 0
        if same < len(draft.known):
            self._runner.truncate(draft.sequence, same)
        draft.known, draft.rest, draft.wanted = text[:same], text[same:], wanted
        return draft

    def _read(self, drafts: list[_Draft]) -> list[np.ndarray | None]:
        """Returns logits for each draft; None where the assistant fails: that slot is written without it."""
        try:
            return [*self._runner.forward([draft.feed() for draft in drafts])]
        except Exception as error:
            if len(drafts) > 1:
                return [self._read([draft])[0] for draft in drafts]
            logger.debug("the assistant model cannot read a text: %s", error)
            self.close(drafts[0].slot)
            self._refused.add(drafts[0].slot)
            return [None]

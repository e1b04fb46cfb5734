"""How the next token of a blank is chosen from the model's logits.

In: settings, what is never written, the tokens of a blank so far, logits. Out: a token and its log-probability. Knows no
cache and no prompt; the engine writes blanks with it, the search for the n likeliest asks it what is forbidden.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glmkit.errors import GenerationError
from glmkit.generation.constraints import Constraint, allowed_ids
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import StopStrings

MIN_SCORE = -torch.inf


@dataclass
class BlankTokens:
    """The contents of one blank, while and after they are written.

    Attributes:
        tokens: Ids, without the end marker.
        log_probabilities: One for each token, and one for the end marker if the blank ended by itself.
        finished: Whether it ended by itself, or before a stop string.
        text: The contents where a stop string cut them, perhaps within a token.
        likeliest: For each log-probability the likeliest tokens there with theirs, best first; empty unless the chooser
            was told to note them.
    """

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finished: bool = False
    text: str | None = None
    likeliest: list[list[tuple[int, float]]] = field(default_factory=list)


class TokenChooser:
    """Chooses the next token of a row from its logits; holds what is forbidden and how to draw."""

    def __init__(
        self,
        settings: DecodingSettings,
        forbidden: Sequence[int],
        ends: Sequence[int],
        num_tokens: int,
        stop: StopStrings | None = None,
        num_likeliest: int = 0,
    ):
        """Prepares the processors.

        Args:
            settings: How to choose.
            forbidden: Ids never to be written (special tokens).
            ends: Ids that end a blank.
            num_tokens: Real tokens of the vocabulary; padding rows from there on are never written.
            stop: Strings before which a blank ends.
            num_likeliest: Of how many tokens `choose` notes the log-probabilities in the blank, beside the chosen one's.
        """
        self.settings = settings
        self.num_likeliest = num_likeliest
        self.forbidden = torch.tensor(sorted(forbidden), dtype=torch.long)
        self.ends = torch.tensor(sorted(ends), dtype=torch.long)
        self.num_tokens = num_tokens
        self.writable = np.ones(num_tokens, bool)  # what a blank may contain, ends aside
        self.writable[[*forbidden, *ends]] = False
        self.stop = stop
        # What `masked` hides while a blank may not end yet, and afterwards.
        self._barred = _barred(tuple(sorted(forbidden)), tuple(sorted(ends)), num_tokens)
        penalties: list[Any] = []
        if settings.repetition_penalty != 1.0:
            penalties.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if settings.no_repeat_ngram_size:
            penalties.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
        warpers: list[Any] = []
        if settings.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1.0:
            warpers.append(TopPLogitsWarper(settings.top_p))
        self.penalties = LogitsProcessorList(penalties)
        self.processors = LogitsProcessorList(penalties + warpers)

    def masked(self, logits: torch.Tensor, num_written: int) -> torch.Tensor:
        """Returns a float32 copy of logits [V] without what is never written, or not after `num_written` tokens."""
        # NumPy works in this thread: torch would wake threads that wait, spinning, on the cores that the model needs next.
        values = np.array(logits.float().numpy())
        values[self.num_tokens :] = MIN_SCORE
        values[self.forbidden.numpy()] = MIN_SCORE
        if num_written < self.settings.min_new_tokens:
            values[self.ends.numpy()] = MIN_SCORE
        return torch.from_numpy(values)

    def barred(self, num_written: int) -> np.ndarray | None:
        """Returns bool [num_tokens], what is never written, or not after `num_written` tokens; the same array each time.

        None where more than that decides (drawing, penalties, notes of the likeliest), so that `choose` must see the logits.
        """
        if self.settings.do_sample or self.processors or self.num_likeliest:
            return None
        return self._barred[num_written >= self.settings.min_new_tokens]

    def choose(
        self,
        logits: torch.Tensor,
        blank: BlankTokens,
        generator: torch.Generator | None,
        constraint: Constraint | None = None,
    ) -> tuple[int, float]:
        """Returns the chosen id and its log-probability, from logits [V] on the CPU.

        The log-probability is the model's own, among real and not special tokens: what a constraint or a penalty
        rules out does not change it, so that texts written under different constraints can be compared.

        Raises:
            GenerationError: The constraint and the settings together leave no token, or it answers with no ids.
        """
        logits = scores = self.masked(logits, len(blank.tokens))
        if self.num_likeliest:
            values, best = torch.log_softmax(logits, -1).topk(self.num_likeliest)
            blank.likeliest.append(list(zip(best.tolist(), values.tolist(), strict=True)))
        ids = allowed_ids(constraint, blank.tokens, len(logits))
        if ids is not None and len(ids) == 1 and not self.settings.no_repeat_ngram_size:
            token = int(ids[0])  # no choice: nothing to weigh or to draw
            if logits[token] > MIN_SCORE:
                return token, _log_probability(logits, token)
        if ids is not None:
            limited = np.full(len(logits), MIN_SCORE, np.float32)
            limited[ids] = logits.numpy()[ids]
            scores = torch.from_numpy(limited)
        if self.processors:
            history: Any = torch.tensor([blank.tokens], dtype=torch.long)
            scores = self.processors(history, scores[None].clone())[0]  # type: ignore[arg-type]
        token = int(scores.numpy().argmax())
        if scores[token] == MIN_SCORE:
            raise nothing_allowed(constraint, len(blank.tokens), self.settings)
        if self.settings.do_sample:
            token = int(torch.multinomial(torch.softmax(scores, -1), 1, generator=generator))
        return token, _log_probability(logits, token)


@lru_cache(maxsize=16)
def _barred(
    forbidden: tuple[int, ...], ends: tuple[int, ...], num_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is barred while a blank may not end, and later; one pair for all choosers of a vocabulary."""
    later = np.zeros(num_tokens, bool)
    later[list(forbidden)] = True
    before = later.copy()
    before[list(ends)] = True
    return before, later


def _log_probability(logits: torch.Tensor, token: int) -> float:
    """Returns the log-probability of a token under logits [V]."""
    values = logits.numpy()
    top = values.max()
    return float(values[token] - top - np.log(np.exp(values - top).sum()))


def nothing_allowed(
    constraint: Constraint | None, num_tokens: int, settings: DecodingSettings
) -> GenerationError:
    """Returns the error for a blank that can go on with nothing."""
    return GenerationError(
        f"nothing may follow the first {num_tokens} tokens of a blank under {type(constraint).__name__}, "
        f"min_new_tokens={settings.min_new_tokens} and no_repeat_ngram_size={settings.no_repeat_ngram_size}; "
        "loosen the constraint, or lower these settings"
    )

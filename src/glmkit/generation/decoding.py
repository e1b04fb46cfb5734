"""How the next token of a blank is chosen from the model's logits.

In: settings, what is never written, the tokens of a blank so far, logits. Out: a token and its log-probability. Knows no
cache and no prompt; the engine writes blanks with it, the search for the n likeliest asks it what is forbidden.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from glmkit.errors import GenerationError
from glmkit.generation.arrays import largest, log_softmax
from glmkit.generation.constraints import Constraint, allowed_ids
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import StopStrings
from glmkit.generation.warping import MIN_SCORE, candidates, drawn, penalized, penalizes


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
        """Prepares what is barred.

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
        self.forbidden = np.array(sorted(forbidden), np.int64)
        self.ends = np.array(sorted(ends), np.int64)
        self.num_tokens = num_tokens
        self.writable = np.ones(num_tokens, bool)  # what a blank may contain, ends aside
        self.writable[[*forbidden, *ends]] = False
        self.stop = stop
        # What `masked` hides while a blank may not end yet, and afterwards.
        self._barred = _barred(tuple(sorted(forbidden)), tuple(sorted(ends)), num_tokens)

    def masked(self, logits: np.ndarray, num_written: int) -> np.ndarray:
        """Returns a float32 copy of logits [V] without what is never written, or not after `num_written` tokens."""
        values = np.array(logits, np.float32)
        values[self.num_tokens :] = MIN_SCORE
        values[self.forbidden] = MIN_SCORE
        if num_written < self.settings.min_new_tokens:
            values[self.ends] = MIN_SCORE
        return values

    def barred(self, num_written: int) -> np.ndarray | None:
        """Returns bool [num_tokens], what is never written, or not after `num_written` tokens; the same array each time.

        None where more than that decides (drawing, penalties, notes of the likeliest), so that `choose` must see the logits.
        """
        settings = self.settings
        if settings.do_sample or penalizes(settings) or self.num_likeliest:
            return None
        return self._barred[num_written >= settings.min_new_tokens]

    def choose(
        self,
        logits: np.ndarray,
        blank: BlankTokens,
        stream: np.random.Generator | None,
        constraint: Constraint | None = None,
    ) -> tuple[int, float]:
        """Returns the chosen id and its log-probability, from logits [V].

        The log-probability is the model's own, among real and not special tokens: what a constraint or a penalty
        rules out does not change it, so that texts written under different constraints can be compared.

        Raises:
            GenerationError: The constraint and the settings together leave no token, or it answers with no ids; logits that are no numbers.
        """
        logits = scores = self.masked(logits, len(blank.tokens))
        if self.num_likeliest:
            values = log_softmax(logits)
            best = largest(values, self.num_likeliest)
            blank.likeliest.append(list(zip(best.tolist(), values[best].tolist(), strict=True)))
        ids = allowed_ids(constraint, blank.tokens, len(logits))
        if ids is not None and len(ids) == 1 and not self.settings.no_repeat_ngram_size:
            token = int(ids[0])  # no choice: nothing to weigh or to draw
            if logits[token] > MIN_SCORE:
                return token, _log_probability(logits, token)
        if ids is not None:
            scores = np.full(len(logits), MIN_SCORE, np.float32)
            scores[ids] = logits[ids]
        if penalizes(self.settings):
            scores = penalized(scores, self.settings, blank.tokens)
        token = int(scores.argmax())
        if not scores[token] > MIN_SCORE:  # argmax finds what is no number first
            raise nothing_allowed(constraint, len(blank.tokens), self.settings)
        if self.settings.do_sample:
            assert stream is not None
            candidate_ids, weighed = candidates(scores, self.settings)
            token = int(candidate_ids[drawn(weighed, stream)])
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


def random_stream(seed: int | None) -> np.random.Generator:
    """Returns what draws for a sample; without a seed one that NumPy's own stream gives (`np.random.seed`, transformers' `set_seed`)."""
    if seed is None:
        seed = int(np.random.randint(2**62, dtype=np.int64))
    return np.random.default_rng(seed % 2**64)


def _log_probability(logits: np.ndarray, token: int) -> float:
    """Returns the log-probability of a token under logits [V]."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum()))


def nothing_allowed(
    constraint: Constraint | None, num_tokens: int, settings: DecodingSettings
) -> GenerationError:
    """Returns the error for a blank that can go on with nothing."""
    return GenerationError(
        f"nothing may follow the first {num_tokens} tokens of a blank under {type(constraint).__name__}, "
        f"min_new_tokens={settings.min_new_tokens} and no_repeat_ngram_size={settings.no_repeat_ngram_size}; "
        "loosen the constraint, or lower these settings; where nothing forbids, the model's logits are no numbers"
    )

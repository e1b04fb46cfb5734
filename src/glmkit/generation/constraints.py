"""What a blank may contain: constraints on the next token, asked at every step of decoding.

In: the tokens of a blank so far. Out: the ids that may come next. A constraint is a function of those tokens alone, so
one object serves every row of a batch, sampling, beams and streams. It knows no model; the tables of a vocabulary are
made once, when it is built.

A blank that stops at `max_new_tokens` is the beginning of something allowed; it reports `finished=False`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Literal, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np

from glmkit.errors import GenerationError
from glmkit.generation.spelling import token_texts
from glmkit.tokens.blanked import encode_plain

NOTHING = np.empty(0, np.int64)


@runtime_checkable
class Constraint(Protocol):
    """What a blank may contain."""

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the ids that may come next.

        Args:
            tokens: The blank's ids so far, without start and end markers.

        Returns:
            int64 ids, an end id among them where the blank may end; None where everything may come; an empty array
            where `tokens` cannot be continued (or are not allowed themselves: a search may ask about such).
        """


class Rule:
    """What glmkit's own constraints share: `a & b` is `All(a, b)`."""

    def __and__(self, other: Constraint) -> All:
        """Returns the constraint that both are kept."""
        return All(self, other)  # type: ignore[arg-type]


class Choices(Rule):
    """The blank is one of the given token sequences."""

    def __init__(self, sequences: Iterable[Sequence[int]], end: int):
        """Builds the trie.

        Args:
            sequences: What the blank may be, as ids.
            end: Id that ends a blank (`tokenizer.special_ids.eop`).

        Raises:
            GenerationError: There is nothing to choose from.
        """
        following: dict[tuple[int, ...], set[int]] = {}
        for sequence in sequences:
            ids = (*map(int, sequence), end)
            for place, token in enumerate(ids):
                following.setdefault(ids[:place], set()).add(token)
        if not following:
            raise GenerationError("Choices: at least one thing to choose from is needed")
        self._following = {
            prefix: np.array(sorted(tokens), np.int64) for prefix, tokens in following.items()
        }

    @classmethod
    def of_texts(cls, tokenizer: Any, texts: Iterable[str]) -> Choices:
        """Returns the constraint for texts, encoded as the contents of a blank.

        Args:
            tokenizer: A `GLMTokenizer`.
            texts: The texts; special tokens' strings in them are plain text.
        """
        return cls((encode_plain(tokenizer, text) for text in texts), tokenizer.special_ids.eop)

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens that continue one of the choices."""
        return self._following.get(tuple(tokens), NOTHING)


class Length(Rule):
    """The blank has between `minimum` and `maximum` tokens or characters."""

    def __init__(
        self,
        tokenizer: Any,
        minimum: int = 0,
        maximum: int | None = None,
        unit: Literal["tokens", "characters"] = "characters",
    ):
        """Prepares the table of the vocabulary.

        Args:
            tokenizer: A `GLMTokenizer`.
            minimum: Fewest units.
            maximum: Most units; None is no limit.
            unit: What is counted. Characters are those of the decoded, stripped text; tokens that are only a part of
                a character (bytes) are not written then, because their number says nothing about characters.

        Raises:
            GenerationError: Limits that contradict each other.
        """
        if minimum < 0 or (maximum is not None and maximum < max(minimum, 1)):
            raise GenerationError(
                f"Length: minimum={minimum} must be at least 0 and maximum={maximum} at least 1 and not below it"
            )
        self._tokenizer, self._unit = tokenizer, unit
        self._minimum, self._maximum = minimum, maximum
        ids = tokenizer.special_ids
        self._end = np.array([ids.eop], np.int64)
        self._first, self._later = _lengths(tokenizer)

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens that still fit, and the end once there is enough."""
        table = self._later if tokens else self._first
        if self._unit == "tokens":
            written = enough = len(tokens)
            cost, fits = np.ones_like(table.lengths), ~table.special
        else:
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            written, enough = len(text.lstrip()), len(text.strip())
            # A space at the end is stripped later: the last place is not for one, or the minimum could be missed.
            cost, fits = table.lengths + table.ends_in_space, table.lengths > 0
        if self._maximum is not None:
            fits = fits & (written + cost <= self._maximum)
        following = np.flatnonzero(fits)
        return np.concatenate((following, self._end)) if enough >= self._minimum else following


class _Lengths:
    """What each token of a vocabulary adds to a text, at its start or later.

    Attributes:
        lengths: int64 [V], most characters; 0 for special tokens and for parts of characters.
        ends_in_space: bool [V].
        special: bool [V].
    """

    def __init__(self, tokenizer: Any, later: bool):
        texts = token_texts(tokenizer, later)
        special = [*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder]
        self.special = np.isin(np.arange(len(texts)), special)
        self.lengths = np.array([0 if "�" in text else len(text) for text in texts], np.int64)
        self.lengths[self.special] = 0
        self.ends_in_space = np.array([text != text.rstrip() for text in texts], bool)


class All(Rule):
    """The blank obeys several constraints at once; a pair that contradicts itself ends in a `GenerationError`."""

    def __init__(self, *constraints: Constraint):
        self._constraints = constraints

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns what all of them allow."""
        answers = [constraint.allowed(tokens) for constraint in self._constraints]
        limited = [answer for answer in answers if answer is not None]
        return reduce(np.intersect1d, limited) if limited else None


_lengths_of: WeakKeyDictionary[Any, tuple[_Lengths, _Lengths]] = WeakKeyDictionary()


def _lengths(tokenizer: Any) -> tuple[_Lengths, _Lengths]:
    """Returns the tables at the start and later, made once for a tokenizer."""
    if tokenizer not in _lengths_of:
        _lengths_of[tokenizer] = _Lengths(tokenizer, False), _Lengths(tokenizer, True)
    return _lengths_of[tokenizer]


def per_blank(
    constraints: Constraint | Sequence[Constraint | None] | None, num_blanks: int
) -> list[Constraint | None]:
    """Returns one constraint for each blank of a text.

    Args:
        constraints: One for all its blanks, one for each, or None.
        num_blanks: Blanks of the text.

    Raises:
        GenerationError: A list of another length, or something that is no constraint.
    """
    if constraints is None or isinstance(constraints, Constraint):
        return [constraints] * num_blanks
    chosen = list(constraints)
    if len(chosen) != num_blanks:
        raise GenerationError(
            f"constraints: the text has {num_blanks} blanks, the list for it has {len(chosen)} constraints"
        )
    for one in chosen:
        if one is not None and not isinstance(one, Constraint):
            raise GenerationError(
                f"constraints: {one!r} has no method allowed(tokens); see Constraint"
            )
    return chosen

"""What a blank may contain: constraints on the next token, asked at every step of decoding.

In: the tokens of a blank so far. Out: the ids that may come next. A constraint is a function of those tokens alone, so
one object serves every row of a batch, sampling, beams and streams. It knows no model; the tables of a vocabulary are
made once, when it is built.

A blank that stops at `max_new_tokens` is the beginning of something allowed; it reports `finished=False`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


def allowed_ids(
    constraint: Constraint | None, tokens: Sequence[int], num_ids: int | None = None
) -> np.ndarray | None:
    """Returns what a constraint allows after `tokens`, as int64 [n]; None where everything may come.

    Args:
        constraint: Anybody's; a list of ids from it is as good as an array.
        tokens: The blank's ids so far.
        num_ids: Rows of the model's vocabulary; None looks at no id.

    Raises:
        GenerationError: The constraint answers with something else than ids.
    """
    answer = None if constraint is None else constraint.allowed(tokens)
    if answer is None:
        return None
    ids = np.asarray(answer)
    if ids.shape == (0,):
        return NOTHING
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        given = type(answer).__name__ if ids.ndim == 0 else f"{ids.dtype} {list(ids.shape)}"
        raise GenerationError(
            f"{type(constraint).__name__}.allowed must return ids, int64 [n], or None where everything may come; it returned {given}"
            + (" (np.flatnonzero makes ids of a mask)" if ids.dtype.kind == "b" else "")
        )
    if num_ids is not None and (ids.max() >= num_ids or ids.min() < 0):
        raise GenerationError(
            f"{type(constraint).__name__}.allowed returned ids from {ids.min()} to {ids.max()}; the model has 0 to {num_ids - 1}"
        )
    return ids


@dataclass(frozen=True)
class Room:
    """How much may be written in a blank.

    Attributes:
        tokens: Most tokens.
        characters: Most characters.
        excluded: Words that must not be written.
        whole: Whether tokens that are a part of a character are not written.
    """

    tokens: float = np.inf
    characters: float = np.inf
    excluded: tuple[str, ...] = ()
    whole: bool = False

    def smaller(self, other: Room) -> Room:
        """Returns what both leave."""
        return Room(
            min(self.tokens, other.tokens),
            min(self.characters, other.characters),
            tuple(dict.fromkeys((*self.excluded, *other.excluded))),
            self.whole or other.whole,
        )


class Rule:
    """What glmkit's own constraints share; `a & b` is `All(a, b)`.

    Attributes:
        shaping: Whether it says what the whole text is, and so where it ends.
    """

    shaping = False

    def __and__(self, other: Constraint) -> All:
        """Returns the constraint that both are kept."""
        return All(self, other)  # type: ignore[arg-type]

    def room(self) -> Room:
        """Returns what it leaves to other constraints of the blank."""
        return Room()

    def within(self, room: Room) -> Any:
        """Returns the constraint for a blank that has no more room than this."""
        return self

    def terms(self) -> list[str]:
        """Returns the constraint as terms of llguidance that a text matches; empty where it is none of text."""
        return []


class Choices(Rule):
    """The blank is one of the given token sequences."""

    shaping = True

    def __init__(self, sequences: Iterable[Sequence[int]], end: int):
        """Builds the trie.

        Args:
            sequences: What the blank may be, as ids.
            end: Id that ends a blank (`tokenizer.special_ids.eop`).

        Raises:
            GenerationError: There is nothing to choose from.
        """
        self._whole = [(*map(int, sequence), end) for sequence in sequences]
        if not self._whole:
            raise GenerationError("Choices: at least one thing to choose from is needed")
        self._following = _trie(self._whole)

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

    def keeping(self, others: Sequence[Constraint]) -> Choices:
        """Returns the choices that other constraints allow, perhaps none."""
        kept = Choices.__new__(Choices)
        kept._whole = [
            ids
            for ids in self._whole
            if all(
                (following := allowed_ids(other, ids[:place])) is None or token in following
                for place, token in enumerate(ids)
                for other in others
            )
        ]
        kept._following = _trie(kept._whole)
        return kept


def _trie(sequences: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], np.ndarray]:
    """Returns beginning -> the ids that follow it in some sequence."""
    following: dict[tuple[int, ...], set[int]] = {}
    for ids in sequences:
        for place, token in enumerate(ids):
            following.setdefault(ids[:place], set()).add(token)
    return {prefix: np.array(sorted(tokens), np.int64) for prefix, tokens in following.items()}


class Length(Rule):
    """The blank has between `minimum` and `maximum` tokens, characters or lines."""

    def __init__(
        self,
        tokenizer: Any,
        minimum: int = 0,
        maximum: int | None = None,
        unit: Literal["tokens", "characters", "lines"] = "characters",
    ):
        """Prepares the table of the vocabulary.

        Args:
            tokenizer: A `GLMTokenizer`.
            minimum: Fewest units.
            maximum: Most units; None is no limit.
            unit: What is counted. Characters are those of the decoded, stripped text; tokens that are only a part of
                a character (bytes) are not written then, because their number says nothing about characters. Lines
                are one more than the line ends in that text.

        Raises:
            GenerationError: An unknown unit, limits that contradict each other, or several lines in a vocabulary
                without an end of line.
        """
        if unit not in ("tokens", "characters", "lines"):
            raise GenerationError(f"Length: unit={unit!r} must be tokens, characters or lines")
        if minimum < 0 or (maximum is not None and maximum < max(minimum, 1)):
            raise GenerationError(
                f"Length: minimum={minimum} must be at least 0 and maximum={maximum} at least 1 and not below it"
            )
        self._tokenizer, self._unit = tokenizer, unit
        self._minimum, self._maximum = minimum, maximum
        ids = tokenizer.special_ids
        self._end = np.array([ids.eop], np.int64)
        self._first, self._later = _lengths(tokenizer)
        if unit == "lines" and minimum > 1 and not self._later.line_ends.any():
            raise GenerationError(
                f"Length: minimum={minimum} lines; this vocabulary has no end of line, so that a text is one line"
            )

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens that still fit, and the end once there is enough."""
        table = self._later if tokens else self._first
        if self._unit == "tokens":
            written = enough = len(tokens)
            cost, fits = np.ones_like(table.lengths), ~table.special
        elif self._unit == "lines":
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            written, enough = 1 + text.lstrip().count("\n"), 1 + text.strip().count("\n")
            cost, fits = table.line_ends, ~table.special
        else:
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            written, enough = len(text.lstrip()), len(text.strip())
            # A space at the end is stripped later: the last place is not for one, or the minimum could be missed.
            cost, fits = table.lengths + table.ends_in_space, table.lengths > 0
        if self._maximum is not None:
            fits = fits & (written + cost <= self._maximum)
        following = np.flatnonzero(fits)
        return np.concatenate((following, self._end)) if enough >= self._minimum else following

    def room(self) -> Room:
        """Returns the most tokens or characters."""
        if self._unit == "lines":
            return Room()
        most = np.inf if self._maximum is None else self._maximum
        return Room(tokens=most) if self._unit == "tokens" else Room(characters=most, whole=True)

    def terms(self) -> list[str]:
        """Returns the constraint as terms of llguidance."""
        if self._unit == "tokens":
            return []
        if self._unit == "characters":
            return [f"/(?s:.){_times(self._minimum, self._maximum)}/"]
        most = None if self._maximum is None else self._maximum - 1
        return [f"/[^\\n]*(\\n[^\\n]*){_times(max(self._minimum - 1, 0), most)}/"]


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


class _Lengths:
    """What each token of a vocabulary adds to a text, at its start or later.

    Attributes:
        lengths: int64 [V], most characters; 0 for special tokens and for parts of characters.
        ends_in_space: bool [V].
        line_ends: int64 [V], line ends in the text.
        special: bool [V].
    """

    def __init__(self, tokenizer: Any, later: bool):
        texts = token_texts(tokenizer, later)
        self.special = np.isin(np.arange(len(texts)), list(tokenizer.textless_ids))
        self.lengths = np.array([0 if "�" in text else len(text) for text in texts], np.int64)
        self.lengths[self.special] = 0
        self.ends_in_space = np.array([text != text.rstrip() for text in texts], bool)
        self.line_ends = np.array([text.count("\n") for text in texts], np.int64)


class All(Rule):
    """The blank obeys several constraints at once.

    Each is told how much room the others leave, and a `Regex` is joined with what is said of the same text (other expressions,
    words, lengths in characters and lines), so that none of them leads where another cannot go on. What contradicts itself all the
    same ends in a `GenerationError`.
    """

    def __init__(self, *constraints: Constraint):
        """Joins constraints.

        Args:
            *constraints: What is to be kept.

        Raises:
            GenerationError: Some contradict each other.
        """
        given: list[Any] = []
        for each in constraints:
            given += each._given if isinstance(each, All) else [each]
        self._given: list[Any] = given
        self.shaping = any(map(shapes, given))
        self._room = reduce(Room.smaller, (one.room() for one in given if isinstance(one, Rule)), Room())  # fmt: skip
        joining = [one for one in given if hasattr(one, "joined")]
        terms = [
            term
            for one in given
            if isinstance(one, Rule) and one not in joining[:1]
            for term in one.terms()
        ]
        self._joined = bool(joining and terms)
        if self._joined:
            # What the expression keeps need not be kept twice, but where tokens run out.
            given = [one for one in given if not isinstance(one, Rule) or not one.terms() or one.room() == Room()]  # fmt: skip
            given = [one for one in given if one not in joining]
            given.insert(0, joining[0].joined(terms))
        self._constraints: list[Any] = self._narrowed(given)

    def _narrowed(self, constraints: Iterable[Any]) -> list[Any]:
        """Returns constraints that know of the room; from choices those are taken that the others forbid."""
        room = Room(self._room.tokens) if self._joined else self._room
        told: list[Any] = within_room(constraints, room)
        for number, one in enumerate(told):
            if isinstance(one, Choices):
                told[number] = one.keeping(told[:number] + told[number + 1 :])
        return told

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns what all of them allow."""
        answers = [allowed_ids(constraint, tokens) for constraint in self._constraints]
        limited = [answer for answer in answers if answer is not None]
        return reduce(_both, limited) if limited else None

    def room(self) -> Room:
        """Returns what all of them leave."""
        return self._room

    def within(self, room: Room) -> All:
        """Returns the constraints for a blank that has no more room than this."""
        narrowed = All.__new__(All)
        narrowed._given, narrowed._room = self._given, self._room.smaller(room)
        narrowed._joined, narrowed.shaping = self._joined, self.shaping
        narrowed._constraints = narrowed._narrowed(self._constraints)
        return narrowed


_lengths_of: WeakKeyDictionary[Any, tuple[_Lengths, _Lengths]] = WeakKeyDictionary()


def _lengths(tokenizer: Any) -> tuple[_Lengths, _Lengths]:
    """Returns the tables at the start and later, made once for a tokenizer."""
    if tokenizer not in _lengths_of:
        _lengths_of[tokenizer] = _Lengths(tokenizer, False), _Lengths(tokenizer, True)
    return _lengths_of[tokenizer]


def _both(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the ids that are among `others` too; quicker than sorting them."""
    if not len(ids) or not len(others):
        return NOTHING
    known = np.zeros(max(int(ids.max()), int(others.max())) + 1, bool)
    known[others] = True
    return ids[known[ids]]


def sizes_of(tokenizer: Any) -> np.ndarray:
    """Returns the characters for which `Length` wants room at most, for each id."""
    first, later = _lengths(tokenizer)
    return np.maximum(first.lengths + first.ends_in_space, later.lengths + later.ends_in_space)


def shapes(constraint: Constraint | None) -> bool:
    """Returns whether a constraint says what the whole text is; one that is not glmkit's own does."""
    return constraint is not None and getattr(constraint, "shaping", True)


def within_room(constraints: Iterable[Constraint | None], room: Room) -> list[Constraint | None]:
    """Returns the constraints for blanks that have no more room than this."""
    return [one.within(room) if isinstance(one, Rule) else one for one in constraints]


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
    chosen: list[Any] = [constraints] * num_blanks
    if isinstance(constraints, list | tuple):
        chosen = list(constraints)
    if len(chosen) != num_blanks:
        raise GenerationError(
            f"constraints: the text has {num_blanks} blanks, the list for it has {len(chosen)} constraints"
        )
    for one in chosen:
        if isinstance(one, type):
            raise GenerationError(f"constraints: {one.__name__} is a class; give an object of it")
        if one is not None and not isinstance(one, Constraint):
            raise GenerationError(
                f"constraints: {one!r} is no constraint: it has no method allowed(tokens). glmkit.generation.constraints has Choices, "
                "Length and others; one of your own is any object with that method"
            )
    return chosen

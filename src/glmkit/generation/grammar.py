"""Text that obeys a regular expression, a JSON schema or a grammar, by llguidance.

In: a tokenizer, what the blank must match. Out: a constraint. What matches is the text as people get it (`Filled.blanks`: decoded, no
space around it), not the tokens' strings. It knows no model.

A regular expression never leads into a dead end of characters: what the vocabulary cannot write, and what decoding would
change, is taken out of it beforehand. In a schema or grammar such a place is an error when it is come to.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from glmkit.errors import GenerationError, missing_dependency
from glmkit.generation.constraints import NOTHING, Rule
from glmkit.generation.spelling import CLEANED, Spelling, check_writable, literal, spelling_of

_HEAD = '%llguidance {"no_forcing": true}\n'
"""Any tokens that spell a forced text may come, not only those of llguidance's choice."""
_KEPT = 256
"""Beginnings of blanks whose state is remembered; others are read again."""
_FUEL = 10_000_000
"""Steps of llguidance for one mask at most; its own limits are less than lengths and words joined can take."""
_SPACE = r"[\s\x1c-\x1f]"
"""What Python's `str.strip` takes away."""
_SPACED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class _Limited(Rule):
    """What all constraints of llguidance have in common."""

    shaping = True

    def __init__(self, tokenizer: Any, lark: str, given: str):
        """Compiles a grammar.

        Args:
            tokenizer: A `GLMTokenizer`.
            lark: The grammar, in llguidance's form of Lark.
            given: What the user gave, for messages.

        Raises:
            GenerationError: It cannot be compiled, or no text of this vocabulary matches.
            MissingDependencyError: Without `glmkit[control]`.
        """
        self._given = given
        self._vocabulary = _vocabulary(tokenizer)
        ours = _llguidance()
        limits = ours.LLParserLimits(
            initial_lexer_fuel=_FUEL, step_lexer_fuel=_FUEL, verbose_errors=False
        )
        tokens = self._vocabulary.tokens
        matcher = ours.LLMatcher(tokens, _HEAD + lark, log_level=0, limits=limits)
        _check(matcher, given)
        self._states: OrderedDict[tuple[int, ...], Any] = OrderedDict({(): matcher})
        self._start = matcher
        self._lock = Lock()
        first = self.allowed([])
        if first is not None and not len(first):
            raise GenerationError(
                f"{given} matches no text that this vocabulary can write; write it with other characters, or use a "
                "model whose vocabulary has them. (Text has no space around it, and in published vocabularies none before . , ? !)"
            )

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens behind which the text can still become one that matches."""
        spelling = self._vocabulary.spelling
        with self._lock:
            matcher = self._state(tuple(tokens))
            if matcher is None:
                return NOTHING
            fits = self._vocabulary.mask(matcher, first=not tokens)
            ends = matcher.is_accepting()
            if not matcher.get_error().startswith(("NoExtension", "EndOfSentence")):
                _check(matcher, self._given)
        fits[spelling.breaking(tokens)] = False
        text = spelling.text(tokens).decode("utf-8", "replace")
        fits[spelling.end] = ends and text == text.strip()
        return np.flatnonzero(fits)

    def _state(self, tokens: tuple[int, ...]) -> Any:
        """Returns the matcher behind some tokens, or None where they do not match."""
        if tokens in self._states:
            self._states.move_to_end(tokens)
            return self._states[tokens]
        known = len(tokens)
        while known and tokens[:known] not in self._states:
            known -= 1
        matcher = self._states.get(tokens[:known], self._start)
        for place in range(known, len(tokens)):
            if matcher is not None:
                index = self._vocabulary.index(tokens[place], first=place == 0)
                matcher = matcher.deep_copy()
                if index < 0 or not matcher.consume_token(index):
                    matcher = None
        self._states[tokens] = matcher
        if len(self._states) > _KEPT:
            self._states.popitem(last=False)
        return matcher


class Regex(_Limited):
    """The whole blank matches a regular expression.

    Its syntax is that of Rust's `regex` crate: as Python's, without look-around, back-references and anchors (it is the whole
    text that matches in any case).
    """

    def __init__(self, tokenizer: Any, pattern: str, others: Iterable[str] = ()):
        """Compiles the expression.

        Args:
            tokenizer: A `GLMTokenizer`.
            pattern: The expression.
            others: Terms of llguidance (`Rule.terms`) that the text matches too.

        Raises:
            GenerationError: It is no such expression, or no text of this vocabulary matches.
            MissingDependencyError: Without `glmkit[control]`.
        """
        ours = _llguidance()
        if not isinstance(pattern, str):
            raise GenerationError(f"regex={pattern!r} must be a string")
        check_writable("regex", pattern)
        self._tokenizer, self._pattern, self._others = tokenizer, pattern, tuple(others)
        # Alone first: an error then shows the user's expression, not all that is joined with it.
        check = ours.LLMatcher.validate_grammar(ours.LLMatcher.grammar_from_regex(pattern))
        if check and not check.startswith("WARNING"):
            raise GenerationError(
                f"regex={pattern!r} cannot be used: {check.strip()}. Write it in the syntax of Rust's regex "
                "(no look-around, back-references or anchors)"
            )
        spelling = spelling_of(tokenizer)
        terms = [*self.terms(), *self._others]
        terms += [f"~/{_SPACE}(?s:.*)/", f"~/(?s:.*){_SPACE}/"]
        if spelling.patterns:
            terms.append(f"~/(?s:.*)({'|'.join(map(literal, CLEANED))})(?s:.*)/")
        # Joined with others it would make too many states; what cannot be written is an error where it is come to then.
        if spelling.alphabet is not None and not self._others:
            terms.append(f"/[{_ranges(spelling.alphabet)}]*/")
        given = f"regex={pattern!r}"
        if self._others:
            given += " with the other constraints"
        super().__init__(tokenizer, f"start: TEXT\nTEXT: {' & '.join(terms)}\n", given)

    def joined(self, others: Iterable[str]) -> Regex:
        """Returns the constraint that the text matches other terms too, without dead ends between them."""
        return Regex(self._tokenizer, self._pattern, [*self._others, *others])

    def terms(self) -> list[str]:
        """Returns the constraint as terms of llguidance."""
        return [f"/{_llguidance().regex_to_lark(self._pattern, '')}/"]


class JsonSchema(_Limited):
    """The blank is JSON that a schema allows, written as `json.dumps` does."""

    def __init__(self, tokenizer: Any, schema: Mapping[str, Any] | str | bool = True):
        """Compiles the schema.

        Args:
            tokenizer: A `GLMTokenizer`.
            schema: The schema, or its JSON; True allows any JSON. `x-guidance` in it has llguidance's options.

        Raises:
            GenerationError: It is no schema, has keywords that cannot be kept, or no JSON of this vocabulary matches.
            MissingDependencyError: Without `glmkit[control]`.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise GenerationError(f"json_schema is not JSON: {error}") from error
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise GenerationError(f"json_schema={schema!r} must be a JSON object, or true")
        options = schema.get("x-guidance", {})
        if not isinstance(options, Mapping):
            raise GenerationError(f"json_schema: x-guidance={options!r:.80} must be a JSON object")
        try:
            text = json.dumps({**schema, "x-guidance": {**_SPACED, **options}}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GenerationError(f"json_schema cannot be written as JSON: {error}") from error
        super().__init__(tokenizer, f"start: %json {text}\n", "json_schema")


class Grammar(_Limited):
    """The blank is a sentence of a context-free grammar."""

    def __init__(self, tokenizer: Any, lark: str):
        """Compiles the grammar.

        Args:
            tokenizer: A `GLMTokenizer`.
            lark: In llguidance's form of Lark, with a rule `start`.

        Raises:
            GenerationError: It is no such grammar, or no text of this vocabulary matches.
            MissingDependencyError: Without `glmkit[control]`.
        """
        if not isinstance(lark, str):
            raise GenerationError(f"grammar={lark!r} must be a string in Lark's form")
        check_writable("grammar", lark)
        super().__init__(tokenizer, lark, "grammar")


class _Vocabulary:
    """A vocabulary as llguidance takes it: each text once, and where the ids' texts are.

    Attributes:
        spelling: The bytes of each id.
        tokens: The `LLTokenizer`.
    """

    def __init__(self, tokenizer: Any):
        self.spelling: Spelling = spelling_of(tokenizer)
        tables = (self.spelling.first, self.spelling.later)
        # 0xFF begins llguidance's names of special tokens, and no text.
        texts = sorted({one for table in tables for one in table if one and one[0] != 0xFF})
        places = {one: place for place, one in enumerate(texts)}
        self._size = len(texts) + 1
        self._places = [np.array([places.get(one, -1) for one in table]) for table in tables]
        ours = _llguidance()
        self.tokens = ours.LLTokenizer(ours.TokenizerWrapper(_Texts([*texts, b"\xff<end>"])))

    def index(self, token: int, first: bool) -> int:
        """Returns the place of a token's text, -1 where it has none."""
        places = self._places[0 if first else 1]
        return int(places[token]) if 0 <= token < len(places) else -1

    def mask(self, matcher: Any, first: bool) -> np.ndarray:
        """Returns bool [V], the ids that may come next, ends left out."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        flags = np.unpackbits(bits, count=self._size, bitorder="little")
        flags[-1] = 0  # the end, and what -1 points to
        return flags[self._places[0 if first else 1]].view(bool)


class _Texts:
    """What llguidance asks of a tokenizer; it never has to make tokens of a text here."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes]):
        self.tokens = tokens
        self.eos_token_id = len(tokens) - 1
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: Any) -> list[int]:
        """Returns no tokens: nothing is forced."""
        return []


_vocabularies: WeakKeyDictionary[Any, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(tokenizer: Any) -> _Vocabulary:
    """Returns the vocabulary of a tokenizer, made once."""
    if tokenizer not in _vocabularies:
        _vocabularies[tokenizer] = _Vocabulary(tokenizer)
    return _vocabularies[tokenizer]


def _check(matcher: Any, given: str) -> None:
    """Raises what is wrong with a grammar, or what it needs too much of."""
    if matcher.is_error():
        message = matcher.get_error().replace("<non-verbose/>", "").replace(_HEAD, "").strip()
        raise GenerationError(f"{given} cannot be used: {message}")


def _ranges(characters: Iterable[str]) -> str:
    """Returns characters as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges)


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise missing_dependency(
            "llguidance", "A regular expression, JSON schema or grammar", "control"
        ) from error
    return llguidance

"""Words that a blank must hold, or must not hold.

In: a tokenizer, words. Out: constraints on the text as people get it; a word counts wherever its characters stand side by side, inside
longer words too. They know no model.

What must be included never runs out of room: while words are missing, the tokens that they take are kept free, and are written
when no others are left. How much room there is, `within` is told: by `fill` (`max_new_tokens`), and by `All` (`Length`, `Exclude`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from glmkit.errors import GenerationError
from glmkit.generation.constraints import Room, Rule, sizes_of
from glmkit.generation.spelling import Spelling, check_writable, literal, spelling_of


class Exclude(Rule):
    """The blank holds none of the given words."""

    def __init__(self, tokenizer: Any, words: Iterable[str] | str):
        """Prepares the tables.

        Args:
            tokenizer: A `GLMTokenizer`.
            words: What must not be written, exactly so (letters' case counts).

        Raises:
            GenerationError: No words, or an empty one.
        """
        self.words = _as_words("exclude", words)
        self._spelling = spelling_of(tokenizer)
        self._patterns = [word.encode() for word in self.words]
        self._usable = []
        for first in (True, False):
            usable = (self._spelling.usable_first if first else self._spelling.usable).copy()
            for pattern in self._patterns:
                usable[self._spelling.holding(pattern, first)] = False
            usable[self._spelling.end] = True
            self._usable.append(usable)

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens that complete none of the words."""
        usable = self._usable[bool(tokens)].copy()
        usable[self._spelling.breaking(tokens)] = False
        usable[self._spelling.completing(self._spelling.text(tokens), self._patterns)] = False
        return np.flatnonzero(usable)

    def room(self) -> Room:
        """Returns what must not be written."""
        return Room(excluded=tuple(self.words))

    def terms(self) -> list[str]:
        """Returns the constraint as terms of llguidance."""
        return [f"~/(?s:.*){literal(word)}(?s:.*)/" for word in self.words]


class Include(Rule):
    """The blank holds all of the given words, in any order."""

    def __init__(self, tokenizer: Any, words: Iterable[str] | str, room: Room | None = None):
        """Spells the words.

        Args:
            tokenizer: A `GLMTokenizer`.
            words: What must be written, exactly so; no space at their ends.
            room: How much may be written; without it the blank cannot end before the words are there, but may be cut off.

        Raises:
            GenerationError: No words, one that this vocabulary cannot write, or less room than they take.
        """
        self.words = _as_words("include", words)
        self._tokenizer, self._spelling, self._room = (
            tokenizer,
            spelling_of(tokenizer),
            room or Room(),
        )
        self._patterns = [word.encode() for word in self.words]
        self._spelled = [_spelled(self._spelling, word) for word in self.words]
        self._sizes = np.maximum(self._spelling.num_characters, sizes_of(tokenizer))
        self._characters = [int(self._sizes[ids].sum()) for ids in self._spelled]
        forbidden = [*self._spelling.patterns, *(one.encode() for one in self._room.excluded)]
        # Last bytes of what must not stand before a word that is written because no room is left.
        self._risky = np.zeros(len(self._sizes), bool)
        for ids in self._spelled:
            lasts = {one[-1] for one in _openings(self._spelling.later[ids[0]], forbidden)}
            if lasts:
                self._risky |= np.isin(self._spelling.last_bytes, list(lasts))
        self._check()

    def within(self, room: Room) -> Include:
        """Returns the constraint for a blank that has no more room than this."""
        return Include(self._tokenizer, self.words, self._room.smaller(room))

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the tokens behind which there is still room for the words that are missing."""
        spelling = self._spelling
        text = spelling.text(tokens)
        missing = [n for n, pattern in enumerate(self._patterns) if pattern not in text]
        usable = (spelling.usable if tokens else spelling.usable_first).copy()
        usable[spelling.end] = not missing
        breaking = spelling.breaking(tokens)
        if missing:
            free_tokens, free_characters = self._free(tokens, text, missing)
            usable &= (self._sizes <= free_characters) & (free_tokens > 0)
            forced = (free_characters - self._sizes <= 1) | (free_tokens <= 1)
            usable &= ~(self._risky & forced)  # behind these a word could not follow
            for number in missing:
                for done, token in enumerate(self._spelled[number]):
                    if self._goes_on(tokens, number, done, free_tokens, free_characters):
                        usable[token] = True
        usable[breaking] = False
        return np.flatnonzero(usable)

    def _free(self, tokens: Sequence[int], text: bytes, missing: list[int]) -> tuple[float, float]:
        """Returns the tokens and characters that are not needed for the missing words."""
        left_tokens = self._room.tokens - len(tokens) - sum(len(self._spelled[n]) for n in missing)
        written = sum(byte & 0xC0 != 0x80 for byte in text)
        needed = sum(self._characters[n] for n in missing)
        return left_tokens, self._room.characters - written - needed

    def _goes_on(
        self,
        tokens: Sequence[int],
        number: int,
        done: int,
        free_tokens: float,
        free_characters: float,
    ) -> bool:
        """Returns whether the blank ends with the first `done` tokens of a word and has room for the others."""
        ids = self._spelled[number]
        begun = list(tokens[len(tokens) - done :]) == ids[:done] if done else True
        written = int(self._sizes[ids[:done]].sum())
        return begun and free_tokens + done >= 0 and free_characters + written >= 0

    def terms(self) -> list[str]:
        """Returns the constraint as terms of llguidance."""
        return [f"/(?s:.*){literal(word)}(?s:.*)/" for word in self.words]

    def _check(self) -> None:
        """Refuses words that contradict the room."""
        for word in self.words:
            for other in self._room.excluded:
                if other in word:
                    raise GenerationError(
                        f"include={word!r} holds exclude={other!r}; drop one of them"
                    )
        if self._room.whole:
            for word, ids in zip(self.words, self._spelled, strict=True):
                if any("�" in self._spelling.later[i].decode("utf-8", "replace") for i in ids):
                    raise GenerationError(
                        f"include={word!r} is written in parts of characters in this vocabulary, which a length in characters "
                        "does not allow; limit tokens instead"
                    )
        tokens, characters = sum(map(len, self._spelled)), sum(self._characters)
        for needed, room, unit in (
            (tokens, self._room.tokens, "tokens (max_new_tokens)"),
            (characters, self._room.characters, "characters, with the space before words"),
        ):
            if needed > room:
                raise GenerationError(
                    f"include={list(self.words)} takes {needed} {unit}, and there is room for {room:g}; raise the limit "
                    "or include less"
                )


def _as_words(name: str, words: Iterable[str] | str) -> list[str]:
    """Returns words as a list, each once.

    Raises:
        GenerationError: No words, or something that is none.
    """
    found = list(dict.fromkeys([words] if isinstance(words, str) else words))
    if not found or not all(isinstance(word, str) and word for word in found):
        raise GenerationError(f"{name}={found!r} must be at least one word, and none of them empty")
    for word in found:
        check_writable(name, word)
    if name == "include" and any(word != word.strip() for word in found):
        raise GenerationError(f"include={found!r}: the text of a blank has no space around it; words cannot have any")  # fmt: skip
    return found


def _spelled(spelling: Spelling, word: str) -> list[int]:
    """Returns the ids that write a word behind any text, with a space before it where words have one.

    Raises:
        GenerationError: The vocabulary cannot write it.
    """
    spaced = word[0].isascii() and word[0].isalnum()
    for text in (f" {word}", word) if spaced else (word, f" {word}"):
        ids = spelling.spell(text) if spelling.is_clean(word) else None
        if ids is not None and word.encode() in spelling.text(ids):
            return ids
    raise GenerationError(
        f"include={word!r} cannot be written in this vocabulary as it is; write it otherwise, or use a model whose "
        "vocabulary has its characters"
    )


def _openings(text: bytes, patterns: Iterable[bytes]) -> list[bytes]:
    """Returns the beginnings of patterns behind which `text` would complete them."""
    return [
        pattern[:cut]
        for pattern in patterns
        for cut in range(1, len(pattern))
        if text.startswith(pattern[cut:]) or pattern[cut:].startswith(text)
    ]

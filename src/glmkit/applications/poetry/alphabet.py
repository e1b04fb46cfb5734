"""The characters that a vocabulary can write with one token, by their sounds.

In: a tokenizer and a system of sounds. Out: arrays of ids, made once: all characters, those surely level or oblique, and
those that surely rhyme, by group and tone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from glmkit.applications.poetry.forms import FREE, LEVEL, OBLIQUE
from glmkit.applications.poetry.sounds import Sounds
from glmkit.errors import GenerationError
from glmkit.generation.spelling import token_texts
from glmkit.tokens.blanked import encode_plain


def is_han(character: str) -> bool:
    """Returns whether this is a Chinese character."""
    return (
        "\u4e00" <= character <= "\u9fff"
        or "\u3400" <= character <= "\u4dbf"
        or "\U00020000" <= character <= "\U0003ffff"
        or character == "〇"
    )


class Alphabet:
    """What can be written with one token.

    Attributes:
        sounds: The system of sounds.
        character_of: Id -> character.
        tones: 平, 仄, 中 -> int64 ids, ascending.
        rhymes: (group, tone) -> int64 ids, ascending.
        end: Id that ends a blank.
    """

    def __init__(self, tokenizer: Any, sounds: Sounds):
        self._tokenizer = tokenizer
        self.sounds = sounds
        self.end = int(tokenizer.special_ids.eop)
        self.character_of: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        for index, text in enumerate(token_texts(tokenizer)):
            if len(text) == 1 and is_han(text) and text not in self._ids:
                self.character_of[index] = text
                self._ids[text] = index
        tones: dict[str, list[int]] = {LEVEL: [], OBLIQUE: [], FREE: []}
        rhymes: dict[tuple[str, str], list[int]] = {}
        for index, character in self.character_of.items():
            tones[FREE].append(index)
            sound = sounds.sure(character)
            if sound is not None:
                tones[sound.tone].append(index)
                if sound.group:
                    rhymes.setdefault((sound.group, sound.tone), []).append(index)
        self.tones = {tone: np.array(ids, np.int64) for tone, ids in tones.items()}
        self.rhymes = {key: np.array(ids, np.int64) for key, ids in rhymes.items()}
        self.groups = sorted({group for group, _ in self.rhymes})

    def encode(self, text: str) -> list[int]:
        """Returns the ids of given characters or punctuation.

        Raises:
            GenerationError: The vocabulary cannot write a character.
        """
        ids = []
        for character in text:
            if character in self._ids:
                ids.append(self._ids[character])
                continue
            pieces = encode_plain(self._tokenizer, character)
            if is_han(character) and self._tokenizer.decode(pieces).strip() != character:
                raise GenerationError(
                    f"this model's vocabulary cannot write {character!r}; use another character (or the simplified one)"
                )
            ids += pieces
        return ids

    def ids(self, characters: str) -> np.ndarray:
        """Returns int64 ids of the characters that are one token."""
        return np.array([self._ids[one] for one in characters if one in self._ids], np.int64)


@lru_cache(maxsize=4)
def alphabet(tokenizer: Any, sounds: Any) -> Alphabet:
    """Returns the alphabet of a vocabulary, made once for a tokenizer and a system."""
    return Alphabet(tokenizer, sounds)

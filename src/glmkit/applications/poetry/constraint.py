"""The constraint that makes a blank a poem of a form, whatever the model prefers.

In: a form, an alphabet, what is given (a first line, an acrostic). Out: a `Constraint` for decoding. It keeps every way
in which the beginning may still become the form; each of them can be completed, so there are no dead ends:

- a place with a tone has all characters of that tone, whatever came before;
- a rhyme begins only with a group that has as many characters as there are places for it, and none comes twice;
- what is given was fitted to the verses before anything is written;
- wishes (no repeated verse, no pair of characters twice, none too often) give way where nothing else is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from glmkit.applications.poetry.alphabet import Alphabet
from glmkit.applications.poetry.fitting import fits, fitted, misfit, possible_groups
from glmkit.applications.poetry.forms import FREE, LEVEL, OBLIQUE, Form
from glmkit.errors import GenerationError
from glmkit.generation.constraints import NOTHING


@dataclass(frozen=True)
class _State:
    """One way in which the characters so far are a beginning of the form.

    Attributes:
        skeleton: Which skeleton.
        patterns: Tone patterns that the current verse may still have; those of the next one at its start.
        groups: The group of each rhyme that has begun.
    """

    skeleton: int
    patterns: tuple[str, ...]
    groups: tuple[str, ...] = ()


class PoemConstraint:
    """A poem of a form; as every constraint, a function of the blank's tokens alone."""

    def __init__(
        self,
        alphabet: Alphabet,
        form: Form,
        given: Mapping[int, str] | None = None,
        *,
        rhyme_with: str | None = None,
        max_repeats: int = 2,
    ):
        """Fits what is given to the form.

        Args:
            alphabet: The vocabulary's characters.
            form: The form.
            given: Place of a character in the poem, punctuation not counted -> the character there.
            rhyme_with: A character; the first rhyme is of its group.
            max_repeats: How often a character should come at most.

        Raises:
            GenerationError: The vocabulary has too few characters, or what is given cannot be part of the form.
        """
        self.form, self._alphabet, self._max_repeats = form, alphabet, max_repeats
        self._given = dict(given or {})
        self._places = [(v, j) for v, verse in enumerate(form.verses) for j in range(len(verse))]
        self._marks = _marks(form, alphabet)
        fewest = min(len(alphabet.tones[tone]) for tone in (LEVEL, OBLIQUE))
        if fewest < 2 * form.num_characters:
            raise GenerationError(
                f"this model's vocabulary has {len(alphabet.tones[FREE])} single Chinese characters, {fewest} of a "
                f"tone; poems need more. Use a model with a Chinese vocabulary, such as glm-mini"
            )
        self._literals = {place: alphabet.encode(one) for place, one in self._given.items()}
        self._skeletons = [
            fitted(skeleton, self._given, alphabet.sounds) for skeleton in form.skeletons
        ]
        if not any(self._skeletons):
            raise GenerationError(misfit(form, self._given))
        self._groups = possible_groups(form, alphabet, rhyme_with)
        start = tuple(
            _State(number, skeleton[0].patterns)
            for number, skeleton in enumerate(self._skeletons)
            if skeleton
        )
        self._states: dict[str, tuple[_State, ...]] = {"": start}
        beginning = ""
        while len(beginning) in self._given:
            beginning += self._given[len(beginning)]
            if not self._after(beginning):
                raise GenerationError(
                    f"{beginning!r} cannot begin a {form.name}: {beginning[-1]!r} does not rhyme there, or its group "
                    "has too few characters; change the line, or the system (rhyme='modern' or 'pingshui')"
                )

    @property
    def num_tokens(self) -> int:
        """Tokens of a whole poem, its end marker included."""
        marks = sum(map(len, self._marks.values()))
        given = sum(len(ids) - 1 for ids in self._literals.values())
        return len(self._places) + marks + given + 1

    def allowed(self, tokens: Sequence[int]) -> np.ndarray | None:
        """Returns the ids that keep the form: characters, punctuation or the end."""
        characters, at = "", 0
        for place, (number, j) in enumerate(self._places):
            literal = self._literal(place, number, characters)
            if literal is None:
                if at == len(tokens):
                    return self._next(characters)
                character = self._alphabet.character_of.get(int(tokens[at]))
                if character is None:
                    return NOTHING
                characters, at = characters + character, at + 1
            else:
                ids, character = literal
                following = _match(ids, tokens[at : at + len(ids)])
                if following is not None:
                    return following
                characters, at = characters + character, at + len(ids)
            if j + 1 == len(self.form.verses[number]):
                following = _match(self._marks[number], tokens[at : at + len(self._marks[number])])
                if following is not None:
                    return following
                at += len(self._marks[number])
        return np.array([self._alphabet.end], np.int64) if at == len(tokens) else NOTHING

    def _literal(self, place: int, number: int, characters: str) -> tuple[list[int], str] | None:
        """Returns the ids and the character of a place that is given, or that repeats the verse before."""
        if place in self._given:
            return self._literals[place], self._given[place]
        verse = self.form.verses[number]
        if verse.repeats:
            character = characters[place - len(verse)]
            return self._alphabet.encode(character), character
        return None

    def _next(self, characters: str) -> np.ndarray:
        """Returns the ids for a free place."""
        found = [self._candidates(state, characters) for state in self._after(characters)]
        if not found:
            return NOTHING
        ids = found[0] if len(found) == 1 else np.unique(np.concatenate(found))
        for unwanted in self._unwanted(characters):
            kept = ids[~np.isin(ids, self._alphabet.ids(unwanted))] if unwanted else ids
            ids = kept if len(kept) else ids
        return ids

    def _candidates(self, state: _State, characters: str) -> np.ndarray:
        number, j = self._places[len(characters)]
        verse = self.form.skeletons[state.skeleton][number]
        symbols = sorted({pattern[j] for pattern in state.patterns})
        if j + 1 < len(verse) or verse.rhyme is None:
            if FREE in symbols:
                return self._alphabet.tones[FREE]
            return np.concatenate([self._alphabet.tones[symbol] for symbol in symbols])
        groups = (
            [state.groups[verse.rhyme]]
            if verse.rhyme < len(state.groups)
            else self._fresh(state, verse.rhyme)
        )
        pools = [self._alphabet.rhymes.get((g, s), NOTHING) for g in groups for s in symbols]
        ids = np.concatenate(pools)
        used = self._rhymes_so_far(state.skeleton, verse.rhyme, characters)
        return ids[~np.isin(ids, self._alphabet.ids(used))]

    def _fresh(self, state: _State, rhyme: int) -> list[str]:
        """Returns the groups with which a rhyme may begin; it differs from the rhyme before."""
        last = state.groups[rhyme - 1] if rhyme else None
        return [group for group in self._groups[state.skeleton][rhyme] if group != last]

    def _after(self, characters: str) -> tuple[_State, ...]:
        """Returns the states after these characters, () where they cannot begin the form."""
        if characters not in self._states:
            before = self._after(characters[:-1])
            found = (new for state in before for new in self._step(state, characters))
            self._states[characters] = tuple(dict.fromkeys(found))
        return self._states[characters]

    def _step(self, state: _State, characters: str) -> list[_State]:
        place, character = len(characters) - 1, characters[-1]
        number, j = self._places[place]
        verses = self._skeletons[state.skeleton]
        verse = verses[number]
        lenient = place in self._given or verse.repeats
        sounds = self._alphabet.sounds
        alive = tuple(p for p in state.patterns if fits(character, p[j], sounds, lenient))
        if not alive or j + 1 < len(verse):
            return [_State(state.skeleton, alive, state.groups)] if alive else []
        patterns = verses[number + 1].patterns if number + 1 < len(verses) else ()
        if verse.rhyme is None:
            return [_State(state.skeleton, patterns, state.groups)]
        sure = sounds.sure(character)
        readings = sounds.readings(character) if lenient else (sure,) if sure else ()
        groups = {r.group for r in readings if r.tone in {p[j] for p in alive}}
        if verse.rhyme < len(state.groups):
            same = state.groups[verse.rhyme] in groups
            return [_State(state.skeleton, patterns, state.groups)] if same else []
        fresh = set(self._fresh(state, verse.rhyme))
        return [
            _State(state.skeleton, patterns, (*state.groups, g)) for g in sorted(groups & fresh)
        ]

    def _rhymes_so_far(self, skeleton: int, rhyme: int, characters: str) -> str:
        used, end = "", 0
        for verse in self.form.skeletons[skeleton]:
            end += len(verse)
            if end > len(characters):
                break
            if verse.rhyme == rhyme:
                used += characters[end - 1]
        return used

    def _unwanted(self, characters: str) -> Iterator[str]:
        """Yields the characters that should not come: they repeat a verse, come too often, or repeat a pair."""
        number, j = self._places[len(characters)]
        verses, start = [], 0
        for verse in self.form.verses[:number]:
            verses.append(characters[start : start + len(verse)])
            start += len(verse)
        current = characters[start:]
        if j + 1 == len(self.form.verses[number]):
            yield "".join(verse[-1] for verse in verses if verse[:-1] == current)
        yield "".join(one for one, n in Counter(characters).items() if n >= self._max_repeats)
        if current:
            pairs = {pair for verse in (*verses, current) for pair in pairwise(verse)}
            yield "".join(second for first, second in pairs if first == current[-1])


def _marks(form: Form, alphabet: Alphabet) -> dict[int, list[int]]:
    """Returns the ids of what follows each verse: its mark, and a new line after a sentence that is not the last."""
    last = len(form.verses) - 1
    return {
        number: alphabet.encode(verse.mark + ("\n" if verse.mark == "。" and number < last else ""))
        for number, verse in enumerate(form.verses)
    }


def _match(ids: Sequence[int], tokens: Sequence[int]) -> np.ndarray | None:
    """Returns None where all of `ids` were written, the next of them where a part was, NOTHING where others were."""
    if list(tokens) != list(ids[: len(tokens)]):
        return NOTHING
    return None if len(tokens) == len(ids) else np.array([ids[len(tokens)]], np.int64)

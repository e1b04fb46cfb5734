"""Fits what is given to a form, and rhymes to an alphabet, before a poem is begun.

In: a form, given characters, an alphabet. Out: the patterns that verses may still have, the groups with which rhymes may
begin, or words for what does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from glmkit.applications.poetry.alphabet import Alphabet
from glmkit.applications.poetry.forms import FREE, Form, Verse
from glmkit.applications.poetry.sounds import Sounds
from glmkit.errors import GenerationError


def fits(character: str, symbol: str, sounds: Sounds, lenient: bool) -> bool:
    """Returns whether a character may stand where the pattern has `symbol`.

    Args:
        character: The character.
        symbol: 平, 仄 or 中.
        sounds: The system of sounds.
        lenient: Any reading counts (the character is given), or only a sure one.
    """
    if symbol == FREE:
        return True
    if lenient:
        return symbol in {reading.tone for reading in sounds.readings(character)}
    sure = sounds.sure(character)
    return sure is not None and sure.tone == symbol


def fitted(
    skeleton: tuple[Verse, ...], given: Mapping[int, str], sounds: Sounds
) -> tuple[Verse, ...]:
    """Returns the skeleton with the patterns that what is given fits, () where a verse has none."""
    verses, start = [], 0
    for verse in skeleton:
        here = {j: given[start + j] for j in range(len(verse)) if start + j in given}
        patterns = tuple(
            p for p in verse.patterns if all(fits(c, p[j], sounds, True) for j, c in here.items())
        )
        if not patterns:
            return ()
        verses.append(Verse(patterns, verse.mark, verse.rhyme, verse.repeats))
        start += len(verse)
    return tuple(verses)


def misfit(form: Form, given: Mapping[int, str]) -> str:
    """Returns what is said where what is given fits no skeleton."""
    text = "".join(given.get(place, "□") for place in range(max(given) + 1))
    shown = " / ".join(
        "".join(" 或 ".join(verse.patterns) + verse.mark for verse in skeleton[:2])
        for skeleton in form.skeletons
    )
    return (
        f"{text!r} does not fit the tones of a {form.name}, whose verses begin {shown} (平 level, 仄 oblique, 中 either). "
        "Change a character, take another system of sounds (rhyme='modern' or 'pingshui'), or keep length and rhyme "
        "alone with tones=False"
    )


def possible_groups(
    form: Form, alphabet: Alphabet, rhyme_with: str | None
) -> list[list[list[str]]]:
    """Returns for each skeleton and rhyme the groups that have as many characters as the rhyme has places.

    Args:
        form: The form.
        alphabet: The vocabulary's characters.
        rhyme_with: A character whose group the first rhyme must have, or None.

    Raises:
        GenerationError: A rhyme has no group, or one that must differ from the rhyme before has only one.
    """
    asked = None
    if rhyme_with is not None:
        asked = {reading.group for reading in alphabet.sounds.readings(rhyme_with)}

    def enough(group: str, need: Counter[str]) -> bool:
        return all(len(alphabet.rhymes.get((group, t), ())) >= n for t, n in need.items())

    possible = []
    for skeleton in form.skeletons:
        needs: dict[int, Counter[str]] = {}
        for verse in skeleton:
            if verse.rhyme is not None and not verse.repeats:
                needs.setdefault(verse.rhyme, Counter())[verse.patterns[0][-1]] += 1
        rhymes = [
            [group for group in alphabet.groups if enough(group, need)]
            for _, need in sorted(needs.items())
        ]
        if asked is not None:
            rhymes[0] = [group for group in rhymes[0] if group in asked]
        possible.append(rhymes)
    if not all(len(groups) > bool(r) for rhymes in possible for r, groups in enumerate(rhymes)):
        raise GenerationError(
            f"there are not enough characters for the rhymes of a {form.name}"
            + (f" with the group of {rhyme_with!r}; name a commoner one" if rhyme_with else "")
        )
    return possible

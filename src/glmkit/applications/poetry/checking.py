"""Does a poem keep its form? Read from the text alone, by other code than what writes poems.

In: a poem and the name of a form. Out: what is wrong with it, in words; nothing is wrong with a poem that keeps the form.
A character with several readings counts in its favour.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from glmkit.applications.poetry.alphabet import is_han
from glmkit.applications.poetry.forms import FREE, Form, Verse, find_form
from glmkit.applications.poetry.sounds import Sounds, sounds
from glmkit.errors import GenerationError
from glmkit.generation.results import Poem

_BREAKS = re.compile(r"[\s，。！？；、：,.!?;:]+")


def check_poem(
    poem: Poem | str | Sequence[str],
    form: str | None = None,
    *,
    rhyme: str = "modern",
    tones: bool = True,
    acrostic: str | None = None,
) -> list[str]:
    """Returns what breaks the form, [] if nothing does.

    Args:
        poem: A `Poem`, its text or its lines; any punctuation.
        form: Name of the form; by default the `Poem`'s own.
        rhyme: The system of sounds, "modern" or "pingshui".
        tones: Whether tones count, or length, rhyme and repetition alone.
        acrostic: What the verses (or the lines) should begin with.

    Raises:
        GenerationError: There is no such form or system, or no form is named.
    """
    name = poem.form if form is None and isinstance(poem, Poem) else form
    if name is None:
        raise GenerationError("check_poem needs the name of the form: check_poem(text, '七言绝句')")
    chosen = find_form(name)
    lines = poem.lines if isinstance(poem, Poem) else poem
    text = lines if isinstance(lines, str) else "\n".join(lines)
    verses = [verse for verse in _BREAKS.split(text) if verse]
    wrong = _shape(verses, chosen)
    if wrong:
        return wrong
    system = sounds(rhyme, chosen.tune)
    ways = (chosen if tones else chosen.without_tones()).skeletons
    wrong = min((_sound(verses, way, system) for way in ways), key=len)
    wrong += _repetition(verses, chosen)
    if acrostic is not None and not _begins(verses, chosen, acrostic):
        starts = "".join(verse[0] for verse in verses)
        wrong.append(f"the verses begin with {starts}, not with the acrostic {acrostic}")
    return wrong


def _shape(verses: Sequence[str], form: Form) -> list[str]:
    if len(verses) != len(form.verses):
        return [f"{len(verses)} verses; a {form.name} has {len(form.verses)}"]
    wrong = []
    for number, (text, verse) in enumerate(zip(verses, form.verses, strict=True), start=1):
        if len(text) != len(verse):
            wrong.append(f"verse {number} ({text}) has {len(text)} characters, not {len(verse)}")
        if strange := [one for one in text if not is_han(one)]:
            wrong.append(f"verse {number} ({text}) has {strange[0]!r}, no Chinese character")
    return wrong


def _sound(verses: Sequence[str], skeleton: tuple[Verse, ...], system: Sounds) -> list[str]:
    """Returns the broken tones and rhymes against one skeleton."""
    wrong = []
    for number, (text, verse) in enumerate(zip(verses, skeleton, strict=True), start=1):
        readings = [{sound.tone for sound in system.readings(one)} for one in text]
        misses = [
            [
                place
                for place, symbol in enumerate(pattern)
                if symbol not in (FREE, *readings[place])
            ]
            for pattern in verse.patterns
        ]
        best = min(misses, key=len)
        pattern = verse.patterns[misses.index(best)]
        wrong += [
            f"verse {number} ({text}): {text[place]} should be {pattern[place]}" for place in best
        ]
    return wrong + _rhymes(verses, skeleton, system)


def _rhymes(verses: Sequence[str], skeleton: tuple[Verse, ...], system: Sounds) -> list[str]:
    """Returns the broken rhymes: all of one rhyme share a group, and a new rhyme takes another one than the last."""
    wrong: list[str] = []
    last: set[str] = set()
    for rhyme in sorted({verse.rhyme for verse in skeleton if verse.rhyme is not None}):
        ends = [
            (text[-1], verse.patterns[0][-1])
            for text, verse in zip(verses, skeleton, strict=True)
            if verse.rhyme == rhyme and not verse.repeats
        ]
        groups = [
            {sound.group for sound in system.readings(one) if sound.tone == tone and sound.group}
            for one, tone in ends
        ]
        written = [one for one, _ in ends]
        shared = set.intersection(*groups)
        if not shared:
            votes = Counter(group for some in groups for group in some)
            shared = {group for group, count in votes.items() if count == max(votes.values())}
            strangers = [
                one for one, some in zip(written, groups, strict=True) if not some & shared
            ]
            wrong.append(
                f"{'、'.join(strangers or written)} should rhyme with {'、'.join(written)}"
            )
        elif shared == last:
            wrong.append(f"{'、'.join(written)} should begin a new rhyme")
        if twice := [one for one, count in Counter(written).items() if count > 1]:
            wrong.append(f"{twice[0]} rhymes with itself")
        last = shared - last if len(last) == 1 else shared
    return wrong


def _repetition(verses: Sequence[str], form: Form) -> list[str]:
    wrong = []
    for number, (text, verse) in enumerate(zip(verses, form.verses, strict=True)):
        if verse.repeats:
            if text != verses[number - 1]:
                wrong.append(
                    f"verse {number + 1} ({text}) should repeat the one before ({verses[number - 1]})"
                )
        elif text in verses[:number]:
            wrong.append(f"verse {number + 1} ({text}) was there before")
    return wrong


def _begins(verses: Sequence[str], form: Form, acrostic: str) -> bool:
    starts = "".join(verse[0] for verse in verses)
    after_sentence = [True, *(verse.mark == "。" for verse in form.verses[:-1])]
    line_starts = "".join(one for one, begins in zip(starts, after_sentence, strict=True) if begins)
    return acrostic in (starts, line_starts)

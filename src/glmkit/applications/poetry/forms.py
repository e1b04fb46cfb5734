"""Forms of poems: how many verses and characters, where tones and rhymes are fixed, which punctuation.

In: the name of a form. Out: a `Form`: a few skeletons, each a list of verses, each with the tone patterns that it may
have. Knows no model and no tokenizer.

Regulated verse is made of four types of verse, named by how they begin and end; two of them end level and rhyme. The
order of the types keeps opposition within couplets and adhesion between them (粘对); the patterns give the odd places
their freedom and leave out the lone level tone (孤平) and three level tones at the end (三平调).
Source: Wang Li, 诗词格律 (chapters on regulated verse); tunes as Long Yusheng, 唐宋词格律, describes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from glmkit.errors import GenerationError, nearest

LEVEL, OBLIQUE, FREE = "平", "仄", "中"


@dataclass(frozen=True)
class Verse:
    """One verse.

    Attributes:
        patterns: The tone patterns that it may have, of equal length: 平 level, 仄 oblique, 中 either.
        mark: The punctuation after it.
        rhyme: Number of the rhyme that it ends with, or None.
        repeats: It is the same as the verse before it (叠句).
    """

    patterns: tuple[str, ...]
    mark: str
    rhyme: int | None = None
    repeats: bool = False

    def __len__(self) -> int:
        return len(self.patterns[0])


@dataclass(frozen=True)
class Form:
    """A form.

    Attributes:
        name: Its Chinese name.
        aliases: Other names.
        skeletons: Ways to be of this form; they agree in the verses' lengths and punctuation.
        tune: Whether it is a tune (词牌), whose rhymes are looser.
    """

    name: str
    aliases: tuple[str, ...]
    skeletons: tuple[tuple[Verse, ...], ...]
    tune: bool = False

    @property
    def verses(self) -> tuple[Verse, ...]:
        """The verses of the first skeleton: lengths and punctuation are those of all."""
        return self.skeletons[0]

    @property
    def num_characters(self) -> int:
        """Characters without punctuation."""
        return sum(map(len, self.verses))

    def without_tones(self) -> Form:
        """Returns the form with lengths, punctuation and rhymes alone."""

        def loosen(verse: Verse) -> Verse:
            last = FREE if verse.rhyme is None else verse.patterns[0][-1]
            pattern = FREE * (len(verse) - 1) + last
            return Verse((pattern,), verse.mark, verse.rhyme, verse.repeats)

        skeletons = tuple(dict.fromkeys(tuple(map(loosen, one)) for one in self.skeletons))
        return Form(self.name, self.aliases, skeletons, self.tune)

    def lines(self, characters: str) -> list[str]:
        """Returns the poem's lines: characters with the form's punctuation, one line for each sentence."""
        text, at = "", 0
        for verse in self.verses:
            text += characters[at : at + len(verse)] + verse.mark
            at += len(verse)
        return text.replace("。", "。\n").splitlines()


# Types of verse of five characters, and of seven: begins oblique or level in the second place, ends oblique or level.
_TYPES = {
    "oblique-oblique": ("中仄中平仄", "中平中仄中平仄"),
    "level-oblique": ("中平平仄仄 平平仄平仄", "中仄中平平仄仄 中仄平平仄平仄"),
    "oblique-level": ("中仄仄平平", "中平中仄仄平平"),
    "level-level": ("平平中仄平 仄平平仄平", "中仄平平中仄平 中仄仄平平仄平"),
}
_FOUR = {
    "oblique": ("oblique-oblique", "level-level", "level-oblique", "oblique-level"),
    "level": ("level-oblique", "oblique-level", "oblique-oblique", "level-level"),
}
_FIRST_RHYMES = {"oblique-oblique": "oblique-level", "level-oblique": "level-level"}


def _regulated(length: int, num_verses: int, name: str, *aliases: str) -> Form:
    """Returns regulated verse: the second place begins level or oblique, the first verse rhymes or not."""
    skeletons = []
    for four in _FOUR.values():
        plain = list(four) * (num_verses // 4)
        for types in (plain, [_FIRST_RHYMES[plain[0]], *plain[1:]]):
            verses = [
                Verse(
                    tuple(_TYPES[one][length == 7].split()),
                    "，。"[number % 2],
                    0 if one.endswith("-level") else None,
                )
                for number, one in enumerate(types)
            ]
            skeletons.append(tuple(verses))
    return Form(name, aliases, tuple(skeletons))


_VERSE = re.compile(r"([平仄中]+)(叠?)(韵|换|)([，。、])")


def parse_tune(name: str, aliases: str | Sequence[str], metre: str) -> Form:
    """Returns a tune from its metre: of each verse tones, then 叠 (repeats the verse before), then 韵 (rhymes) or 换 (a new rhyme begins).

    Rhymes of a level and of an oblique place under one number are of one group (平仄通押).

    Raises:
        GenerationError: The metre cannot be read, has no rhyme, or repeats a verse that is not there.
    """
    metre = "".join(metre.split())
    verses: list[Verse] = []
    rhyme = at = 0
    while verse := _VERSE.match(metre, at):
        at = verse.end()
        tones, repeated, rhymes, mark = verse.groups()
        if repeated and (not verses or len(verses[-1]) != len(tones)):
            raise GenerationError(
                f"the metre of {name!r}: {verse.group()!r} repeats the verse before it (叠), which is not there or of another length"
            )
        rhyme += rhymes == "换"
        verses.append(Verse((tones,), mark, rhyme if rhymes else None, bool(repeated)))
    if at < len(metre) or not verses:
        raise GenerationError(
            f"the metre of {name!r} cannot be read from {metre[at : at + 12]!r} on: a verse is tones (平 仄 中), then 叠 if it repeats the "
            "one before, then 韵 or 换 if it rhymes, then one of ，。、"
        )
    if all(verse.rhyme is None for verse in verses):
        raise GenerationError(f"the metre of {name!r} has no rhyme; write 韵 after the tones of each verse that rhymes")  # fmt: skip
    return Form(name, (aliases,) if isinstance(aliases, str) else tuple(aliases), (tuple(verses),), tune=True)  # fmt: skip


@cache
def forms() -> dict[str, Form]:
    """Returns all forms by their Chinese names."""
    file = resources.files("glmkit.applications.poetry") / "tunes.yaml"
    tunes: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = [
        _regulated(5, 4, "五言绝句", "五绝", "wujue", "quatrain-5"),
        _regulated(7, 4, "七言绝句", "七绝", "qijue", "quatrain-7"),
        _regulated(5, 8, "五言律诗", "五律", "wulü", "wulv", "regulated-5"),
        _regulated(7, 8, "七言律诗", "七律", "qilü", "qilv", "regulated-7"),
    ]
    found += [parse_tune(name, tune["aliases"], tune["metre"]) for name, tune in tunes.items()]
    return {form.name: form for form in found}


def find_form(name: str) -> Form:
    """Returns the form of a Chinese or English name.

    Raises:
        GenerationError: There is none of that name.
    """
    wanted = str(name).strip().lower().replace(" ", "-")
    known = {alias: form for form in forms().values() for alias in (form.name, *form.aliases)}
    if wanted in known:
        return known[wanted]
    raise GenerationError(
        f"there is no form {name!r}{nearest(wanted, known) or '.'} Forms are "
        + ", ".join(f"{form.name} ({form.aliases[-1]})" for form in forms().values())
    )

"""Titles -> poems: the prompt that poems were trained with, the constraint, and the best of several candidates.

In: a model, its tokenizer, titles, a form and what is given. Out: `Poem`s. The prompt is the catalog's (`poem.yaml`).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.applications.poetry.alphabet import alphabet, is_han
from glmkit.applications.poetry.constraint import PoemConstraint
from glmkit.applications.poetry.forms import Form, find_form
from glmkit.applications.poetry.sounds import sounds
from glmkit.applications.prompts import question_prompt
from glmkit.errors import GenerationError
from glmkit.generation import infill
from glmkit.generation.prompts import Prompt
from glmkit.generation.results import Filled, Poem
from glmkit.generation.settings import DecodingSettings
from glmkit.tasks.rendering import question
from glmkit.tasks.task import load_task

logger = logging.getLogger(__name__)

SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}
"""How poems are drawn unless settings say otherwise."""

UNTITLED = "无题"
_DECIDED = ("max_new_tokens", "min_new_tokens", "stop", "no_repeat_ngram_size")
_ROWS = 16


@dataclass(frozen=True)
class Wishes:
    """What a poem should be like.

    Attributes:
        form: Name of the form, Chinese or English (`forms`).
        first_line: The first verse or verses, whole ones; punctuation does not matter.
        acrostic: What the verses, or the lines, begin with, one character each.
        keywords: Words that the title names beside its own; a candidate that has more of them is preferred.
        author: Whose style to follow.
        rhyme: The system of sounds, "modern" or "pingshui".
        rhyme_with: A character; the (first) rhyme is of its group.
        tones: Whether to keep the tones, or length, rhyme and punctuation alone.
        candidates: How many poems to draw for each title; the likeliest is kept.
        seed: Seed of the drawing; None draws one.
    """

    form: str = "七言绝句"
    first_line: str | None = None
    acrostic: str | None = None
    keywords: str | Sequence[str] | None = None
    author: str | None = None
    rhyme: str = "modern"
    rhyme_with: str | None = None
    tones: bool = True
    candidates: int = 4
    seed: int | None = None


def write_poems(
    model: Any, tokenizer: Any, titles: Sequence[str], wishes: Wishes, **settings: Any
) -> list[Poem]:
    """Writes a poem for each title; every one keeps the form.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        titles: The titles; an empty one is 无题, or the tune's name.
        wishes: The form and what is given.
        **settings: Fields of `DecodingSettings`: `do_sample`, `temperature`, `top_p`, `top_k`, `num_beams` …; how long
            a poem is, the form decides.

    Raises:
        GenerationError: No such form, something given that does not fit it, settings that cannot be kept, or a
            vocabulary without single Chinese characters.
    """
    form = find_form(wishes.form)
    shape = form if wishes.tones else form.without_tones()
    constraint = PoemConstraint(
        alphabet(tokenizer, sounds(wishes.rhyme, form.tune)),
        shape,
        _given(form, wishes.first_line, wishes.acrostic),
        rhyme_with=wishes.rhyme_with,
    )
    limit = model.config.max_sequence_length
    if constraint.num_tokens >= limit:
        raise GenerationError(
            f"a {form.name} takes {constraint.num_tokens} tokens, this model writes at most {limit - 1}"
        )
    decoding = _decoding(settings, constraint.num_tokens, wishes)
    keywords = _keywords(wishes.keywords)
    prompts = [_prompt(tokenizer, title, form, keywords, wishes.author, limit) for title in titles]
    limits = [constraint] * len(prompts)
    if decoding.do_sample:
        seed = int(np.random.randint(2**40, dtype=np.int64)) if wishes.seed is None else wishes.seed
        seeds = [[_seed(seed, title, i) for i in range(wishes.candidates)] for title in titles]
        drawn = infill.draw(
            model, tokenizer, prompts, decoding, seeds, batch_size=_ROWS, constraints=limits
        )
    else:
        best = infill.fill(
            model, tokenizer, prompts, decoding, batch_size=_ROWS, constraints=limits
        )
        drawn = [[one] for one in best]
    return [_poem(title, form, some, keywords) for title, some in zip(titles, drawn, strict=True)]


def _seed(seed: int, title: str, candidate: int) -> int:
    """Returns a candidate's seed: titles of one call differ in their draws, and each has them alone or in a batch."""
    return zlib.crc32(f"{seed} {candidate} {title}".encode("utf-8", "surrogatepass"))


def _poem(title: str, form: Form, drawn: Sequence[Filled], keywords: Sequence[str]) -> Poem:
    """Returns the candidate with most keywords, the likeliest among equals (all are equally long)."""

    def merit(one: Filled) -> tuple[int, float]:
        return sum(word in one.blanks[0] for word in keywords), one.scores[0]

    best = max(drawn, key=merit)
    # A vocabulary may decode punctuation in its own way; the form's is put back.
    characters = "".join(filter(is_han, best.blanks[0]))
    return Poem(title, form.name, form.lines(characters))


def _decoding(settings: Mapping[str, Any], num_tokens: int, wishes: Wishes) -> DecodingSettings:
    if wishes.candidates < 1:
        raise GenerationError(f"candidates={wishes.candidates} must be at least 1")
    if decided := [name for name in _DECIDED if name in settings]:
        raise GenerationError(
            f"{', '.join(decided)}: the form of a poem decides this; leave it out"
        )
    chosen = dict(settings)
    if settings.get("num_beams", 1) == 1 and settings.get("do_sample", True):
        chosen = {**SAMPLING, **settings}
    return DecodingSettings.from_arguments(**chosen, max_new_tokens=num_tokens, min_new_tokens=0)


def _given(form: Form, first_line: str | None, acrostic: str | None) -> dict[int, str]:
    """Returns the given characters by their place in the poem, punctuation not counted."""
    starts, at = [], 0
    for verse in form.verses:
        starts.append(at)
        at += len(verse)
    given: dict[int, str] = {}
    if acrostic is not None:
        lines = [0, *(i + 1 for i, v in enumerate(form.verses[:-1]) if v.mark == "。")]
        begins = {len(starts): starts, len(lines): [starts[line] for line in lines]}
        if len(acrostic) not in begins or not all(map(is_han, acrostic)):
            raise GenerationError(
                f"acrostic={acrostic!r} must be {' or '.join(map(str, sorted(begins)))} Chinese characters, one for "
                f"each line or verse of a {form.name}"
            )
        given = dict(zip(begins[len(acrostic)], acrostic, strict=True))
    if first_line is not None:
        characters = "".join(filter(is_han, first_line))
        if len(characters) not in (*starts[1:], at):
            raise GenerationError(
                f"first_line={first_line!r} has {len(characters)} Chinese characters; whole verses of a {form.name} "
                f"have {', '.join(map(str, [*starts[1:], at]))}"
            )
        for place, character in enumerate(characters):
            if given.setdefault(place, character) != character:
                raise GenerationError(
                    f"first_line has {character!r} where the acrostic has {given[place]!r}"
                )
    _check_repeats(form, starts, given)
    return given


def _check_repeats(form: Form, starts: Sequence[int], given: Mapping[int, str]) -> None:
    for verse, start in zip(form.verses, starts, strict=True):
        for place in range(start, start + len(verse) * verse.repeats):
            before = place - len(verse)
            if place in given and given.get(before, given[place]) != given[place]:
                raise GenerationError(
                    f"{given[place]!r} is given for a verse of {form.name} that repeats the one before, where "
                    f"{given[before]!r} is given"
                )


def _keywords(keywords: str | Sequence[str] | None) -> list[str]:
    return keywords.split() if isinstance(keywords, str) else list(keywords or ())


def _prompt(
    tokenizer: Any,
    title: str,
    form: Form,
    keywords: Sequence[str],
    author: str | None,
    limit: int,
) -> Prompt:
    """Returns the catalog's prompt; a title that is too long for the model is cut at its end, with a warning."""
    if not isinstance(title, str):
        raise GenerationError(f"a title must be a string, not {type(title).__name__}")
    named = " ".join([*title.split(), *(word for word in keywords if word not in title)])
    named = named or (form.name if form.tune else UNTITLED)
    while True:
        record = {"title": named, "author": author or "", "form": form.name, "lines": ""}
        asked = question(load_task("poem"), record, "poem", pattern=bool(author), language="zh")
        prompt = question_prompt(asked, tokenizer)
        if len(prompt.ids) <= limit or not named:
            return prompt
        shorter = named[: int(len(named) * min(0.9, limit / len(prompt.ids)))]
        logger.warning("a title of %d characters was cut to %d", len(named), len(shorter))
        named = shorter

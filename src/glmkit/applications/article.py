"""Articles: a title, a beginning or an outline -> paragraphs, longer than the model can read at once.

In: a model and a text. Out: the article, sentence by sentence. Each blank (`[gMASK]` to the end; `[sMASK]` under a
heading, whose later headings the model reads too) is written after the title and as many of the last sentences as fill
half the model's positions; then the window slides on. No n-gram of the article comes twice, whatever the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glmkit.applications.windows import SENTENCE_END, sentences
from glmkit.blanks.layout import find_masks
from glmkit.errors import GenerationError
from glmkit.generation import infill
from glmkit.generation.prompts import Prompt, split_at_blanks
from glmkit.generation.repetition import NoRepeat
from glmkit.generation.settings import DecodingSettings
from glmkit.special_tokens import GMASK, SMASK
from glmkit.tasks.rendering import language_of, question
from glmkit.tasks.task import load_task
from glmkit.tokens.blanked import encode_pieces, encode_plain

LONGEST_TITLE = 60
"""Characters; a longer line is the beginning of an article."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        text: A title, or the beginning of an article, perhaps with blanks.
        headings: An outline: one section for each heading.
        max_characters: Most characters to be written, blanks of `text` aside.
        min_characters: Where the model ends sooner it begins a new paragraph.
    """

    text: str
    headings: tuple[str, ...] = ()
    max_characters: int = 600
    min_characters: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not all(isinstance(one, str) for one in self.headings):
            raise GenerationError("the title or beginning, and every heading, must be a string")
        if not 0 <= self.min_characters <= self.max_characters or self.max_characters < 1:
            raise GenerationError(
                f"max_characters={self.max_characters} must be at least 1, and min_characters="
                f"{self.min_characters} between 0 and it"
            )


def write_article(
    model: Any, tokenizer: Any, request: Request, settings: DecodingSettings
) -> Iterator[str]:
    """Yields an article in pieces (whole sentences) that join to it, what was given included.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        request: What is to be written.
        settings: How tokens are chosen. `no_repeat_ngram_size` counts over the whole article, `max_new_tokens` in one
            window; `num_beams` must be 1.

    Raises:
        GenerationError: An outline together with blanks, beams, or a text whose blanks do not fit.
    """
    if settings.num_beams > 1:
        raise GenerationError("an article is written with num_beams=1")
    if len(split_at_blanks(tokenizer, request.text)) > 1:
        if request.headings:
            raise GenerationError("give an outline, or a text with blanks, but not both")
        yield infill.fill(model, tokenizer, [request.text], settings)[0].text
        return
    writer = _Writer(model, tokenizer, settings)
    opening, beginning = _opening(request.text), ""
    if is_title(request.text):
        yield request.text.strip() + "\n"
    else:
        beginning = request.text
        yield beginning
    if request.headings:
        yield from _sections(writer, opening, beginning, request)
    else:
        budget = (request.min_characters, request.max_characters)
        yield from writer.write(opening, beginning, GMASK, "", budget)


def is_title(text: str) -> bool:
    """Returns whether a text is a title: one short line that does not end as a sentence does."""
    line = text.strip()
    ended = any(found.end() == len(line) for found in SENTENCE_END.finditer(line))
    return bool(line) and "\n" not in line and len(line) <= LONGEST_TITLE and not ended


def _opening(text: str) -> str:
    """Returns what the model reads first of all: how the task `article` asks for a title, or nothing."""
    if not is_title(text):
        return ""
    task = load_task("article")
    record = {"title": text.strip(), "text": ""}
    return question(task, record, "title", language=language_of(task, record)).before


def _sections(writer: _Writer, opening: str, beginning: str, request: Request) -> Iterator[str]:
    """Yields heading and paragraph by turns; each paragraph is written in view of the headings to come."""
    share = max(1, request.max_characters // len(request.headings))
    written = beginning
    for number, heading in enumerate(request.headings):
        line = ("" if not written or written.endswith("\n") else "\n") + heading.strip() + "\n"
        yield line
        written += line
        following = "".join(f"\n{later.strip()}" for later in request.headings[number + 1 :])
        budget = (max(share // 2, request.min_characters // len(request.headings)), share)
        for piece in writer.write(opening, written, SMASK, following, budget):
            yield piece
            written += piece


class _Writer:
    """Writes on, window by window."""

    def __init__(self, model: Any, tokenizer: Any, settings: DecodingSettings):
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.positions = model.config.max_sequence_length
        self.windows = 0
        self.ended = self.full = False
        self.unfinished = ""

    def write(
        self, opening: str, written: str, mask: str, following: str, budget: tuple[int, int]
    ) -> Iterator[str]:
        """Yields sentences until the model ends after the fewest characters, or the most are reached.

        Args:
            opening: Stays before every window.
            written: The article so far, without the opening.
            mask: The blank.
            following: What comes after the blank.
            budget: Fewest and most characters.
        """
        fewest, most = budget
        count, empty, self.unfinished, self.full = 0, 0, "", False
        while count < most and empty < 2 and not self.full:
            before = count + len(self.unfinished)
            for piece in self._window(opening, written, mask, following, most - count):
                yield piece
                written += piece
                count += len(piece)
            empty = empty + 1 if count + len(self.unfinished) == before else 0
            if self.ended and count >= fewest:
                return
            if self.ended and mask == GMASK and count < most and not written.endswith("\n"):
                yield "\n"
                written += "\n"
                count += 1
        if (
            count <= fewest and self.unfinished
        ):  # a sentence that is longer than all that was asked for
            yield self.unfinished[: most - count]

    def _window(
        self, opening: str, written: str, mask: str, following: str, room: int
    ) -> Iterator[str]:
        """Yields the sentences of one blank, at most `room` characters.

        Sets `ended`, whether the model ended it, `full`, whether the next sentence has no room, and `unfinished`, the
        sentence in which it was cut off.
        """
        prompt = self._prompt(opening, written + self.unfinished, mask, following)
        chosen = replace(
            self.settings,
            max_new_tokens=min(
                self.settings.max_new_tokens, max(1, self.positions - len(prompt.ids))
            ),
            no_repeat_ngram_size=0,
            min_new_tokens=0 if self.windows else self.settings.min_new_tokens,
            seed=None if self.settings.seed is None else self.settings.seed + self.windows,
        )
        self.windows += 1
        constraint = None
        if size := self.settings.no_repeat_ngram_size:
            ids = encode_plain(self.tokenizer, written + self.unfinished)
            constraint = NoRepeat(size, ids, self.model.config.vocab_size)
        stream = infill.stream(self.model, self.tokenizer, prompt, chosen, constraint)
        fresh = not written or written[-1].isspace()
        waiting, self.ended = self.unfinished, False
        while True:
            try:
                waiting += next(stream)
            except StopIteration as end:
                self.ended = bool(end.value)
                break
            waiting = waiting.lstrip() if fresh else waiting
            *whole, rest = sentences(waiting) or [(0, 0)]
            for start, stop in whole:
                if stop - start > room:
                    break
                yield waiting[start:stop]
                room, fresh = room - (stop - start), False
                rest = (stop, len(waiting))
            waiting = waiting[rest[0] :]
            if len(waiting) > room:
                self.full, self.unfinished = True, waiting
                return
        self.unfinished = "" if self.ended else waiting
        if self.ended and waiting.strip():
            yield waiting

    def _prompt(self, opening: str, written: str, mask: str, following: str) -> Prompt:
        """Returns part A: the opening, the last sentences that fit in half of the positions, the blank, the rest."""
        half, ids = self.positions // 2, self.tokenizer.special_ids
        opening = self._start(opening, half // 2)
        following = self._start(following, half // 4)
        room = half - len(encode_plain(self.tokenizer, opening + following)) - 4
        tail = self._end(written, room)
        pieces = [opening + tail, mask, following]
        part_a = np.asarray([ids.cls, *encode_pieces(self.tokenizer, pieces), ids.eos], np.int64)
        return Prompt(part_a, [pieces[0], following], find_masks(part_a, ids.masks))

    def _start(self, text: str, most: int) -> str:
        """Returns the beginning of a text, of at most `most` tokens."""
        while text and (size := len(encode_plain(self.tokenizer, text))) > most:
            text = text[: min(len(text) - 1, len(text) * most // size)]
        return text

    def _end(self, text: str, most: int) -> str:
        """Returns the last whole sentences of a text that have at most `most` tokens, or its last characters."""
        text = text[-8 * most :]  # no token is that long on average
        while text and (size := len(encode_plain(self.tokenizer, text))) > most:
            starts = [start for start, _ in sentences(text)[1:]]
            wanted = max(1, len(text) - len(text) * most // size)
            later = [start for start in starts if start >= wanted]
            text = text[later[0] if later else wanted :]
        return text

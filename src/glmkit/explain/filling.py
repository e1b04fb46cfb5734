"""A text with blanks and their contents -> what the model reads, with spans of characters.

In: a text, the contents of its blanks or a model that fills them. Out: `Filling`, which makes the `Rows` of all methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glmkit.blanks.layout import Piece, find_masks
from glmkit.blanks.media import check_media
from glmkit.errors import GenerationError, UserError
from glmkit.explain.results import Unit
from glmkit.explain.rows import Rows, filling_rows
from glmkit.explain.units import (
    NOWHERE,
    Grouping,
    Span,
    encode_pieces_with_spans,
    encode_with_spans,
    group,
    shown,
    unit_of,
)
from glmkit.generation.infill import fill
from glmkit.generation.prompts import MediaRun, Prompt, build_prompt, split_at_blanks
from glmkit.generation.settings import DecodingSettings
from glmkit.special_tokens import FIRST_MEDIA_ID, GMASK, MEDIA_MARKER
from glmkit.tokens.base import well_formed
from glmkit.tokens.blanked import encode_content, mask_ids


@dataclass(frozen=True)
class Filling:
    """A text with blanks and their contents, as ids with spans.

    `pieces` join to `text`, which is what the model reads of it: beyond its positions it is cut on the left. A medium is its
    marker there.
    """

    model: Any
    tokenizer: Any
    pieces: list[str]
    contents: list[str]
    ended: list[bool]
    prompt: Prompt

    @property
    def text(self) -> str:
        """The text with its blanks."""
        return "".join(self.pieces)

    def blank_spans(self) -> Iterator[Span]:
        """Yields where the masks stand in the text."""
        start = 0
        for number, piece in enumerate(self.pieces):
            if number % 2:
                yield start, start + len(piece)
            start += len(piece)

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        text: str | Prompt,
        blanks: Sequence[str] | None,
        decoding: DecodingSettings | None = None,
    ) -> Filling:
        """Prepares a text, or a prompt with media perhaps, and fills its blanks where their contents are not given.

        Raises:
            UserError: Contents that do not match the blanks.
            GenerationError: As `build_prompt`; a prompt whose ids are not those of its text and media.
        """
        if isinstance(text, Prompt):
            pieces, prompt = _pieces_of(tokenizer, text), text
            check_media(prompt.ids, prompt.embeddings, model.config.hidden_size)
        else:
            pieces, prompt = _pieces_and_prompt(tokenizer, text, model.config.max_sequence_length)
        count = len(prompt.mask_indices)
        if blanks is None:
            filled = fill(model, tokenizer, [prompt], decoding or DecodingSettings())[0]
            return cls(model, tokenizer, pieces, filled.blanks, filled.finished, prompt)
        if isinstance(blanks, str) or len(blanks) != count:
            given = repr(blanks) if isinstance(blanks, str) else f"{len(blanks)} contents"
            raise UserError(
                f"blanks: the text has {count} blanks, given was {given}; give a list with one text for each blank"
            )
        contents = [_checked(one) for one in blanks]
        return cls(model, tokenizer, pieces, contents, [True] * count, prompt)

    def rows(self, grouping: Grouping) -> tuple[Rows, tuple[Unit, ...]]:
        """Returns what the model reads, and its units: of the text and its media in their order, then of each blank's contents."""
        ids, spans = encode_pieces_with_spans(self.tokenizer, self.pieces, _media_ids(self.prompt))
        assert [*self.prompt.ids[1:-1]] == ids, "spans are those of the prompt's tokens"
        units, units_a = self._units_of_part_a(spans, grouping)
        pieces, units_b = [], []
        for number, content in enumerate(self.contents):
            piece, places = self._piece(number, content)
            parts = group(places, content, grouping)
            units_b.append([n if n < 0 else n + len(units) for n in (unit_of(one, parts) for one in places)])  # fmt: skip
            units += [Unit(shown(content[a:b]), a, b, f"blank {number + 1}") for a, b in parts]
            pieces.append(piece)
        sop = self.tokenizer.special_ids.sop
        rows = filling_rows(self.prompt.ids, pieces, units_a, units_b, sop, self.prompt.embeddings)
        return rows, tuple(units)

    def _units_of_part_a(
        self, spans: list[Span], grouping: Grouping
    ) -> tuple[list[Unit], list[int]]:
        """Returns the units of the text and of its media, and of each token of part A the number of its unit."""
        media = _media_places(self.prompt)
        groups = group([one for n, one in enumerate(spans, 1) if n not in media], self.text, grouping)  # fmt: skip
        units = [Unit(shown(self.text[a:b]), a, b, "text") for a, b in groups]
        for place, (source, index) in media.items():
            units.append(Unit(f"{source} [{index}]", *spans[place - 1], source, index))
        units.sort(key=lambda unit: (unit.start, unit.index or 0))
        numbers = {(unit.start, unit.index): number for number, unit in enumerate(units)}

        def number(place: int, span: Span) -> int:
            if place in media:
                return numbers[span[0], media[place][1]]
            which = unit_of(span, groups)
            return which if which < 0 else numbers[groups[which][0], None]

        return units, [-1, *(number(place, one) for place, one in enumerate(spans, 1)), -1]

    def without(self, span: Span) -> Rows:
        """Returns the rows of the text without some of its characters, encoded anew; media that stood there are gone.

        Args:
            span: The characters; no blank is among them.
        """
        begin, end = span
        pieces, start = [], 0
        for piece in self.pieces:
            a, b = (min(max(one - start, 0), len(piece)) for one in (begin, end))
            pieces.append(piece[:a] + piece[b:])
            start += len(piece)
        markers = (found.span() for found in MEDIA_MARKER.finditer(self.text))
        kept = [
            (run.kind, ids)
            for run, ids, (a, b) in zip(self.prompt.media, _media_ids(self.prompt), markers, strict=False)
            if b <= begin or end <= a
        ]  # fmt: skip
        ids, _ = encode_pieces_with_spans(self.tokenizer, pieces, [ids for _, ids in kept])
        prompt = _prompt(self.tokenizer, pieces, ids, kept, self.prompt.embeddings)
        other = Filling(self.model, self.tokenizer, pieces, self.contents, self.ended, prompt)
        return other.rows("token")[0]

    def _piece(self, number: int, content: str) -> tuple[Piece, list[Span]]:
        """Returns a blank's contents as ids, and the characters of each token."""
        mask = int(self.prompt.mask_indices[number])
        before, mask_id = self.prompt.parts[number], int(self.prompt.ids[mask])
        ids = encode_content(self.tokenizer, before, mask_id, content)
        for lead in ("", " "):
            again, spans = encode_with_spans(self.tokenizer, lead + content)
            if again == ids:
                break
        skip = len(lead)
        spans = [(max(0, a - skip), b - skip) if b > skip else NOWHERE for a, b in spans]
        limit, end = self.model.config.max_sequence_length - 1, self.tokenizer.special_ids.eop
        if len(ids) > limit and not self.ended[number]:
            # The model wrote as much as there is room for; pieces of characters (U+FFFD) take more when read again.
            ids, spans = ids[:limit], spans[:limit]
        if len(ids) > limit:
            raise GenerationError(
                f"the contents of blank {number + 1} are {len(ids)} tokens, but a blank of this model holds {limit}; "
                "shorten them"
            )
        ends = self.ended[number] or not ids
        return Piece(mask, np.asarray(ids, np.int64), end if ends else None), spans


def evidence_for(units: Sequence[Unit], blank: int) -> np.ndarray:
    """Returns bool [U], which units a blank's contents are written in view of: the text, its media, and the blanks before."""
    earlier = {"text", *(f"blank {n + 1}" for n in range(blank))}
    return np.array([unit.source in earlier or unit.index is not None for unit in units], bool)


def _pieces_and_prompt(tokenizer: Any, text: Any, limit: int) -> tuple[list[str], Prompt]:
    """Returns a text, as far as the model reads it, in pieces, and its prompt."""
    pieces = split_at_blanks(tokenizer, _checked(text))
    if len(pieces) == 1:
        pieces = [*pieces, GMASK, ""]
    prompt = build_prompt(tokenizer, "".join(pieces), limit)
    kept = _kept(tokenizer, pieces, len(prompt.ids) - 2)
    if kept != pieces:
        pieces, prompt = kept, build_prompt(tokenizer, "".join(kept), limit)
    return pieces, prompt


def _pieces_of(tokenizer: Any, prompt: Prompt) -> list[str]:
    """Returns a prompt's text between the blanks at even places, and their masks.

    Raises:
        GenerationError: Encoded, it has other ids.
    """
    names = {index: name for name, index in reversed(mask_ids(tokenizer).items())}
    masks = [names[index] for index in np.asarray(prompt.ids)[prompt.mask_indices].tolist()]
    pieces = [piece for pair in zip(prompt.parts, [*masks, ""], strict=True) for piece in pair][:-1]
    ids, _ = encode_pieces_with_spans(tokenizer, pieces, _media_ids(prompt))
    if list(prompt.ids[1:-1]) != ids:
        raise GenerationError(
            "this prompt's ids are not those of its text and media, so it cannot be said which of them counted; its parts must "
            "be the text around the blanks, with a marker (such as <|image|>) for each of its media in their order"
        )
    return pieces


def _media_ids(prompt: Prompt) -> list[list[int]]:
    """Returns the ids of each medium."""
    return [prompt.ids[run.start : run.start + run.length].tolist() for run in prompt.media]


def _media_places(prompt: Prompt) -> dict[int, tuple[str, int]]:
    """Returns place in part A -> medium ("image 1" …) and row within it."""
    counts: Counter[str] = Counter()
    places: dict[int, tuple[str, int]] = {}
    for run in prompt.media:
        counts[run.kind] += 1
        source = f"{run.kind} {counts[run.kind]}"
        places |= {run.start + index: (source, index) for index in range(run.length)}
    return places


def _prompt(
    tokenizer: Any,
    pieces: list[str],
    body: list[int],
    media: Sequence[tuple[str, list[int]]],
    embeddings: torch.Tensor | None,
) -> Prompt:
    """Returns the prompt of pieces that have been encoded, with the media at their markers."""
    specials = tokenizer.special_ids
    ids = np.asarray([specials.cls, *body, specials.eos], np.int64)
    places = np.flatnonzero(ids >= FIRST_MEDIA_ID).tolist()
    runs, first = [], 0
    for kind, some in media:
        runs.append(MediaRun(kind, places[first], len(some)))
        first += len(some)
    return Prompt(ids, pieces[::2], find_masks(ids, specials.masks), embeddings, tuple(runs))


def _kept(tokenizer: Any, pieces: list[str], count: int) -> list[str]:
    """Returns the pieces without the characters of all tokens but the last `count`, so that they encode to these."""
    _, spans = encode_pieces_with_spans(tokenizer, pieces)
    cut = len(spans) - count
    if cut <= 0:
        return pieces
    # Text that begins at a token's start may be tokenized otherwise: cut further until the rest fits as it is.
    starts = [start for start, _ in spans[cut:] if start >= 0]
    for start in starts:
        rest = [pieces[0][start:], *pieces[1:]]
        if start > len(pieces[0]):
            break
        if len(encode_pieces_with_spans(tokenizer, rest)[0]) <= count:
            return rest
    return ["", *pieces[1:]]


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise GenerationError(f"a text must be a string, not {type(text).__name__}")
    return well_formed(text)

"""A text with blanks and their contents -> what the model reads, with spans of characters.

In: a text, the contents of its blanks or a model that fills them. Out: `Filling`, which makes the `Rows` of all methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.blanks.layout import Piece
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
from glmkit.generation.prompts import Prompt, build_prompt, split_at_blanks
from glmkit.generation.settings import DecodingSettings
from glmkit.special_tokens import GMASK
from glmkit.tokens.blanked import encode_content
from glmkit.tokens.tokenizer import well_formed


@dataclass(frozen=True)
class Filling:
    """A text with blanks and their contents, as ids with spans.

    `pieces` join to `text`, which is what the model reads of it: beyond its positions it is cut on the left.
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
        text: str,
        blanks: Sequence[str] | None,
        decoding: DecodingSettings | None = None,
    ) -> Filling:
        """Prepares a text, and fills its blanks where their contents are not given."""
        pieces = split_at_blanks(tokenizer, _checked(text))
        if len(pieces) == 1:
            pieces = [*pieces, GMASK, ""]
        limit = model.config.max_sequence_length
        prompt = build_prompt(tokenizer, "".join(pieces), limit)
        kept = _kept(tokenizer, pieces, len(prompt.ids) - 2)
        if kept != pieces:
            pieces, prompt = kept, build_prompt(tokenizer, "".join(kept), limit)
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
        """Returns what the model reads, and its units: of the text, then of each blank's contents."""
        ids, spans = encode_pieces_with_spans(self.tokenizer, self.pieces)
        assert [*self.prompt.ids[1:-1]] == ids, "spans are those of the prompt's tokens"
        groups = group(spans, self.text, grouping)
        units = [Unit(shown(self.text[a:b]), a, b, "text") for a, b in groups]
        units_a = [-1, *(unit_of(one, groups) for one in spans), -1]
        pieces, units_b = [], []
        for number, content in enumerate(self.contents):
            piece, places = self._piece(number, content)
            parts = group(places, content, grouping)
            units_b.append([n if n < 0 else n + len(units) for n in (unit_of(one, parts) for one in places)])  # fmt: skip
            units += [Unit(shown(content[a:b]), a, b, f"blank {number + 1}") for a, b in parts]
            pieces.append(piece)
        rows = filling_rows(
            self.prompt.ids, pieces, units_a, units_b, self.tokenizer.special_ids.sop
        )
        return rows, tuple(units)

    def rebuilt(self, text: str) -> Rows:
        """Returns the rows of another text with the same blanks and contents."""
        pieces = split_at_blanks(self.tokenizer, text)
        prompt = build_prompt(self.tokenizer, text, self.model.config.max_sequence_length)
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

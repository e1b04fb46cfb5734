"""A question, or a text and its media -> the prompt that a model was trained on, id by id.

In: what `tasks.rendering.question` made of a record; or a text with blanks, and images, sounds, clips. Out: a `Prompt` for
`generation`. What looks like a blank or another special token in the record's texts is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glmkit.blanks.layout import find_masks
from glmkit.blanks.media import joined
from glmkit.errors import GenerationError, MediaError
from glmkit.generation.prompts import MediaRun, Prompt, split_at_blanks
from glmkit.multimodal.media import Kind, Medium, as_medium, in_order
from glmkit.special_tokens import FIRST_MEDIA_ID, GMASK
from glmkit.tasks.encoding import encode_question, rows_of
from glmkit.tasks.rendering import Question
from glmkit.tokens.blanked import encode_pieces


def question_prompt(asked: Question, tokenizer: Any, reader: Any = None) -> Prompt:
    """Returns the prompt of a question; it may be longer than the model's positions.

    Args:
        asked: The question.
        tokenizer: A `GLMTokenizer`.
        reader: What reads its media (`multimodal.reader.MediaReader`); None for a model that reads none.

    Raises:
        MediaError: A medium that cannot be read, or the model reads none.
    """
    count_rows = None if reader is None else reader.count_rows
    ids = np.asarray(encode_question(asked, tokenizer, count_rows)[0], np.int64)
    return placed_prompt(ids, [asked.before, asked.after], asked.media, tokenizer, reader)


def media_prompt(
    tokenizer: Any, text: str, media: Sequence[Medium], reader: Any, max_positions: int
) -> Prompt:
    """Encodes a text with blanks and media; nothing is cut.

    Args:
        tokenizer: A `GLMTokenizer`.
        text: The text; markers say where the media stand, without any they stand before it. Without a blank it gets `[gMASK]`.
        media: In the order of their places, kind by kind.
        reader: What reads them (`multimodal.reader.MediaReader`), or None.
        max_positions: Most tokens of part A.

    Raises:
        MediaError: A medium that cannot be read, other media than the text names, or the model reads none.
        GenerationError: It is too long.
    """
    pieces = split_at_blanks(tokenizer, text)
    if len(pieces) == 1:
        pieces = [text, GMASK, ""]
    placed, ordered = in_order("".join(pieces), media)
    pieces = split_at_blanks(tokenizer, placed)
    runs = rows_of(ordered, None if reader is None else reader.count_rows)
    specials = tokenizer.special_ids
    ids = np.asarray(
        [specials.cls, *encode_pieces(tokenizer, pieces, runs), specials.eos], np.int64
    )
    if len(ids) > max_positions:
        raise GenerationError(
            f"the text with its media has {len(ids)} tokens, {sum(runs)} of them of {len(runs)} medium(s); the model reads "
            f"{max_positions}. Shorten the text, or give fewer media"
        )
    return placed_prompt(ids, pieces[::2], ordered, tokenizer, reader)


def placed_prompt(
    ids: np.ndarray, parts: list[str], media: Sequence[Medium], tokenizer: Any, reader: Any
) -> Prompt:
    """Returns the prompt of ids that are known: part A, in which `media` have their places in this order."""
    masks = find_masks(ids, tokenizer.special_ids.masks)
    if not media:
        return Prompt(ids, parts, masks)
    rows = reader.rows(media)
    runs, first = [], 0
    for one, some in zip(media, rows, strict=True):
        start = int(np.flatnonzero(ids == FIRST_MEDIA_ID + first)[0])
        runs.append(MediaRun(one.kind, start, len(some)))
        first += len(some)
    return Prompt(ids, parts, masks, joined(rows), tuple(runs))


def media_for_each(texts: Any, given: Mapping[Kind, Any]) -> list[list[Medium]]:
    """Returns the media of each text, from what was given for each kind.

    Args:
        texts: A text or a record, or a list of them.
        given: Kind -> for one text a medium or a list of them; for a list of texts a list with one item (or None) for each.

    Raises:
        MediaError: A list that does not match the texts, or something that is no medium.
    """
    single = isinstance(texts, str | Mapping)
    count = 1 if single else len(texts)
    found: list[list[Medium]] = [[] for _ in range(count)]
    for kind, some in given.items():
        if some is None:
            continue
        for_each = [some] if single else some
        if not isinstance(for_each, list | tuple) or len(for_each) != count:
            raise MediaError(
                f"{kind}s for {len(for_each) if hasattr(for_each, '__len__') else 'one'} of {count} texts were given; give a list with one "
                "item (or None) for each text"
            )
        for own, one in zip(found, for_each, strict=True):
            own += [
                as_medium(kind, item)
                for item in (one if isinstance(one, list) else [one])
                if item is not None
            ]
    return found

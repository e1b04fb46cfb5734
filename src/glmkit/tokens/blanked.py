"""A text with blanks -> the ids of part A's body: one way for prompts, fine-tuning and tasks.

In: a text in which blanks are written `[MASK]`, `[sMASK]` or `[gMASK]` (in every vocabulary). Out: ids. Other special
tokens' strings in a text are plain text here: a user's text cannot end or restructure what is around it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from glmkit.special_tokens import FIRST_MEDIA_ID, GMASK, MASK, MEDIA_MARKER, SMASK
from glmkit.tokens.base import well_formed


def split_at_blanks(tokenizer: Any, text: str) -> list[str]:
    """Returns the text before, between and after its blanks at even places, the masks as written at odd ones."""
    pattern = "|".join(re.escape(name) for name in mask_ids(tokenizer))
    return re.split(f"({pattern})", text)


def encode_pieces(tokenizer: Any, pieces: list[str], runs: Sequence[int] = ()) -> list[int]:
    """Returns the ids of what `split_at_blanks` returned, without `[CLS]` and the end-of-text token.

    Args:
        tokenizer: A `GLMTokenizer`.
        pieces: The text around and between its blanks, and the masks.
        runs: Of each marker of a medium in the text (`<|image|>` …) the rows of embeddings that stand there: ids from
            `FIRST_MEDIA_ID` on, counted through the text. Without any, markers are plain text.
    """
    masks, lengths = mask_ids(tokenizer), iter(runs)
    body: list[int] = []
    row = FIRST_MEDIA_ID
    for place, (_, piece) in enumerate(stripped_pieces(tokenizer, pieces)):
        if place % 2:
            body.append(masks[piece])
            continue
        for number, text in enumerate(MEDIA_MARKER.split(piece) if runs else [piece]):
            if number:
                length = next(lengths)
                body += range(row, row + length)
                row += length
            if text:
                body += encode_plain(tokenizer, text)
    return body


def stripped_pieces(tokenizer: Any, pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields each piece of `split_at_blanks` as part A has it (`strip_beside`), and where that begins in the whole text."""
    masks, start = mask_ids(tokenizer), 0
    for place, piece in enumerate(pieces):
        kept = piece
        if place % 2 == 0 and place:
            kept = strip_beside(tokenizer, kept, masks[pieces[place - 1]], "rstrip")
        begin = start + len(piece) - len(kept)
        if place % 2 == 0 and place + 1 < len(pieces):
            kept = strip_beside(tokenizer, kept, masks[pieces[place + 1]], "lstrip")
        yield begin, kept
        start += len(piece)


def encode_plain(tokenizer: Any, text: Any) -> Any:
    """Returns the ids of a text in which nothing is special, or those of each of a list of texts."""
    if isinstance(text, str):
        return encode_plain(tokenizer, [text])[0]
    # The same without transformers' records of every text, which take longer than the texts.
    backend = tokenizer.backend_tokenizer
    texts = [well_formed(one) for one in text]
    with _SETTINGS:
        before, backend.encode_special_tokens = backend.encode_special_tokens, True
        backend.no_padding()
        backend.no_truncation()
        try:
            found = backend.encode_batch_fast(texts, add_special_tokens=False)
        finally:
            backend.encode_special_tokens = before
    return [one.ids for one in found]


_SETTINGS = threading.Lock()
"""Held while a tokenizer's settings are others than its own: several threads of a server encode."""


def encode_content(tokenizer: Any, before: str, mask_id: int, text: Any) -> Any:
    """Returns the ids of a blank's contents, or of each of a list of contents.

    Where the vocabulary leaves out a space before the blank, the contents begin with it, as a hidden word does.

    Args:
        tokenizer: A `GLMTokenizer`.
        before: The text before the blank.
        mask_id: The blank's mask.
        text: The contents, or a list of them.
    """
    stripped = strip_beside(tokenizer, before, mask_id, "lstrip")
    space = " " if before[len(stripped) :].startswith(" ") else ""
    if isinstance(text, str):
        return encode_plain(tokenizer, space + text)
    return encode_plain(tokenizer, [space + one for one in text])


def strip_beside(tokenizer: Any, piece: str, mask_id: int, side: str) -> str:
    """Returns the text beside a mask without the whitespace that part A leaves out there.

    The published vocabularies' masks say themselves on which sides it goes. In a trained one a word carries the space
    before it, and so does a hidden word: the space belongs to the blank's contents. (Its tokenizer keeps it, to lose
    no text.)

    Args:
        tokenizer: A `GLMTokenizer`.
        piece: The text before the mask ("lstrip") or after it ("rstrip").
        mask_id: The mask.
        side: The mask's side, under the name of its flag.
    """
    if tokenizer.kind == "glmkit":
        return piece.removesuffix(" ") if side == "lstrip" else piece
    if not getattr(tokenizer.added_tokens_decoder[mask_id], side):
        return piece
    return piece.rstrip() if side == "lstrip" else piece.lstrip()


def mask_ids(tokenizer: Any) -> dict[str, int]:
    """Returns how a blank may be written, and the mask's id in this vocabulary."""
    ids = tokenizer.special_ids
    return {MASK: ids.mask, SMASK: ids.smask, GMASK: ids.gmask, tokenizer.mask_token: ids.mask}

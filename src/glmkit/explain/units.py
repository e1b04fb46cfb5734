"""What is explained together: tokens that share a character are one unit, and so are the tokens of a word.

In: a text and its tokenizer. Out: ids with the characters that each token stands for, and these grouped into units. A
character that a vocabulary spells with several tokens (bytes) is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from glmkit.special_tokens import MEDIA_MARKER
from glmkit.tokens.blanked import mask_ids, stripped_pieces

Span = tuple[int, int]

Grouping = Literal["word", "token"]

NOWHERE: Span = (-1, -1)
"""Of a token that stands for no character: a special one."""

FIRST_IDEOGRAPH = 0x2E80
"""From here on characters are words of their own; below, letters and digits in a row are one word."""


def encode_with_spans(tokenizer: Any, text: str) -> tuple[list[int], list[Span]]:
    """Returns the ids of a plain text, and the half-open span of characters of each."""
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    spans = [(a, b) if b > a else NOWHERE for a, b in encoded["offset_mapping"]]
    return encoded["input_ids"], spans


def encode_pieces_with_spans(
    tokenizer: Any, pieces: Sequence[str], media: Sequence[Sequence[int]] = ()
) -> tuple[list[int], list[Span]]:
    """Returns what `tokens.blanked.encode_pieces` does, with spans in the text that the pieces join to.

    Args:
        tokenizer: A `GLMTokenizer`.
        pieces: Text at even places, masks as written at odd ones.
        media: Of each marker in the text the ids that stand there, all with the marker's span; without any, markers are text.
    """
    masks, rows = mask_ids(tokenizer), iter(media)
    ids: list[int] = []
    spans: list[Span] = []
    for place, (begin, piece) in enumerate(stripped_pieces(tokenizer, pieces)):
        if place % 2:
            ids.append(masks[piece])
            spans.append(NOWHERE)
            continue
        for (start, end), marks in _around_markers(piece) if media else [((0, len(piece)), False)]:
            if marks:
                more = [int(one) for one in next(rows, ())]
                places = [(0, end - start)] * len(more)
            elif end > start:
                more, places = encode_with_spans(tokenizer, piece[start:end])
            else:
                continue
            ids += more
            at = begin + start
            spans += [one if one == NOWHERE else (one[0] + at, one[1] + at) for one in places]
    return ids, spans


def _around_markers(piece: str) -> Iterator[tuple[Span, bool]]:
    """Yields the spans of the markers of media in a text and of what is between, and whether they are markers."""
    start = 0
    for found in MEDIA_MARKER.finditer(piece):
        yield (start, found.start()), False
        yield found.span(), True
        start = found.end()
    yield (start, len(piece)), False


def group(spans: Iterable[Span], text: str, grouping: Grouping) -> list[Span]:
    """Returns the spans of the units, in the order of the text; none overlaps another.

    Args:
        spans: Of tokens, in any order, perhaps from several ways to encode the text.
        text: The text.
        grouping: "word": tokens within a run of letters and digits are one unit, with a space before it; "token": only
            those that overlap.
    """
    units: list[Span] = []
    for start, end in sorted(set(spans) - {NOWHERE}):
        if units and (
            start < units[-1][1] or (grouping == "word" and _goes_on(text, units[-1], start))
        ):
            units[-1] = (units[-1][0], max(units[-1][1], end))
        else:
            units.append((start, end))
    return units


def unit_of(span: Span, units: Sequence[Span]) -> int:
    """Returns the index of the unit that holds a token's span, or -1 where none does."""
    if span == NOWHERE:
        return -1
    return next((n for n, (start, end) in enumerate(units) if start <= span[0] < end), -1)


def shown(text: str) -> str:
    """Returns a unit's or token's text as it is shown: no space at its sides, spaces and line ends visible."""
    return text.strip() or text.replace("\n", "↵").replace(" ", "␣")


def token_text(tokenizer: Any, index: int) -> str:
    """Returns one token as it is shown; a piece of a character as the vocabulary writes it, such as `<0xE5>`."""
    text = tokenizer.decode([index])
    if not text or "\ufffd" in text:
        return tokenizer.convert_ids_to_tokens(index) or f"<{index}>"
    return shown(text)


def _goes_on(text: str, unit: Span, start: int) -> bool:
    """Returns whether what starts here belongs to the word before it, or to the space before it."""
    if unit[1] != start or not _in_word(text[start]):
        return False
    return _in_word(text[start - 1]) or not text[unit[0] : start].strip(" ")


def _in_word(character: str) -> bool:
    return character.isalnum() and ord(character) < FIRST_IDEOGRAPH

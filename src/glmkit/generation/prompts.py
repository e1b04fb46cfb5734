"""Texts with blanks -> part A.

In: a text in which blanks are written `[MASK]`, `[sMASK]` or `[gMASK]` (in every vocabulary). Out: the ids of
part A within the model's positions, and the way back from blank contents to text. Other special tokens'
strings in a text are plain text here: a user's text cannot end or restructure the prompt.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.blanks.layout import find_masks
from glmkit.blanks.media import check_media
from glmkit.errors import GenerationError
from glmkit.special_tokens import GMASK
from glmkit.tokens import blanked
from glmkit.tokens.blanked import encode_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MediaRun:
    """Where an image, a sound or a clip stands in a prompt.

    Attributes:
        kind: "image", "audio" or "video".
        start: Index of its first id in part A.
        length: How many ids it has there.
    """

    kind: str
    start: int
    length: int


@dataclass(frozen=True)
class Prompt:
    """Part A of one text.

    Attributes:
        ids: int64 [n], specials included; from `FIRST_MEDIA_ID` on they are no tokens but rows of `embeddings`.
        parts: The text between the blanks, one more than there are blanks; a medium is its marker (`MEDIA_MARKERS`) there.
        mask_indices: int64, where the masks stand in `ids`.
        embeddings: float [M, H], what the model reads at the ids of media, or None where there are none.
        media: Where each medium stands, in the order of the text.

    Raises:
        GenerationError: An id means a row that `embeddings` does not have.
    """

    ids: np.ndarray
    parts: list[str]
    mask_indices: np.ndarray
    embeddings: Any = None
    media: tuple[MediaRun, ...] = ()

    def __post_init__(self) -> None:
        check_media(self.ids, self.embeddings)

    def assemble(self, blanks: list[str]) -> str:
        """Returns the text with its blanks replaced; spaces double neither before nor after a blank."""
        text = self.parts[0]
        for blank, part in zip(blanks, self.parts[1:], strict=True):
            if not text or text[-1].isspace():
                blank = blank.lstrip()
            if part and part[0].isspace():
                blank = blank.rstrip()
            text += blank + part
        return text


def build_prompt(tokenizer: Any, text: str | Prompt, max_positions: int) -> Prompt:
    """Encodes a text with blanks; a text that is too long is cut on the left, with a warning.

    Args:
        tokenizer: A `GLMTokenizer`.
        text: The text; without a blank it gets `[gMASK]` at its end. A `Prompt` is returned as it is.
        max_positions: Most tokens of part A (the model's `max_sequence_length`).

    Raises:
        GenerationError: `text` is not a string, or cutting would lose a blank.
    """
    if isinstance(text, Prompt):
        return text
    masks = tokenizer.special_ids
    pieces = split_at_blanks(tokenizer, text)
    if len(pieces) == 1:
        pieces = [text, GMASK, ""]
    body = encode_pieces(tokenizer, pieces)
    room = max_positions - 2
    if len(body) > room:
        lost = find_masks(body[: len(body) - room], masks.masks)
        if len(lost):
            raise GenerationError(
                f"the text has {len(body) + 2} tokens, the model reads {max_positions}; cutting it on the left "
                f"would lose {len(lost)} of its blanks. Shorten the text after its first blank"
            )
        logger.warning(
            "a text of %d tokens was cut on the left to the %d that the model reads",
            len(body) + 2,
            max_positions,
        )
        body = body[len(body) - room :]
    ids = np.asarray([masks.cls, *body, masks.eos], np.int64)
    return Prompt(ids, pieces[::2], find_masks(ids, masks.masks))


def split_at_blanks(tokenizer: Any, text: str) -> list[str]:
    """Returns the text before, between and after its blanks at even places, the masks as written at odd ones.

    Raises:
        GenerationError: `text` is not a string.
    """
    if not isinstance(text, str):
        raise GenerationError(f"a text must be a string, not {type(text).__name__}")
    return blanked.split_at_blanks(tokenizer, text)

"""Prompts in which rows of embeddings stand for tokens: what is read is the same, so all that is made of it must be, too."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch

from glmkit.blanks.layout import find_masks
from glmkit.generation.prompts import MediaRun, Prompt, build_prompt
from glmkit.special_tokens import FIRST_MEDIA_ID
from glmkit.tokens.blanked import encode_pieces, split_at_blanks


def prompt_of(glm, text: str) -> Prompt:
    """Returns the prompt of a text without media."""
    return build_prompt(glm.tokenizer, text, glm.model.config.max_sequence_length)


def as_media(glm, text: str | Prompt, seed: int = 0, share: float = 0.5) -> Prompt:
    """Returns a prompt in which some ids (no masks) are rows of a table that has their words' embeddings.

    The rows are in any order, and the table has one that nothing reads.
    """
    prompt = prompt_of(glm, text) if isinstance(text, str) else text
    rng = np.random.default_rng(seed)
    free = np.setdiff1d(np.arange(len(prompt.ids)), prompt.mask_indices)
    chosen = rng.permutation(free)[: max(1, round(share * len(free)))]
    words = glm.model.glm.word_embeddings.weight.detach()
    table = torch.cat(
        (torch.full_like(words[:1], 9.0), words[torch.from_numpy(prompt.ids[chosen])])
    )
    ids = prompt.ids.copy()
    ids[chosen] = FIRST_MEDIA_ID + 1 + np.arange(len(chosen))
    return replace(prompt, ids=ids, embeddings=table)


def with_media(glm, text: str, *tables: torch.Tensor) -> Prompt:
    """Returns the prompt of a text in which `<|image|>`, `<|audio|>` and `<|video|>` stand for tables of rows."""
    ids: list[int] = [glm.tokenizer.special_ids.cls]
    media, row, waiting = [], FIRST_MEDIA_ID, iter(tables)
    for piece in re.split(r"(<\|(?:image|audio|video)\|>)", text):
        if piece.startswith("<|"):
            count = len(next(waiting))
            media.append(MediaRun(piece[2:-2], len(ids), count))
            ids += range(row, row + count)
            row += count
        elif piece:
            ids += encode_pieces(glm.tokenizer, split_at_blanks(glm.tokenizer, piece))
    ids.append(glm.tokenizer.special_ids.eos)
    masks = find_masks(ids, glm.tokenizer.special_ids.masks)
    parts = split_at_blanks(glm.tokenizer, text)[::2]
    return Prompt(np.array(ids), parts, masks, torch.cat(tables), tuple(media))

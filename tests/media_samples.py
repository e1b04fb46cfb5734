"""Prompts in which rows of embeddings stand for tokens: what is read is the same, so all that is made of it must be, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from glmkit.generation.prompts import MediaRun, Prompt, build_prompt
from glmkit.special_tokens import FIRST_MEDIA_ID


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


def with_picture(glm, before: str, after: str, table: torch.Tensor, kind: str = "image") -> Prompt:
    """Returns a prompt of two texts with a medium of M rows between them; `after` has the blanks."""
    whole = prompt_of(glm, f"{before}{after}")
    start = len(prompt_of(glm, f"{before}[MASK]").ids) - 2  # where its mask stands
    rows = FIRST_MEDIA_ID + np.arange(len(table))
    ids = np.concatenate((whole.ids[:start], rows, whole.ids[start:]))
    parts = [f"{before}<|{kind}|>{whole.parts[0][len(before) :]}", *whole.parts[1:]]
    masks = whole.mask_indices + len(table)
    return Prompt(ids, parts, masks, table, (MediaRun(kind, start, len(table)),))

"""Texts with blanks, and filling them the slow way."""

from __future__ import annotations

import numpy as np
import torch

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.generation.infill import make_chooser
from glmkit.generation.prompts import build_prompt
from glmkit.generation.settings import DecodingSettings

TEXTS = [
    "凯旋门位于意大利米兰市古城堡旁。1807年为纪念[MASK]而建，门高25米，[MASK]。",
    "北京是[MASK]",
    "",
    "床前明月光，[sMASK]低头思故乡。[gMASK]",
    "I have two [MASK] and three [MASK] at home.",
]


def recompute(
    model, tokenizer, text: str, settings: DecodingSettings, given: tuple[list[int], ...] = ()
) -> list[list[int]]:
    """Greedy filling the slow way: the whole example is laid out and run again for every token.

    `given` are the contents of the first blanks, taken as they are.
    """
    prompt = build_prompt(tokenizer, text, model.config.max_sequence_length)
    chooser, ids = make_chooser(model, tokenizer, settings), tokenizer.special_ids
    pieces = [
        Piece(int(mask_index), np.array(tokens, np.int64), scored=False)
        for mask_index, tokens in zip(prompt.mask_indices, given, strict=False)
    ]
    for mask_index in prompt.mask_indices[len(given) :]:
        tokens: list[int] = []
        while len(tokens) < settings.max_new_tokens:
            piece = Piece(int(mask_index), np.array(tokens, np.int64), scored=False)
            batch = collate([lay_out(prompt.ids, [*pieces, piece], ids.sop)], ids.pad)
            inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
            del inputs["labels"]
            with torch.no_grad():
                logits = model(**inputs).logits[0, -1].float()
            logits[len(tokenizer) :] = -torch.inf
            logits[chooser.forbidden] = -torch.inf
            if len(tokens) < settings.min_new_tokens:
                logits[chooser.ends] = -torch.inf
            token = int(logits.argmax())
            if token in chooser.ends:
                break
            tokens.append(token)
        pieces.append(Piece(int(mask_index), np.array(tokens, np.int64), scored=False))
    return [piece.tokens.tolist() for piece in pieces]

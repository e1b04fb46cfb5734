"""Tiny models and batches that the tests of the model share; no recorded numbers needed."""

from __future__ import annotations

import numpy as np
import torch

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.model import GLMConfig, GLMForConditionalGeneration

CLS, EOS, PAD, MASK, SMASK, GMASK, SOP, EOP = range(88, 96)
VOCAB = 96
WORDS = 80
"""Ids below are words."""

FIELDS = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_layers": 2,
    "num_attention_heads": 4,
    "max_sequence_length": 64,
    "initializer_range": 0.3,
    "num_tokens": VOCAB,
    "cls_token_id": CLS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "mask_token_id": MASK,
    "smask_token_id": SMASK,
    "gmask_token_id": GMASK,
    "sop_token_id": SOP,
    "eop_token_id": EOP,
}
"""Weights far from zero, so that a wrong mask or position shows."""


def tiny_config(**changes) -> GLMConfig:
    return GLMConfig(**{**FIELDS, **changes})


def tiny_model(model_class=GLMForConditionalGeneration, *, implementation="sdpa", **changes):
    """A seeded model in evaluation mode."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**changes))
    model.set_attn_implementation(implementation)
    return model.eval()


def prompt(rng: np.random.Generator, length: int, mask: int | None = MASK) -> list[int]:
    """[CLS] words … [MASK] … <eos>, `length` tokens."""
    words = rng.integers(0, WORDS, length - 2).tolist()
    if mask is not None:
        words[rng.integers(len(words))] = mask
    return [CLS, *words, EOS]


def example(rng: np.random.Generator, length: int, blank: int):
    """A prompt with one blank of `blank` words to predict."""
    context = prompt(rng, length)
    tokens = rng.integers(0, WORDS, blank)
    return lay_out(context, [Piece(context.index(MASK), tokens, EOP)], SOP)


def batch(examples, side: str = "right") -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(a) for name, a in collate(examples, PAD, side=side).items()}

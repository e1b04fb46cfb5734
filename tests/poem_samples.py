"""A vocabulary of single characters and a tiny random model over it, made on the spot."""

from __future__ import annotations

from functools import cache
from importlib import resources

import torch

import glmkit
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.train import train_tokenizer


@cache
def poem_tokenizer() -> glmkit.GLMTokenizer:
    """3,500 characters, each a token; the rarer ones are bytes."""
    table = resources.files("glmkit.applications.poetry") / "sounds.txt"
    lines = table.read_text(encoding="utf-8").splitlines()
    characters = sorted({c for line in lines if line[:3] == "shi" for c in line.split(" ")[3]})
    rows = [characters[start : start + 50] for start in range(0, len(characters), 50)]
    return train_tokenizer(["，\n。、".join(row) for row in rows] * 2, 5839, "bpe")


def random_glm(positions: int = 160) -> glmkit.GLM:
    """A model with random weights, far enough from zero that it has strong opinions."""
    torch.manual_seed(0)
    tokenizer = poem_tokenizer()
    ids = tokenizer.special_ids
    names = ("cls", "eos", "pad", "mask", "smask", "gmask", "sop", "eop")
    config = GLMConfig(
        vocab_size=len(tokenizer),
        num_tokens=len(tokenizer),
        hidden_size=32,
        num_layers=2,
        num_attention_heads=4,
        max_sequence_length=positions,
        initializer_range=0.3,
        **{f"{name}_token_id": getattr(ids, name) for name in names},
    )
    return glmkit.GLM(GLMForConditionalGeneration(config), tokenizer)

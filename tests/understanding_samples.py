"""A tiny random GLM with a vocabulary of its own, for the tests of what understands texts."""

from __future__ import annotations

from functools import cache

import torch

import glmkit
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.train import train_tokenizer

TEXTS = [
    "很快，好吃，味道足，量大。",
    "送餐太慢了，菜都凉了，再也不会点了！",
    "The room was clean and the staff were friendly.",
    "",
    "a [MASK] <|endofpiece|> [gMASK] 好 [CLS]",
]
CONTEXT = "凯旋门位于意大利米兰市古城堡旁。1807年为纪念拿破仑而建，门高25米；顶上有铜马车。It is in Milan, near the old castle."


@cache
def random_glm(positions: int = 96) -> glmkit.GLM:
    """Returns a GLM with weights far from zero, so that a wrong mask or position shows."""
    corpus = [
        *TEXTS[:3],
        CONTEXT,
        "总的来说，很好。类别：体育。问：答：概括上文：标题：正文：",
    ] * 20
    tokenizer = train_tokenizer(corpus, 420)
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=4,
        max_sequence_length=positions,
        initializer_range=0.2,
        num_tokens=len(tokenizer),
        cls_token_id=tokenizer.special_ids.cls,
        eos_token_id=tokenizer.special_ids.eos,
        pad_token_id=tokenizer.special_ids.pad,
        mask_token_id=tokenizer.special_ids.mask,
        smask_token_id=tokenizer.special_ids.smask,
        gmask_token_id=tokenizer.special_ids.gmask,
        sop_token_id=tokenizer.special_ids.sop,
        eop_token_id=tokenizer.special_ids.eop,
    )
    return glmkit.GLM(GLMForConditionalGeneration(config), tokenizer)

"""A tiny GLM with a vocabulary of its own, for tests of evaluation: random, but the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from glmkit.api import GLM
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.train import train_tokenizer

POEMS = [
    {"title": "春望", "lines": ["国破山河在，城春草木深。", "感时花溅泪，恨别鸟惊心。"], "kind": "诗"},
    {"title": "静夜思", "lines": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"], "kind": "诗"},
    {"title": "Spring", "lines": ["The rivers and the hills remain,", "the town is deep in green."], "kind": "verse"},
]  # fmt: skip
REVIEWS = [
    {"text": "很快，好吃", "label": 1, "domain": "food"},
    {"text": "太慢了，难吃", "label": 0, "domain": "food"},
    {"text": "The room was clean.", "label": "1", "domain": "hotel"},
]
TALKS = [{"turns": ["你好！", "你好，聊什么？", "聊电影。"]}, {"turns": ["Hi!", "Hello."]}]


def tiny_glm(seed: int = 0, positions: int = 96) -> GLM:
    """Returns a model with 2 layers of 32, whose weights are far from zero."""
    texts = [line for poem in POEMS for line in poem["lines"]]
    texts += [one["text"] for one in REVIEWS] + [turn for one in TALKS for turn in one["turns"]]
    tokenizer = train_tokenizer(texts * 5, 350, "unigram")
    torch.manual_seed(seed)
    ids = tokenizer.special_ids
    config = GLMConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        max_sequence_length=positions,
        initializer_range=0.4,
        num_tokens=len(tokenizer),
        eop_token_id=ids.eop,
        eos_token_id=ids.eos,
        pad_token_id=ids.pad,
        sop_token_id=ids.sop,
        mask_token_id=ids.mask,
        smask_token_id=ids.smask,
        gmask_token_id=ids.gmask,
        cls_token_id=ids.cls,
    )
    return GLM(GLMForConditionalGeneration(config), tokenizer)


def write_records(path: Path, records: list[dict]) -> Path:
    """Writes JSON lines."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return path

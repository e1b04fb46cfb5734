"""The model that a pretraining run begins with: new by a preset's sizes, or a checkpoint's.

In: a checked `PretrainConfig` and the corpus' tokenizer. Out: a `GLMForConditionalGeneration`, which knows the tokenizer's
special ids.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import torch

from glmkit.checkpoint import read_config, resolve
from glmkit.errors import ConfigError
from glmkit.model.configuration import GLMConfig
from glmkit.model.modeling import GLMForConditionalGeneration
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.settings import NOT_FIELDS, PretrainConfig

logger = logging.getLogger(__name__)

VOCABULARY_MULTIPLE = 64
"""The embedding's rows are a multiple of it, as matrix units like."""

LONG_ROW = 512
"""Tokens of a row from which on FlexAttention is taken on a GPU. In rows of 320 a step with SDPA (cuDNN's kernel) takes half as
long (docs/results/pretrain_h200_2026-11.md); longer ones were not compared, there FlexAttention keeps no mask of the row's square."""

SHORT_ROW = 256
"""Tokens of a row below which a CPU attends in bfloat16 without SDPA, whose kernel's backward pass takes some ten times as long as its
forward pass there (`benchmarks/bench_attention.py`)."""


def build_model(
    config: PretrainConfig,
    tokenizer: GLMTokenizer,
    device: torch.device,
    *,
    bf16: bool = False,
    empty: bool = False,
) -> GLMForConditionalGeneration:
    """Returns the model to train, on the CPU.

    Args:
        config: Checked.
        tokenizer: The prepared corpus'.
        device: Where it will be trained; decides the attention where the recipe does not.
        bf16: Whether it is trained in mixed precision.
        empty: Whether to leave its weights out ("meta"): another process has them.

    Raises:
        ConfigError: The recipe's `vocab_size` has no room for the tokenizer's tokens, or its attention cannot train.
        CheckpointError: `model.from` cannot be read.
    """
    dtype = getattr(torch, config.model.get("dtype", "float32"))
    asked, bf16 = config.model.get("attn_implementation"), bf16 or dtype == torch.bfloat16
    row_length = config.data.row_length
    if "from" not in config.model:
        fields = model_config(config, tokenizer)
        fields._attn_implementation = choose_attention(fields, device, row_length, bf16, asked)
        with torch.device("meta" if empty else "cpu"):
            return GLMForConditionalGeneration(fields).to(dtype)
    changed = {name: value for name, value in config.model.items() if name not in NOT_FIELDS}
    source = resolve(config.model["from"])
    model: Any
    if empty:
        with torch.device("meta"):
            model = GLMForConditionalGeneration(GLMConfig(**{**read_config(source), **changed}))
    else:
        model = GLMForConditionalGeneration.from_pretrained(source, dtype=dtype, **changed)
    for name, value in special_fields(tokenizer).items():
        setattr(model.config, name, value)
    model.generation_config.eos_token_id = model.config.eop_token_id
    model.set_attn_implementation(choose_attention(model.config, device, row_length, bf16, asked))
    return model


def model_config(config: PretrainConfig, tokenizer: GLMTokenizer) -> GLMConfig:
    """Returns a new model's configuration: the recipe's fields, and the tokenizer's ids and number of tokens.

    Raises:
        ConfigError: The recipe's `vocab_size` has no room for the tokenizer's tokens.
    """
    fields = {name: value for name, value in config.model.items() if name not in NOT_FIELDS}
    needed = tokenizer_rows(tokenizer)
    padded = padded_rows(needed)
    if fields.setdefault("vocab_size", padded) < needed:
        raise ConfigError(
            f"model.vocab_size = {fields['vocab_size']} is too small for the tokenizer in {config.data.folder}, whose "
            f"ids go up to {needed - 1}; leave it out (it becomes {padded}) or raise it"
        )
    return GLMConfig.preset(config.model["preset"], **{**special_fields(tokenizer), **fields})


def special_fields(tokenizer: GLMTokenizer) -> dict[str, Any]:
    """Returns the configuration's fields that the tokenizer decides."""
    ids = asdict(tokenizer.special_ids)
    del ids["block"]
    special = {f"{name}_token_id": value for name, value in ids.items()}
    return {**special, "num_tokens": len(tokenizer)}


def tokenizer_rows(tokenizer: GLMTokenizer) -> int:
    """Returns how many embedding rows a tokenizer needs at least."""
    ids = asdict(tokenizer.special_ids).values()
    return max(len(tokenizer), *(value + 1 for value in ids if value is not None))


def padded_rows(needed: int) -> int:
    """Returns `needed` rounded up to a multiple that matrix units like."""
    return -(-needed // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def choose_attention(
    config: GLMConfig,
    device: torch.device,
    row_length: int,
    bf16: bool = False,
    asked: str | None = None,
) -> str:
    """Returns the attention to train with: what is asked for, FlexAttention on a GPU in long rows, SDPA elsewhere.

    On a CPU short rows are computed in bfloat16 without SDPA ("eager"), which keeps their maps.

    FlexAttention skips the blocks of a packed row that nobody may see, but has no dropout: a model with
    `attention_dropout_prob` above 0 uses SDPA on a GPU too.

    Raises:
        ConfigError: FlexAttention is asked for where it cannot train.
    """
    if asked == "flex_attention" and (device.type != "cuda" or config.attention_dropout_prob):
        raise ConfigError(
            "model.attn_implementation = 'flex_attention' needs a CUDA GPU and model.attention_dropout_prob=0"
        )
    if asked is not None:
        return asked
    if device.type == "cpu" and bf16 and row_length < SHORT_ROW:
        return "eager"
    if device.type != "cuda" or row_length < LONG_ROW:
        return "sdpa"
    if config.attention_dropout_prob:
        logger.info(
            "SDPA is used because FlexAttention has no dropout; model.attention_dropout_prob=0 makes packed rows faster"
        )
        return "sdpa"
    return "flex_attention"

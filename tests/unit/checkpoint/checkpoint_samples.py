"""A GLM's weights and configuration, small enough to make in a test."""

from __future__ import annotations

import torch

CONFIG = {
    "vocab_size": 48,
    "hidden_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "max_sequence_length": 6,
    "embedding_dropout_prob": 0.1,
    "attention_dropout_prob": 0.0,
    "output_dropout_prob": 0.2,
    "attention_scale": 2.0,
    "block_position_encoding": True,
    "initializer_range": 0.02,
    "pool_token": "cls",
    "hidden_act": "gelu",
    "layernorm_epsilon": 1e-5,
}


def shapes(config: dict = CONFIG) -> dict[str, tuple[int, ...]]:
    h, rows = config["hidden_size"], config["max_sequence_length"] + 1
    named = {
        "word_embeddings.weight": (config["vocab_size"], h),
        "transformer.position_embeddings.weight": (rows, h),
        "transformer.block_position_embeddings.weight": (rows, h),
        "transformer.final_layernorm.weight": (h,),
        "transformer.final_layernorm.bias": (h,),
    }
    for layer in range(config["num_layers"]):
        for part, outputs, inputs in (
            ("attention.query_key_value", 3 * h, h),
            ("attention.dense", h, h),
            ("mlp.dense_h_to_4h", 4 * h, h),
            ("mlp.dense_4h_to_h", h, 4 * h),
        ):
            named[f"transformer.layers.{layer}.{part}.weight"] = (outputs, inputs)
            named[f"transformer.layers.{layer}.{part}.bias"] = (outputs,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            named[f"transformer.layers.{layer}.{norm}.weight"] = (h,)
            named[f"transformer.layers.{layer}.{norm}.bias"] = (h,)
    return named


def weights(dtype: torch.dtype = torch.float32, config: dict = CONFIG) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in shapes(config).items()
    }


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are the same bit for bit."""
    return set(left) == set(right) and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )

"""A GLM of which it is known what decides: one token makes one answer likely, and nothing else does."""

from __future__ import annotations

import torch

import glmkit
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from understanding_samples import random_glm

CAUSE, ANSWER = "太", "好"


def decided_glm() -> glmkit.GLM:
    """Returns a GLM that writes `ANSWER` where `CAUSE` is in the text.

    Attention is uniform and carries one dimension, which only `CAUSE` has, into another, which only `ANSWER` has.
    """
    tokenizer = random_glm().tokenizer
    settings = random_glm().model.config.to_dict()
    settings.update(num_layers=1)
    config = GLMConfig(
        **{
            key: settings[key]
            for key in settings
            if key not in ("architectures", "dtype", "transformers_version")
        }
    )
    torch.manual_seed(1)
    model = GLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "layernorm" not in name:
                weights.zero_()
        words = model.glm.word_embeddings.weight
        words[:, 4:] = torch.randn(words.shape[0], words.shape[1] - 4) * 0.5
        words[tokenizer.convert_tokens_to_ids(CAUSE), 0] = 4.0
        words[tokenizer.convert_tokens_to_ids(ANSWER), 1] = 4.0
        [layer] = model.glm.transformer.layers
        size = config.hidden_size
        layer.attention.query_key_value.weight[2 * size, 0] = 1.0
        layer.attention.dense.weight[1, 0] = 20.0
    return glmkit.GLM(model, tokenizer)

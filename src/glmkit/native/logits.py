"""How far the logits of two sets of weights of one model are apart: GLM's forward pass in NumPy, of both side by side.

In: a configuration, and both sets. Out: one number. Float32, a layer or some thousand rows of the vocabulary in memory at a time;
neither the native decoder nor torch is needed.

Shapes: B texts, L tokens of a text, H hidden, N heads, D = H / N, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.attention_rule import may_attend
from glmkit.checkpoint.quantized import LAYER, MATRICES, TABLES, VECTORS, WORDS, State, rows_of

TEXTS, LENGTH, PART_A = 4, 64, 32

AT_ONCE = 4096
"""Rows of the vocabulary."""


def relative_change(config: Any, state: State, other: State) -> float:
    """Returns how much the logits of fixed random texts change: root mean square, in units of their standard deviation.

    Args:
        config: The model's `Architecture`, or what has its fields.
        state: Weights.
        other: What they are compared with.
    """
    length = min(LENGTH, config.max_sequence_length)
    tokens = config.num_tokens or config.vocab_size
    ids = np.random.default_rng(0).integers(tokens, size=(TEXTS, length))
    states = [_embedded(config, weights, ids) for weights in (state, other)]
    for layer in range(config.num_layers):
        for hidden, weights in zip(states, (state, other), strict=True):
            _add_layer(config, weights, LAYER.format(layer), hidden)
    states = [
        _normed(config, hidden, rows_of(weights, TABLES[0]), rows_of(weights, TABLES[1]))
        for hidden, weights in zip(states, (state, other), strict=True)
    ]
    # Of the differences' squares, the logits and their squares.
    sums = np.zeros(3)
    for first in range(0, config.vocab_size, AT_ONCE):
        logits, found = (
            (hidden @ rows_of(weights, WORDS, first, first + AT_ONCE).T).astype(np.float64)
            for hidden, weights in zip(states, (state, other), strict=True)
        )
        sums += np.square(found - logits).sum(), logits.sum(), np.square(logits).sum()
    difference, mean, square = sums / (ids.size * config.vocab_size)
    return float(np.sqrt(difference / (square - mean**2)))


def _embedded(config: Any, weights: State, ids: np.ndarray) -> np.ndarray:
    """Returns the sums of embeddings and positions, [B, L, H]; the block position of all is 0."""
    hidden = np.empty((*ids.shape, config.hidden_size), np.float32)
    for first in range(0, config.vocab_size, AT_ONCE):
        here = (ids >= first) & (ids < first + AT_ONCE)
        hidden[here] = rows_of(weights, WORDS, first, first + AT_ONCE)[ids[here] - first]
    hidden += rows_of(weights, TABLES[2], 0, ids.shape[1])
    if config.block_position_encoding:
        hidden += rows_of(weights, TABLES[3], 0, 1)
    return hidden


def _add_layer(config: Any, weights: State, layer: str, hidden: np.ndarray) -> None:
    """Adds to the residual stream [B, L, H] what a layer adds to it."""

    def product(states: np.ndarray, matrix: str, bias: str) -> np.ndarray:
        return states @ rows_of(weights, layer + matrix).T + rows_of(weights, layer + bias)

    first, second = ([rows_of(weights, layer + name) for name in VECTORS[n : n + 2]] for n in (0, 4))  # fmt: skip
    attended = _attention(config, product(_normed(config, hidden, *first), MATRICES[0], VECTORS[2]))
    hidden += product(attended, MATRICES[1], VECTORS[3])
    wide = product(_normed(config, hidden, *second), MATRICES[2], VECTORS[6])
    hidden += product(_activated(config.hidden_act, wide), MATRICES[3], VECTORS[7])


def _attention(config: Any, fused: np.ndarray) -> np.ndarray:
    """Returns softmax(QKᵀ / √D) V, [B, L, H], of queries, keys and values [B, L, 3 H]; part A and then left to right."""
    texts, length, _ = fused.shape
    parts = fused.reshape(texts, length, 3, config.num_attention_heads, -1)
    query, key, value = parts.transpose(2, 0, 3, 1, 4)
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(np.float32(query.shape[-1]))
    index = np.arange(length)
    visible = may_attend(
        query_index=index[:, None], key_index=index, key_in_part_b=index >= PART_A, key_is_visible=True
    )  # fmt: skip
    scores = np.where(visible, scores, np.float32(-np.inf))
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ value).transpose(0, 2, 1, 3).reshape(texts, length, -1)


def _normed(config: Any, hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Returns the LayerNorm of [B, L, H]."""
    centred = hidden - hidden.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(config.layernorm_epsilon)) * weight + bias


def _activated(name: str, states: np.ndarray) -> np.ndarray:
    if name == "relu":
        return np.maximum(states, 0)
    if name == "gelu_new":
        inner = np.float32(np.sqrt(2 / np.pi)) * (states + np.float32(0.044715) * states**3)
        return 0.5 * states * (1 + np.tanh(inner))
    return 0.5 * states * (1 + _erf(states / np.sqrt(np.float32(2))))


def _erf(values: np.ndarray) -> np.ndarray:
    """The error function, within 2e-7. Source: Abramowitz and Stegun, 7.1.26."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(values))
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    return np.copysign(1 - series * np.exp(-np.square(values)), values)

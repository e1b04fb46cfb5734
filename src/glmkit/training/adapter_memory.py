"""How much memory training adapters (LoRA) needs on each device: the base's weights are there, but have no gradients.

In: a model's sizes, a batch, a rank. Out: bytes, as `training.memory` has them for training all weights; the same is not
counted. Builds no model; knows no device.

Shapes: t = B · L tokens of a micro-batch, H hidden, I = 4 H, V vocabulary, T predicted tokens, C of them in a chunk of the
head, r the rank. b is the bytes of a number in the layers.
"""

from __future__ import annotations

from typing import Literal

from glmkit.checkpoint.architecture import Architecture, head_chunk
from glmkit.errors import ConfigError
from glmkit.training.memory import (
    PRECISIONS,
    MemoryEstimate,
    Precision,
    layer_activations,
    matrices_of_layers,
)

NF4_BLOCK = 64
"""Weights of 4 bits that share a scale; the scales are of 8 bits, and 256 of them share a float32 (bitsandbytes' sizes)."""

NF4_BYTES = 0.5 + 1 / NF4_BLOCK + 4 / (256 * NF4_BLOCK)
"""Of a weight: half a byte, and its share of the scales."""


def num_adapter_parameters(config: Architecture, rank: int) -> int:
    """Returns the weights of adapters on all four Linears of each layer: r · (in + out) each, 8 H + 2 I for a layer."""
    mlp = config.intermediate_size or 4 * config.hidden_size
    return config.num_layers * rank * (8 * config.hidden_size + 2 * mlp)


def adapter_memory(
    config: Architecture,
    rows: int,
    row_length: int,
    *,
    rank: int = 16,
    precision: Precision = "mixed",
    processes: int = 1,
    checkpointing: bool = False,
    predicted_share: float = 0.5,
    device: Literal["cuda", "cpu"] = "cuda",
    quantize: Literal["nf4"] | None = None,
) -> MemoryEstimate:
    """Returns what a training step of adapters takes on each device; each holds the whole base.

    Of P parameters of the base only the weights are there: 4 P bytes, beside a copy of the layers' matrices for computing in
    mixed precision, which the backward pass keeps. "bfloat16" is a base whose weights are kept in two bytes. Each of the
    adapters' weights takes 16 bytes (itself, gradient, AdamW's moments; and 4 for DDP's buckets), all float32. A layer keeps
    as much as in full training, because adapters need the Linears' inputs, and 4 r numbers for a token.

    With a base of 4 bits the layers' matrices take `NF4_BYTES` a weight and have no copies, but each is unpacked while it is
    computed with: H · I · b bytes for the largest. bitsandbytes gives back the type of its input, which behind a LayerNorm is
    float32 in mixed precision too: the MLP's wide state is kept in it, and its gradient comes in it.

    Args:
        config: The base.
        rows: B, rows of a micro-batch on the device.
        row_length: L, tokens of a row.
        rank: r.
        precision: "float32" or "mixed", as `glmkit finetune` has them; "bfloat16" for planning.
        processes: Of the run (DDP).
        checkpointing: Activation checkpointing: of each layer only its input is kept.
        predicted_share: T / t.
        device: "cuda" keeps a dropout's mask as a byte a number, "cpu" as a number, and attention's maps with dropout.
        quantize: "nf4" for a base of 4 bits (QLoRA).

    Raises:
        ConfigError: An unknown precision, or a rank below 1.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision = {precision!r}; there are {', '.join(PRECISIONS)}")
    if rank < 1:
        raise ConfigError(f"rank = {rank}; it must be at least 1")
    weight, _, _, number = PRECISIONS[precision]
    hidden, mlp = config.hidden_size, config.intermediate_size or 4 * config.hidden_size
    adapters = num_adapter_parameters(config, rank)
    matrices = matrices_of_layers(config)
    weights = weight * config.num_parameters + 4 * adapters
    unpacked, result = 0, number
    if quantize:
        weights += int((NF4_BYTES - weight) * matrices)
        unpacked, result = hidden * mlp * number, 4 if precision == "mixed" else number
    buckets = 4 * adapters if processes > 1 else 0
    copies = 2 * matrices if precision == "mixed" and not quantize else 0
    tokens, predicted = rows * row_length, int(rows * row_length * predicted_share)
    inputs, layer = layer_activations(config, rows, row_length, precision, 1, device)
    layer += tokens * (4 * rank * number + mlp * (result - number))
    mask = rows * row_length**2 * (number if precision == "bfloat16" else 4)
    last = 2 * tokens * hidden * inputs
    kept = config.num_layers * (tokens * hidden * inputs if checkpointing else layer)
    again = layer - tokens * hidden * inputs if checkpointing else 0
    if checkpointing:
        copies //= config.num_layers  # made again with the layer
    head = _frozen_head(config, predicted, number)
    # The gradient that passes: of the wide state with an unpacked matrix, or on both sides of the activation function.
    passing = tokens * (mlp + hidden) * result + max(unpacked, tokens * mlp * result)
    state = weights + 12 * adapters + buckets
    moments = (
        state + copies + kept + mask + last + head,
        state + copies + kept + mask + again + passing,
    )
    return MemoryEstimate(
        weights=weights,
        gradients=4 * adapters,
        optimizer=8 * adapters,
        gathered=copies + buckets,
        activations=kept + mask + last + again,
        head=head,
        peak=max(moments),
    )


def _frozen_head(config: Architecture, predicted: int, number: int) -> int:
    """Returns the most bytes of the head, which has no gradient: states and theirs, the cast weights, a chunk's logits."""
    cast = 0 if number == 4 else number
    chunk = min(predicted, head_chunk(config.vocab_size))
    states = 2 * predicted * config.hidden_size * number
    return states + config.vocab_size * config.hidden_size * cast + chunk * config.vocab_size * (8 + cast)  # fmt: skip

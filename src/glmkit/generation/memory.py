"""How much memory a GLM needs to fill blanks: weights, the cache of keys and values, and what is computed with.

In: a model's sizes, a batch, a number type. Out: bytes on one device. Builds no model; knows no device. Not counted: what the
libraries take themselves (a CUDA context about 1 GiB, on a CPU the imports) and what an allocator cannot fill.

Shapes: B texts, A tokens of part A, G tokens written, H hidden, I = 4 H, V vocabulary; b is the bytes of a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glmkit.checkpoint.architecture import Architecture
from glmkit.errors import ConfigError, nearest

WEIGHT_BYTES: dict[str, tuple[float, int]] = {
    "float32": (4, 4),
    "bfloat16": (2, 2),
    "float16": (2, 2),
    "int8": (1, 2),
    "int4": (0.5 + 3 / 32, 2),
}
"""Name -> bytes of a weight in the layers' matrices, and of any other number, with torch. int4 has a float16 scale and a byte of
zero point for 32 weights, as in `glmkit.checkpoint.packing`."""

PACKED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 1.5, "int8": 1, "int4": 0.5 + 3 / 32}
"""Name -> bytes of a weight in a matrix of the native decoder (`glmkit.checkpoint.packing`); the word embedding is one."""

Backend = Literal["torch", "graphs", "native"]
"""What computes: see `glmkit.load`."""


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes on one device.

    Attributes:
        weights: Of the model.
        cache: Keys and values when the last token is written.
        working: What is there besides them for a moment, at the most.
        peak: The most at any moment; the cache is small while part A, which works with most, is read.
    """

    weights: int
    cache: int
    working: int
    peak: int


PASS = 8192
"""Tokens of prompts that `generation.prefill` reads at a time, unless one text is longer."""


NATIVE_PAGE = 32
"""Tokens of a page of the native decoder's cache (`PAGE` in `native/kernels.h`)."""


def static_rows(texts: int) -> int:
    """Returns the rows of a static cache: a power of two, and one that takes what belongs nowhere."""
    return (1 << (max(1, texts) - 1).bit_length()) + 1


def static_capacity(tokens: int, before: int = 0) -> int:
    """Returns the tokens that a row of a static cache has room for: 256, 384, 512 … and a quarter more at least than before."""
    return -(-max(256, tokens, before + before // 4) // 128) * 128


def number_bytes(dtype: str, backend: Backend, stored: str | None) -> tuple[float, int]:
    """Returns the bytes of a weight in the layers' matrices and of a number of the cache.

    Args:
        dtype: What is asked of the weights (`WEIGHT_BYTES`).
        backend: What computes. On the native decoder what a checkpoint stores in 16 bits stays so in float32.
        stored: The number type of the checkpoint, if it is known.
    """
    if backend != "native":
        return WEIGHT_BYTES[dtype]
    exact = dtype == "float32"
    return PACKED_BYTES[stored if exact and stored in PACKED_BYTES else dtype], 4 if exact else 2


def native_capacity(tokens: int) -> int:
    """Returns the tokens that the native decoder's pages for a text have room for."""
    return -(-tokens // NATIVE_PAGE) * NATIVE_PAGE


def inference_memory(
    config: Architecture,
    *,
    batch_size: int = 1,
    input_tokens: int = 512,
    output_tokens: int = 128,
    dtype: str = "bfloat16",
    backend: Backend = "torch",
    stored: str | None = None,
) -> InferenceMemory:
    """Returns what filling blanks takes (greedy or sampled; n beams are as n texts).

    Weights take P · b bytes. The cache takes 2 · layers · H · b bytes for each of B (A + G) tokens. While part A is read, a
    layer's MLP has its two widths, 2 I numbers for each of B · A tokens, and there are 6 H more: the embedding with and without
    positions, the layer's input, the attention's result, their sum, and that normalised; beside the mask, B · A² · b bytes. While a token is written, one layer's keys are copied to make room, and there are logits,
    B · V in b bytes and in float32.

    Args:
        config: The model.
        batch_size: B.
        input_tokens: A, of the longest text of the batch; padding counts.
        output_tokens: G, of all its blanks.
        dtype: See `WEIGHT_BYTES`.
        backend: "graphs" has the cache of `generation.graphs`: its rows and their room are rounded up and there from the first
            prompt on; nothing is copied, but steps of up to B tokens are captured, each with logits of its own, and prompts are
            read `PASS` tokens at a time, without a mask. "native" (`native/model.cpp`) has packed weights beside float32 vectors,
            a cache in pages of 32 tokens, float32 for weights asked for in float32 and float16 else, and keeps what it reads prompts with:
            6 H + I float32 for each of B · A tokens, and H + I of 10 bits, what whole numbers make of them.
        stored: The number type of the checkpoint: of float32 the native decoder keeps 16 bits.

    Raises:
        ConfigError: An unknown number type, or a size below 1.
    """
    if dtype not in WEIGHT_BYTES:
        raise ConfigError(
            f"dtype = {dtype!r}; there are {', '.join(WEIGHT_BYTES)}{nearest(dtype, WEIGHT_BYTES)}"
        )
    for name, value in (("batch_size", batch_size), ("input_tokens", input_tokens)):
        if value < 1:
            raise ConfigError(f"{name} = {value}; it must be at least 1")
    hidden, mlp = config.hidden_size, config.intermediate_size or 4 * config.hidden_size
    matrices = config.num_layers * (4 * hidden**2 + 2 * hidden * mlp)
    read, length = batch_size * input_tokens, input_tokens + output_tokens
    in_matrix, number = number_bytes(dtype, backend, stored)
    others = 4 if backend == "native" else number
    if backend == "native":
        matrices += config.vocab_size * hidden
        read, written = (batch_size * native_capacity(one) for one in (input_tokens, length))
        # Buffers stay as large as they were once. Logits, and what is barred.
        reading = batch_size * (4 * (6 * hidden + mlp) + 1.25 * (hidden + mlp)) * input_tokens
        reading = writing = int(reading) + batch_size * config.vocab_size * 5
    elif backend == "graphs":
        at_once = max(input_tokens, min(read, PASS))
        read = written = static_rows(batch_size) * static_capacity(length)
        # Logits with scores in float32 twice, and what is barred; what passes over prompts work with is kept, and has no mask.
        writing = batch_size * config.vocab_size * (2 * number + 9)
        reading = writing = writing + at_once * (6 * hidden + 2 * mlp) * number
    else:
        written = batch_size * length
        reading = read * (6 * hidden + 2 * mlp) * number + batch_size * input_tokens**2 * number
        writing = written * hidden * number + batch_size * config.vocab_size * (number + 4)
    weights = int(in_matrix * matrices + others * (config.num_parameters - matrices))
    per_token = 2 * config.num_layers * hidden * number
    return InferenceMemory(
        weights=weights,
        cache=written * per_token,
        working=max(reading, writing),
        peak=weights + max(read * per_token + reading, written * per_token + writing),
    )

"""Triton kernels of the decode step: a matrix times one vector, and attention of new tokens over a static cache.

In: tensors of one device. Out: tensors, or keys and values in the cache. Imported only where Triton is there; what they compute
is said by `steps.PlainKernels`, which takes their place elsewhere and which they are compared with before they are used.

Why kernels of our own: with one text a step is as fast as memory gives the weights, and a library spends as many launches on
normalising, adding and activating as on matrices. Here each matrix is one launch with all that stands beside it.

Shapes: T tokens of a step, H hidden, N heads, D head size, R rows and C capacity of the cache, M x K a matrix.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # an older Triton: `early` is not for it
    gdc_launch_dependents = gdc_wait = None

MANY = 2048
"""Heads of tokens, together, from which on each is one warp's: those of 64 texts of 2b."""


@triton.jit
def activate(value, ACT: tl.constexpr):
    """Returns an activation of float32 numbers; `ACT` is a configuration's `hidden_act`, or "" for none."""
    if ACT == "gelu":
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    if ACT == "gelu_new":  # tanh(y) = 2 sigmoid(2 y) - 1
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        value = value * tl.sigmoid(2.0 * inner)
    if ACT == "relu":
        value = tl.maximum(value, 0.0)
    return value


@triton.jit
def _matvec(
    vector, gain, offset, matrix, scales, bias, residual, out, rows, epsilon,
    WIDTH: tl.constexpr, NORM: tl.constexpr, SCALED: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr,
    ROWS: tl.constexpr, STEP: tl.constexpr, FULL: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program computes ROWS numbers of act(matrix · norm(vector) + bias) + residual."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < rows
    begin = tl.arange(0, STEP)
    place = matrix + row[:, None].to(tl.int64) * WIDTH + begin[None, :]
    part = tl.load(place, mask=is_row[:, None] & (begin < WIDTH)[None, :], other=0)
    if EARLY:  # weights wait for nothing, the vector for the kernel before
        gdc_launch_dependents()
        gdc_wait()
    mean = 0.0
    scale = 1.0
    if NORM:
        every = tl.arange(0, FULL)
        whole = tl.load(vector + every, mask=every < WIDTH, other=0.0).to(tl.float32)
        mean = tl.sum(whole, 0) / WIDTH
        centred = tl.where(every < WIDTH, whole - mean, 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon)
    sums = tl.zeros((ROWS, STEP), tl.float32)
    for first in range(0, WIDTH, STEP):
        at = first + begin
        inside = at < WIDTH
        value = tl.load(vector + at, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            by = tl.load(gain + at, mask=inside, other=0.0).to(tl.float32)
            plus = tl.load(offset + at, mask=inside, other=0.0).to(tl.float32)
            value = (value - mean) * scale * by + plus
            value = value.to(vector.dtype.element_ty).to(tl.float32)  # as LayerNorm stores it
        # The next weights are on their way while these are multiplied.
        there = is_row[:, None] & (at + STEP < WIDTH)[None, :]
        following = tl.load(place + first + STEP, mask=there, other=0)
        sums += part.to(tl.float32) * value[None, :]
        part = following
    result = tl.sum(sums, 1)
    if SCALED:
        result *= tl.load(scales + row, mask=is_row, other=0.0)
    if BIAS:
        result += tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)
    result = activate(result, ACT)
    if RESIDUAL:
        result += tl.load(residual + row, mask=is_row, other=0.0).to(tl.float32)
    tl.store(out + row, result.to(out.dtype.element_ty), mask=is_row)


@triton.jit
def _attend(
    mixed, keys, values, slots, places, out, heads, scale, slot_stride, head_stride,
    APPEND: tl.constexpr, SIZE: tl.constexpr, FULL: tl.constexpr, STEP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Each program does one head of one token: softmax over what its row has read, and itself."""
    token, head = tl.program_id(0), tl.program_id(1)
    if EARLY:
        gdc_launch_dependents()
    slot = tl.load(slots + token).to(tl.int64)
    place = tl.load(places + token).to(tl.int32)
    dim = tl.arange(0, FULL)
    real = dim < SIZE
    width = heads * SIZE
    own = mixed + token * 3 * width + head * SIZE + dim
    start = slot * slot_stride + head * head_stride
    at = tl.arange(0, STEP)
    cell = start + at[:, None] * SIZE + dim[None, :]
    if EARLY:  # earlier steps wrote all keys but the token's own: the first wait for nothing
        both = (at < place)[:, None] & real[None, :]
        block = tl.load(keys + cell, mask=both, other=0.0)
        more = tl.load(values + cell, mask=both, other=0.0)
        gdc_wait()
    query = tl.load(own, mask=real, other=0.0).to(tl.float32) * scale
    key = tl.load(own + width, mask=real, other=0.0)
    value = tl.load(own + 2 * width, mask=real, other=0.0)
    if APPEND:
        tl.store(keys + start + place * SIZE + dim, key, mask=real)
        tl.store(values + start + place * SIZE + dim, value, mask=real)
    best = tl.sum(query * key.to(tl.float32), 0)
    total = best * 0.0 + 1.0
    context = value.to(tl.float32)
    for first in range(0, place, STEP):
        there = first + at < place
        if not EARLY:
            both = there[:, None] & real[None, :]
            block = tl.load(keys + cell + first * SIZE, mask=both, other=0.0)
            more = tl.load(values + cell + first * SIZE, mask=both, other=0.0)
        scores = tl.sum(block.to(tl.float32) * query[None, :], 1)
        scores = tl.where(there, scores, float("-inf"))
        largest = tl.maximum(best, tl.max(scores, 0))
        kept = tl.exp(best - largest)
        weights = tl.exp(scores - largest)
        context = context * kept + tl.sum(more.to(tl.float32) * weights[:, None], 0)
        total = total * kept + tl.sum(weights, 0)
        best = largest
        if EARLY:
            later = first + STEP
            both = (later + at < place)[:, None] & real[None, :]
            block = tl.load(keys + cell + later * SIZE, mask=both, other=0.0)
            more = tl.load(values + cell + later * SIZE, mask=both, other=0.0)
    context = (context / total).to(out.dtype.element_ty)
    tl.store(out + token * width + head * SIZE + dim, context, mask=real)


@triton.jit
def _append(
    mixed, keys, values, slots, places, heads, slot_stride, head_stride,
    SIZE: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Each program stores one head's key and value of one token."""
    token, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + token).to(tl.int64)
    place = tl.load(places + token).to(tl.int32)
    dim = tl.arange(0, FULL)
    real = dim < SIZE
    width = heads * SIZE
    own = mixed + token * 3 * width + head * SIZE + dim
    cell = slot * slot_stride + head * head_stride + place * SIZE + dim
    tl.store(keys + cell, tl.load(own + width, mask=real, other=0.0), mask=real)
    tl.store(values + cell, tl.load(own + 2 * width, mask=real, other=0.0), mask=real)


def matvec(
    vector: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    scales: torch.Tensor | None = None,
    norm: torch.nn.LayerNorm | None = None,
    act: str = "",
    residual: torch.Tensor | None = None,
    early: bool = False,
) -> torch.Tensor:
    """Returns act(matrix · norm(vector) + bias) + residual, [1, M].

    Args:
        vector: [1, K].
        matrix: [M, K], of the vector's number type, or int8 with `scales`.
        scales: float32 [M], what each row of whole numbers is multiplied by.
        bias: [M].
        norm: Applied first.
        act: A configuration's `hidden_act`, or "" for none.
        residual: [1, M].
        early: Whether to begin with the weights before the kernel before is done (programmatic dependent launch, from Hopper on).
    """
    rows, width = matrix.shape
    out = vector.new_empty(1, rows)
    # Enough programs that each of some 130 processors has several; with many rows each program takes more of them.
    together = max(1, min(8, triton.next_power_of_2(rows // 512 + 1) // 2))
    _matvec[(triton.cdiv(rows, together),)](
        *operands(vector, matrix, bias, scales, norm, residual, out),
        WIDTH=width,
        **features(bias, scales, norm, residual, act),
        ROWS=together,
        STEP=min(1024, triton.next_power_of_2(width)),
        FULL=triton.next_power_of_2(width),
        EARLY=early,
        num_warps=4,
        **launched(early),
    )
    return out


def operands(
    vector: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    scales: torch.Tensor | None,
    norm: torch.nn.LayerNorm | None,
    residual: torch.Tensor | None,
    out: torch.Tensor,
) -> tuple[Any, ...]:
    """Returns the first arguments of a kernel of `matvec`; the vector stands for what there is not."""
    gain, offset, epsilon = (vector, vector, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)  # fmt: skip
    extra = (vector if one is None else one for one in (scales, bias, residual))
    return (vector, gain, offset, matrix, *extra, out, len(matrix), epsilon)


def features(bias: Any, scales: Any, norm: Any, residual: Any, act: str) -> dict[str, Any]:
    """Returns what a kernel of `matvec` is compiled for."""
    return {
        "NORM": norm is not None,
        "SCALED": scales is not None,
        "BIAS": bias is not None,
        "RESIDUAL": residual is not None,
        "ACT": act,
    }


def launched(early: bool) -> dict[str, bool]:
    """Returns how a kernel is launched that begins before the one before it is done, or after."""
    return {"launch_pdl": True} if early else {}


def attend(
    mixed: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    places: torch.Tensor,
    limit: int,
    early: bool = False,
) -> torch.Tensor:
    """Adds new tokens to the cache and returns what each attends to: all of its row before it, and itself.

    Args:
        mixed: [T, 3 H], queries, keys and values of the new tokens.
        keys: [R, N, C, D], contiguous.
        values: As `keys`.
        slots: int64 [T], each token's row.
        places: int64 [T], its place there; tokens of one row stand side by side.
        limit: No place is beyond it; not needed here.
        early: As in `matvec`; for one token.

    Returns:
        [T, H].
    """
    tokens, (_, heads, _, size) = len(mixed), keys.shape
    out = mixed.new_empty(tokens, heads * size)
    strides = keys.stride(0), keys.stride(1)
    full = triton.next_power_of_2(size)
    grid, alone = (tokens, heads), tokens == 1
    warps, numbers = 4, 8192  # of a block of keys
    if early:  # these two on an H200: docs/results/decode-kernels_h200_2026-11.md
        warps, numbers = 8, 16384
    elif tokens * heads >= MANY:
        warps, numbers = 1, 2048
    if not alone:  # a token may attend to another of the same step, so all must be stored before
        _append[grid](mixed, keys, values, slots, places, heads, *strides, SIZE=size, FULL=full, num_warps=1)  # fmt: skip
    _attend[grid](
        mixed,
        keys,
        values,
        slots,
        places,
        out,
        heads,
        size**-0.5,
        *strides,
        APPEND=alone,
        SIZE=size,
        FULL=full,
        STEP=max(16, min(numbers // 64, numbers // full)),
        EARLY=early,
        num_warps=warps,
        **launched(early),
    )
    return out

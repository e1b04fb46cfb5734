"""Triton kernels of reading prompts: attention of many tokens over a static cache, and sum and normalisation in one.

In: tensors of one device. Out: tensors, and keys and values in the cache. Imported only where Triton is there; what they compute
is said by `prefill.PlainPrefill`, which they are compared with before they are used.

Why kernels of our own: the tokens of prompts of any lengths lie one behind the other, without filling up, and the mask is a number
for each token: how many keys it sees. torch's attention would want rows of one length and a mask in memory.

Shapes: T tokens, H hidden, N heads, D head size, R rows and C capacity of the cache, B blocks of up to QUERIES tokens of one row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from glmkit.generation.prefill import QUERIES


@triton.jit
def _append(
    mixed, keys, values, slots, places, heads, slot_stride, head_stride,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Each program stores the keys and values of one token."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    place = tl.load(places + token)
    at = tl.arange(0, FULL)
    real = at < WIDTH
    own = mixed + token * 3 * WIDTH + at
    cell = slot * slot_stride + (at // SIZE) * head_stride + place * SIZE + at % SIZE
    tl.store(keys + cell, tl.load(own + WIDTH, mask=real), mask=real)
    tl.store(values + cell, tl.load(own + 2 * WIDTH, mask=real), mask=real)


@triton.jit
def _attend(
    mixed, keys, values, blocks, out, number, scale, slot_stride, head_stride,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, FULL: tl.constexpr, QUERIES: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Each program does one head of up to QUERIES tokens of one row: softmax over what each of them sees."""
    block, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(blocks + block)
    first = tl.load(blocks + number + block)
    count = tl.load(blocks + 2 * number + block).to(tl.int32)
    place = tl.load(blocks + 3 * number + block).to(tl.int32)
    prefix = tl.load(blocks + 4 * number + block).to(tl.int32)
    if count > 0:
        query, dim = tl.arange(0, QUERIES), tl.arange(0, FULL)
        inside = (query < count)[:, None] & (dim < SIZE)[None, :]
        row = first + query.to(tl.int64)
        asked = tl.load(mixed + row[:, None] * (3 * WIDTH) + head * SIZE + dim[None, :], mask=inside, other=0.0)  # fmt: skip
        seen = tl.maximum(place + query + 1, prefix)
        last = tl.maximum(place + count, prefix)
        start = slot * slot_stride + head * head_stride
        best = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        context = tl.zeros((QUERIES, FULL), tl.float32)
        for begin in range(0, last, STEP):
            at = begin + tl.arange(0, STEP)
            cell = start + at[:, None] * SIZE + dim[None, :]
            there = (at < last)[:, None] & (dim < SIZE)[None, :]
            key = tl.load(keys + cell, mask=there, other=0.0)
            scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
            scores = tl.where(at[None, :] < seen[:, None], scores, float("-inf"))
            largest = tl.maximum(best, tl.max(scores, 1))  # every token sees the first key
            kept = tl.exp2(best - largest)
            weights = tl.exp2(scores - largest[:, None])
            value = tl.load(values + cell, mask=there, other=0.0)
            context = context * kept[:, None]
            context = tl.dot(weights.to(value.dtype), value, context, input_precision="ieee")
            total = total * kept + tl.sum(weights, 1)
            best = largest
        context = (context / total[:, None]).to(out.dtype.element_ty)
        tl.store(out + row[:, None] * WIDTH + head * SIZE + dim[None, :], context, mask=inside)


@triton.jit
def _add_norm(
    hidden, delta, gain, offset, total, normed, epsilon, WIDTH: tl.constexpr, FULL: tl.constexpr
):  # fmt: skip
    """Each program does one token."""
    token = tl.program_id(0).to(tl.int64) * WIDTH
    at = tl.arange(0, FULL)
    real = at < WIDTH
    whole = tl.load(hidden + token + at, mask=real, other=0.0).to(tl.float32)
    whole += tl.load(delta + token + at, mask=real, other=0.0).to(tl.float32)
    rounded = whole.to(total.dtype.element_ty)  # as torch stores the sum
    tl.store(total + token + at, rounded, mask=real)
    whole = rounded.to(tl.float32)
    mean = tl.sum(whole, 0) / WIDTH
    centred = tl.where(real, whole - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon)
    by = tl.load(gain + at, mask=real, other=0.0).to(tl.float32)
    plus = tl.load(offset + at, mask=real, other=0.0).to(tl.float32)
    result = (centred * scale * by + plus).to(normed.dtype.element_ty)
    tl.store(normed + token + at, result, mask=real)


def add_norm(
    hidden: torch.Tensor, delta: torch.Tensor, norm: torch.nn.LayerNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns hidden + delta, and that normalised; all are [T, H]."""
    tokens, width = hidden.shape
    total, normed = torch.empty_like(hidden), torch.empty_like(hidden)
    full = triton.next_power_of_2(width)
    _add_norm[(tokens,)](
        hidden, delta, norm.weight, norm.bias, total, normed, norm.eps,
        WIDTH=width, FULL=full, num_warps=max(1, min(8, full // 512)),
    )  # fmt: skip
    return total, normed


def attend(
    mixed: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    places: torch.Tensor,
    blocks: torch.Tensor,
) -> torch.Tensor:
    """Adds new tokens to the cache and returns what each attends to: part A, or all of its row before it and itself.

    Args:
        mixed: [T, 3 H], queries, keys and values of the new tokens.
        keys: [R, N, C, D], contiguous.
        values: As `keys`.
        slots: int64 [T], each token's row.
        places: int64 [T], its place there; tokens of one row stand side by side.
        blocks: int64 [5, B]: of up to `QUERIES` tokens of one row that row, the first token's number in the step, how many
            (0: nothing is done), the first one's place, and how many tokens of the row are part A.

    Returns:
        [T, H]; of tokens in no block whatever was there.
    """
    tokens, (_, heads, _, size) = len(mixed), keys.shape
    width = heads * size
    out = mixed.new_empty(tokens, width)
    strides = keys.stride(0), keys.stride(1)
    whole, full = triton.next_power_of_2(width), max(16, triton.next_power_of_2(size))
    _append[(tokens,)](
        mixed, keys, values, slots, places, heads, *strides, SIZE=size, WIDTH=width, FULL=whole, num_warps=4
    )  # fmt: skip
    number = blocks.shape[1]
    _attend[(number, heads)](
        mixed,
        keys,
        values,
        blocks,
        out,
        number,
        size**-0.5 * 1.4426950408889634,  # powers of two are what the device has
        *strides,
        WIDTH=width,
        SIZE=size,
        FULL=full,
        QUERIES=QUERIES,
        STEP=64 if full <= 128 and mixed.element_size() == 2 else 32,
        num_warps=4,
        num_stages=3 if mixed.element_size() == 2 else 1,
    )
    return out

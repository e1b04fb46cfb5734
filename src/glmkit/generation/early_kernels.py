"""Triton kernels of a step of one token that begin before the kernel before is done (programmatic dependent launch, from Hopper on).

In: tensors of one device. Out: tensors. A kernel fetches its first weights, which wait for nothing, while the one before still
computes. Used after whole steps by them and by `kernels` have been compared (`captured.Workspace`).

Shapes: T tokens of a step, H hidden, V vocabulary, M x K a matrix.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from glmkit.generation import kernels
from glmkit.generation.kernels import activate, features, launched, operands

TUNED = {
    (2, 1024, 1024): (4, 4, 1), (2, 4096, 1024): (4, 2, 1),
    (2, 2048, 6144): (4, 4, 6), (2, 2048, 2048): (4, 4, 2), (2, 2048, 8192): (4, 4, 8), (2, 8192, 2048): (8, 2, 4), (2, 2048, 0): (8, 8, 24),
    (2, 4096, 12288): (8, 2, 24), (2, 4096, 4096): (8, 2, 4), (2, 4096, 16384): (16, 8, 8), (2, 16384, 4096): (16, 2, 8), (2, 4096, 0): (8, 4, 49),
    (1, 2048, 6144): (4, 8, 2), (1, 2048, 2048): (4, 8, 1), (1, 2048, 8192): (4, 8, 2), (1, 8192, 2048): (4, 2, 2), (1, 2048, 0): (4, 8, 24),
    (1, 4096, 12288): (8, 8, 6), (1, 4096, 4096): (8, 4, 2), (1, 4096, 16384): (8, 4, 8), (1, 16384, 4096): (8, 2, 4), (1, 4096, 0): (16, 8, 24),
}  # fmt: skip
"""Bytes of a weight, K (a power of two) and M (0 for an LM head) -> warps, rows at a time, how many times: those of large, 2b and 10b
that were faster on an H200 than `kernels.matvec`, alone or in a whole step (docs/results/decode-kernels_h200_2026-11.md)."""


@triton.jit
def dot4(words, fours):
    """Sums of the products of four int8 each, which are the bytes of an int32."""
    return tl.inline_asm_elementwise("{ .reg .s32 z; mov.s32 z, 0; dp4a.s32.s32 $0, $1, $2, z; }", "=r,r,r", [words, fours], dtype=tl.int32, is_pure=True, pack=1)  # fmt: skip


@triton.jit
def _matvec(
    vector, gain, offset, matrix, scales, bias, residual, out, rows, epsilon,
    WIDTH: tl.constexpr, NORM: tl.constexpr, SCALED: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr,
    ROWS: tl.constexpr, TIMES: tl.constexpr,
):  # fmt: skip
    """As `kernels.matvec`; each program has norm(vector) in registers and TIMES times ROWS rows, each read as a whole.

    Of 8 bits (SCALED) four weights are an int32, and the vector is rounded to 16 bits beside its largest number: two int8 each.
    """
    COLUMNS: tl.constexpr = WIDTH // 4 if SCALED else WIDTH
    start = tl.program_id(0) * (ROWS * TIMES)
    column = tl.arange(0, COLUMNS)
    inner = tl.arange(0, ROWS)
    place = matrix + (start + inner)[:, None].to(tl.int64) * COLUMNS + column[None, :]
    gdc_launch_dependents()
    part = tl.load(place, mask=(start + inner < rows)[:, None], other=0, eviction_policy="evict_first")  # fmt: skip
    gdc_wait()
    at = column
    if SCALED:
        at = column[:, None] * 4 + tl.arange(0, 4)[None, :]
    value = tl.load(vector + at).to(tl.float32)
    if NORM:
        by = tl.load(gain + at).to(tl.float32)
        plus = tl.load(offset + at).to(tl.float32)
        centred = value - tl.sum(value) / WIDTH
        scale = tl.rsqrt(tl.sum(centred * centred) / WIDTH + epsilon)
        value = centred * scale * by + plus
        value = value.to(vector.dtype.element_ty).to(tl.float32)  # as LayerNorm stores it
    if SCALED:
        unit = tl.max(tl.abs(value)) / 32500.0
        steps = tl.floor(value * tl.where(unit > 0, 1.0 / unit, 0.0) + 0.5).to(tl.int32)
        high = (steps + 128) >> 8
        low = steps - (high << 8)
        shift = (8 * tl.arange(0, 4))[None, :]
        highs = tl.sum((high & 255) << shift, 1)
        lows = tl.sum((low & 255) << shift, 1)
    for time in tl.range(0, TIMES, num_stages=1):
        row = start + time * ROWS + inner
        is_row = row < rows
        # The next rows are on their way while these are multiplied.
        there = (row + ROWS < rows) & (time + 1 < TIMES)
        following = tl.load(place + (time + 1) * (ROWS * COLUMNS), mask=there[:, None], other=0, eviction_policy="evict_first")  # fmt: skip
        if BIAS:
            more = tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)
        if RESIDUAL:
            add = tl.load(residual + row, mask=is_row, other=0.0).to(tl.float32)
        if SCALED:
            by_row = tl.load(scales + row, mask=is_row, other=0.0)
            result = tl.sum(dot4(part, highs[None, :]), 1).to(tl.float32) * 256.0
            result += tl.sum(dot4(part, lows[None, :]), 1).to(tl.float32)
            result = result * unit * by_row
        else:
            result = tl.sum(part.to(tl.float32) * value[None, :], 1)
        if BIAS:
            result += more
        result = activate(result, ACT)
        if RESIDUAL:
            result += add
        tl.store(out + row, result.to(out.dtype.element_ty), mask=is_row)
        part = following


@triton.jit
def _embed(
    inputs, tokens, words, scales, positions, blocks, out,
    WIDTH: tl.constexpr, FULL: tl.constexpr, SCALED: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Each program adds up the embeddings of one token."""
    token = tl.program_id(0)
    at = tl.arange(0, FULL)
    real = at < WIDTH
    one = tl.load(inputs + token)
    place = tl.load(inputs + tokens + token)
    total = tl.load(words + one * WIDTH + at, mask=real, other=0).to(tl.float32)
    if SCALED:
        total *= tl.load(scales + one)
    total += tl.load(positions + place * WIDTH + at, mask=real, other=0.0).to(tl.float32)
    if BLOCKS:
        block = tl.load(inputs + 2 * tokens + token)
        total += tl.load(blocks + block * WIDTH + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + token * WIDTH + at, total.to(out.dtype.element_ty), mask=real)


@triton.jit
def _partly(logits, barred, which, found, vocabulary, parts, STEP: tl.constexpr):
    """Each program finds of STEP logits of one token the largest that is not barred, the sum of exponentials beside it, its place."""
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * STEP + tl.arange(0, STEP)
    real = at < vocabulary
    row = tl.load(which + token)
    no = tl.load(barred + row * vocabulary + at, mask=real, other=1).to(tl.int1)
    gdc_launch_dependents()
    gdc_wait()
    scores = tl.load(logits + token * vocabulary + at, mask=real, other=float("-inf")).to(
        tl.float32
    )
    scores = tl.where(no, float("-inf"), scores)
    best, place = tl.max(scores, 0, return_indices=True, return_indices_tie_break_left=True)
    total = tl.sum(tl.where(scores == float("-inf"), 0.0, tl.exp(scores - best)), 0)
    cell = found + (token * parts + part) * 3
    tl.store(cell, best)
    tl.store(cell + 1, total)
    tl.store(cell + 2, (part * STEP + place).to(tl.float32))


@triton.jit
def _choose(found, out, tokens, parts, FULL: tl.constexpr):
    """Each program chooses among the parts of one token."""
    token = tl.program_id(0)
    at = tl.arange(0, FULL)
    real = at < parts
    gdc_launch_dependents()
    gdc_wait()
    cell = found + (token * parts + at) * 3
    bests = tl.load(cell, mask=real, other=float("-inf"))
    totals = tl.load(cell + 1, mask=real, other=0.0)
    places = tl.load(cell + 2, mask=real, other=0.0)
    best, first = tl.max(bests, 0, return_indices=True, return_indices_tie_break_left=True)
    total = tl.sum(tl.where(bests == float("-inf"), 0.0, totals * tl.exp(bests - best)), 0)
    place = tl.sum(tl.where(at == first, places, 0.0), 0)
    tl.store(out + token, place.to(tl.float64))
    tl.store(out + tokens + token, (-tl.log(total)).to(tl.float64))


def matvec(
    vector: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    scales: torch.Tensor | None = None,
    norm: torch.nn.LayerNorm | None = None,
    act: str = "",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `kernels.matvec`, which computes shapes that are not in `TUNED`, and vectors in float32."""
    rows, width = matrix.shape
    tuned = TUNED.get((matrix.element_size(), width, rows if rows <= 4 * width else 0))
    if tuned is None or vector.element_size() != 2:
        return kernels.matvec(vector, matrix, bias, scales=scales, norm=norm, act=act, residual=residual, early=True)  # fmt: skip
    warps, at_once, times = tuned
    out = vector.new_empty(1, rows)
    _matvec[(triton.cdiv(rows, at_once * times),)](
        *operands(vector, matrix if scales is None else matrix.view(torch.int32), bias, scales, norm, residual, out),
        WIDTH=width,
        **features(bias, scales, norm, residual, act),
        ROWS=at_once,
        TIMES=times,
        num_warps=warps,
        **launched(True),
    )  # fmt: skip
    return out


def embed(
    inputs: torch.Tensor,
    words: torch.Tensor,
    scales: torch.Tensor | None,
    positions: torch.Tensor,
    blocks: torch.Tensor | None,
) -> torch.Tensor:
    """Returns the sums of tokens' embeddings and those of their positions, [T, H].

    Args:
        inputs: int64 [3 or more, T], contiguous: id, position, block position.
        words: [V, H], of the other tables' number type, or int8 with `scales`.
        scales: float32 [V].
        positions: Positions' table.
        blocks: Block positions' table.
    """
    tokens, width = inputs.shape[1], words.shape[1]
    out = positions.new_empty(tokens, width)
    _embed[(tokens,)](
        inputs,
        tokens,
        words,
        words if scales is None else scales,
        positions,
        positions if blocks is None else blocks,
        out,
        WIDTH=width,
        FULL=triton.next_power_of_2(width),
        SCALED=scales is not None,
        BLOCKS=blocks is not None,
        num_warps=4,
    )
    return out


def choose(logits: torch.Tensor, barred: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """See `steps.likeliest`."""
    tokens, vocabulary = logits.shape
    step = 1024
    parts = triton.cdiv(vocabulary, step)
    found = logits.new_empty(tokens, parts, 3, dtype=torch.float32)
    out = logits.new_empty(2, tokens, dtype=torch.float64)
    _partly[(tokens, parts)](logits, barred, which, found, vocabulary, parts, STEP=step, num_warps=4, **launched(True))  # fmt: skip
    _choose[(tokens,)](found, out, tokens, parts, FULL=triton.next_power_of_2(parts), num_warps=1, **launched(True))  # fmt: skip
    return out

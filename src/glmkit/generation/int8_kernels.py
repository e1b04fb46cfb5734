"""Triton kernels of weights of 8 bits: the product of a few vectors, and weights written out for many.

In: int8 matrices with a scale for each row, activations in 16 or 32 bits. Out: activations. One vector is `kernels.matvec`'s.
What they compute is said by `steps.PlainKernels`, which they are compared with before they are used.

Shapes: T vectors, M x K a matrix.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from glmkit.generation.kernels import activate


@triton.jit
def _product(
    vectors, matrix, scales, bias, residual, out, tokens, rows,
    WIDTH: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, ACT: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Each program computes TOKENS x ROWS numbers of act(vectors · matrixᵀ + bias) + residual."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    is_row, is_token = row < rows, token < tokens
    weight = matrix + row[None, :].to(tl.int64) * WIDTH
    value = vectors + token[:, None].to(tl.int64) * WIDTH
    sums = tl.zeros((TOKENS, ROWS), tl.float32)
    for first in range(0, WIDTH, STEP):
        at = first + tl.arange(0, STEP)
        inside = at < WIDTH
        left = tl.load(value + at[None, :], mask=is_token[:, None] & inside[None, :], other=0.0)
        right = tl.load(weight + at[:, None], mask=is_row[None, :] & inside[:, None], other=0)
        sums = tl.dot(left, right.to(left.dtype), sums, input_precision="ieee")
    result = sums * tl.load(scales + row, mask=is_row, other=0.0)[None, :]
    if BIAS:
        result += tl.load(bias + row, mask=is_row, other=0.0).to(tl.float32)[None, :]
    result = activate(result, ACT)
    place = token[:, None].to(tl.int64) * rows + row[None, :]
    both = is_token[:, None] & is_row[None, :]
    if RESIDUAL:
        result += tl.load(residual + place, mask=both, other=0.0).to(tl.float32)
    tl.store(out + place, result.to(out.dtype.element_ty), mask=both)


@triton.jit
def _widened(matrix, scales, out, WIDTH: tl.constexpr, STEP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * STEP + tl.arange(0, STEP)
    inside = at < WIDTH
    part = tl.load(matrix + row * WIDTH + at, mask=inside, other=0).to(tl.float32)
    part = part * tl.load(scales + row)
    tl.store(out + row * WIDTH + at, part.to(out.dtype.element_ty), mask=inside)


def product(
    vectors: torch.Tensor,
    matrix: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    act: str = "",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns act(vectors · (scales · matrix)ᵀ + bias) + residual, [T, M]; weights are read once, as they are stored.

    Args:
        vectors: [T, K].
        matrix: int8 [M, K].
        scales: float32 [M].
        bias: [M].
        act: A configuration's `hidden_act`, or "" for none.
        residual: [T, M].
    """
    (tokens, width), rows = vectors.shape, len(matrix)
    out = vectors.new_empty(tokens, rows)
    together = min(64, max(16, triton.next_power_of_2(tokens)))
    # Few rows at a time where there are few: each of some 130 processors is to have some.
    at_once = 16 if rows <= 4096 else 32 if rows <= 16384 or together > 32 else 64
    step = min(256 if together <= 32 else 128, max(16, triton.next_power_of_2(width)))
    _product[(triton.cdiv(rows, at_once), triton.cdiv(tokens, together))](
        vectors,
        matrix,
        scales,
        vectors if bias is None else bias,
        vectors if residual is None else residual,
        out,
        tokens,
        rows,
        WIDTH=width,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        ACT=act,
        TOKENS=together,
        ROWS=at_once,
        STEP=step if vectors.element_size() == 2 else min(step, 32),
        num_warps=4,
        num_stages=2 if vectors.element_size() > 2 else 4 if together <= 32 else 3,
    )
    return out


def widened(matrix: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns scales · matrix, [M, K], in a number type.

    Args:
        matrix: int8 [M, K].
        scales: float32 [M].
        dtype: Of what is returned.
    """
    rows, width = matrix.shape
    out = torch.empty(rows, width, dtype=dtype, device=matrix.device)
    step = min(4096, triton.next_power_of_2(width))
    _widened[(rows, triton.cdiv(width, step))](matrix, scales, out, WIDTH=width, STEP=step, num_warps=4)  # fmt: skip
    return out

"""Matrices of torch -> the native decoder's layout (`checkpoint.packed`), and back.

In: a matrix of any floating type. Out: `Packed`, with 32, 16, 8 or 4 bits a weight. Runs where the native decoder is not, too.
int4 takes the least squared error among ranges shrunk in steps of 5 %.

Shapes: R rows, C columns, both filled up; G = C / 32 groups.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from glmkit.checkpoint.packed import COLUMNS, GROUP, ROWS, Packed, check_format

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)

LARGEST = torch.finfo(torch.float16).max


@torch.no_grad()
def pack(weights: torch.Tensor, format: str) -> Packed:
    """Returns a matrix in the native layout.

    Raises:
        ConfigError: No such format.
    """
    check_format(format)
    rows, columns = weights.shape
    filling = (0, -columns % COLUMNS, 0, -rows % ROWS)
    full = F.pad(weights.detach().to("cpu", torch.float32), filling)
    if format == "float32":
        return Packed(format, (rows, columns), _blocks(full, 1).numpy())
    if format == "bfloat16":
        bits = _blocks(full.to(torch.bfloat16), 2).view(torch.int16)
        return Packed(format, (rows, columns), bits.numpy().view(np.uint16))
    if format == "int8":
        steps, scales = rounded_rows(full)
        return Packed(format, (rows, columns), _blocks(steps, 4).numpy(), scales.numpy())
    grouped = full.view(full.shape[0], -1, GROUP)
    scales, zeros = _grids(grouped)
    steps = _steps(grouped, scales, zeros).to(torch.uint8).view(*full.shape)
    # Of eight columns the first four are the low nibbles, the last four the high ones.
    low, high = steps.view(full.shape[0], -1, 2, 4).unbind(2)
    data = _blocks((low | high << 4).reshape(full.shape[0], -1), 4)
    return Packed(
        format,
        (rows, columns),
        data.numpy(),
        _blocks(scales, 1).numpy(),
        _blocks(zeros.to(torch.uint8), 1).numpy(),
    )


@torch.no_grad()
def unpack(packed: Packed) -> torch.Tensor:
    """Returns the matrix as float32 [rows, columns], as the native decoder understands it."""
    rows, columns = packed.shape
    n_rows, n_columns = rows + -rows % ROWS, columns + -columns % COLUMNS
    if packed.format == "float32":
        full = _rows(packed.data, n_rows, 1)
    elif packed.format == "bfloat16":
        full = _rows(packed.data.view(np.int16), n_rows, 2).view(torch.bfloat16).float()
    elif packed.format == "int8":
        steps, scales = int8_rows(packed)
        return steps.float() * scales[:, None]
    else:
        assert packed.scales is not None
        assert packed.zeros is not None
        both = _rows(packed.data, n_rows, 4).view(n_rows, -1, 1, 4)
        steps = torch.cat((both & 15, both >> 4), 2).view(n_rows, -1, GROUP).float()
        zeros = _rows(packed.zeros, n_rows, 1).float()
        scales = _rows(packed.scales, n_rows, 1).float()
        full = (scales[..., None] * (steps - zeros[..., None])).reshape(n_rows, n_columns)
    return full[:rows, :columns].contiguous()


def rounded_rows(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns float32 [R, C] as int8 of the same shape and the scale of each row, float32 [R]."""
    scales = weights.abs().amax(1) / 127
    steps = (weights / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return steps.to(torch.int8), scales


@torch.no_grad()
def int8_rows(packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns an int8 matrix row by row, [rows, columns], and the scale of each row, float32 [rows]."""
    assert packed.scales is not None
    assert packed.format == "int8"
    rows, columns = packed.shape
    steps = _rows(packed.data, rows + -rows % ROWS, 4)[:rows, :columns]
    return steps.contiguous(), as_tensor(packed.scales)[:rows].clone()


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Returns numbers as a tensor on the same memory; of what is mapped from a file, and so never written to, a copy."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _blocks(matrix: torch.Tensor, together: int) -> torch.Tensor:
    """[R, C] -> [R / 16, C / together, 16, together], flat."""
    return matrix.reshape(matrix.shape[0] // ROWS, ROWS, -1, together).transpose(1, 2).reshape(-1)


def _rows(flat: np.ndarray, n_rows: int, together: int) -> torch.Tensor:
    """The way back from `_blocks`, to [R, C]."""
    blocks = as_tensor(flat).view(n_rows // ROWS, -1, ROWS, together)
    return blocks.transpose(1, 2).reshape(n_rows, -1)


def _grids(grouped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns for each group of [R, G, 32] its scale (float16) and zero point (float32), both [R, G]."""
    low, high = grouped.amin(2).clamp_max(0), grouped.amax(2).clamp_min(0)
    least = torch.full_like(low, torch.inf)
    best_scales, best_zeros = low.to(torch.float16), low
    for shrunk in SHRUNK:
        scales = ((high - low) * (shrunk / 15)).clamp_max(LARGEST).to(torch.float16)
        zeros = (-low * shrunk / _divisor(scales)).round().clamp(0, 15)
        steps = _steps(grouped, scales, zeros)
        errors = (scales.float()[..., None] * (steps - zeros[..., None]) - grouped).square().sum(2)
        better = errors < least
        least = torch.where(better, errors, least)
        best_scales = torch.where(better, scales, best_scales)
        best_zeros = torch.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def _steps(grouped: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    return ((grouped / _divisor(scales)[..., None]).round() + zeros[..., None]).clamp(0, 15)


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """Where a scale is 0, so are the weights (or they are too small for float16): any divisor gives steps of 0."""
    scales = scales.float()
    return torch.where(scales > 0, scales, torch.inf)

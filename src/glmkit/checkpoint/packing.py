"""Matrices -> the native decoder's layout, and back.

In: a matrix of any floating type, an array (bfloat16 as the uint16 of its bits) or a tensor. Out: `Packed`, with 32, 16, 8 or 4 bits a
weight. Runs on NumPy alone, where the native decoder is not, too, some rows at a time on each thread. The layout is described in
`native/kernels.h`: blocks of 16 rows, each one stream of memory; columns are filled up with zeros to a multiple of 64, rows to a multiple
of 16.

int8 has one scale for each row, symmetric: w = scale * q, q in -127..127. int4 has for each row and group of 32 columns a float16
scale and a zero point: w = scale * (q - zero), q in 0..15, with the least squared error among ranges shrunk in steps of 5 %.

Shapes: R rows, C columns, both filled up; G = C / 32 groups.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.errors import ConfigError, nearest
from glmkit.runtime import num_threads

if TYPE_CHECKING:
    import torch

FORMATS = ("float32", "bfloat16", "int8", "int4")
"""In the order of the library's numbers for them."""

ROWS, COLUMNS, GROUP = 16, 64, 32

TOGETHER = {"float32": 1, "bfloat16": 2, "int8": 4, "int4": 4}
"""Format -> numbers (of int4 pairs of them) of a row that lie side by side."""

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)

LARGEST = np.float32(np.finfo(np.float16).max)

AT_ONCE = 2**16
"""Numbers that a thread packs at a time: what it makes of them stays in its cache."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix in the native layout.

    Attributes:
        format: One of `FORMATS`.
        shape: Rows and columns, without filling.
        data: The numbers, [R · C]: float32; bfloat16 as the uint16 of their bits; int8; of int4 two in each uint8, [R · C / 2].
        scales: int8: float32 [R]; int4: float16 [R · G]; else None.
        zeros: int4: uint8 [R · G]; else None.
    """

    format: str
    shape: tuple[int, int]
    data: np.ndarray
    scales: np.ndarray | None = None
    zeros: np.ndarray | None = None


def check_format(name: str) -> None:
    """Refuses an unknown number format.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FORMATS:
        raise ConfigError(
            f"no number format {name!r} for weights; there are {', '.join(FORMATS)}{nearest(name, FORMATS)}"
        )


def is_whole(packed: Packed) -> bool:
    """Returns whether a matrix has the parts, number types and sizes that its format and shape call for."""
    if packed.format not in FORMATS or min(packed.shape) < 1:
        return False
    wanted = parts(packed.format, packed.shape)
    found = (packed.data, packed.scales, packed.zeros)
    return wanted == tuple(None if part is None else (part.dtype.name, part.size) for part in found)


def parts(format: str, shape: tuple[int, int]) -> tuple[tuple[str, int] | None, ...]:
    """Returns number type and size of data, scales and zeros of a matrix."""
    rows, columns = _filled(*shape)
    numbers, groups = rows * columns, rows * columns // GROUP
    return {
        "float32": (("float32", numbers), None, None),
        "bfloat16": (("uint16", numbers), None, None),
        "int8": (("int8", numbers), ("float32", rows), None),
        "int4": (("uint8", numbers // 2), ("float16", groups), ("uint8", groups)),
    }[format]


def pack(weights: np.ndarray | torch.Tensor, format: str, into: Packed | None = None) -> Packed:
    """Returns a matrix in the native layout.

    Args:
        weights: The matrix.
        format: One of `FORMATS`.
        into: Where it is put, a matrix of this format and shape; by default into new memory.

    Raises:
        ConfigError: No such format.
    """
    check_format(format)
    source = as_numbers(weights)
    shape = (source.shape[0], source.shape[1])
    rows, columns = _filled(*shape)
    if into is None:
        data, scales, zeros = (
            None if one is None else np.empty(one[1], one[0]) for one in parts(format, shape)
        )
        assert data is not None
        into = Packed(format, shape, data, scales, zeros)
    assert (into.format, into.shape) == (format, shape)
    data, scales, zeros = into.data, into.scales, into.zeros
    step = max(ROWS, AT_ONCE // columns // ROWS * ROWS)

    def some(first: int) -> None:
        given = source[first : first + step]
        filling = ((0, -len(given) % ROWS), (0, columns - given.shape[1]))
        if format == "bfloat16" and source.dtype == np.uint16:
            numbers = np.pad(given, filling)
        else:
            numbers = np.pad(widened(given), filling)
        if format == "bfloat16":
            numbers = narrowed(numbers)
        elif format == "int8":
            numbers, steps = rounded_rows(numbers)
            _put(scales, steps[:, None], first, rows, 1)
        elif format == "int4":
            numbers, steps, points = _nibbles(numbers)
            _put(scales, steps, first, rows, 1)
            _put(zeros, points, first, rows, 1)
        _put(data, numbers, first, rows, TOGETHER[format])

    firsts = range(0, len(source), step)
    if len(firsts) == 1:
        some(0)
    else:
        with ThreadPoolExecutor(num_threads()) as pool:
            for _ in pool.map(some, firsts):
                pass
    return into


def some_rows(packed: Packed, first: int, last: int) -> Packed:
    """Returns the rows of a matrix from `first`, a multiple of 16, to `last` or its end, on the same memory."""
    rows, columns = packed.shape
    last = min(last, rows)
    blocks = slice(first // ROWS, -(-last // ROWS))
    data, scales, zeros = (
        None if part is None else part.reshape(-(-rows // ROWS), -1)[blocks].reshape(-1)
        for part in (packed.data, packed.scales, packed.zeros)
    )
    assert data is not None
    return Packed(packed.format, (last - first, columns), data, scales, zeros)


def unpack(packed: Packed) -> np.ndarray:
    """Returns the matrix as float32 [rows, columns], as the native decoder understands it."""
    rows, columns = packed.shape
    n_rows, _ = _filled(rows, columns)
    numbers = _rows(packed.data, n_rows, TOGETHER[packed.format])
    if packed.format == "int8":
        steps, scales = int8_rows(packed)
        return steps * scales[:, None]
    if packed.format == "int4":
        pairs = numbers.reshape(n_rows, -1, 1, 4)
        steps = np.concatenate((pairs & 15, pairs >> 4), 2).reshape(n_rows, -1, GROUP)
        scales, zeros = (
            _rows(part, n_rows, 1).astype(np.float32)[..., None]
            for part in (packed.scales, packed.zeros)
        )
        numbers = (scales * (steps - zeros)).reshape(n_rows, -1)
    return np.ascontiguousarray(widened(numbers)[:rows, :columns])


def rounded_rows(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 [R, C] as int8 of the same shape and the scale of each row, float32 [R]."""
    scales = np.abs(weights).max(1) / np.float32(127)
    steps = np.rint(weights / np.maximum(scales, np.finfo(np.float32).tiny)[:, None])
    return steps.astype(np.int8), scales


def int8_rows(packed: Packed) -> tuple[np.ndarray, np.ndarray]:
    """Returns an int8 matrix row by row, [rows, columns], and the scale of each row, float32 [rows]."""
    assert packed.scales is not None
    assert packed.format == "int8"
    rows, columns = packed.shape
    steps = _rows(packed.data, _filled(rows, columns)[0], TOGETHER["int8"])[:rows, :columns]
    return np.ascontiguousarray(steps), packed.scales[:rows].copy()


def as_numbers(weights: np.ndarray | torch.Tensor) -> np.ndarray:
    """Returns a tensor's numbers as an array, bfloat16 as the uint16 of its bits, on the same memory if that is the CPU's."""
    if isinstance(weights, np.ndarray):
        return weights
    import torch

    weights = weights.detach().cpu()
    if weights.dtype == torch.bfloat16:
        return weights.contiguous().view(torch.int16).numpy().view(np.uint16)
    return weights.numpy()


def widened(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers as float32; uint16 are the bits of bfloat16."""
    if numbers.dtype == np.uint16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32, copy=False)


def narrowed(numbers: np.ndarray) -> np.ndarray:
    """Returns float32 numbers rounded to the nearest bfloat16 (of two the even one), as uint16; those already stay as they are."""
    if numbers.dtype == np.uint16:
        return numbers
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    found = rounded.astype(np.uint16)
    if (no_number := np.isnan(numbers)).any():
        found[no_number] = 0x7FC0
    return found


def _filled(rows: int, columns: int) -> tuple[int, int]:
    """Returns R and C."""
    return rows + -rows % ROWS, columns + -columns % COLUMNS


def _put(whole: Any, part: np.ndarray, first: int, rows: int, together: int) -> None:
    """Writes rows from `first` on into their places: [R, C] -> [R / 16, C / together, 16, together], flat."""
    blocks = part.reshape(len(part) // ROWS, ROWS, -1, together).transpose(0, 2, 1, 3)
    whole = whole.reshape(rows // ROWS, -1, ROWS, together)
    whole[first // ROWS : first // ROWS + len(blocks)] = blocks


def _rows(flat: Any, rows: int, together: int) -> np.ndarray:
    """The way back from `_put`, to [R, C]."""
    return flat.reshape(rows // ROWS, -1, ROWS, together).transpose(0, 2, 1, 3).reshape(rows, -1)


def _nibbles(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns float32 [R, C] as pairs of steps, uint8 [R, C / 2], with the scales, float16, and zero points, uint8, [R, G]."""
    grouped = matrix.reshape(len(matrix), -1, GROUP)
    scales, zeros = _grids(grouped)
    steps = _steps(grouped, scales, zeros).astype(np.uint8).reshape(len(matrix), -1, 2, 4)
    # Of eight columns the first four are the low nibbles, the last four the high ones.
    pairs = steps[:, :, 0] | steps[:, :, 1] << 4
    return pairs.reshape(len(matrix), -1), scales, zeros.astype(np.uint8)


def _grids(grouped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each group of [R, G, 32] its scale (float16) and zero point (float32), both [R, G]."""
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    least = np.full_like(low, np.inf)
    best_scales, best_zeros = low.astype(np.float16), low
    for shrunk in SHRUNK:
        scales = np.minimum((high - low) * np.float32(shrunk / 15), LARGEST).astype(np.float16)
        zeros = np.clip(np.rint(-low * np.float32(shrunk) / _divisor(scales)), 0, 15)
        wrong = _steps(grouped, scales, zeros)
        wrong -= zeros[..., None]
        wrong *= scales.astype(np.float32)[..., None]
        wrong -= grouped
        errors = np.einsum("rgc,rgc->rg", wrong, wrong)
        better = errors < least
        least = np.where(better, errors, least)
        best_scales = np.where(better, scales, best_scales)
        best_zeros = np.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def _steps(grouped: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    steps = grouped / _divisor(scales)[..., None]
    np.rint(steps, out=steps)
    steps += zeros[..., None]
    return np.clip(steps, 0, 15, out=steps)


def _divisor(scales: np.ndarray) -> np.ndarray:
    """Where a scale is 0, so are the weights (or they are too small for float16): any divisor gives steps of 0."""
    scales = scales.astype(np.float32)
    return np.where(scales > 0, scales, np.float32(np.inf))

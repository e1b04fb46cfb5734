"""Matrices -> the native decoder's layout, and back.

In: a matrix of any floating type, an array (bfloat16 as the uint16 of its bits) or a tensor. Out: `Packed`, with 32, 16, 12, 8 or 4 bits a
weight. Runs on NumPy alone, where the native decoder is not, too, some rows at a time on each thread. The layout is described in
`native/kernels.h`: blocks of 16 rows, each one stream of memory; columns are filled up with zeros to a multiple of 64, rows to a multiple
of 16.

bfloat16 takes 12 bits, without loss. Of the eight bits of exponent the upper seven are nearly always among seven that follow each other,
or zero: they and the sign become a code of four bits, the other eight bits stay. In a matrix of normally distributed weights one in
some thousands has no code; such strays are kept apart. (The exponents' small entropy: Zhang et al. 2025, "70% Size, 100% Accuracy: Lossless
LLM Compression for Efficient GPU Inference via Dynamic-Length Float", arXiv 2504.11651, section 2.1; there codes have several lengths.)

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

FORMATS = ("float32", "bfloat16", "int8", "int4", "float16")
"""In the order of the library's numbers for them."""

ROWS, COLUMNS, GROUP = 16, 64, 32

PARTS = ("data", "scales", "zeros", "firsts", "strays")
"""Of a matrix, in the order in which the library takes them."""

TOGETHER = {"float32": 1, "float16": 1, "int8": 4, "int4": 4}
"""Format -> numbers (of int4 pairs of them) of a row that lie side by side."""

CODES = 7
"""High bytes of a block that have codes, besides zero."""

SAMPLED = 128
"""Columns, at most, by whose numbers a block's codes are chosen."""

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)

LARGEST = np.float32(np.finfo(np.float16).max)

AT_ONCE = 2**19
"""Numbers that a thread packs at a time: what it makes of them stays in its cache."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix in the native layout.

    Attributes:
        format: One of `FORMATS`.
        shape: Rows and columns, without filling.
        data: The numbers, [R · C]: float32; float16; int8; of int4 two in each uint8, [R · C / 2]; of bfloat16 low bytes and codes, uint8
            [R · C · 3 / 2].
        scales: int8: float32 [R]; int4: float16 [R · G]; else None.
        zeros: int4: uint8 [R · G]; else None.
        firsts: bfloat16: the least high byte, without its sign, that has a code in a block, uint8 [R / 16]; else None.
        strays: bfloat16: uint32, of each block the number of strays before it and at last of all [R / 16 + 1], then of each stray its
            place, column · 16 + row in the block, by which they are ordered, and its bits; else None.
    """

    format: str
    shape: tuple[int, int]
    data: np.ndarray
    scales: np.ndarray | None = None
    zeros: np.ndarray | None = None
    firsts: np.ndarray | None = None
    strays: np.ndarray | None = None

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Those of `PARTS` that its format has."""
        named = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in named.items() if part is not None}


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
    wanted = part_sizes(packed.format, packed.shape)
    if packed.format == "bfloat16":
        if not _are_strays(packed):
            return False
        wanted["strays"] = "uint32", packed.parts["strays"].size
    return wanted == {name: (part.dtype.name, part.size) for name, part in packed.parts.items()}


def part_sizes(format: str, shape: tuple[int, int]) -> dict[str, tuple[str, int]]:
    """Returns number type and size of each part of a matrix; that of strays is known when it is packed."""
    rows, columns = _filled(*shape)
    numbers, groups = rows * columns, rows * columns // GROUP
    return {
        "float32": {"data": ("float32", numbers)},
        "float16": {"data": ("float16", numbers)},
        "bfloat16": {"data": ("uint8", numbers // 2 * 3), "firsts": ("uint8", rows // ROWS)},
        "int8": {"data": ("int8", numbers), "scales": ("float32", rows)},
        "int4": {"data": ("uint8", numbers // 2), "scales": ("float16", groups), "zeros": ("uint8", groups)},
    }[format]  # fmt: skip


def pack(
    weights: np.ndarray | torch.Tensor, format: str, into: dict[str, np.ndarray] | None = None
) -> Packed:
    """Returns a matrix in the native layout.

    Args:
        weights: The matrix.
        format: One of `FORMATS`.
        into: The parts that `part_sizes` tells, where they are put; by default new memory.

    Raises:
        ConfigError: No such format.
    """
    check_format(format)
    source = as_numbers(weights)
    shape = (source.shape[0], source.shape[1])
    rows, columns = _filled(*shape)
    sizes = part_sizes(format, shape)
    parts = into or {name: np.empty(size, number) for name, (number, size) in sizes.items()}
    step = max(ROWS, AT_ONCE // columns // ROWS * ROWS)
    is_there = (format, source.dtype.name) in (("bfloat16", "uint16"), ("float16", "float16"))

    def some(first: int) -> tuple[np.ndarray, ...]:
        """Packs some rows; returns those of bfloat16 that have no codes."""
        given = source[first : first + step]
        filling = ((0, -len(given) % ROWS), (0, columns - given.shape[1]))
        numbers = np.pad(given if is_there else widened(given), filling)
        if format == "bfloat16":
            block, last = first // ROWS, (first + len(numbers)) // ROWS
            coded, parts["firsts"][block:last], *strays = _coded(narrowed(numbers))
            parts["data"].reshape(rows // ROWS, *coded.shape[1:])[block:last] = coded
            return tuple(strays)
        if format == "int8":
            numbers, steps = rounded_rows(numbers)
            _put(parts["scales"], steps[:, None], first, rows, 1)
        elif format == "int4":
            numbers, steps, points = _nibbles(numbers)
            _put(parts["scales"], steps, first, rows, 1)
            _put(parts["zeros"], points, first, rows, 1)
        _put(parts["data"], numbers, first, rows, TOGETHER[format])
        return ()

    starts = range(0, len(source), step)
    if len(starts) == 1:
        found = [some(0)]
    else:
        with ThreadPoolExecutor(num_threads()) as pool:
            found = list(pool.map(some, starts))
    if format == "bfloat16":
        counts, strays = (np.concatenate(some) for some in zip(*found, strict=True))
        parts = {**parts, "strays": np.concatenate(([0], counts.cumsum(), strays), dtype=np.uint32, casting="unsafe")}  # fmt: skip
    return Packed(format, shape, **parts)


def some_rows(packed: Packed, first: int, last: int) -> Packed:
    """Returns the rows of a matrix from `first`, a multiple of 16, to `last` or its end, on the same memory."""
    rows, columns = packed.shape
    last = min(last, rows)
    begin, end, blocks = first // ROWS, -(-last // ROWS), -(-rows // ROWS)
    parts = packed.parts
    strays = parts.pop("strays", None)
    some = {name: part.reshape(blocks, -1)[begin:end].reshape(-1) for name, part in parts.items()}
    if strays is not None:
        counts, pairs = strays[begin : end + 1], strays[blocks + 1 :].reshape(-1, 2)
        here = pairs[counts[0] : counts[-1]]
        some["strays"] = np.concatenate((counts - counts[0], here.reshape(-1)))
    return Packed(packed.format, (last - first, columns), **some)


def unpack(packed: Packed) -> np.ndarray:
    """Returns the matrix as float32 [rows, columns], as the native decoder understands it."""
    rows, columns = packed.shape
    n_rows, _ = _filled(rows, columns)
    if packed.format == "bfloat16":
        return np.ascontiguousarray(widened(_decoded(packed))[:rows, :columns])
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


def _coded(numbers: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns bfloat16, uint16 [R, C], in 12 bits.

    Returns:
        Low bytes and codes, uint8 [R / 16, C / 8, 192]; the first high byte of each block, uint8 [R / 16]; its number of strays, [R / 16];
        the strays' places and bits, uint32 [2 · strays].
    """
    rows, columns = numbers.shape
    blocks = rows // ROWS
    high, low = (numbers >> 8).astype(np.uint8), numbers.astype(np.uint8)
    sizes = high & 127
    firsts = _firsts(sizes.reshape(blocks, ROWS, columns))
    apart = (
        sizes - firsts.repeat(ROWS)[:, None]
    )  # below the first beyond all codes, since bytes begin again
    is_coded, is_stray = apart < CODES, sizes != 0
    is_stray &= ~is_coded
    codes = high >> 4
    codes &= 8
    codes |= (apart + np.uint8(1)) * is_coded
    where = np.flatnonzero(is_stray)
    codes.reshape(-1)[where] = low.reshape(-1)[where] = 0
    row, column = np.divmod(where, columns)
    block, place = row // ROWS, column * ROWS + row % ROWS
    strays = np.stack((place, numbers[row, column]), 1)[np.lexsort((place, block))]
    counts = np.bincount(block, minlength=blocks)
    nibbles = codes.view("<u4").reshape(rows, -1, 2)  # four codes at a time
    nibbles = (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).view(np.uint8)
    coded = np.empty((blocks, columns // 8, 12, ROWS), np.uint8)
    _interleave(coded[:, :, :8], low)
    _interleave(coded[:, :, 8:], nibbles)
    return coded, firsts, counts, strays.reshape(-1)


def _decoded(packed: Packed) -> np.ndarray:
    """The way back: uint16 [R, C]."""
    assert packed.firsts is not None
    assert packed.strays is not None
    rows, columns = _filled(*packed.shape)
    blocks = rows // ROWS
    coded = packed.data.reshape(blocks, columns // 8, 12, ROWS)
    low, nibbles = np.empty((rows, columns), np.uint8), np.empty((rows, columns // 2), np.uint8)
    _interleave(coded[:, :, :8], low, back=True)
    _interleave(coded[:, :, 8:], nibbles, back=True)
    halves = nibbles.reshape(rows, -1, 1, 4)
    codes = np.concatenate((halves & 15, halves >> 4), 2).reshape(rows, columns)
    places = codes & 7
    high = np.where(
        places > 0, places + (packed.firsts - np.uint8(1)).repeat(ROWS)[:, None], np.uint8(0)
    )
    high |= (codes & 8) << 4
    numbers = high.astype(np.uint16) << 8 | low
    begins, strays = packed.strays[: blocks + 1], packed.strays[blocks + 1 :].reshape(-1, 2)
    block = np.arange(blocks).repeat(np.diff(begins))
    numbers[block * ROWS + strays[:, 0] % ROWS, strays[:, 0] // ROWS] = strays[:, 1]
    return numbers


def _firsts(sizes: np.ndarray) -> np.ndarray:
    """Returns of high bytes without signs, [blocks, 16, C], where the seven begin that occur most often, uint8 [blocks]."""
    blocks, _, columns = sizes.shape
    some = sizes[:, :, :: max(1, columns // SAMPLED)].reshape(blocks, -1).astype(np.intp)
    some += np.arange(0, 128 * blocks, 128)[:, None]
    counts = np.bincount(some.reshape(-1), minlength=128 * blocks).reshape(blocks, 128)
    until = counts.cumsum(1)
    return (1 + (until[:, CODES:] - until[:, :-CODES]).argmax(1)).astype(np.uint8)


def _interleave(blocks: np.ndarray, numbers: np.ndarray, back: bool = False) -> None:
    """Writes bytes [R, C] as [R / 16, C / 4 or steps of 8, row / 4, column / 2, row % 4, column % 2], or the way `back`."""
    count, steps, parts, _ = blocks.shape
    there = blocks.view(np.uint16).reshape(count, steps, parts // 4, 4, 2, 4)
    here = numbers.view(np.uint16).reshape(count, 4, 4, steps, parts // 4, 2)
    here = here.transpose(0, 3, 4, 1, 5, 2)
    if back:
        here[...] = there
    else:
        there[...] = here


def _are_strays(packed: Packed) -> bool:
    """Returns whether the strays of bfloat16 are as many as they say, and each block's are in it and in order."""
    if packed.strays is None:
        return False
    rows, columns = _filled(*packed.shape)
    blocks = rows // ROWS
    begins, strays = np.split(packed.strays.reshape(-1).astype(np.int64), [blocks + 1])
    counts = np.diff(begins)
    if len(counts) != blocks or begins[0] or (counts < 0).any() or len(strays) != 2 * begins[-1]:
        return False
    places = strays[::2]
    in_order = np.arange(blocks).repeat(counts) * ROWS * columns + places
    return bool((places < ROWS * columns).all() and (np.diff(in_order) > 0).all())


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

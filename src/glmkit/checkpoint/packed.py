"""Matrices in the native decoder's layout: what they are made of.

Knows arrays alone; `checkpoint.packing` makes them of torch's tensors and back. The layout is described in `native/kernels.h`: blocks
of 16 rows, each one stream of memory; columns are filled up with zeros to a multiple of 64, rows to a multiple of 16.

int8 has one scale for each row, symmetric: w = scale * q, q in -127..127. int4 has for each row and group of 32 columns a float16
scale and a zero point: w = scale * (q - zero), q in 0..15.

Shapes: R rows, C columns, both filled up; G = C / 32 groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmkit.errors import ConfigError, nearest

FORMATS = ("float32", "bfloat16", "int8", "int4")
"""In the order of the library's numbers for them."""

ROWS, COLUMNS, GROUP = 16, 64, 32


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
    rows, columns = packed.shape
    if packed.format not in FORMATS or rows < 1 or columns < 1:
        return False
    rows, columns = rows + -rows % ROWS, columns + -columns % COLUMNS
    numbers, groups = rows * columns, rows * columns // GROUP
    wanted = {
        "float32": (("float32", numbers), None, None),
        "bfloat16": (("uint16", numbers), None, None),
        "int8": (("int8", numbers), ("float32", rows), None),
        "int4": (("uint8", numbers // 2), ("float16", groups), ("uint8", groups)),
    }[packed.format]
    found = (packed.data, packed.scales, packed.zeros)
    return wanted == tuple(None if part is None else (part.dtype.name, part.size) for part in found)

"""A `.safetensors` file <-> arrays, without torch: both ways mapped into memory, page by page as it is used.

safetensors' own reader for NumPy copies everything, and NumPy has no bfloat16: it is the uint16 of its bits here. Nothing that a file
holds is trusted: an array lies inside of it whatever its header says.

Source of the format: https://github.com/huggingface/safetensors (8 bytes with the header's length, the header in JSON, the numbers).
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

NUMBERS = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "uint16",
    "I8": "int8",
    "U8": "uint8",
    "U32": "uint32",
}
"""The file's name of each number type -> the array's; others belong to no weights that are packed."""

LINE = 64
"""Bytes of a cache line, at whose multiples a new file's numbers begin, as they do in memory."""


def json_object(text: str) -> dict[str, Any]:
    """Returns the object that a text in JSON is.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where a JSON object belongs")
    return value


def map_arrays(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Returns the metadata of a file and its arrays by name; they are read-only, and the file stays mapped while one is there.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is not in safetensors' format, cut short, or has a number type that is none of `NUMBERS`.
    """
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _wish_large_pages(memory)
    start = 8 + int.from_bytes(memory[:8], "little")
    if len(memory) < max(8, start):
        raise ValueError(f"{len(memory)} bytes are less than the header")
    header = json_object(memory[8:start].decode("utf-8"))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise ValueError("metadata that are not texts")
    entries = sorted(_entry(name, told) for name, told in header.items())
    arrays, end = {}, 0
    for first, last, name, numbers, shape in entries:
        if first != end:
            raise ValueError(f"{name!r} begins at {first}, where {end} is expected")
        end = last
        if start + end > len(memory):
            raise ValueError(f"{name!r} ends beyond the file")
        arrays[name] = np.ndarray(shape, numbers, memory, start + first)
    if start + end != len(memory):
        raise ValueError(f"{len(memory) - start - end} bytes that belong to nothing")
    return metadata, arrays


def let_go(array: np.ndarray) -> None:
    """Gives back the memory of a mapped array that has been read; should it be read again, the file is. Others are left alone."""
    memory: Any = array
    while isinstance(memory, np.ndarray):
        memory = memory.base
    if isinstance(memory, memoryview):
        memory = memory.obj
    if not isinstance(memory, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = array.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE  # pages that it has for itself
    length = (begin + array.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        memory.madvise(mmap.MADV_DONTNEED, first, length)


Wanted = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> type (a value of `NUMBERS`) and shape of arrays, which follow each other in this order."""


def arrays_in_memory(wanted: Wanted) -> dict[str, np.ndarray]:
    """Returns new arrays, each from a cache line on.

    All are in one memory, because NumPy asks Linux for pages of 2 MB where it needs 4 MB or more at once.
    """
    places, end = _places(wanted, LINE)
    memory = np.empty(end + LINE, np.uint8)
    return _arrays(memory, -memory.ctypes.data % LINE, wanted, places)


def new_arrays(path: Path, wanted: Wanted, metadata: dict[str, str]) -> dict[str, np.ndarray]:
    """Makes a file of arrays and returns them to be written, mapped into memory: what is put into them is in the file.

    Args:
        path: The file.
        wanted: The arrays.
        metadata: Texts for the header.

    Raises:
        OSError: The file cannot be made, or the disk has no room for it.
    """
    names = {number: name for name, number in NUMBERS.items()}
    header: dict[str, Any] = {"__metadata__": metadata}
    places, end = _places(wanted)
    for name, (number, shape) in wanted.items():
        header[name] = {"dtype": names[number], "shape": shape, "data_offsets": places[name]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % LINE)
    start = 8 + len(text)
    with path.open("w+b") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        _reserve(file, start, start + end)
        memory = mmap.mmap(file.fileno(), start + end)
    _wish_large_pages(memory)
    return _arrays(memory, start, wanted, places)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a file of arrays, which are of number types in `NUMBERS`; `new_arrays` tells the rest."""
    wanted = {name: (one.dtype.name, one.shape) for name, one in arrays.items()}
    for name, written in new_arrays(path, wanted, metadata).items():
        written[...] = arrays[name]


def _places(wanted: Wanted, step: int = 1) -> tuple[dict[str, tuple[int, int]], int]:
    """Returns where each array begins, at a multiple of `step`, and ends, and where the next one would begin."""
    places, end = {}, 0
    for name, (number, shape) in wanted.items():
        size = math.prod(shape) * np.dtype(number).itemsize
        places[name] = (end, end + size)
        end += -(-size // step) * step
    return places, end


def _arrays(
    memory: Any, start: int, wanted: Wanted, places: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    return {
        name: np.ndarray(shape, number, memory, start + places[name][0])
        for name, (number, shape) in wanted.items()
    }


def _wish_large_pages(memory: mmap.mmap) -> None:
    """Asks the system to keep a file in pages of 2 MB where it comes into memory now, so that reading it all looks up fewer addresses.

    Linux does so from 6.16 on with ext4, from 5.18 on with XFS; elsewhere nothing changes.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # this kernel has no such pages
            memory.madvise(mmap.MADV_HUGEPAGE)


def _reserve(file: BinaryIO, start: int, end: int) -> None:
    """Makes a file of `start` bytes `end` bytes long: a disk that is full says so now, and does not end the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, end)
        return
    for first in range(start, end, 2**20):
        file.write(bytes(min(2**20, end - first)))
    file.flush()


def _entry(name: str, told: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Returns where an array begins and ends, its name, number type and shape, as a header's entry tells."""
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is not described")
    numbers, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(numbers, str) or numbers not in NUMBERS:
        raise ValueError(f"{name!r} is of the type {numbers!r}; there are {', '.join(NUMBERS)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r} has the shape {shape} and lies at {offsets}")
    first, last = offsets
    numbers = NUMBERS[numbers]
    if math.prod(shape) * np.dtype(numbers).itemsize != last - first:
        raise ValueError(f"{name!r} has {last - first} bytes for the shape {shape} of {numbers}")
    return first, last, name, numbers, tuple(shape)


def _are_sizes(values: Any) -> bool:
    """Few enough, too, that their product is there at once."""
    are = isinstance(values, list) and len(values) <= 8
    return are and all(type(one) is int and one >= 0 for one in values)

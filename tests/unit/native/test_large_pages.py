"""Weights and keys ask Linux for pages of 2 MB, and what is not needed any more goes back to it."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
from native_samples import feed, native, random_model, sample

from glmkit.checkpoint.mapped import LINE, map_arrays, write_arrays
from glmkit.checkpoint.quantized import NativeWeights
from glmkit.native import library

SMAPS = Path("/proc/self/smaps")


def _has_large_pages() -> bool:
    if not SMAPS.is_file() or not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    try:
        mmap.mmap(-1, 2**21).madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_large_pages(), reason="this system has no large pages")


def wished() -> dict[tuple[int, int], int]:
    """Where the memory of this process lies that asked for large pages, from address to address, and how much of it is there, in bytes."""
    found = {}
    for region in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text()):
        if re.search(r"^VmFlags:.*\bhg\b", region, re.MULTILINE):
            first, last = (int(place, 16) for place in region.split(" ", 1)[0].split("-"))
            found[first, last] = int(re.search(r"^Rss: +(\d+)", region, re.MULTILINE)[1]) * 1024
    return found


def asks(array: np.ndarray) -> bool:
    """Whether an array lies in such memory, but for a part of a small page at each end."""
    begin, end = array.ctypes.data + mmap.PAGESIZE, array.ctypes.data + array.nbytes - mmap.PAGESIZE
    return any(first <= begin < end <= last for first, last in wished())


def test_weights_in_a_file_do(tmp_path):
    write_arrays(tmp_path / "file", {"some": np.arange(2**21, dtype=np.float32)}, {})
    some = map_arrays(tmp_path / "file")[1]["some"]
    assert asks(some)
    assert np.array_equal(some, np.arange(2**21))


@pytest.mark.parametrize("quantization", ["float32", "bfloat16", "int8", "int4"])
def test_weights_that_are_packed_do_together(quantization: str):
    """Matrices of 1 MB and less, of which NumPy would ask for none."""
    model = random_model(num_layers=12, hidden_size=256, vocab_size=1500)
    weights = NativeWeights.of(model.config, model.state_dict(), quantization)
    assert len(weights.matrices) == 49
    for matrix in weights.matrices.values():
        assert asks(matrix.data)
        assert all(part.ctypes.data % LINE == 0 for name, part in matrix.parts.items() if name != "strays")  # fmt: skip


@pytest.mark.skipif(library.why_not() is not None, reason="there is no native decoder")
def test_keys_do_and_are_given_back():
    """Forty texts with a page of 4 MB each; 64 MB are kept for the next."""
    model = random_model(num_layers=4, hidden_size=256, num_attention_heads=256)
    runner, tokens = native(model, "float32"), sample(model, 3, 2)
    expected = runner.forward([feed(runner.open(), tokens, 0, 5, 3)])[0]
    before = sum(wished().values())
    sequences = [runner.open() for _ in range(40)]
    for sequence in sequences:
        assert np.array_equal(runner.forward([feed(sequence, tokens, 0, 5, 3)])[0], expected)
    held = sum(wished().values()) - before
    for sequence in sequences:
        runner.close(sequence)
    kept = sum(wished().values()) - before
    assert held > 40 * 2**20
    assert kept < held / 2
    again = runner.forward([feed(runner.open(), tokens, 0, 5, 3)])[0]
    assert np.array_equal(again, expected)

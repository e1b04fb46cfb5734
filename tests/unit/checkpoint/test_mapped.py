"""Files of safetensors as arrays: what torch writes and reads, mapped, and refused where the header does not fit the file."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glmkit.checkpoint.mapped import let_go, map_arrays, write_arrays

TENSORS = {
    "float32": torch.linspace(-2, 2, 15).view(3, 5),
    "float16": torch.linspace(-2, 2, 7).half(),
    "bfloat16": torch.linspace(-2, 2, 9).bfloat16(),
    "int8": torch.arange(-3, 4, dtype=torch.int8),
    "uint8": torch.arange(250, 256, dtype=torch.uint8),
    "empty": torch.zeros(0, 4),
}


def as_array(tensor: torch.Tensor) -> np.ndarray:
    bits = tensor.dtype == torch.bfloat16
    return tensor.view(torch.int16).numpy().view(np.uint16) if bits else tensor.numpy()


def test_what_torch_writes_and_reads(tmp_path):
    save_file(TENSORS, tmp_path / "theirs", metadata={"a": "1", "b": "二"})
    metadata, found = map_arrays(tmp_path / "theirs")
    assert metadata == {"a": "1", "b": "二"}
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == as_array(tensor).dtype
        assert np.array_equal(found[name], as_array(tensor))
    write_arrays(tmp_path / "ours", found, metadata)
    again = load_file(tmp_path / "ours")
    for name, tensor in TENSORS.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert map_arrays(tmp_path / "ours")[0] == metadata


def test_arrays_are_the_file(tmp_path):
    """Nothing is copied: what is written to the file afterwards is seen, and nothing is written through them."""
    path = tmp_path / "file"
    write_arrays(path, {"some": np.zeros(5000, np.uint8)}, {})
    some = map_arrays(path)[1]["some"]
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    assert some[-1] == 7
    with pytest.raises(ValueError, match="read-only"):
        some[0] = 1


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps is Linux's")
def test_what_is_let_go_takes_no_memory_and_can_be_read_again(tmp_path):
    path, size = tmp_path / "arrays", 2**20
    numbers = np.arange(size, dtype=np.float32)
    write_arrays(path, {"a": numbers, "b": numbers[: size // 2], "small": numbers[:3]}, {})
    _, found = map_arrays(path)
    sums = [array.sum() for array in found.values()]
    assert resident(path) >= 6 * size
    let_go(found["a"])
    assert 2 * size <= resident(path) < 2.5 * size
    for array in found.values():  # a view, and one that is smaller than a page
        let_go(array[1:])
    assert resident(path) < 2**16
    assert [array.sum() for array in found.values()] == sums
    for plain in (numbers, np.frombuffer(bytes(8), np.float32), np.zeros((0, 3))):
        before = plain.copy()
        let_go(plain)
        assert np.array_equal(plain, before)


def file_of(header: object, numbers: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def entry(first: int, last: int, shape: object = (2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_numbers_that_lie_anywhere_are_read(tmp_path):
    """safetensors asks for no alignment, and reads such files."""
    header = {"a": entry(0, 3, [3], "U8"), "b": entry(3, 11)}
    values = np.array([1.5, -2.5], np.float32)
    for spaces in range(4):
        content = file_of(json.dumps(header).encode() + b" " * spaces, b"abc" + values.tobytes())
        (tmp_path / "file.safetensors").write_bytes(content)
        found = map_arrays(tmp_path / "file.safetensors")[1]
        assert np.array_equal(found["b"], values)
        assert np.array_equal(load_file(tmp_path / "file.safetensors")["b"], values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x01\x00", "less than the header"),
        (bytes([255] * 8), "less than the header"),
        (file_of(b"[" * 100000), "nested too deep"),
        (file_of(b'{"a": }'), "Expecting value"),
        (file_of(b"\xff{}"), "utf-8"),
        (file_of([]), "a list where a JSON object belongs"),
        (file_of({"a": entry(0, 8), "__metadata__": {"a": 1}}), "metadata that are not texts"),
        (file_of({"a": entry(0, 8), "__metadata__": "a"}), "metadata that are not texts"),
        (file_of({"a": 5}), "'a' is not described"),
        (file_of({"a": {"dtype": "F32", "shape": [2]}}), "'a' is not described"),
        (file_of({"a": entry(0, 8, dtype="F64")}), "of the type 'F64'; there are F32"),
        (file_of({"a": entry(0, 8, dtype=["F32"])}), "of the type"),
        (file_of({"a": entry(0, 8, "2")}), "has the shape 2"),
        (file_of({"a": entry(0, 8, [-1, -2])}), "has the shape"),
        (file_of({"a": entry(0, 8, [2.0])}), "has the shape"),
        (file_of({"a": entry(0, 8, [True, 2])}), "has the shape"),
        (file_of({"a": entry(0, 8, [1] * 9)}), "has the shape"),
        (file_of({"a": entry(0, 8, [3])}), "has 8 bytes for the shape"),
        (file_of({"a": entry(0, 8, [2**62])}), "has 8 bytes for the shape"),
        (file_of({"a": entry(8, 0, [0])}), "has -8 bytes for the shape"),
        (file_of({"a": entry(-8, 0)}), "lies at"),
        (file_of({"a": entry(0, 16, [4])}), "'a' ends beyond the file"),
        (file_of({"a": entry(0, 8), "b": entry(0, 8)}), "'b' begins at 0, where 8 is expected"),
        (file_of({"a": entry(4, 8, [1])}), "'a' begins at 4, where 0 is expected"),
        (file_of({"a": entry(0, 4, [1])}), "4 bytes that belong to nothing"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(content: bytes, message: str, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        map_arrays(tmp_path / "file")

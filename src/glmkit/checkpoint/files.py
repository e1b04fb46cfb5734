"""One file of weights -> its contents, without ever executing anything that the file holds.

In: a `.safetensors` file, or what `torch.save` wrote. Out: tensors, memory-mapped where the file allows it.
Pickles are read with `weights_only=True` plus the few harmless classes that training files need for their
random states. Every failure is a `CheckpointError` that names the file.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    MapLocation = str | torch.device


def read_tensors(path: Path, map_location: MapLocation = "cpu") -> dict[str, torch.Tensor]:
    """Returns name -> tensor of one `.safetensors` file or one pickled state dict.

    Raises:
        CheckpointError: The file is missing, cut short, unsafe, or holds something else than tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, map_location)
    state = read_pickle(path, map_location)
    require_tensors(state, path)
    return state


def require_tensors(state: Any, path: Path) -> None:
    """Raises `CheckpointError` unless `state` is a dict of named tensors."""
    import torch

    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a dict of tensors.")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: the entry {name!r} is a {type(value).__name__}, expected a tensor."
            )


def read_pickle(path: Path, map_location: MapLocation = "cpu") -> Any:
    """Returns what `torch.save` put in a file: tensors, plain containers, and random states.

    Raises:
        CheckpointError: The file is missing, empty, cut short, or names a class or function that is not on
            the list of harmless ones. Nothing of a refused file has been executed.
    """
    import torch

    is_zip = _require_weights_file(path)
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            return torch.load(path, map_location=map_location, mmap=is_zip, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        raise CheckpointError(
            f"Cannot read {path}: damaged, or not written by torch.save ({_first_line(error)}). "
            "Fetch the file again."
        ) from error


def _read_safetensors(path: Path, map_location: MapLocation) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    _require_weights_file(path)
    try:
        # Mapped first, so that any device, "meta" included, is reached in the same way.
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).to(map_location) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"Cannot read {path}: damaged, cut short, or not in safetensors format ({_first_line(error)}). "
            "Fetch the file again."
        ) from error


def _require_weights_file(path: Path) -> bool:
    """Refuses what cannot be a weights file; returns whether it is a zip archive (and can be mapped)."""
    if not path.is_file():
        raise CheckpointError(f"The weights file {path} does not exist.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); fetch the file again.")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder."
        )
    is_zip = zipfile.is_zipfile(path)
    if head.startswith(b"PK") and not is_zip:
        raise CheckpointError(
            f"{path} is cut short: {size:,} bytes without the end of the archive; fetch the file again."
        )
    return is_zip


def _harmless_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """The classes and functions besides torch's own that training files may name.

    NumPy's random state is an array of uint32; counters may be NumPy scalars; `args` is a Namespace. NumPy
    1 and 2 write the same functions under different module names.
    """
    rebuild_array = np.zeros(1).__reduce__()[0]
    rebuild_scalar = np.float64(1).__reduce__()[0]
    assert callable(rebuild_array)
    assert callable(rebuild_scalar)
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        np.ndarray,
        np.dtype,
        argparse.Namespace,
    ]
    for package in ("numpy.core", "numpy._core"):
        allowed.append((rebuild_array, f"{package}.multiarray._reconstruct"))
        allowed.append((rebuild_scalar, f"{package}.multiarray.scalar"))
    allowed.extend(type(np.dtype(code)) for code in ("u4", "u8", "i4", "i8", "f4", "f8", "?"))
    return allowed


def _refusal(path: Path, message: str) -> CheckpointError:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"(?:class|function) ([\w.]+)", message
    )
    if found is None:
        return CheckpointError(
            f"Cannot read {path}: damaged, or not written by torch.save ({_first_line(message)}). "
            "Fetch the file again."
        )
    return CheckpointError(
        f"{path} is refused: it asks to load the Python object {found.group(1)!r}, and only tensors, plain "
        "containers and random states are read from weights files. Nothing in it was executed. If you trust "
        "its origin, save the weights alone from the program that wrote it, best as safetensors."
    )


def _first_line(error: object) -> str:
    return str(error).strip().split("\n", 1)[0][:200]

"""The shared library of the native decoder, or the reason why there is none here.

Out: `load()`, a `ctypes.CDLL` with its signatures (`native/glmkit.h`), once a process; `why_not()`, a sentence or None.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from glmkit.errors import GenerationError

NAME = "libglmkit.so"

INTERFACE = 4
"""`GLMKIT_INTERFACE`: a library with another number takes other arguments."""

OFF = "GLMKIT_NATIVE"
"""Environment variable: 0 turns the native decoder off."""

ADDRESS = c_void_p


class NativeError(GenerationError):
    """The native decoder refused what it was given, or is not here."""


class Sizes(ctypes.Structure):
    """`struct glmkit_sizes`."""

    _fields_ = [
        ("layers", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("mlp", c_int32),
        ("vocabulary", c_int32),
        ("positions", c_int32),
        ("activation", c_int32),
        ("block_positions", c_int32),
        ("half_cache", c_int32),
        ("epsilon", c_float),
    ]


_SIGNATURES: dict[str, tuple] = {
    "glmkit_interface": (c_int32,),
    "glmkit_error": (c_char_p,),
    "glmkit_instructions": (c_char_p,),
    "glmkit_new": (c_void_p, POINTER(Sizes), c_int32),
    "glmkit_delete": (None, c_void_p),
    "glmkit_set_matrix": (
        c_int32, c_void_p, c_int32, c_int32, c_int32, *[ADDRESS] * 5,
    ),
    "glmkit_set_vector": (c_int32, c_void_p, c_int32, c_int32, ADDRESS),
    "glmkit_open": (c_int64, c_void_p),
    "glmkit_fork": (c_int64, c_void_p, c_int64),
    "glmkit_truncate": (c_int32, c_void_p, c_int64, c_int64),
    "glmkit_close": (c_int32, c_void_p, c_int64),
    "glmkit_length": (c_int64, c_void_p, c_int64),
    "glmkit_cache_bytes": (c_int64, c_void_p),
    "glmkit_forward": (c_int32, c_void_p, c_int32, *[ADDRESS] * 8, c_int64, ADDRESS, ADDRESS),
    "glmkit_head": (c_int32, c_void_p, c_int64, ADDRESS, ADDRESS),
    "glmkit_likeliest": (c_int32, c_void_p, c_int64, *[ADDRESS] * 5),
}  # fmt: skip
"""Name -> type of the result, types of the arguments."""


def load() -> ctypes.CDLL:
    """Returns the library.

    Raises:
        NativeError: There is none here.
    """
    found = _find()
    if isinstance(found, str):
        raise NativeError(found)
    return found


def why_not() -> str | None:
    """Returns why the native decoder cannot be used here, or None if it can."""
    if os.environ.get(OFF) == "0":
        return f"the native decoder is turned off ({OFF}=0)"
    found = _find()
    return found if isinstance(found, str) else None


def instructions() -> str:
    """Returns what runs here: "amx", "avx512bf16", "avx512", "avxvnni" or "avx2", on ARM "dotprod" or "neon", else "portable"; GLMKIT_INSTRUCTIONS says the most of them."""
    return load().glmkit_instructions().decode()


def check(library: ctypes.CDLL, status: int) -> int:
    """Returns a result of the library, or raises the error that it reports.

    Raises:
        NativeError: `status` is negative.
    """
    if status < 0:
        raise NativeError(f"the native decoder was given {library.glmkit_error().decode()}")
    return status


@cache
def _find() -> ctypes.CDLL | str:
    if sys.byteorder != "little":
        return "the native decoder needs a little-endian processor"
    path = Path(__file__).with_name(NAME)
    if not path.is_file():
        return (
            "the native decoder was not built when glmkit was installed (it needs a C++20 compiler); "
            "install one, for example g++ or clang++, and reinstall glmkit"
        )
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        found = library.glmkit_interface()
    except (OSError, AttributeError) as problem:
        return f"the native decoder cannot be loaded ({problem}); reinstall glmkit"
    if found != INTERFACE:
        return f"the native decoder is of another version of glmkit (interface {found}, not {INTERFACE}); reinstall glmkit"
    return library

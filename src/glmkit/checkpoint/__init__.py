"""Folders of weights on disk, in three formats, to and from one configuration dict and one state dict.

In: a folder (or a hub's name) of the published hub format, of the original training code (one or several
model-parallel shards), or of glmkit. Out: `Checkpoint`, whose weights carry the same names whatever the
format. This package knows tensors and files, never a model class; nothing in a file is ever executed.

    resolve            name or path -> local folder
    read_checkpoint    folder -> Checkpoint(format, config, state_dict, ...)
    check_state_dict   state dict against expected names and shapes, one error with all problems
    write_checkpoint   config, state dict -> folder

Names below are imported when first used: weights that are stored quantized (`quantized`) need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glmkit.checkpoint.checking import check_state_dict
    from glmkit.checkpoint.configs import normalize_config
    from glmkit.checkpoint.folders import new_folder
    from glmkit.checkpoint.hub import resolve
    from glmkit.checkpoint.reading import Checkpoint, detect_format, read_checkpoint, read_config
    from glmkit.checkpoint.writing import write_checkpoint, write_files

__all__ = [
    "Checkpoint",
    "check_state_dict",
    "detect_format",
    "new_folder",
    "normalize_config",
    "read_checkpoint",
    "read_config",
    "resolve",
    "write_checkpoint",
    "write_files",
]

_LAZY = {
    "Checkpoint": "reading",
    "check_state_dict": "checking",
    "detect_format": "reading",
    "new_folder": "folders",
    "normalize_config": "configs",
    "read_checkpoint": "reading",
    "read_config": "reading",
    "resolve": "hub",
    "write_checkpoint": "writing",
    "write_files": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glmkit.checkpoint' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"glmkit.checkpoint.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""An adapter's folder: its files, its base, what reads its media. Knows no weights.

In: a folder. Out: whether it is an adapter, the model below it, the folder of its media.
"""

from __future__ import annotations

from pathlib import Path

from glmkit.checkpoint.configs import read_json
from glmkit.checkpoint.hub import resolve
from glmkit.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

MEDIA_FOLDER = "media"
"""In a model's (or adapter's) folder: what reads its media (`multimodal`)."""

HEAD_WEIGHTS = "head.safetensors"
"""A classification head, beside the adapter: PEFT's `modules_to_save` goes by the ends of names, and the head's first layer
is called `dense` like one of each attention."""


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder holds an adapter, not a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(folder: Path) -> str:
    """Returns the folder or hub name of an adapter's base model.

    Raises:
        CheckpointError: The adapter does not say.
    """
    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(
            f"{folder} is an adapter that does not name its base model; set base_model_name_or_path in "
            f"{ADAPTER_CONFIG}"
        )
    return str(base)


def root_of(folder: Path) -> Path:
    """Returns the folder of the model below an adapter, or below an adapter of an adapter; a model's own folder.

    Raises:
        CheckpointError: An adapter does not name its base, or the base is not where it was.
    """
    return root_of(resolve(base_of(folder))) if is_adapter(folder) else folder


def media_folder(folder: Path) -> Path | None:
    """Returns the folder of what reads the media of a model, or of an adapter or else of its base; None where there is none."""
    if (folder / MEDIA_FOLDER / "config.json").is_file():
        return folder / MEDIA_FOLDER
    known = folder.is_dir() and is_adapter(folder)
    return media_folder(resolve(base_of(folder))) if known else None

"""A name or path -> a local folder.

In: an embedded model's name, a path, or a name on the hub such as `THUDM/glm-large-chinese`. Out: a folder with
configuration, weights and vocabulary; a hub's is downloaded once through huggingface-hub, only the files that
glmkit reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from glmkit.embedded import EMBEDDED, embedded_folder
from glmkit.errors import CheckpointError, nearest

_BESIDES = ["*.json", "*.model", "vocab.txt", "merges.txt", "*.jinja", "tasks/*.yaml", "media/*"]
_SAFETENSORS = [
    "model*.safetensors",
    "adapter_model.safetensors",
    "head.safetensors",
    "quantized.safetensors",
]
"""Weights of a model, of an adapter and its head, and what `glmkit convert --quantize` writes."""
_PICKLES = ["pytorch_model*.bin"]
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def resolve(
    path_or_name: str | Path,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Returns the local folder of a checkpoint, downloading it where a hub name is given.

    Args:
        path_or_name: The name of an embedded model (`glm-mini`), an existing path, or a hub name `owner/name`.
        revision: Branch, tag or commit on the hub.
        cache_dir: Where huggingface-hub keeps downloads; its own default otherwise.
        token: As in huggingface-hub.
        local_files_only: Use what is cached, never the network.
        force_download: Download again.

    Raises:
        CheckpointError: No such path, or the name can neither be found in the cache nor downloaded.
    """
    if (embedded := embedded_folder(path_or_name)) is not None:
        return embedded
    path = Path(path_or_name).expanduser()
    if path.exists():
        return path
    name = str(path_or_name)
    if isinstance(path_or_name, Path) or not _is_hub_name(name):
        raise CheckpointError(f"There is no {path}{_neighbours(path)}")
    options: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    return _download(name, options)


def _download(name: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = _BESIDES + _SAFETENSORS
        folder = Path(snapshot_download(name, allow_patterns=patterns, **options))
        if not any(folder.glob("*.safetensors")):
            patterns = _BESIDES + _PICKLES
            folder = Path(snapshot_download(name, allow_patterns=patterns, **options))
    except Exception as error:
        # The HTTP client, and with it the errors' base class, varies with huggingface-hub's version.
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"There is no folder {name!r} here{_neighbours(Path(name))} It could not be had from the hub either "
            f"({type(error).__name__}: {reason}), and the local cache has no copy of it. On a machine with a "
            f"connection run `hf download {name} --local-dir FOLDER`, copy FOLDER here, and pass its path."
        ) from error
    return folder


def _is_hub_name(text: str) -> bool:
    return bool(_HUB_NAME.fullmatch(text)) and not text.startswith(".")


def _neighbours(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" (nor a folder {parent})." if parent != Path(".") else "."
    embedded = EMBEDDED if parent == Path(".") else ()
    return nearest(path.name, [*embedded, *(child.name for child in parent.iterdir())]) or "."

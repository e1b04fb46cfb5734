"""A folder of the original training code (Megatron/DeepSpeed layout) -> merged weights and configuration.

    ROOT/latest_checkpointed_iteration.txt, ROOT/latest      the name of the iteration's folder
    ROOT/1000/mp_rank_00_model_states.pt, mp_rank_01_...     one file per model-parallel rank
    ROOT/1000/glmkit_config.json                             only where glmkit wrote the folder

In: ROOT, the iteration's folder, or one of its files. Source of the layout: THUDM/GLM, `utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmkit.checkpoint.configs import infer_config, read_json
from glmkit.checkpoint.files import read_pickle, require_tensors
from glmkit.checkpoint.naming import plain_name
from glmkit.checkpoint.shards import merge_state_dicts
from glmkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from glmkit.checkpoint.files import MapLocation

LATEST_FILES = ("latest_checkpointed_iteration.txt", "latest")
SIDECAR = "glmkit_config.json"
_SHARD = re.compile(r"mp_rank_(\d+)_model_states\.pt")


def is_training_folder(path: Path) -> bool:
    """Returns whether a path is a training folder, one of its iterations, or one of its files."""
    if path.is_file():
        return path.suffix == ".pt"
    return any((path / name).is_file() for name in LATEST_FILES) or bool(
        _ranks(path) or _iterations(path)
    )


def shard_files(path: Path) -> list[Path]:
    """Returns the files of all model-parallel ranks, in rank order.

    Args:
        path: The training folder, an iteration's folder, or a `.pt` file (`is_training_folder`).

    Raises:
        CheckpointError: Several iterations and none named latest, or a rank's file is missing.
    """
    if path.is_file():
        if not _SHARD.fullmatch(path.name):
            return [path]
        path = path.parent
    elif not _ranks(path):
        path = _latest_iteration(path)
    ranks = _ranks(path)
    if absent := sorted(set(range(max(ranks) + 1)) - set(ranks)):
        raise CheckpointError(
            f"{path} lacks the model-parallel shard mp_rank_{absent[0]:02d}_model_states.pt: ranks "
            f"{sorted(ranks)} are there."
        )
    return [ranks[rank] for rank in sorted(ranks)]


def read_training_folder(
    path: Path, map_location: MapLocation = "cpu", num_attention_heads: int | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Returns (configuration, merged weights under their names in the file).

    Args:
        path: As for `shard_files`.
        map_location: Where tensors go.
        num_attention_heads: Used where the folder does not tell; see `infer_config`.

    Raises:
        CheckpointError: A shard is missing, unreadable or of another checkpoint, or the configuration
            cannot be known.
    """
    files = shard_files(path)
    shards = [read_pickle(file, map_location) for file in files]
    for file, shard in zip(files, shards, strict=True):
        _require_shard(file, shard, len(files))
    state = merge_state_dicts([shard["module"] for shard in shards])
    return _config(files[0], shards[0], state, num_attention_heads), state


def _config(
    file: Path, shard: Mapping[str, Any], state: Mapping[str, torch.Tensor], heads: int | None
) -> dict[str, Any]:
    sidecar = file.parent / SIDECAR
    if sidecar.is_file():
        stored = read_json(sidecar)
        if heads not in (None, stored.get("num_attention_heads")):
            raise CheckpointError(
                f"num_attention_heads={heads} was given, but {sidecar} says "
                f"{stored.get('num_attention_heads')}."
            )
        return stored
    arguments = shard.get("args")
    arguments = arguments if isinstance(arguments, dict) else getattr(arguments, "__dict__", {})
    shapes = {plain_name(name): tuple(tensor.shape) for name, tensor in state.items()}
    return infer_config(shapes, arguments, heads)


def _require_shard(file: Path, shard: Any, files: int) -> None:
    if not isinstance(shard, dict) or not isinstance(shard.get("module"), dict):
        found = sorted(map(str, shard))[:8] if isinstance(shard, dict) else type(shard).__name__
        raise CheckpointError(
            f"{file} is not a file of the training code: it has no dict 'module' (found: {found})."
        )
    require_tensors(shard["module"], file)
    size = shard.get("mp_world_size")
    if isinstance(size, int) and size != files:
        raise CheckpointError(
            f"{file} is one of {size} model-parallel shards, but {files} file(s) are there; all of "
            f"mp_rank_00 ... mp_rank_{size - 1:02d} are needed."
        )


def _ranks(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    found = ((_SHARD.fullmatch(file.name), file) for file in folder.iterdir())
    return {int(match.group(1)): file for match, file in found if match}


def _iterations(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and _ranks(child))


def _latest_iteration(root: Path) -> Path:
    named = {}
    for name in LATEST_FILES:
        if (root / name).is_file():
            named[name] = (root / name).read_text(encoding="utf-8", errors="replace").strip()
    tags = set(named.values())
    iterations = _iterations(root)
    if len(tags) > 1:
        said = ", ".join(f"{name} says {tag!r}" for name, tag in named.items())
        raise CheckpointError(f"In {root}, {said}. Pass the folder of the iteration that you want.")
    if tags:
        tag = tags.pop()
        if tag not in iterations:
            raise CheckpointError(
                f"{root / next(iter(named))} names the iteration {tag!r}, but there is no "
                f"{tag}/mp_rank_00_model_states.pt; iterations there: {', '.join(iterations) or 'none'}."
            )
        return root / tag
    if len(iterations) > 1:
        raise CheckpointError(
            f"{root} has several iterations ({', '.join(iterations)}) and no "
            "latest_checkpointed_iteration.txt. Pass the folder of the one that you want."
        )
    return root / iterations[0]

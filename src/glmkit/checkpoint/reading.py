"""A folder of any known format -> `Checkpoint`: one configuration dict, one state dict.

In: a local path (`resolve` makes one of a hub name). Out: weights under the same names whatever the format,
on the CPU memory-mapped where the file allows it. Does not know what shapes a model expects
(`check_state_dict` does) nor any model class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from glmkit.checkpoint.adapters import is_adapter
from glmkit.checkpoint.architecture import Architecture
from glmkit.checkpoint.configs import MODEL_TYPE, normalize_config, read_json, require_this_glm
from glmkit.checkpoint.files import read_tensors
from glmkit.checkpoint.mapped import map_arrays
from glmkit.checkpoint.megatron import is_training_folder, read_training_folder
from glmkit.checkpoint.naming import PREFIX, plain_names
from glmkit.checkpoint.quantized import FILE as QUANTIZED
from glmkit.checkpoint.quantized import NativeWeights, check_shapes, shapes_of
from glmkit.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from glmkit.checkpoint.files import MapLocation

T = TypeVar("T", bound="torch.Tensor | np.ndarray")

Format = Literal["glmkit", "hub", "megatron"]
FORMATS: tuple[Format, ...] = ("glmkit", "hub", "megatron")

CONFIG = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; each also sharded, with `<name>.index.json`. A quantized folder has `quantized.safetensors` instead."""


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a folder.

    Attributes:
        format: How the folder is laid out.
        config: Keyword arguments of the model's configuration.
        state_dict: Name -> tensor; backbone names without prefix (`word_embeddings.weight`,
            `transformer.layers.0...`), heads under their own names. May be memory-mapped: copy before the
            file changes. Of a quantized folder the numbers that its weights stand for, in float32.
        path: Where it was read.
        source_dtype: The type in which the word embeddings are stored.
    """

    format: Format
    config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    path: Path
    source_dtype: torch.dtype


def detect_format(path: str | Path) -> Format:
    """Returns the format of a local folder (or `.pt` file).

    Raises:
        CheckpointError: There is nothing, it is of another model, or of no known format.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        raw = read_json(path / CONFIG)
        require_this_glm(raw)
        return "glmkit" if raw.get("model_type") == MODEL_TYPE else "hub"
    if is_training_folder(path):
        return "megatron"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist.")
    found = "a file" if path.is_file() else ", ".join(sorted(p.name for p in path.iterdir())[:8])
    raise CheckpointError(
        f"{path} is no checkpoint that glmkit knows (found: {found or 'an empty folder'}). Expected is a "
        f"folder with {CONFIG} and {' or '.join(WEIGHT_FILES)}, or a training folder with "
        "latest_checkpointed_iteration.txt or mp_rank_00_model_states.pt."
    )


def read_config(path: str | Path, *, num_attention_heads: int | None = None) -> dict[str, Any]:
    """Returns the keyword arguments of the model's configuration without reading any weights.

    Args:
        path: As for `read_checkpoint`.
        num_attention_heads: As for `read_checkpoint`.

    Raises:
        CheckpointError: As for `read_checkpoint`.
    """
    path = Path(path)
    if detect_format(path) == "megatron":
        return normalize_config(read_training_folder(path, "meta", num_attention_heads)[0])
    return _with_heads(normalize_config(read_json(path / CONFIG)), num_attention_heads, path)


def read_checkpoint(
    path: str | Path,
    *,
    map_location: MapLocation = "cpu",
    num_attention_heads: int | None = None,
) -> Checkpoint:
    """Reads configuration and weights; executes nothing that the files contain.

    Args:
        path: A hub-format or glmkit folder; a training folder, one of its iterations or `.pt` files.
        map_location: Device of the tensors.
        num_attention_heads: For a training folder of an unpublished size, which does not tell it.

    Returns:
        The checkpoint, whose `config` goes into the model's configuration.

    Raises:
        CheckpointError: Unknown format or model; a file missing, cut short, damaged, or naming Python code;
            shards that do not belong together; a training folder that does not tell its number of heads.
    """
    path = Path(path)
    format_ = detect_format(path)
    if format_ == "megatron":
        raw, state = read_training_folder(path, map_location, num_attention_heads)
        config = normalize_config(raw)
    else:
        config = read_config(path, num_attention_heads=num_attention_heads)
        if (path / QUANTIZED).is_file():
            unpacked = NativeWeights.load(path).state_dict()
            state = {name: tensor.to(map_location) for name, tensor in unpacked.items()}
        else:
            state = _read_weights(path, partial(read_tensors, map_location=map_location))
    state = plain_names(state)
    embedding = state.get("word_embeddings.weight")
    if embedding is None:
        raise CheckpointError(
            f"The weights in {path} have no 'word_embeddings.weight', so they are not a GLM's; found "
            f"{', '.join(list(state)[:5]) or 'nothing'}."
        )
    return Checkpoint(format_, config, state, path, embedding.dtype)


def map_weights(path: Path) -> tuple[Architecture, dict[str, np.ndarray] | NativeWeights] | None:
    """Returns configuration and weights of a folder whose safetensors need nothing of torch, mapped into memory.

    Returns:
        The weights under a model's names (`glm.…`), bfloat16 as the uint16 of its bits; or packed ones. None where `read_checkpoint`
        is to be asked: of other files, an adapter, a head, and of all that is wrong, which it says.

    Raises:
        CheckpointError: Packed weights cannot be read, or do not fit the configuration.
        ConfigError: Beside packed weights it says what cannot be.
    """
    if is_adapter(path) or not (path / CONFIG).is_file():
        return None
    if (path / QUANTIZED).is_file():
        config, weights = Architecture.from_folder(path), NativeWeights.load(path)
        check_shapes(config, weights, str(path))
        return config, weights
    try:
        config = Architecture.from_folder(path)
        found = plain_names(_read_weights(path, lambda file: map_arrays(file)[1]))
    except (CheckpointError, ConfigError, OSError, ValueError):
        return None
    state = {f"{PREFIX}{name}": array for name, array in found.items()}
    numbers = {array.dtype.name for array in state.values()}
    fits = {name: array.shape for name, array in state.items()} == shapes_of(config)
    return (config, state) if fits and numbers <= {"float32", "float16", "uint16"} else None


def torch_weights(path: Path) -> tuple[Architecture, dict[str, torch.Tensor]] | None:
    """As `map_weights`, of pickled files and training folders: torch maps them into memory (reads them, where they are older than its zip).

    Returns:
        None where a model is to be made of them: an adapter, a head, other shapes than the configuration tells.

    Raises:
        CheckpointError: As for `read_checkpoint`.
    """
    if is_adapter(path):
        return None
    found = read_checkpoint(path)
    config = Architecture.of({"model_type": MODEL_TYPE, **found.config})
    state = {f"{PREFIX}{name}": tensor for name, tensor in found.state_dict.items()}
    fits = {name: tuple(one.shape) for name, one in state.items()} == shapes_of(config)
    return (config, state) if fits else None


def _with_heads(config: dict[str, Any], heads: int | None, path: Path) -> dict[str, Any]:
    if heads not in (None, config.get("num_attention_heads")):
        raise CheckpointError(
            f"num_attention_heads={heads} was given, but {path / CONFIG} says "
            f"{config.get('num_attention_heads')}."
        )
    return config


def _read_weights(folder: Path, read: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    """Returns the weights of a folder, each of whose files `read` reads."""
    for name in WEIGHT_FILES:
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file() and index.is_file():
            raise CheckpointError(
                f"{folder} has both {name} and {index.name}; remove the one that is not meant."
            )
        if single.is_file():
            return read(single)
        if index.is_file():
            return _read_indexed(index, read)
    stray = sorted(p.name for p in folder.iterdir() if "-of-" in p.name)
    hint = f" {len(stray)} shards ({stray[0]} ...) are there, but no index file." if stray else ""
    raise CheckpointError(
        f"{folder} has a {CONFIG} but no weights ({', '.join(WEIGHT_FILES)}, or one of them in shards with "
        f"its .index.json).{hint}"
    )


def _read_indexed(index: Path, read: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no 'weight_map' from tensor names to files.")
    files = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in files if Path(name).name != name]:
        raise CheckpointError(f"{index} names {outside[0]!r}, which is no file of its own folder.")
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index} names {len(files)} files, of which {len(absent)} are missing: {', '.join(absent[:5])}."
        )
    state: dict[str, T] = {}
    for name in files:
        shard = read(index.parent / name)
        listed = {tensor for tensor, file in weight_map.items() if file == name}
        if lacking := sorted(listed - set(shard)):
            raise CheckpointError(
                f"{index} says that {lacking[0]!r} is in {name}, but it is not there."
            )
        if unlisted := sorted(set(shard) - listed):
            raise CheckpointError(
                f"{index.parent / name} has {unlisted[0]!r}, which {index.name} lacks."
            )
        state.update(shard)
    return state

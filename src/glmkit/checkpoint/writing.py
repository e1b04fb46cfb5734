"""One configuration dict and one state dict -> a folder in any of the three formats.

hub       config.json (the original's fields), pytorch_model.bin, in shards above `max_shard_size`
glmkit    config.json (model_type "glm_infilling"), model.safetensors, in shards above `max_shard_size`
megatron  ITERATION/mp_rank_0x_model_states.pt, one per model-parallel rank, and the files naming it;
glmkit_config.json beside them, since this format has no place for a configuration
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from glmkit.checkpoint.configs import HUB_DEFAULTS, MODEL_TYPE, hub_config
from glmkit.checkpoint.folders import new_folder
from glmkit.checkpoint.megatron import LATEST_FILES, SIDECAR
from glmkit.checkpoint.naming import head_names, plain_names, published_names
from glmkit.checkpoint.reading import CONFIG, FORMATS
from glmkit.checkpoint.shards import split_state_dict
from glmkit.errors import CheckpointError, nearest

State = Mapping[str, torch.Tensor]


def write_checkpoint(
    folder: str | Path,
    format: str,
    config: Mapping[str, Any],
    state_dict: State,
    *,
    shards: int = 1,
    dtype: torch.dtype | None = None,
    iteration: int = 1,
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
) -> Path:
    """Writes a checkpoint; the folder appears when it is complete.

    Args:
        folder: The target; must be absent or empty unless `overwrite`.
        format: "glmkit", "hub" or "megatron".
        config: All fields of the model's configuration.
        state_dict: Name -> tensor, with or without the prefix `glm.`.
        shards: Model-parallel shards; for "megatron" only.
        dtype: Floating type to store; as given by default.
        iteration: Name of the iteration's folder; for "megatron" only.
        max_shard_size: In bytes or such as "5GB"; larger weights are cut into several files ("glmkit",
            "hub").
        overwrite: Replace an existing checkpoint (never a folder that is none).

    Returns:
        The folder.

    Raises:
        CheckpointError: Unknown format, the target is taken, the format cannot express the model, or a
            tensor cannot be cut into `shards`.
    """
    with new_folder(folder, overwrite=overwrite) as temporary:
        write_files(
            temporary,
            format,
            config,
            state_dict,
            shards=shards,
            dtype=dtype,
            iteration=iteration,
            max_shard_size=max_shard_size,
        )
    return Path(folder)


def write_files(
    folder: Path,
    format: str,
    config: Mapping[str, Any],
    state_dict: State,
    *,
    shards: int = 1,
    dtype: torch.dtype | None = None,
    iteration: int = 1,
    max_shard_size: int | str = "5GB",
) -> None:
    """Writes a checkpoint's files into an existing folder; arguments and errors of `write_checkpoint`."""
    if format not in FORMATS:
        raise CheckpointError(
            f"Unknown format {format!r}; allowed: {', '.join(FORMATS)}{nearest(format, FORMATS)}"
        )
    if shards != 1 and format != "megatron":
        raise CheckpointError(
            f"shards={shards} is for the format 'megatron' (model-parallel ranks); {format!r} is cut by "
            "max_shard_size."
        )
    state = plain_names(dict(state_dict))
    if "word_embeddings.weight" not in state:
        raise CheckpointError(
            "The weights have no 'word_embeddings.weight', so they are not a GLM's."
        )
    if format != "glmkit":
        _require_expressible(config)
    state = {name: _stored(tensor, dtype) for name, tensor in state.items()}
    dtype_name = str(state["word_embeddings.weight"].dtype).removeprefix("torch.")
    own_config = {**config, "model_type": MODEL_TYPE, "dtype": dtype_name}
    if format == "megatron":
        _write_training_files(folder, own_config, state, shards, iteration)
    elif format == "hub":
        raw = hub_config(config, dtype_name, _architecture(state))
        _write_json(folder / CONFIG, raw)
        _write_sharded(folder, "pytorch_model", ".bin", published_names(state), max_shard_size)
    else:
        _write_json(folder / CONFIG, own_config)
        _write_sharded(folder, "model", ".safetensors", published_names(state), max_shard_size)


def _require_expressible(config: Mapping[str, Any]) -> None:
    """The original's code has the width of the MLP built in."""
    missing = [name for name in HUB_DEFAULTS if name not in config]
    if missing:
        raise CheckpointError(f"The configuration lacks {', '.join(missing)}; give all its fields.")
    width, hidden = config.get("intermediate_size"), config["hidden_size"]
    if width not in (None, 4 * hidden):
        raise CheckpointError(
            f"intermediate_size={width} is not 4 x hidden_size ({4 * hidden}), which is the only width that the "
            "original formats can express; write the format 'glmkit'."
        )


def _stored(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    tensor = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)
    tensor = tensor.contiguous()
    # torch.save writes the whole storage behind a view.
    is_view = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.clone() if is_view else tensor


def _architecture(state: State) -> str:
    heads = head_names(dict(state))
    if any(name.startswith(("dense.", "out_proj.")) for name in heads):
        return "GLMForSequenceClassification"
    if any(name.startswith("tag_proj.") for name in heads):
        return "GLMForTokenClassification"
    return "GLMForConditionalGeneration"


def _write_training_files(
    folder: Path,
    config: Mapping[str, Any],
    state: dict[str, torch.Tensor],
    shards: int,
    iteration: int,
) -> None:
    inner = folder / str(iteration)
    inner.mkdir()
    for rank, module in enumerate(split_state_dict(state, shards)):
        contents: dict[str, Any] = {
            "module": module,
            "optimizer": None,
            "lr_scheduler": None,
            "csr_tensor_module_names": set(),
            "skipped_steps": 0,
            "global_steps": iteration,
            "dp_world_size": 1,
            "mp_world_size": shards,
            "iteration": iteration,
            "client_lr_scheduler": {},
        }
        torch.save(contents, inner / f"mp_rank_{rank:02d}_model_states.pt")
    _write_json(inner / SIDECAR, config)
    for name in LATEST_FILES:
        (folder / name).write_text(f"{iteration}\n", encoding="utf-8")


def _write_sharded(
    folder: Path, stem: str, suffix: str, state: dict[str, torch.Tensor], max_shard_size: int | str
) -> None:
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern=f"{stem}{{suffix}}{suffix}", max_shard_size=max_shard_size
    )
    for name, tensors in plan.filename_to_tensors.items():
        part = {tensor: state[tensor] for tensor in tensors}
        if suffix == ".safetensors":
            save_file(part, folder / name, metadata={"format": "pt"})
        else:
            torch.save(part, folder / name)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        _write_json(folder / f"{stem}{suffix}.index.json", index)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")

"""A model -> its folder with quantized weights, and what that changed.

In: a folder in any known format, or a hub name. Out: the folder that `loading.load_model` maps into memory, and a `QuantizationReport`.
Weights are packed from the mapped file into another, a matrix in memory at a time: safetensors without torch, pickled ones by it. Where
they are no plain GLM's (an adapter, virtual tokens), torch makes a model of them first.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from glmkit.checkpoint import new_folder, resolve
from glmkit.checkpoint.adapters import MEDIA_FOLDER, media_folder
from glmkit.checkpoint.architecture import Architecture
from glmkit.checkpoint.configs import MODEL_TYPE, has_head, read_json
from glmkit.checkpoint.quantized import FILE, NativeWeights, State, check_quantization
from glmkit.checkpoint.reading import CONFIG, read_config
from glmkit.errors import CheckpointError
from glmkit.native.loading import plain_weights, refuse_virtual_tokens, torch_model
from glmkit.native.logits import relative_change
from glmkit.special_tokens import special_token_fields
from glmkit.whole_files import copy_matching

KEPT = ("*.json", "*.model", "*.txt", "*.jinja", "*.md", "tasks/*.yaml")
"""Files of a model's folder that a quantized one has too: vocabulary, calibrations, tasks, cards."""


@dataclass(frozen=True)
class QuantizationReport:
    """What was quantized, and what it changed.

    Attributes:
        source: What was read.
        target: What was written.
        quantization: "int8", "int4", or "bfloat16", which is stored in 12 bits.
        source_bytes: Of the weights before, as they were stored.
        target_bytes: Of the weights now.
        relative_change: How much the logits of fixed random input change: root mean square, in units of their own.
    """

    source: str
    target: Path
    quantization: str
    source_bytes: int
    target_bytes: int
    relative_change: float

    def __str__(self) -> str:
        return (
            f"{self.source} -> {self.target}, {self.quantization}: {self.source_bytes / 1e6:.1f} MB -> "
            f"{self.target_bytes / 1e6:.1f} MB\nlogits of random input change by {self.relative_change:.1%}; measure "
            "what that does to a task with `glmkit evaluate`"
        )


def quantize(
    source: str | Path,
    target: str | Path,
    quantization: str,
    *,
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
) -> QuantizationReport:
    """Writes a model's folder again with quantized weights; `glmkit.load` maps them into memory.

    Everything beside the weights (vocabulary, calibrations, tasks, what reads media) is copied along. The folder appears when it is complete.

    Args:
        source: A folder in any known format, or a hub name.
        target: Folder to write; absent or empty unless `overwrite`.
        quantization: "int8", "int4", or "bfloat16", which is stored in 12 bits.
        tokenizer: Folder with the vocabulary, where the source has none.
        overwrite: Replace an existing model.

    Raises:
        ConfigError: No such quantization.
        CheckpointError: The source cannot be read or has a head, or the target is taken.
        MissingDependencyError: Torch reads the source (pickled weights, an adapter, a training folder), and is not installed.
    """
    check_quantization(quantization)
    path = resolve(source)
    if (path / CONFIG).is_file() and has_head(read_json(path / CONFIG)):
        raise CheckpointError(
            f"{source} labels by a head, which a quantized folder has no place for; convert it with --dtype bfloat16"
        )
    config, state, size = _read(path, quantization)
    with new_folder(target, overwrite=overwrite) as temporary:
        for folder in dict.fromkeys((path, path if tokenizer is None else Path(tokenizer))):
            copy_matching(folder, temporary, KEPT)
        for index in temporary.glob("*.index.json"):
            index.unlink()
        if (media := media_folder(path)) is not None:
            shutil.copytree(media, temporary / MEDIA_FOLDER)
        config.save(temporary)
        NativeWeights.write(temporary, config, state, quantization)
    weights = NativeWeights.load(Path(target))
    return QuantizationReport(
        source=str(source),
        target=Path(target),
        quantization=quantization,
        source_bytes=size,
        target_bytes=weights.nbytes,
        relative_change=relative_change(config, state, weights),
    )


def _read(path: Path, quantization: str) -> tuple[Architecture, State, int]:
    """Returns configuration, weights, and their bytes as they are stored; by torch what is no plain safetensors."""
    found = plain_weights(path)
    if found is None:
        model = torch_model(path)
        if model.glm.virtual_tokens is not None:
            refuse_virtual_tokens(path, quantization, None)
        size = sum(parameter.nbytes for parameter in model.parameters())
        return Architecture.of(model.config.to_dict()), model.state_dict(), size
    _, state = found
    told = {"model_type": MODEL_TYPE, **special_token_fields(path), **read_config(path)}
    if isinstance(state, NativeWeights):
        return Architecture.of(told), state, (path / FILE).stat().st_size
    return Architecture.of(told), state, sum(array.nbytes for array in state.values())

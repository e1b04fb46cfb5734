"""A checkpoint -> the model that reads and writes fastest here: on the native decoder, or on torch.

In: a folder in any known format, or one that `quantize` wrote; device, number type, quantization, backend. Out: a `NativeModel` or
a `GLMForConditionalGeneration`.

    on a CPU, in float32 or bfloat16, or quantized    the native decoder, where glmkit was installed with it
    on a GPU of NVIDIA or AMD                         torch, which writes by steps captured as CUDA graphs; int8 weights stay so
    else, or with backend="torch"                     torch; quantized weights are unpacked
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glmkit.checkpoint import new_folder, resolve
from glmkit.checkpoint.adapters import MEDIA_FOLDER, media_folder
from glmkit.checkpoint.configs import has_head
from glmkit.checkpoint.files import read_json
from glmkit.checkpoint.quantized import FILE, NativeWeights, check_quantization
from glmkit.checkpoint.reading import CONFIG
from glmkit.errors import CheckpointError, ConfigError, nearest
from glmkit.model import GLMConfig
from glmkit.model.adapters import load_merged
from glmkit.model.int8 import int8_model, to_int8
from glmkit.native.library import NativeError, why_not
from glmkit.native.model import NativeModel, unpacked
from glmkit.whole_files import copy_matching

if TYPE_CHECKING:
    from glmkit.model import GLMForConditionalGeneration

logger = logging.getLogger(__name__)

BACKENDS = ("native", "torch", "graphs")

QUANTIZED = ("int8", "int4")

KEPT = ("*.json", "*.model", "*.txt", "*.jinja", "*.md", "tasks/*.yaml")
"""Files of a model's folder that a quantized one has too: vocabulary, calibrations, tasks, cards."""


def load_model(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    backend: str | None = None,
    **options: Any,
) -> Any:
    """Loads a model.

    Args:
        path: Its folder or file.
        device: Where it computes.
        dtype: Its number type (of the activations too, with torch).
        quantization: "int8" or "int4"; by default as the folder is stored.
        backend: "native", "graphs" (`generation.graphs`), "torch", or None to choose.
        **options: Of `GLMForConditionalGeneration.from_pretrained`; with any the model is a torch one. Weights that are stored
            quantized take `attn_implementation` alone.

    Raises:
        ConfigError: An unknown quantization or backend; a quantization that the device does not have (a CPU has both, a GPU of
            NVIDIA or AMD "int8"); graphs on a device that is no GPU; an option that quantized weights do not take, or an attention
            that there is not.
        NativeError: `backend="native"` where the native decoder is not.
        CheckpointError: The weights cannot be read.
    """
    _check_given(device, quantization, backend)
    format = quantization or str(dtype).removeprefix("torch.")
    weights = _stored(path, quantization)
    if weights is not None:
        format = weights.quantization
        if others := sorted(options.keys() - {"attn_implementation"}):
            raise ConfigError(
                f"{', '.join(others)}: {path} has weights of {format}, which take no such option; leave it out"
            )
    refusal = _why_torch(device, format, options)
    if backend == "native" and refusal is not None:
        raise NativeError(refusal)
    if (
        quantization is not None
        and device.type != "cpu"
        and (device.type, quantization) != ("cuda", "int8")
    ):
        raise ConfigError(
            f"quantization={quantization!r} is for the CPU, the device is {device}; leave it out, or pass device='cpu'"
            + (", or take 'int8'" if device.type == "cuda" else "")
        )
    native = backend in (None, "native") and refusal is None
    if weights is None:
        model = _torch_model(path, dtype=torch.float32 if quantization else dtype, **options)
        if model.glm.virtual_tokens is not None:
            _refuse_virtual_tokens(path, quantization, backend)
            native = False
        if not native and quantization is None:
            return _on(device, model, backend)
        if device.type == "cuda":
            return _on(device, to_int8(model, device).to(dtype), backend)
        weights = NativeWeights.of(model.config, model.state_dict(), format)
        config = model.config
        del model  # before its weights are needed twice
    else:
        config = GLMConfig.from_pretrained(path)
    if native:
        return NativeModel(config, weights)
    if device.type == "cpu" and backend is None and not options:
        logger.warning(
            "%s; weights of %s are unpacked and computed by torch, slower and in float32",
            refusal,
            format,
        )
    made: Any = int8_model if device.type == "cuda" and format == "int8" else unpacked
    model = made(config, weights).to(dtype)
    if asked := options.get("attn_implementation"):
        from glmkit.model.attention_names import check_attention

        check_attention(asked)
        model.set_attn_implementation(asked)
    return _on(device, model, backend)


def _check_given(device: torch.device, quantization: str | None, backend: str | None) -> None:
    """Complains about names that there are not, and about graphs on a device that has none."""
    if backend not in (None, *BACKENDS):
        raise ConfigError(
            f"no backend {backend!r}; there are {', '.join(BACKENDS)}{nearest(str(backend), BACKENDS)}"
        )
    if quantization is not None and quantization not in QUANTIZED:
        raise ConfigError(
            f"no quantization {quantization!r}; there are {', '.join(QUANTIZED)}{nearest(quantization, QUANTIZED)}"
        )
    if backend == "graphs" and device.type != "cuda":
        raise ConfigError(
            f"backend='graphs' is for GPUs of NVIDIA or AMD, the device is {device}; leave it out, or pass device='cuda'"
        )


def _stored(path: Path, quantization: str | None) -> NativeWeights | None:
    """Returns the quantized weights of a folder, or None where it has none of the quantization that is wanted."""
    weights = NativeWeights.load(path) if (path / FILE).is_file() else None
    if weights is None or quantization in (None, weights.quantization):
        return weights
    logger.info(
        "%s has weights of %s; %s is made of them and loses a little more than from the model itself",
        path,
        weights.quantization,
        quantization,
    )
    return None


def _torch_model(path: Path, **options: Any) -> Any:
    """Reads a model with torch; only here its classes, which take long to import, are needed."""
    from glmkit.model import GLMForConditionalGeneration

    return load_merged(GLMForConditionalGeneration, path, **options)


def _on(device: torch.device, model: Any, backend: str | None) -> Any:
    """Moves a torch model to where it computes; on a GPU it writes with captured steps unless `backend` is "torch"."""
    model = model.to(device)
    if device.type == "cuda" and backend != "torch":
        from glmkit.generation.graphs import GraphDecoder

        model.make_runner = GraphDecoder(model).make_runner
    return model


def _why_torch(device: torch.device, format: str, options: dict[str, Any]) -> str | None:
    """Returns why the native decoder cannot run a model, or None if it can."""
    if device.type != "cpu":
        return f"the native decoder runs on CPUs, the device is {device}"
    if format == "float16":
        return "the native decoder computes in float32, bfloat16, int8 or int4, not in float16"
    if options:
        return f"{', '.join(sorted(options))}: options of the torch model"
    return why_not()


def _refuse_virtual_tokens(path: Path, quantization: str | None, backend: str | None) -> None:
    """Complains about what a model with an adapter's virtual tokens cannot be."""
    what = f"{path} is an adapter of virtual tokens, which torch alone reads"
    if backend == "native":
        raise NativeError(f"{what}; leave backend='native' out")
    if quantization is not None:
        raise ConfigError(f"{what}; leave quantization={quantization!r} out, or train LoRA and merge it")  # fmt: skip


@dataclass(frozen=True)
class QuantizationReport:
    """What was quantized, and what it changed.

    Attributes:
        source: What was read.
        target: What was written.
        quantization: "int8" or "int4".
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
        quantization: "int8" or "int4".
        tokenizer: Folder with the vocabulary, where the source has none.
        overwrite: Replace an existing model.

    Raises:
        ConfigError: No such quantization.
        CheckpointError: The source cannot be read or has a head, or the target is taken.
    """
    check_quantization(quantization)
    path = resolve(source)
    if (path / CONFIG).is_file() and has_head(read_json(path / CONFIG)):
        raise CheckpointError(
            f"{source} labels by a head, which a quantized folder has no place for; convert it with --dtype bfloat16"
        )
    model = _torch_model(path).eval()
    if model.glm.virtual_tokens is not None:
        _refuse_virtual_tokens(path, quantization, None)
    quantized = path / FILE
    if quantized.is_file():
        size = quantized.stat().st_size
    else:
        size = sum(parameter.nbytes for parameter in model.parameters())
    model = model.float()
    weights = NativeWeights.of(model.config, model.state_dict(), quantization)
    with new_folder(target, overwrite=overwrite) as temporary:
        for folder in dict.fromkeys((path, path if tokenizer is None else Path(tokenizer))):
            copy_matching(folder, temporary, KEPT)
        for index in temporary.glob("*.index.json"):
            index.unlink()
        if (media := media_folder(path)) is not None:
            shutil.copytree(media, temporary / MEDIA_FOLDER)
        model.config.save_pretrained(temporary)
        weights.save(temporary)
    return QuantizationReport(
        source=str(source),
        target=Path(target),
        quantization=quantization,
        source_bytes=size,
        target_bytes=weights.nbytes,
        relative_change=_relative_change(model, unpacked(model.config, weights)),
    )


@torch.inference_mode()
def _relative_change(
    model: GLMForConditionalGeneration, other: GLMForConditionalGeneration
) -> float:
    config, draw = model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(config.num_tokens or config.vocab_size, (4, 64), generator=draw)
    batch = {
        "input_ids": ids[:, : config.max_sequence_length],
        "prefix_lengths": torch.full((4,), 32),
    }
    expected, found = model(**batch).logits, other(**batch).logits
    return float((found - expected).square().mean().sqrt() / expected.std())

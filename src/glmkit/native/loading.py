"""A checkpoint -> the model that reads and writes fastest here: on the native decoder, or on torch.

In: a folder in any known format, or one that `quantizing.quantize` wrote; device, number type, quantization, backend. Out: a
`NativeModel` or a `GLMForConditionalGeneration`. Torch is imported where it is needed: not for weights in safetensors that run on the
native decoder.

    on a CPU, in float32 or bfloat16, or quantized    the native decoder, where glmkit was installed with it
    on a GPU of NVIDIA or AMD                         torch, which writes by steps captured as CUDA graphs; int8 weights stay so
    else, or with backend="torch"                     torch; quantized weights are unpacked
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from glmkit.checkpoint.adapters import is_adapter
from glmkit.checkpoint.architecture import Architecture
from glmkit.checkpoint.quantized import FILE, NativeWeights, State
from glmkit.checkpoint.reading import map_weights, torch_weights
from glmkit.errors import ConfigError, nearest, require_torch
from glmkit.native.library import NativeError, why_not
from glmkit.native.model import NativeModel, as_config, unpacked

logger = logging.getLogger(__name__)

BACKENDS = ("native", "torch", "graphs")

QUANTIZED = ("int8", "int4")


def load_model(
    path: Path,
    *,
    device: str,
    dtype: str,
    quantization: str | None = None,
    backend: str | None = None,
    **options: Any,
) -> Any:
    """Loads a model.

    Args:
        path: Its folder or file.
        device: Name of the device where it computes.
        dtype: Name of its number type (of the activations too, with torch).
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
        MissingDependencyError: What is asked for runs on torch, or is read by it, and it is not installed.
    """
    _check_given(device, quantization, backend)
    kind, format = device.partition(":")[0], quantization or dtype
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
    if quantization is not None and kind != "cpu" and (kind, quantization) != ("cuda", "int8"):
        raise ConfigError(
            f"quantization={quantization!r} is for the CPU, the device is {device}; leave it out, or pass device='cpu'"
            + (", or take 'int8'" if kind == "cuda" else "")
        )
    native = backend in (None, "native") and refusal is None
    mapped = plain_weights(path) if weights is None and native else None
    if mapped is not None:
        config, state = mapped
        weights = NativeWeights.of(config, state, format)
    elif weights is None:
        require_torch(*_why_needed(path, backend, refusal))
        if not native or is_adapter(path):
            options["dtype"] = "float32" if quantization else dtype
        # For the decoder as stored: packing rounds what is to be rounded.
        model = torch_model(path, **options)
        if model.glm.virtual_tokens is not None:
            refuse_virtual_tokens(path, quantization, backend)
            native = False
        if not native and quantization is None:
            return _on(device, model, backend)
        if kind == "cuda":
            from glmkit.model.int8 import to_int8

            return _on(device, _as_numbers(to_int8(model, device), dtype), backend)
        weights = NativeWeights.of(model.config, model.state_dict(), format)
        config = model.config
        del model  # before its weights are needed twice
    else:
        config = Architecture.from_folder(path)
    if native:
        return NativeModel(config, weights)
    require_torch(*_why_needed(path, backend, refusal))
    if kind == "cpu" and backend is None and not options:
        logger.warning(
            "%s; weights of %s are unpacked and computed by torch, slower and in float32",
            refusal,
            format,
        )
    if kind == "cuda" and format == "int8":
        from glmkit.model.int8 import int8_model

        model = int8_model(as_config(config), weights)
    else:
        model = unpacked(config, weights)
    model = _as_numbers(model, dtype)
    if asked := options.get("attn_implementation"):
        from glmkit.model.attention_names import check_attention

        check_attention(asked)
        model.set_attn_implementation(asked)
    return _on(device, model, backend)


def _check_given(device: str, quantization: str | None, backend: str | None) -> None:
    """Complains about names that there are not, and about graphs on a device that has none."""
    if backend not in (None, *BACKENDS):
        raise ConfigError(
            f"no backend {backend!r}; there are {', '.join(BACKENDS)}{nearest(str(backend), BACKENDS)}"
        )
    if quantization is not None and quantization not in QUANTIZED:
        raise ConfigError(
            f"no quantization {quantization!r}; there are {', '.join(QUANTIZED)}{nearest(quantization, QUANTIZED)}"
        )
    if backend == "graphs" and not device.startswith("cuda"):
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


def plain_weights(path: Path) -> tuple[Architecture, State] | None:
    """Returns a plain GLM's configuration and weights, mapped from its files, those in safetensors without torch.

    Returns:
        None where `torch_model` is to make a model of the folder.

    Raises:
        CheckpointError: The weights cannot be read.
        MissingDependencyError: Torch would read them, and is not installed.
    """
    found = map_weights(path)
    if found is None:
        require_torch(*_why_needed(path))
        return torch_weights(path)
    return found


def torch_model(path: Path, **options: Any) -> Any:
    """Returns the model of a folder, of an adapter merged into its base, on torch.

    Args:
        path: The folder.
        **options: Of `GLMForConditionalGeneration.from_pretrained`.

    Raises:
        CheckpointError: It cannot be read.
    """
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.model.adapters import load_merged

    return load_merged(GLMForConditionalGeneration, path, **options)


def _as_numbers(model: Any, dtype: str) -> Any:
    """Returns a torch model with its numbers in another type."""
    import torch

    return model.to(getattr(torch, dtype))


def _on(device: str, model: Any, backend: str | None) -> Any:
    """Moves a torch model to where it computes; on a GPU it writes with captured steps unless `backend` is "torch"."""
    model = model.to(device)
    if device.startswith("cuda") and backend != "torch":
        from glmkit.generation.graphs import GraphDecoder

        model.make_runner = GraphDecoder(model).make_runner
    return model


def _why_needed(
    path: Path, backend: str | None = None, refusal: str | None = None
) -> tuple[str, str]:
    """Returns for what torch is needed to load a model, in both languages."""
    if backend not in (None, "native"):
        return f"backend={backend!r}", f"backend={backend!r} "
    if refusal is not None:
        return f"{path} on torch ({refusal})", f"用 torch 运行 {path}（{refusal}）"
    if is_adapter(path):
        return f"The adapter {path}", f"适配器 {path} "
    return (
        f"{path}, whose weights are not the safetensors of a plain GLM (pickled files, a head, or damaged),",
        f"{path} 的权重不是普通 GLM 的 safetensors（可能是 pickle 文件、带任务头或已损坏），读取它",
    )


def _why_torch(device: str, format: str, options: dict[str, Any]) -> str | None:
    """Returns why the native decoder cannot run a model, or None if it can."""
    if not device.startswith("cpu"):
        return f"the native decoder runs on CPUs, the device is {device}"
    if format == "float16":
        return "the native decoder computes in float32, bfloat16, int8 or int4, not in float16"
    if options:
        return f"{', '.join(sorted(options))}: options of the torch model"
    return why_not()


def refuse_virtual_tokens(path: Path, quantization: str | None, backend: str | None) -> None:
    """Complains about what a model with an adapter's virtual tokens cannot be.

    Raises:
        NativeError: The native decoder is wanted.
        ConfigError: A quantization is.
    """
    what = f"{path} is an adapter of virtual tokens, which torch alone reads"
    if backend == "native":
        raise NativeError(f"{what}; leave backend='native' out")
    if quantization is not None:
        raise ConfigError(f"{what}; leave quantization={quantization!r} out, or train LoRA and merge it")  # fmt: skip

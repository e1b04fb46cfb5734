"""Low-rank adapters (LoRA) on a GLM, through PEFT: made, saved beside their base's name, loaded, merged.

In: a model, or a folder that PEFT wrote. Out: a `PeftModel`, or a plain model with the adapter merged into its weights.
PEFT is imported where it is used.

Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glmkit.checkpoint import resolve
from glmkit.checkpoint.files import read_json, read_tensors
from glmkit.errors import CheckpointError, ConfigError, missing_dependency
from glmkit.model.loading import HEADS

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

HEAD_WEIGHTS = "head.safetensors"
"""A classification head, beside the adapter: PEFT's `modules_to_save` goes by the ends of names, and the head's first layer
is called `dense` like one of each attention."""


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
) -> Any:
    """Returns the model with trainable adapters, all else frozen but a classification head.

    Args:
        model: A GLM.
        rank: Of the adapters.
        alpha: Their output is scaled by alpha / rank; by default 2 · rank.
        dropout: On their input.
        target_modules: Names of the Linears in the layers that get one; by default all.

    Raises:
        ConfigError: A layer has no Linear of such a name.
        MissingDependencyError: PEFT is not installed.
    """
    peft = _peft()
    from glmkit.model import LORA_TARGET_MODULES

    names = list(target_modules or LORA_TARGET_MODULES)
    if unknown := set(names) - set(LORA_TARGET_MODULES):
        raise ConfigError(
            f"lora.target_modules: a layer has no {', '.join(sorted(unknown))}; there are "
            f"{', '.join(LORA_TARGET_MODULES)}"
        )
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        # The layers' own: a head has a "dense" too.
        target_modules=rf".*\.layers\.\d+\..*\.({'|'.join(map(re.escape, names))})",
        task_type=None if hasattr(model, "out_proj") else "CAUSAL_LM",
    )
    with _without_warnings_of_peft():
        wrapped = peft.get_peft_model(model, settings)
    for name, parameter in model.named_parameters():
        if name.startswith(HEADS):
            parameter.requires_grad_(True)
    return wrapped


def save_adapter(model: Any, folder: Path) -> None:
    """Writes a `PeftModel`'s adapter, the classification head that was trained with it, and the configuration."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form of a model card, not filled in
    base = model.get_base_model()
    base.config.architectures = [type(base).__name__]
    base.config.save_pretrained(folder)
    head = {
        name: value.detach().cpu().contiguous()
        for name, value in base.state_dict().items()
        if name.startswith(HEADS)
    }
    if head:
        safetensors.torch.save_file(head, folder / HEAD_WEIGHTS, metadata={"format": "pt"})


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


def merge_adapter(model: Any, folder: Path) -> Any:
    """Returns the model with an adapter's change added to its weights; it is a plain model again.

    Args:
        model: The adapter's base, of the class that the adapter was trained on.
        folder: What `PeftModel.save_pretrained` wrote.

    Raises:
        CheckpointError: The adapter does not fit the model.
        MissingDependencyError: PEFT is not installed.
    """
    peft = _peft()
    try:
        with _without_warnings_of_peft():
            loaded = peft.PeftModel.from_pretrained(model, folder, torch_device=str(model.device))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"the adapter in {folder} does not fit {type(model).__name__} of {model.name_or_path!r}: {reason[0]}. Is "
            f"that its base model ({base_of(folder)!r})?"
        ) from error
    with torch.no_grad():
        merged = loaded.merge_and_unload()
    if (folder / HEAD_WEIGHTS).is_file() and hasattr(merged, "out_proj"):
        merged.load_state_dict(read_tensors(folder / HEAD_WEIGHTS), strict=False)
    return merged.eval()


def load_merged(cls: Any, folder: Path, **options: Any) -> Any:
    """Returns the model of a folder, of an adapter's folder its base with the adapter merged.

    Args:
        cls: A GLM class.
        folder: Of a model or an adapter.
        **options: Of `cls.from_pretrained`.

    Raises:
        CheckpointError: It cannot be read, or an adapter's base is not where it was.
        MissingDependencyError: An adapter, and PEFT is not installed.
    """
    if not is_adapter(folder):
        with _new_heads_are_meant():
            return cls.from_pretrained(folder, **options)
    if (folder / "config.json").is_file():  # says how many labels its head has
        options = {**_head_options(folder), **options}
    base = base_of(folder)
    try:
        with _new_heads_are_meant():
            model = cls.from_pretrained(resolve(base), **options)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} is an adapter for {base!r}, which cannot be read: {error} If it lies elsewhere now, write its "
            f"place into {ADAPTER_CONFIG} as base_model_name_or_path."
        ) from error
    return merge_adapter(model, folder)


def _head_options(folder: Path) -> dict[str, Any]:
    """Returns what the configuration beside an adapter says of a classification head."""
    config = read_json(folder / "config.json")
    if "GLMForSequenceClassification" not in (config.get("architectures") or []):
        return {}
    return {"num_labels": len(config["id2label"]), "pool_token": config.get("pool_token", "cls")}


def set_adapter_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Gives a `PeftModel` the weights that `save_adapter` wrote, adapter and head in one dict."""
    head = {name: value for name, value in weights.items() if name.startswith(HEADS)}
    adapter = {name: value for name, value in weights.items() if name not in head}
    _peft().set_peft_model_state_dict(model, adapter)
    model.get_base_model().load_state_dict(head, strict=False)


_SAY_THAT_HEADS_ARE_NEW = ("glmkit.model.loading", "transformers.modeling_utils")


@contextmanager
def _new_heads_are_meant() -> Iterator[None]:
    """Leaves out the warnings that a head is not in the checkpoint: it is trained now, or read next."""
    # A filter, not a level: at some levels transformers says other things.
    loggers = [logging.getLogger(name) for name in _SAY_THAT_HEADS_ARE_NEW]
    for one in loggers:
        one.addFilter(_is_an_error)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(_is_an_error)


@contextmanager
def _without_warnings_of_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT asks transformers under a name that will go.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _is_an_error(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise missing_dependency("peft", "LoRA", "peft") from error
    return peft

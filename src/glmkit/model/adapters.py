"""Adapters on a GLM, through PEFT: made (LoRA), saved beside their base's name, loaded, merged.

In: a model, or a folder that PEFT wrote. Out: a `PeftModel`, or a plain model with the adapter merged into its weights (LoRA) or
in place beside them (virtual tokens, see `virtual_tokens`). PEFT is imported where it is used.

Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glmkit.checkpoint import resolve
from glmkit.checkpoint.adapters import (
    ADAPTER_CONFIG,
    HEAD_WEIGHTS,
    MEDIA_FOLDER,
    base_of,
    is_adapter,
)
from glmkit.checkpoint.configs import has_head, read_json
from glmkit.checkpoint.files import read_tensors
from glmkit.checkpoint.naming import HEADS
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model.virtual_tokens import (
    fix_virtual_tokens,
    peft_module,
    save_encoder,
    set_encoder,
    without_warnings_of_peft,
)
from glmkit.whole_files import write_text


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
    peft = peft_module("LoRA")
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
        task_type="CAUSAL_LM" if hasattr(model, "lm_head") else None,
    )
    with without_warnings_of_peft():
        wrapped = peft.get_peft_model(model, settings)
    train_head(model)
    return wrapped


def train_head(model: Any) -> None:
    """Lets a classification head learn beside an adapter."""
    for name, parameter in model.named_parameters():
        if name.startswith(HEADS):
            parameter.requires_grad_(True)


def save_adapter(model: Any, folder: Path) -> None:
    """Writes a `PeftModel`'s adapter, the classification head that was trained with it, and the configuration."""
    # Vocabularies are not changed here; to find that out PEFT would look for the base on the hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form of a model card, not filled in
    base = model.get_base_model()
    base.config.architectures = [type(base).__name__]
    base.config.save_pretrained(folder)
    config = read_json(folder / "config.json")
    if config.pop(
        "quantization_config", None
    ):  # of the base while it was trained on (QLoRA), not of the adapter
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    head = {
        name: value.detach().cpu().contiguous()
        for name, value in base.state_dict().items()
        if name.startswith(HEADS)
    }
    if head:
        safetensors.torch.save_file(head, folder / HEAD_WEIGHTS, metadata={"format": "pt"})
    if _is_prompt(model):
        save_encoder(model, folder)
    if hasattr(base, "media"):
        base.media.save_pretrained(folder / MEDIA_FOLDER)


def does_not_fit(model: Any, folder: Path, error: Exception) -> CheckpointError:
    """Returns the error of an adapter that is not this model's: what PEFT says, and the base that it names."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(
        f"the adapter in {folder} does not fit {type(model).__name__} of {model.name_or_path!r}: {reason[0]}. Is "
        f"that its base model ({base_of(folder)!r})?"
    )


def merge_adapter(model: Any, folder: Path) -> Any:
    """Returns the model with an adapter's change added to its weights, or its virtual tokens in place; it is a plain model again.

    Args:
        model: The adapter's base, of the class that the adapter was trained on.
        folder: What `PeftModel.save_pretrained` wrote.

    Raises:
        CheckpointError: The adapter does not fit the model.
        MissingDependencyError: PEFT is not installed.
    """
    peft = peft_module("an adapter")
    try:
        with without_warnings_of_peft():
            loaded = peft.PeftModel.from_pretrained(model, folder, torch_device=str(model.device))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise does_not_fit(model, folder, error) from error
    with torch.no_grad():
        merged = fix_virtual_tokens(loaded) if _is_prompt(loaded) else loaded.merge_and_unload()
    if (folder / HEAD_WEIGHTS).is_file() and not hasattr(merged, "lm_head"):
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
        with without_load_reports():
            return cls.from_pretrained(folder, **options)
    if (folder / "config.json").is_file():  # says how many labels its head has
        options = {**_head_options(folder), **options}
    base = base_of(folder)
    try:
        with without_load_reports():
            model = load_merged(cls, resolve(base), **options)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} is an adapter for {base!r}, which cannot be read: {error} If it lies elsewhere now, write its "
            f"place into {ADAPTER_CONFIG} as base_model_name_or_path."
        ) from error
    return merge_adapter(model, folder)


def _head_options(folder: Path) -> dict[str, Any]:
    """Returns what the configuration beside an adapter says of a classification head."""
    config = read_json(folder / "config.json")
    if not has_head(config):
        return {}
    return {"num_labels": len(config["id2label"]), "pool_token": config.get("pool_token", "cls")}


def set_adapter_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Gives a `PeftModel` the weights that `save_adapter` wrote, adapter and head in one dict."""
    head = {
        name: value
        for name, value in weights.items()
        if name.startswith((*HEADS, f"{MEDIA_FOLDER}."))
    }
    adapter = {name: value for name, value in weights.items() if name not in head}
    if _is_prompt(model):
        set_encoder(model, adapter)
    else:
        peft_module("LoRA").set_peft_model_state_dict(model, adapter)
    model.get_base_model().load_state_dict(head, strict=False)


_SAY_THAT_HEADS_ARE_NEW = ("glmkit.model.loading", "transformers.modeling_utils")


@contextmanager
def without_load_reports() -> Iterator[None]:
    """Leaves out the warnings that weights are not in a checkpoint, or not in the model: a head is trained now, or read next."""
    # A filter, not a level: at some levels transformers says other things.
    loggers = [logging.getLogger(name) for name in _SAY_THAT_HEADS_ARE_NEW]
    for one in loggers:
        one.addFilter(_is_an_error)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(_is_an_error)


def _is_an_error(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _is_prompt(wrapped: Any) -> bool:
    return bool(wrapped.peft_config["default"].is_prompt_learning)

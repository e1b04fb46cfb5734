"""Several adapters on one base, LoRA and virtual tokens alike: put beside each other, one at work at a time.

In: a plain model and folders that PEFT wrote. Out: the same model, which computes with the adapter that is awake, or with none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glmkit.checkpoint.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from glmkit.checkpoint.files import read_tensors
from glmkit.errors import CheckpointError
from glmkit.model.adapters import does_not_fit
from glmkit.model.virtual_tokens import (
    VirtualTokens,
    fix_virtual_tokens,
    peft_module,
    without_warnings_of_peft,
)


def attach_adapter(model: Any, folder: Path, name: str) -> VirtualTokens | None:
    """Puts an adapter beside others on a base that they share, and leaves it at rest.

    Args:
        model: A plain model; LoRA is put into its Linears, which stay as they are.
        folder: Of the adapter.
        name: Its name from now on.

    Returns:
        The virtual tokens, where it has such.

    Raises:
        CheckpointError: It is no adapter, or does not fit the model.
        MissingDependencyError: PEFT is not installed.
    """
    peft = peft_module("an adapter")
    if not is_adapter(folder):
        raise CheckpointError(f"{folder} is no adapter: it has no {ADAPTER_CONFIG}")
    settings = peft.PeftConfig.from_pretrained(folder)
    rest(model)
    try:
        with without_warnings_of_peft():
            if settings.is_prompt_learning:
                wrapped = peft.PeftModel.from_pretrained(model, folder, torch_device=str(model.device))  # fmt: skip
                tokens = fix_virtual_tokens(wrapped).glm.virtual_tokens
                rest(model)
                return tokens
            _inject(peft, model, settings, folder, name)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise does_not_fit(model, folder, error) from error
    model.eval()
    rest(model)
    return None


def _inject(peft: Any, model: Any, settings: Any, folder: Path, name: str) -> None:
    """Puts LoRA under a name into a plain model's Linears.

    transformers has `model.load_adapter` for this; it asks for a PEFT (0.22) that is newer than the oldest one that glmkit takes.
    """
    peft.inject_adapter_in_model(settings, model, name)
    prefix = "base_model.model."
    weights = {
        key.removeprefix(prefix): value
        for key, value in read_tensors(folder / ADAPTER_WEIGHTS).items()
    }
    found = peft.set_peft_model_state_dict(model, weights, adapter_name=name)
    if found.unexpected_keys:
        raise KeyError(f"it has weights for {found.unexpected_keys[0]}, which the model lacks")


def _lora_layers(model: Any) -> list[Any]:
    """Returns the Linears that have LoRA beside them."""
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def rest(model: Any) -> None:
    """Makes a model what it is without the adapters that it has."""
    model.glm.virtual_tokens = None
    for layer in _lora_layers(model):
        layer.enable_adapters(False)


def wake(model: Any, name: str, tokens: VirtualTokens | None) -> None:
    """Lets one of the adapters that `attach_adapter` put on a model work; the others rest."""
    rest(model)
    if tokens is not None:
        model.glm.virtual_tokens = tokens
        return
    for layer in _lora_layers(model):
        if name in layer.lora_A:  # those of others have no part in it
            layer.enable_adapters(True)
            layer.set_adapter(name)

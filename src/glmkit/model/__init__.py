"""batch -> logits and loss: configuration, the Transformer, its masks; registered with the Auto classes.

The classes of models are imported when first used (`auto` says why); the Auto classes know them at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glmkit.model.auto import MODELING, StandIn, register
from glmkit.model.configuration import PRESETS, GLMConfig

if TYPE_CHECKING:
    from glmkit.model.modeling import (
        GLMForConditionalGeneration,
        GLMForMultipleChoice,
        GLMForSequenceClassification,
        GLMForTokenClassification,
        GLMModel,
    )

register(StandIn)

LORA_TARGET_MODULES = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
"""For PEFT's `LoraConfig(target_modules=…)`: every Linear of the layers; the first alone is the cheap choice."""

__all__ = [
    "LORA_TARGET_MODULES",
    "PRESETS",
    "GLMConfig",
    "GLMForConditionalGeneration",
    "GLMForMultipleChoice",
    "GLMForSequenceClassification",
    "GLMForTokenClassification",
    "GLMModel",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'glmkit.model' has no attribute {name!r}")
    value = getattr(importlib.import_module(MODELING), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

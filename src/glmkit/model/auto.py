"""GLM in the tables of transformers' Auto classes, without its classes being there yet.

The torch model stands on transformers' modeling machinery, whose import takes seconds; text that the native decoder writes needs
none of it. So `glmkit.model` enters stand-ins, and `modeling` puts the classes in their places when it is imported: by whoever
asks for a class, or by the stand-in that an Auto class turns to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from glmkit.model.configuration import GLMConfig

MODELING = "glmkit.model.modeling"

AUTO_CLASSES: dict[Any, str] = {
    AutoModel: "GLMModel",
    AutoModelForCausalLM: "GLMForConditionalGeneration",
    AutoModelForSeq2SeqLM: "GLMForConditionalGeneration",
    AutoModelForMultipleChoice: "GLMForMultipleChoice",
    AutoModelForSequenceClassification: "GLMForSequenceClassification",
    AutoModelForTokenClassification: "GLMForTokenClassification",
}
"""Auto class -> the class of `modeling` that it makes of a GLM's configuration."""


def register(find: Callable[[str], Any]) -> None:
    """Enters GLM into the tables.

    Args:
        find: Name -> what to enter: the class of `modeling`, or what stands for it.
    """
    AutoConfig.register(GLMConfig.model_type, GLMConfig, exist_ok=True)
    for auto_class, name in AUTO_CLASSES.items():
        auto_class.register(GLMConfig, find(name), exist_ok=True)


class StandIn:
    """Stands for a class of `modeling`, and imports it when it is asked for more than name and configuration."""

    config_class = GLMConfig

    def __init__(self, name: str):
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # a copy or a pickle asks before there is a name
            raise AttributeError(attribute)
        return getattr(getattr(importlib.import_module(MODELING), self.__name__), attribute)

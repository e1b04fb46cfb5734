"""batch -> logits and loss: configuration, the Transformer, its masks; registered with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from glmkit.model.configuration import PRESETS, GLMConfig
from glmkit.model.modeling import (
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMForTokenClassification,
    GLMModel,
)

AutoConfig.register(GLMConfig.model_type, GLMConfig, exist_ok=True)
AutoModel.register(GLMConfig, GLMModel, exist_ok=True)
AutoModelForCausalLM.register(GLMConfig, GLMForConditionalGeneration, exist_ok=True)
AutoModelForSeq2SeqLM.register(GLMConfig, GLMForConditionalGeneration, exist_ok=True)
AutoModelForMultipleChoice.register(GLMConfig, GLMForMultipleChoice, exist_ok=True)
AutoModelForSequenceClassification.register(GLMConfig, GLMForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(GLMConfig, GLMForTokenClassification, exist_ok=True)

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

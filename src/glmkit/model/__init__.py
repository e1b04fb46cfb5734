"""batch -> logits and loss: configuration, the Transformer, its masks; registered with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
)

from glmkit.model.configuration import PRESETS, GLMConfig
from glmkit.model.modeling import (
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMModel,
)

AutoConfig.register(GLMConfig.model_type, GLMConfig, exist_ok=True)
AutoModel.register(GLMConfig, GLMModel, exist_ok=True)
AutoModelForCausalLM.register(GLMConfig, GLMForConditionalGeneration, exist_ok=True)
AutoModelForMultipleChoice.register(GLMConfig, GLMForMultipleChoice, exist_ok=True)
AutoModelForSequenceClassification.register(GLMConfig, GLMForSequenceClassification, exist_ok=True)

__all__ = [
    "PRESETS",
    "GLMConfig",
    "GLMForConditionalGeneration",
    "GLMForMultipleChoice",
    "GLMForSequenceClassification",
    "GLMModel",
]

"""The configuration of a GLM as transformers carries it.

In: keyword arguments, a preset's name or a `config.json` (glmkit's own or the published hub format).
Out: `GLMConfig`. Fields, presets and checks are those of `checkpoint.architecture`. Knows no weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from glmkit.checkpoint.architecture import PRESETS, Architecture, translated

__all__ = ["PRESETS", "GLMConfig"]


@strict
class GLMConfig(PreTrainedConfig, Architecture):
    """Configuration of a GLM (Du et al., ACL 2022): the fields of `Architecture`, and transformers' own.

    Raises:
        ConfigError: Sizes that contradict each other, an unknown activation, pooling or preset.
    """

    model_type: ClassVar[str] = Architecture.model_type
    attribute_map: ClassVar[dict[str, str]] = Architecture.attribute_map

    def __post_init__(self, **kwargs: Any) -> None:
        self._complete()
        super().__post_init__(**kwargs)

    @classmethod
    def from_architecture(cls, architecture: Architecture) -> GLMConfig:
        """Returns the configuration with the fields of an architecture, and with what else its folder said."""
        return cls(**architecture.to_dict())

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As transformers' `get_config_dict`; the published hub format is translated."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return translated(config_dict), kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' `from_dict`; the published hub format (`model_type: "glm"`) is translated."""
        return super().from_dict(translated(config_dict), **kwargs)

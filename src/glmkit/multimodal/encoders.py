"""transformers' encoders of images and sounds, as one thing: values in, features of a grid (or of moments) out.

In: an encoder's configuration, or the name of a checkpoint. Out: `Encoder`. A new architecture is a line in `ENCODERS`.

Shapes: n media, P features of one medium, D width of the encoder.

Sources: CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343), DINOv2 (arXiv 2304.07193), Whisper (arXiv 2212.04356), wav2vec 2.0
(arXiv 2006.11477).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig

from glmkit.errors import ConfigError, nearest

WAVE_RATE = 16_000
"""Hz, of every published Whisper and wav2vec 2.0 model."""


@dataclass(frozen=True)
class Architecture:
    """How one family of encoders is made and read.

    Attributes:
        kind: "image" or "audio".
        config: Name of its configuration class in transformers.
        model: Name of its model class there.
        processor: Name of what prepares its input there.
        part: Picks the encoder out of the model, where it is a part of it.
        checkpoint: Name of the class that reads published weights, where it is another one.
    """

    kind: str
    config: str
    model: str
    processor: str
    part: Callable[[Any], nn.Module] | None = None


def _whisper_encoder(model: Any) -> nn.Module:
    return model.get_encoder()


ENCODERS: dict[str, Architecture] = {
    "clip_vision_model": Architecture("image", "CLIPVisionConfig", "CLIPVisionModel", "CLIPImageProcessorPil"),
    "siglip_vision_model": Architecture("image", "SiglipVisionConfig", "SiglipVisionModel", "SiglipImageProcessorPil"),
    "dinov2": Architecture("image", "Dinov2Config", "Dinov2Model", "BitImageProcessorPil"),
    "whisper": Architecture("audio", "WhisperConfig", "WhisperModel", "WhisperFeatureExtractor", _whisper_encoder),
    "wav2vec2": Architecture("audio", "Wav2Vec2Config", "Wav2Vec2Model", "Wav2Vec2FeatureExtractor"),
    "hubert": Architecture("audio", "HubertConfig", "HubertModel", "Wav2Vec2FeatureExtractor"),
}  # fmt: skip
"""`model_type` of an encoder's configuration -> its architecture."""

VISION_PARTS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""`model_type` of a checkpoint of pictures and texts -> that of its vision part."""


def architecture(model_type: Any, kind: str) -> Architecture:
    """Returns an architecture.

    Raises:
        ConfigError: It is unknown, or of another kind.
    """
    found = ENCODERS.get(str(model_type))
    if found is None or found.kind != kind:
        known = [name for name, one in ENCODERS.items() if one.kind == kind]
        raise ConfigError(
            f"media.{kind}.encoder: there is no encoder of the model_type {model_type!r} for {kind}"
            f"{nearest(str(model_type), known)}; there are {', '.join(known)}"
        )
    return found


def encoder_config(values: dict[str, Any], kind: str) -> PreTrainedConfig:
    """Returns an encoder's configuration as transformers' object.

    Raises:
        ConfigError: As `architecture`, or transformers refuses the values.
    """
    cls = getattr(transformers, architecture(values.get("model_type"), kind).config)
    try:
        return cls(**{name: value for name, value in values.items() if name != "model_type"})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"media.{kind}.encoder: {error}") from error


def published_encoder(
    name: str, kind: str, **options: Any
) -> tuple[dict[str, Any], nn.Module, dict[str, Any]]:
    """Returns the configuration, the weights and the preprocessor of a checkpoint in transformers' format.

    Args:
        name: A folder or hub name, such as "google/siglip-base-patch16-224" or "openai/whisper-base".
        kind: "image" or "audio".
        **options: Of `from_pretrained`.

    Raises:
        ConfigError: There is no such checkpoint, or of an architecture that is not known.
    """
    try:
        whole = transformers.AutoConfig.from_pretrained(name, **options)
        model_type = VISION_PARTS.get(whole.model_type, whole.model_type)
        kept = architecture(model_type, kind)
        model = getattr(transformers, kept.model).from_pretrained(name, **options)
        processor = getattr(transformers, kept.processor).from_pretrained(name, **options)
    except OSError as error:
        raise ConfigError(f"media.{kind}.encoder: {name!r} cannot be read: {str(error).splitlines()[0]}") from error  # fmt: skip
    encoder: Any = model if kept.part is None else kept.part(model)
    return {**encoder.config.to_diff_dict(), "model_type": model_type}, encoder, processor.to_dict()


class Encoder(nn.Module):
    """An encoder as the projectors see it.

    Attributes:
        model: transformers' module.
        width: D.
        grid: Rows and columns of an image's features; of sound (P, 1).
    """

    def __init__(self, values: dict[str, Any], kind: str, layer: int, seconds: float):
        super().__init__()
        config: Any = encoder_config(values, kind)
        kept = architecture(values["model_type"], kind)
        self.kind, self.layer, self.model_type = kind, layer, values["model_type"]
        if kept.model == "SiglipVisionModel":
            config.vision_use_head = False  # its pooling is not read
        if kept.part is None:
            self.model = getattr(transformers, kept.model)(config)
        else:
            from transformers.models.whisper.modeling_whisper import WhisperEncoder

            self.model = WhisperEncoder(config)
        self.width: int = config.hidden_size
        if kind == "image":
            side = config.image_size // config.patch_size
            self.grid = (side, side)
        elif kept.model == "WhisperModel":
            self.grid = (config.max_source_positions, 1)
        else:
            samples = torch.tensor(round(seconds * WAVE_RATE))
            self.grid = (int(self.model._get_feat_extract_output_lengths(samples)), 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Returns features [n, P, D].

        Args:
            values: Images [n, 3, height, width]; sounds [n, mel bins, frames] or [n, samples].
        """
        values = values.to(next(self.model.parameters()).dtype)
        wanted = self.layer != -1
        output = self.model(values, output_hidden_states=wanted)
        features = output.hidden_states[self.layer] if wanted else output.last_hidden_state
        # The class token, and what else stands before the patches.
        return features[:, features.shape[1] - self.grid[0] * self.grid[1] :]

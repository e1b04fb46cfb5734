"""transformers' encoders of images and sounds, as one thing: values in, features of a grid (or of moments) out.

In: an encoder's configuration, or the name of a checkpoint. Out: `Encoder`. A new architecture is a line in `ENCODERS`.

Shapes: n media, P features of one medium, D width of the encoder.

Sources: CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343), AIMv2 (arXiv 2411.14402), DINOv2 (arXiv 2304.07193, registers
arXiv 2309.16588), Whisper (arXiv 2212.04356), wav2vec 2.0 (arXiv 2006.11477), ResNet (arXiv 1512.03385), ConvNeXt (arXiv 2201.03545), HuBERT (arXiv 2106.07447), WavLM (arXiv 2110.13900).
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
from glmkit.model.adapters import without_load_reports

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
        any_side: Whether it reads pictures of other sizes than its configuration's.
        makes_map: Whether its features are a map [n, D, rows, columns], as convolutions make them.
    """

    kind: str
    config: str
    model: str
    processor: str
    part: Callable[[Any], nn.Module] | None = None
    any_side: bool = False
    makes_map: bool = False

    def of_transformers(self, name: str) -> Any:
        """Returns a class of transformers by its name.

        Raises:
            ConfigError: There is none.
        """
        found = getattr(transformers, name, None)
        if found is None:
            raise ConfigError(
                f"ENCODERS (glmkit.multimodal.encoders) names the class {name!r}, which transformers {transformers.__version__} does not "
                f"have{nearest(name, dir(transformers))}"
            )
        return found


def _whisper_encoder(model: Any) -> nn.Module:
    return model.get_encoder()


ENCODERS: dict[str, Architecture] = {
    "clip_vision_model": Architecture("image", "CLIPVisionConfig", "CLIPVisionModel", "CLIPImageProcessorPil"),
    "siglip_vision_model": Architecture("image", "SiglipVisionConfig", "SiglipVisionModel", "SiglipImageProcessorPil"),
    "aimv2_vision_model": Architecture("image", "Aimv2VisionConfig", "Aimv2VisionModel", "CLIPImageProcessorPil"),
    "dinov2": Architecture("image", "Dinov2Config", "Dinov2Model", "BitImageProcessorPil", any_side=True),
    "dinov2_with_registers": Architecture("image", "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", "BitImageProcessorPil", any_side=True),
    "resnet": Architecture("image", "ResNetConfig", "ResNetModel", "BitImageProcessorPil", any_side=True, makes_map=True),
    "convnext": Architecture("image", "ConvNextConfig", "ConvNextModel", "BitImageProcessorPil", any_side=True, makes_map=True),
    "whisper": Architecture("audio", "WhisperConfig", "WhisperModel", "WhisperFeatureExtractor", _whisper_encoder),
    "wav2vec2": Architecture("audio", "Wav2Vec2Config", "Wav2Vec2Model", "Wav2Vec2FeatureExtractor"),
    "hubert": Architecture("audio", "HubertConfig", "HubertModel", "Wav2Vec2FeatureExtractor"),
    "wavlm": Architecture("audio", "WavLMConfig", "WavLMModel", "Wav2Vec2FeatureExtractor"),
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
            f"{nearest(str(model_type), known) or '.'} There are {', '.join(known)}"
        )
    return found


def encoder_config(values: dict[str, Any], kind: str) -> PreTrainedConfig:
    """Returns an encoder's configuration as transformers' object.

    Raises:
        ConfigError: As `architecture`, or transformers refuses the values.
    """
    kept = architecture(values.get("model_type"), kind)
    cls = kept.of_transformers(kept.config)
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
        ConfigError: There is no such checkpoint, or of an architecture that is not known; weights or the preprocessor are missing.
    """
    try:
        whole = transformers.AutoConfig.from_pretrained(name, **options)
        model_type = VISION_PARTS.get(whole.model_type, whole.model_type)
        kept = architecture(model_type, kind)
        with without_load_reports():
            model, report = kept.of_transformers(kept.model).from_pretrained(
                name, output_loading_info=True, **options
            )
        processor = kept.of_transformers(kept.processor).from_pretrained(name, **options)
    except OSError as error:
        raise ConfigError(f"media.{kind}.encoder: {name!r} cannot be read: {str(error).splitlines()[0]}") from error  # fmt: skip
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"media.{kind}.encoder: {name!r} lacks {len(missing)} weights of {kept.model}, such as {missing[0]}; is it whole?"
        )
    encoder: Any = model if kept.part is None else kept.part(model)
    values = {**encoder.config.to_diff_dict(), "model_type": model_type}
    for unsaid in ("transformers_version", "architectures", "dtype"):
        values.pop(unsaid, None)
    return values, encoder, processor.to_dict()


def _new_model(kept: Architecture, config: Any) -> Any:
    try:
        if kept.part is None:
            return kept.of_transformers(kept.model)(config)
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(config)
    except ValueError as error:
        raise ConfigError(f"media.{kept.kind}.encoder: {error}") from error


def picture_side(values: dict[str, Any], preprocessor: dict[str, Any]) -> int:
    """Returns the width and height of the pictures that an encoder reads, in pixels.

    Args:
        values: The encoder's configuration.
        preprocessor: Of transformers' image processor; what it would cut a picture to, or scale it to, counts.

    Raises:
        ConfigError: The encoder reads none of this size.
    """
    own = values.get("image_size", getattr(encoder_config(values, "image"), "image_size", 224))
    cut = preprocessor.get("do_center_crop") and preprocessor.get("crop_size")
    size = cut or preprocessor.get("size") or own
    side = int(next(iter(size.values())) if isinstance(size, dict) else size)
    if side != own and not architecture(values["model_type"], "image").any_side:
        raise ConfigError(
            f"media.image.preprocessor makes pictures of {side} x {side} pixels, the encoder {values['model_type']} reads "
            f"{own} x {own}; leave the setting out"
        )
    return side


class Encoder(nn.Module):
    """An encoder as the projectors see it.

    Args:
        values: Its configuration, with `model_type`.
        kind: "image" or "audio".
        layer: Whose outputs are taken, from the end.
        seconds: Of audio, that are read at a time.
        preprocessor: Of an image, see `picture_side`.

    Attributes:
        model: transformers' module.
        width: D.
        grid: Rows and columns of an image's features; of sound (P, 1).

    Raises:
        ConfigError: Values that do not fit together.
    """

    def __init__(
        self,
        values: dict[str, Any],
        kind: str,
        layer: int,
        seconds: float,
        preprocessor: dict[str, Any],
    ):
        super().__init__()
        config: Any = encoder_config(values, kind)
        kept = architecture(values["model_type"], kind)
        self.kind, self.layer, self.model_type = kind, layer, values["model_type"]
        if kept.model == "SiglipVisionModel":
            config.vision_use_head = False  # its pooling is not read
        if kept.model == "Aimv2VisionModel":
            config.use_head = False
        wanted = ["hidden_sizes"] if kept.makes_map else ["hidden_size", "num_hidden_layers"]
        wanted += ["patch_size"] * (kind == "image" and not kept.makes_map)
        if lacks := [name for name in wanted if not hasattr(config, name)]:
            raise ConfigError(
                f"media.{kind}.encoder: {kept.config} has no {', '.join(lacks)}, so {self.model_type} cannot be read as "
                + ("a map" if kept.makes_map else "patches" if kind == "image" else "moments")
                + "; the entry of ENCODERS says which of them it makes (makes_map)"
            )
        if kept.makes_map and layer != -1:
            raise ConfigError(
                f"media.{kind}.layer={layer}: of {self.model_type} the last layer alone is read"
            )
        if not kept.makes_map and -layer > config.num_hidden_layers:
            raise ConfigError(
                f"media.{kind}.layer={layer}: the encoder has {config.num_hidden_layers} layers"
            )
        self.model = _new_model(kept, config)
        self.width: int = config.hidden_sizes[-1] if kept.makes_map else config.hidden_size
        self.makes_map, self.grid = kept.makes_map, (1, 1)
        if kept.makes_map:
            self.grid = self._map_of(picture_side(values, preprocessor))
        elif kind == "image":
            side = picture_side(values, preprocessor) // config.patch_size
            self.grid = (side, side)
        elif kept.model == "WhisperModel":
            self.grid = (config.max_source_positions, 1)
            if seconds != config.max_source_positions / 50:  # two frames of 10 ms make one
                raise ConfigError(
                    f"media.audio.seconds={seconds}: this whisper encoder (max_source_positions={config.max_source_positions}) "
                    f"reads {config.max_source_positions / 50} s at a time; set seconds to that"
                )
        else:
            samples = torch.tensor(round(seconds * WAVE_RATE), device="cpu")
            self.grid = (int(self.model._get_feat_extract_output_lengths(samples)), 1)
        if min(self.grid) < 1:
            raise ConfigError(
                f"media.{kind}: of so little (an image_size below patch_size, or too few seconds) the encoder makes no features"
            )

    @torch.no_grad()
    def _map_of(self, side: int) -> tuple[int, int]:
        """Returns the size of the map that convolutions make of a square picture."""
        trained = self.model.training
        shape = self.model.eval()(
            next(self.model.parameters()).new_zeros(1, 3, side, side)
        ).last_hidden_state.shape
        self.model.train(trained)
        return int(shape[2]), int(shape[3])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Returns features [n, P, D].

        Args:
            values: Images [n, 3, height, width]; sounds [n, mel bins, frames] or [n, samples].
        """
        values = values.to(next(self.model.parameters()).dtype)
        wanted = self.layer != -1
        output = self.model(values, output_hidden_states=wanted)
        if self.makes_map:
            return output.last_hidden_state.flatten(2).transpose(1, 2)
        features = output.hidden_states[self.layer] if wanted else output.last_hidden_state
        # The class token, and what else stands before the patches.
        before = features.shape[1] - self.grid[0] * self.grid[1]
        if before < 0:
            raise ConfigError(
                f"media.{self.kind}.encoder: {self.model_type} makes {features.shape[1]} features of one, not {self.grid[0]} x "
                f"{self.grid[1]} as its sizes say; glmkit reads encoders with one feature for each patch or moment, and maps"
            )
        return features[:, before:]

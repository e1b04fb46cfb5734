"""What turns media into embeddings, as a configuration: for each kind an encoder, a projector, and how files are prepared.

In: settings of a recipe, or `media/config.json` in a model's folder. Out: `GLMMediaConfig`. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from glmkit.config import from_values
from glmkit.errors import CheckpointError, ConfigError
from glmkit.multimodal.media import KINDS


@dataclass(frozen=True)
class MediumConfig:
    """How media of one kind become embeddings.

    Raises:
        ConfigError: Values that are not allowed.
    """

    encoder: dict[str, Any] | str = field(default_factory=dict)
    """Configuration of a transformers encoder, with its `model_type` (`encoders.ENCODERS`); of video empty: the image's is used. In
    a recipe also the name of a checkpoint, such as google/siglip-base-patch16-224 or openai/whisper-base, or `small`."""
    layer: int = -1
    """Whose outputs are taken: -1 the encoder's last with its final norm; -2 the layer before, as LLaVA does with CLIP."""
    projector: str = "mlp"
    """`mlp`: neighbouring features side by side, then a network of two layers (LLaVA-1.5, InternVL); `resampler`: learned queries
    attend to all features (Flamingo, BLIP-2)."""
    merge: int = 1
    """Of `mlp`: so many features in each direction (of sound in time) become one row."""
    queries: int = 16
    """Of `resampler`: rows."""
    seconds: float = 30.0
    """Of audio: what is read at a time; a longer sound is several runs, a shorter one is filled up with silence."""
    frames: int = 8
    """Of video: frames that are looked at, spread evenly over the clip."""
    preprocessor: dict[str, Any] = field(default_factory=dict)
    """Of transformers' image processor or feature extractor; by default the encoder's usual one."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)!r} must be at least {least}"
            for name, least in (("merge", 1), ("queries", 1), ("frames", 1))
            if getattr(self, name) < least
        ]
        if self.projector not in PROJECTORS:
            problems.append(f"projector={self.projector!r}; allowed: {', '.join(PROJECTORS)}")
        if self.layer > -1:
            problems.append(f"layer={self.layer} counts from the end: -1, -2 …")
        if not self.seconds > 0:
            problems.append(f"seconds={self.seconds} must be above 0")
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def values(self) -> dict[str, Any]:
        """The encoder's configuration; a checkpoint's name has been replaced by it."""
        assert isinstance(self.encoder, dict)
        return self.encoder


PROJECTORS = ("mlp", "resampler")


@strict
class GLMMediaConfig(PreTrainedConfig):
    """Configuration of `GLMMediaModel`.

    Attributes:
        hidden_size: Width H of the GLM that reads the embeddings.
        media: "image", "audio", "video" -> the fields of `MediumConfig`.
        initializer_range: Standard deviation of a new projector's last weights.

    Raises:
        ConfigError: A kind or setting that does not exist, or a video without frames' encoder.
    """

    model_type: ClassVar[str] = "glm_media"

    hidden_size: int = 768
    media: dict[str, Any] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.media = {
            kind: asdict(medium) for kind, medium in checked_media(self.media or {}).items()
        }
        super().__post_init__(**kwargs)

    def of(self, kind: str) -> MediumConfig:
        """Returns the settings of a kind that the model reads."""
        assert self.media is not None
        return MediumConfig(**self.media[kind])

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the model reads, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if kind in (self.media or {}))


def checked_media(media: Mapping[str, Any]) -> dict[str, MediumConfig]:
    """Returns kind -> settings.

    Raises:
        ConfigError: As `GLMMediaConfig`.
    """
    if unknown := [kind for kind in media if kind not in KINDS]:
        raise ConfigError(f"media: there is no {unknown[0]!r}; allowed: {', '.join(KINDS)}")
    found = {
        kind: one
        if isinstance(one, MediumConfig)
        else from_values(MediumConfig, one, source=f"media.{kind}")
        for kind, one in media.items()
    }
    for kind, medium in found.items():
        if (
            not isinstance(medium.encoder, dict)
            or not medium.encoder.get("model_type")
            and not (kind == "video" and "image" in found)
        ):
            raise ConfigError(
                f"media.{kind}.encoder must be the configuration of a transformers encoder with its model_type"
                + (
                    ", or there must be an image encoder, which looks at the frames"
                    if kind == "video"
                    else ""
                )
            )
    return found


def read_media_config(folder: Path) -> GLMMediaConfig:
    """Returns the configuration of what reads media.

    Raises:
        CheckpointError: It cannot be read.
    """
    with said_plainly(folder):
        return GLMMediaConfig.from_pretrained(folder)


@contextmanager
def said_plainly(folder: Path) -> Iterator[None]:
    """Makes a `CheckpointError` of what reading a folder raises."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{folder} cannot be read: {reason[0]}") from error

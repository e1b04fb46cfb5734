"""Media -> rows of embeddings -> a GLM that reads them in part A.

In: prepared images, sounds and clips (`processor`), and the ids of a batch in which they have places. Out: rows; logits and loss.
The GLM itself is untouched: a folder of `GLMForMultimodalGeneration` is a GLM's folder with a folder `media` in it, and whatever
reads GLMs reads it as one.

Shapes: n media of a kind, F frames of a clip, R rows of one medium, M rows of all, H hidden.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from glmkit.checkpoint import resolve
from glmkit.checkpoint.adapters import MEDIA_FOLDER, media_folder
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.adapters import load_merged, without_load_reports
from glmkit.model.loading import quiet_unless_terminal
from glmkit.model.modeling import GLMOutput
from glmkit.multimodal.configuration import GLMMediaConfig, MediumConfig, said_plainly
from glmkit.multimodal.encoders import Encoder
from glmkit.multimodal.projectors import MergeProjector, Resampler, TimeEmbedding
from glmkit.whole_files import write_text


class Tower(nn.Module):
    """An encoder and a projector of one kind; of video the image's encoder, unless it has its own."""

    def __init__(self, kind: str, config: MediumConfig, hidden: int, frames_of: Encoder | None):
        super().__init__()
        self.kind, self.frames = kind, config.frames
        own = bool(config.encoder)
        encoded = "image" if kind == "video" else kind
        self.encoder = (
            Encoder(config.values, encoded, config.layer, config.seconds, config.preprocessor)
            if own
            else None
        )
        encoder = self.encoder or frames_of
        assert encoder is not None
        self.projector: MergeProjector | Resampler = (
            MergeProjector(encoder.grid, encoder.width, hidden, config.merge)
            if config.projector == "mlp"
            else Resampler(encoder.grid, encoder.width, hidden, config.queries)
        )
        self.times = TimeEmbedding(hidden) if kind == "video" else None

    @property
    def rows(self) -> int:
        """R."""
        return self.projector.rows * (self.frames if self.kind == "video" else 1)

    def forward(
        self, values: torch.Tensor, times: torch.Tensor | None, frames_of: Encoder | None
    ) -> torch.Tensor:
        """Returns [n, R, H]; of video `times` is [n, F]."""
        encoder = self.encoder or frames_of
        assert encoder is not None
        if self.times is None:
            return self.rows_of(encoder(values), None)
        return self.rows_of(encoder(values.flatten(0, 1)).unflatten(0, values.shape[:2]), times)

    def rows_of(self, features: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        """Returns [n, R, H] of what the encoder has made: [n, P, D], of video [n, F, P, D] and times [n, F]."""
        if self.times is None:
            return self.projector(features)
        assert times is not None
        rows = self.projector(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return (rows + self.times(times)[:, :, None]).flatten(1, 2)


class GLMMediaModel(PreTrainedModel):
    """Encoders and projectors of all kinds of media that a GLM reads."""

    config_class = GLMMediaConfig
    main_input_name = "images"
    base_model_prefix = "media"
    _supports_sdpa = True

    def __init__(self, config: GLMMediaConfig):
        super().__init__(config)
        self.towers = nn.ModuleDict()
        for kind in config.kinds:
            self.towers[kind] = Tower(kind, config.of(kind), config.hidden_size, self._frames_of())
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """A new projector begins with rows as large as a word's embedding; encoders initialise themselves."""
        share = getattr(module, "share_of_word", None)
        if isinstance(module, nn.Linear) and share is not None:
            size = self.config.initializer_range * share if share else 1.0
            init.normal_(module.weight, mean=0.0, std=size * module.in_features**-0.5)
            init.zeros_(module.bias)

    def _frames_of(self) -> Encoder | None:
        return self.towers["image"].encoder if "image" in self.towers else None  # type: ignore[return-value]

    def rows(self, kind: str) -> int:
        """Returns R: the rows of an image, of a clip, or of one window of a sound.

        Raises:
            ConfigError: The model reads no media of this kind.
        """
        if kind not in self.towers:
            raise ConfigError(f"this model reads no {kind}; it reads {', '.join(self.towers)}")
        return self.towers[kind].rows  # type: ignore[return-value]

    def forward(
        self,
        images: torch.Tensor | None = None,
        audios: torch.Tensor | None = None,
        videos: torch.Tensor | None = None,
        video_times: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the rows [M, H] of all images, then of all sounds, then of all clips.

        Args:
            images: float [n, 3, height, width].
            audios: float [n, mel bins, frames] or [n, samples], windows of sounds.
            videos: float [n, F, 3, height, width].
            video_times: float32 [n, F], seconds from the start.
        """
        found = []
        for kind, values in (("image", images), ("audio", audios), ("video", videos)):
            if values is not None:
                rows = self.towers[kind](values, video_times, self._frames_of())
                found.append(rows.flatten(0, 1))
        return torch.cat(found)

    def unread_row(self) -> torch.Tensor | None:
        """Returns a row [1, H] of zeros for a batch without media in which nothing else learns; None where nothing here does either.

        It gives the loss a gradient, of zeros: without one a step fails, and of several processes the others wait for it for ever.
        """
        learning = [one for one in self.parameters() if one.requires_grad]
        if not learning:
            return None
        zero = 0.0 * min(learning, key=torch.numel).sum()
        return zero.expand(1, self.config.hidden_size)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers' `save_pretrained`, without a bar."""
        with quiet_unless_terminal(False):
            super().save_pretrained(save_directory, **kwargs)

    def train(self, mode: bool = True) -> Any:
        """As torch's `train`; an encoder that is frozen stays in evaluation mode, so that its norms' statistics stay, too."""
        super().train(mode)
        for tower in self.towers.values():
            encoder: Any = tower.encoder
            if encoder is not None and not any(one.requires_grad for one in encoder.parameters()):
                encoder.eval()
        return self

    def train_parts(self, parts: tuple[str, ...]) -> None:
        """Lets the weights of some parts learn, and freezes the others.

        Args:
            parts: Of "encoder" and "projector" (with the embedding of time).
        """
        for tower in self.towers.values():
            for name, parameter in tower.named_parameters():
                part = "encoder" if name.startswith("encoder.") else "projector"
                parameter.requires_grad_(part in parts)


class GLMForMultimodalGeneration(GLMForConditionalGeneration):
    """A GLM with encoders of images, sounds and clips.

    Attributes:
        media: The `GLMMediaModel`.
    """

    def __init__(self, config: Any, media: GLMMediaConfig):
        super().__init__(config)
        if media.hidden_size != config.hidden_size:
            raise ConfigError(
                f"the media's rows are {media.hidden_size} wide, the GLM's embeddings {config.hidden_size}"
            )
        self.media = GLMMediaModel(media)

    @classmethod
    def of(cls, glm: GLMForConditionalGeneration, media: GLMMediaModel) -> Any:
        """Returns the two as one model, which shares their weights."""
        with torch.device("meta"):
            model = cls(glm.config, media.config)  # type: ignore[arg-type]
        model.glm, model.media = glm.glm, media
        model.generation_config = glm.generation_config
        model.name_or_path = glm.name_or_path
        return model.train(glm.training)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any
    ) -> Any:  # type: ignore[override]
        """Loads a GLM in any known format (of an adapter its base, merged) and what reads its media.

        Raises:
            CheckpointError: As `GLMForConditionalGeneration.from_pretrained`, or nothing there reads media.
        """
        path = resolve(pretrained_model_name_or_path)
        media = load_media(path, dtype=kwargs.get("dtype"))
        if media is None:
            raise CheckpointError(
                f"{pretrained_model_name_or_path} reads no media: it has no folder {MEDIA_FOLDER!r}. Train one with `glmkit finetune "
                "MODEL multimodal`, or use GLMForConditionalGeneration"
            )
        return cls.of(load_merged(GLMForConditionalGeneration, path, **kwargs), media)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Writes the GLM as every GLM is written, and its media's encoders and projectors in the folder `media` beside it."""
        weights = kwargs.pop("state_dict", None) or self.state_dict()
        glm = {
            name: one for name, one in weights.items() if not name.startswith(f"{MEDIA_FOLDER}.")
        }
        super().save_pretrained(save_directory, state_dict=glm, **kwargs)
        path = Path(save_directory) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["architectures"] = [GLMForConditionalGeneration.__name__]
        write_text(path, json.dumps(config, indent=2) + "\n")
        self.media.save_pretrained(Path(save_directory) / MEDIA_FOLDER)

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        images: torch.Tensor | None = None,
        audios: torch.Tensor | None = None,
        videos: torch.Tensor | None = None,
        video_times: torch.Tensor | None = None,
        media_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> GLMOutput:
        """Returns logits and, where labels are given, the loss.

        Args:
            input_ids: int64 [B, S]; `FIRST_MEDIA_ID` + r is the r-th of the media's rows.
            images, audios, videos, video_times: As in `GLMMediaModel.forward`.
            media_embeds: [M, H] in their place: rows that are known already.
            **kwargs: As in `GLMForConditionalGeneration.forward`.
        """
        if media_embeds is None and any(one is not None for one in (images, audios, videos)):
            media_embeds = self.media(images, audios, videos, video_times)
        elif (
            media_embeds is None
            and self.training
            and not any(one.requires_grad for one in self.glm.parameters())
        ):
            media_embeds = self.media.unread_row()
        return super().forward(input_ids, media_embeds=media_embeds, **kwargs)


def load_media(path: Path, dtype: Any = None) -> GLMMediaModel | None:
    """Returns what reads the media of a model, or of an adapter or else of its base; None where nothing does.

    Raises:
        CheckpointError: It cannot be read.
    """
    folder = media_folder(path)
    if folder is None:
        return None
    with said_plainly(folder), quiet_unless_terminal(False), without_load_reports():
        loaded: Any = GLMMediaModel.from_pretrained(
            folder, dtype=dtype or torch.float32, output_loading_info=True
        )
        model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of its configuration, such as {missing[0]}; is it whole?"
        )
    return model.eval()

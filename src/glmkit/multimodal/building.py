"""What reads media, new: from a recipe's settings, with encoders that begin with random or published weights.

In: kind -> `MediumConfig`, the GLM that will read the rows. Out: a `GLMMediaModel`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch

from glmkit.errors import ConfigError
from glmkit.multimodal.configuration import GLMMediaConfig, MediumConfig
from glmkit.multimodal.encoders import published_encoder
from glmkit.multimodal.media import KINDS, Kind
from glmkit.multimodal.modeling import GLMMediaModel

SMALL: dict[str, MediumConfig] = {
    "image": MediumConfig(
        encoder={
            "model_type": "resnet",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128],
            "depths": [1, 1, 1],
            "layer_type": "basic",
            "image_size": 64,
        },
    ),
    "audio": MediumConfig(
        encoder={
            "model_type": "whisper",
            "d_model": 128,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "num_mel_bins": 64,
            "max_source_positions": 100,
        },
        seconds=2.0,
        merge=8,
    ),
    "video": MediumConfig(frames=6, merge=2),
}
"""Encoders that a CPU can train from nothing: pictures of 64 x 64 (16 rows), sounds of 2 seconds (13), clips of 6 frames (24).

A picture costs a third of what a vision transformer of 4 layers with 64 patches costs. A frame in one row, two shapes and their places in 128
numbers, was told right in 80 % of clips, in four rows in 96 % (docs/results/multimodal).
"""


def build_media(
    given: Mapping[str, MediumConfig],
    kinds: Collection[str],
    glm: Any,
    known: GLMMediaModel | None = None,
) -> GLMMediaModel:
    """Returns encoders and projectors of some kinds of media, for a GLM.

    Args:
        given: Kind -> settings, where a recipe has them; else those of `SMALL`. An `encoder` that is a name is a checkpoint in
            transformers' format, whose weights it begins with.
        kinds: What will be read.
        glm: A `GLMForConditionalGeneration`.
        known: What the GLM reads already; it is kept, and what it does not read is added.

    Raises:
        ConfigError: Settings that cannot be, or of a kind that is read already; a checkpoint that is not there.
    """
    old = {} if known is None else {kind: known.config.of(kind) for kind in known.config.kinds}
    if again := sorted(old.keys() & given.keys()):
        raise ConfigError(
            f"media.{again[0]}: the model reads {', '.join(old)} already, with encoders and projectors of its own; leave the "
            "setting out, or begin with a model that does not"
        )
    settings: dict[str, MediumConfig] = {}
    weights: dict[str, Any] = {}
    for kind in KINDS:
        if kind in old:
            settings[kind] = old[kind]
        elif kind in kinds or kind in given:
            settings[kind], encoder = _resolved(kind, given.get(kind, SMALL[kind]))
            weights |= {} if encoder is None else {kind: encoder}
    if "video" in settings and "image" not in settings and not settings["video"].encoder:
        settings["video"] = replace(settings["video"], encoder=SMALL["image"].encoder)
    if known is not None and settings == old:
        return known
    words = glm.glm.word_embeddings.weight
    config = GLMMediaConfig(
        hidden_size=glm.config.hidden_size,
        media=settings,
        initializer_range=round(float(words.detach().float().std()), 6),
    )
    media: Any = GLMMediaModel(config)
    for name, encoder in weights.items():
        own: Any = media.towers[name].encoder
        missing = own.model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
        assert not missing, missing  # what is left over is what nobody reads, such as pooling
    if known is not None:
        media.load_state_dict(known.state_dict(), strict=False)
    return media.to(torch.float32)


def _resolved(kind: Kind, chosen: MediumConfig) -> tuple[MediumConfig, Any]:
    """Returns settings whose encoder is a configuration, and its published weights, if it was named."""
    if not isinstance(chosen.encoder, str):
        return chosen, None
    if chosen.encoder == "small":
        return replace(chosen, encoder=SMALL[kind].encoder), None
    values, encoder, prepared = published_encoder(
        chosen.encoder, "audio" if kind == "audio" else "image"
    )
    return replace(chosen, encoder=values, preprocessor=chosen.preprocessor or prepared), encoder

"""The encoders of a multimodal model, each as a checkpoint of transformers: another GLM may begin with them.

python recipes/multimodal/encoders.py MODEL FOLDER
glmkit finetune MODEL multimodal … media.image.encoder=FOLDER/image media.audio.encoder=FOLDER/audio
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import transformers

from glmkit.multimodal.encoders import architecture
from glmkit.multimodal.modeling import GLMMediaModel, load_media
from glmkit.multimodal.processor import MediaProcessor


def save_encoder(media: GLMMediaModel, kind: str, target: Path) -> None:
    """Writes an encoder as a checkpoint of transformers, with what prepares its media."""
    encoder: Any = media.towers[kind].encoder
    model, kept = encoder.model, architecture(encoder.model_type, kind)
    if kept.part is not None:  # a part of a larger model, whose other weights nobody reads
        config = model.config
        if hasattr(config, "decoder_attention_heads"):  # its own must divide the width as well
            config.decoder_attention_heads = config.encoder_attention_heads
        whole = getattr(transformers, kept.model)(config)
        kept.part(whole).load_state_dict(model.state_dict())
        model = whole
    model.save_pretrained(target)
    MediaProcessor.of(media).tools[kind].save_pretrained(target)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    media = load_media(Path(sys.argv[1]))
    if media is None:
        sys.exit(f"{sys.argv[1]} reads no media")
    for kind, tower in media.towers.items():
        if tower.encoder is not None:  # a clip's frames are seen by the image's
            save_encoder(media, kind, Path(sys.argv[2]) / kind)
            sys.stdout.write(f"{Path(sys.argv[2]) / kind}\n")


if __name__ == "__main__":
    main()

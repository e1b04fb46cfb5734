"""Media -> rows of embeddings, as prompts need them: prepared, encoded, remembered.

In: a `GLMMediaModel` or its folder, media. Out: for each medium its rows. What was encoded lately is kept: a conversation about a
picture encodes it once. Of a folder the weights are read with the first medium: who asks about texts alone does not wait for them.

Shapes: R rows of one medium, H hidden.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmkit.checkpoint.adapters import media_folder
from glmkit.errors import needs_torch
from glmkit.multimodal.media import Medium

if TYPE_CHECKING:
    import torch

    from glmkit.multimodal.modeling import GLMMediaModel
    from glmkit.multimodal.processor import MediaProcessor

KEPT = 64
"""Media whose rows are kept."""

TOGETHER = 16
"""Media that are encoded at once."""


class MediaReader:
    """Reads media for a loaded GLM; several threads may.

    Args:
        model: A `GLMMediaModel`, or the folder of one.
        device: Where it computes.

    Raises:
        CheckpointError: The folder's configuration cannot be read.
    """

    def __init__(self, model: GLMMediaModel | Path, device: Any = "cpu"):
        from glmkit.multimodal.configuration import read_media_config

        self._source, self._device = model, device
        self._config = read_media_config(model) if isinstance(model, Path) else model.config
        self._known: OrderedDict[Any, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it reads, of "image", "audio" and "video"."""
        return self._config.kinds

    @cached_property
    def model(self) -> GLMMediaModel:
        """The `GLMMediaModel`, in evaluation mode.

        Raises:
            CheckpointError: Its folder cannot be read.
        """
        found: Any = self._source
        if isinstance(found, Path):
            from glmkit.multimodal.modeling import load_media

            found = load_media(found.parent)
        return found.to(self._device).eval()

    @cached_property
    def processor(self) -> MediaProcessor:
        """What prepares its media."""
        from glmkit.multimodal.processor import MediaProcessor

        return MediaProcessor.of(self.model)

    def count_rows(self, medium: Medium) -> int:
        """Returns R of a medium.

        Raises:
            MediaError: It cannot be read, or the model reads none of its kind.
        """
        return self.processor.count_rows(medium)

    def rows(self, media: Sequence[Medium]) -> list[torch.Tensor]:
        """Returns float [R, H] of each medium, on the CPU.

        Raises:
            MediaError: As `count_rows`.
        """
        keys = [one.version for one in media]
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
        new = {key: one for key, one in zip(keys, media, strict=True) if key not in found}
        names = list(new)
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            found |= zip(some, self._encode([new[key] for key in some]), strict=True)
        with self._lock:
            for key in keys:
                self._known[key] = found[key]
                self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return [found[key] for key in keys]

    def _encode(self, media: Sequence[Medium]) -> list[torch.Tensor]:
        import torch

        prepared = self.processor(media)
        tensors = {name: one.to(self.model.device) for name, one in prepared.tensors.items()}
        with torch.inference_mode():
            table = self.model(**tensors).float().cpu()
        return [
            table[first : first + count].clone()
            for first, count in zip(prepared.first_rows, prepared.counts, strict=True)
        ]


def load_reader(path: Path, device: Any = "cpu") -> MediaReader | None:
    """Returns what reads the media of a model's or adapter's folder, or None.

    Raises:
        CheckpointError: Its configuration cannot be read.
    """
    folder = media_folder(path)
    if folder is None:
        return None
    with needs_torch("A model that reads images, sounds or clips", "能读图像、声音或视频的模型"):
        return MediaReader(folder, device)

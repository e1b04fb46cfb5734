"""Images, sounds and clips -> the tensors that encoders read, and the places of their rows.

In: media, and the configuration of what reads them. Out: `Prepared`. Sizes, rates and frames are the encoder's; transformers'
own image processors and feature extractors do the rest.

Shapes: n media of a kind (of sound, windows), F frames of a clip.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glmkit.errors import MediaError
from glmkit.multimodal.clips import read_clip
from glmkit.multimodal.configuration import GLMMediaConfig
from glmkit.multimodal.encoders import WAVE_RATE, architecture, picture_side
from glmkit.multimodal.images import read_image, squared
from glmkit.multimodal.media import KINDS, NAMES, Medium
from glmkit.multimodal.sounds import count_samples, read_sound
from glmkit.special_tokens import FIRST_MEDIA_ID

FEW, MAX_THREADS = 4, 8
"""Fewer media are prepared one by one; more by so many threads at most."""

SLACK = 0.1
"""Seconds at the end of a sound that are no window of their own."""

LENGTHS_KEPT = 100_000
"""Sounds whose length is remembered."""


@dataclass(frozen=True)
class Prepared:
    """Media as their encoders read them.

    Attributes:
        tensors: Arguments of `GLMMediaModel.forward`.
        first_rows: For each medium its first row in the table that it returns.
        counts: For each medium its number of rows.
    """

    tensors: dict[str, torch.Tensor]
    first_rows: list[int]
    counts: list[int]


def shift_rows(ids: np.ndarray, runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns ids that name rows of a shared table, in the place of rows counted through their own media.

    Args:
        ids: int64 [S]; those from `FIRST_MEDIA_ID` on count the rows of their media, one after the other.
        runs: Of each medium its first row in the shared table, and its number of rows.
    """
    table = np.concatenate([np.arange(first, first + count) for first, count in runs] or [np.empty(0, np.int64)])  # fmt: skip
    there = ids >= FIRST_MEDIA_ID
    shifted = ids.copy()
    shifted[there] = FIRST_MEDIA_ID + table[ids[there] - FIRST_MEDIA_ID]
    return shifted


class MediaProcessor:
    """Prepares media for a `GLMMediaModel`.

    Args:
        config: Its configuration.
        rows: Kind -> rows of an image, a clip, or a window of a sound.
        kept_bytes: So many bytes of what was prepared are kept; what comes when they are full is prepared each time.

    Attributes:
        tools: Kind -> transformers' image processor or feature extractor; of clips None where the image's is used.
    """

    def __init__(self, config: GLMMediaConfig, rows: dict[str, int], kept_bytes: int = 0):
        self.config, self.rows = config, rows
        self._kept: dict[Any, Any] = {}
        self._kept_bytes, self._room = kept_bytes, kept_bytes
        self.tools = {kind: self._tool(kind) for kind in config.kinds}
        self._lengths: dict[Any, int] = {}

    @classmethod
    def of(cls, model: Any, kept_bytes: int = 0) -> MediaProcessor:
        """Returns the processor of a `GLMMediaModel`."""
        rows = {kind: model.rows(kind) for kind in model.config.kinds}
        return cls(model.config, rows, kept_bytes)

    def count_rows(self, medium: Medium) -> int:
        """Returns how many rows a medium takes; of a sound that depends on its length, which is looked up once.

        Raises:
            MediaError: The model reads no media of its kind, or it cannot be read.
        """
        self._check(medium)
        if medium.kind != "audio":
            return self.rows[medium.kind]
        version = medium.version
        if version not in self._lengths:
            if len(self._lengths) >= LENGTHS_KEPT:
                self._lengths.clear()
            count = count_samples(medium, WAVE_RATE)
            # Where the header leaves it open, what is decoded counts.
            behind = (count - self._slack) % self._samples
            if min(behind, self._samples - behind) < self._slack // 4:
                count = len(read_sound(medium, WAVE_RATE))
            self._lengths[version] = len(self._starts(count))
        return self.rows["audio"] * self._lengths[version]

    def __call__(self, media: Sequence[Medium]) -> Prepared:
        """Prepares media; those that are the same are read once.

        Raises:
            MediaError: One cannot be read, or the model reads none of its kind.
            MissingDependencyError: Pillow or PyAV is not installed.
        """
        tensors: dict[str, torch.Tensor] = {}
        places: dict[Any, tuple[int, int]] = {}
        row = 0
        for kind in KINDS:
            values, times = [], []
            different = {one.key: one for one in media if one.kind == kind}
            for medium, prepared in zip(different.values(), self._each(kind, different.values()), strict=True):  # fmt: skip
                if kind == "video":
                    prepared, shown = prepared
                    times.append(shown)
                count = self.rows[kind] * (len(prepared) if kind == "audio" else 1)
                places[medium.key] = (row, count)
                row += count
                values += list(prepared) if kind == "audio" else [prepared]
            if values:
                tensors[NAMES[kind]] = torch.from_numpy(np.stack(values))
            if times:
                tensors["video_times"] = torch.from_numpy(np.stack(times))
        found = [places[medium.key] for medium in media]
        return Prepared(tensors, [first for first, _ in found], [count for _, count in found])

    def _each(self, kind: str, media: Iterable[Medium]) -> Iterator[Any]:
        """Yields what is prepared of each medium, several at a time: decoders let other threads work."""
        some = list(media)
        for medium in some:
            self._check(medium)
        if not self._kept_bytes:
            yield from self._made(kind, some)
            return
        versions = [medium.version for medium in some]
        new = {key: one for key, one in zip(versions, some, strict=True) if key not in self._kept}
        made = dict(zip(new, self._made(kind, list(new.values())), strict=True))
        for key, one in made.items():
            size = sum(part.nbytes for part in (one if isinstance(one, tuple) else (one,)))
            if size <= self._room:
                self._kept[key] = one
                self._room -= size
        yield from (made[key] if key in made else self._kept[key] for key in versions)

    def _made(self, kind: str, media: list[Medium]) -> list[Any]:
        prepare = getattr(self, f"_{kind}")
        if len(media) < FEW:
            return [*map(prepare, media)]
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
            return [*threads.map(prepare, media)]

    def _check(self, medium: Medium) -> None:
        if medium.kind not in self.rows:
            raise MediaError(
                f"{medium.name}: this model reads no {medium.kind}; it reads {', '.join(self.rows) or 'no media'}"
            )

    def _tool(self, kind: str) -> Any:
        """Returns transformers' processor of a kind, with the encoder's sizes."""
        of = self.config.of(kind)
        if not of.encoder:  # a clip's frames are images
            return None
        encoded = "image" if kind == "video" else kind
        kept = architecture(of.values["model_type"], encoded)
        settings = dict(of.preprocessor) or self._usual(of, encoded)
        if encoded == "image":  # pictures are square already: what is scaled only, is not cut
            side = picture_side(of.values, of.preprocessor)
            settings |= {"size": {"height": side, "width": side}, "do_center_crop": False}
        for unsaid in ("image_processor_type", "feature_extractor_type", "processor_class"):
            settings.pop(unsaid, None)
        return kept.of_transformers(kept.processor)(**settings)

    def _usual(self, of: Any, kind: str) -> dict[str, Any]:
        """Returns the settings of a preprocessor where a recipe has none: the encoder's sizes, values in [-1, 1]."""
        if kind == "image":
            return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
        if of.values["model_type"] != "whisper":
            return {"sampling_rate": WAVE_RATE}
        bins = of.values.get("num_mel_bins", 80)
        return {"feature_size": bins, "chunk_length": of.seconds}

    def _image(self, medium: Medium) -> np.ndarray:
        return self._pixels("image", [read_image(medium)])[0]

    def _video(self, medium: Medium) -> tuple[np.ndarray, np.ndarray]:
        frames, times = read_clip(medium, self.config.of("video").frames)
        kind = "video" if self.tools["video"] is not None else "image"
        return self._pixels(kind, frames), times

    def _pixels(self, kind: str, pictures: list[Any]) -> np.ndarray:
        """Returns float32 [n, 3, height, width]."""
        squares = [squared(one) for one in pictures]
        return np.stack(self.tools[kind](squares, return_tensors="np")["pixel_values"]).astype(
            np.float32
        )

    def _audio(self, medium: Medium) -> np.ndarray:
        """Returns windows, float32 [n, mel bins, frames] or [n, samples]."""
        tool, windows = self.tools["audio"], self._windows(medium)
        found = tool(windows, sampling_rate=WAVE_RATE, return_tensors="np", padding="max_length", max_length=self._samples, truncation=True)  # fmt: skip
        return np.asarray(next(found[name] for name in ("input_features", "input_values") if name in found), np.float32)  # fmt: skip

    @property
    def _samples(self) -> int:
        """Samples of a window."""
        tool = self.tools["audio"]
        usual = round(self.config.of("audio").seconds * WAVE_RATE)
        return int(getattr(tool, "n_samples", usual))

    def _windows(self, medium: Medium) -> list[np.ndarray]:
        sound = read_sound(medium, WAVE_RATE)
        return [sound[start : start + self._samples] for start in self._starts(len(sound))]

    def _starts(self, count: int) -> range:
        """Returns where the windows of a sound begin; codecs fill up their last frame with silence, which gets none of its own."""
        return range(0, max(count - self._slack, 1), self._samples)

    @property
    def _slack(self) -> int:
        return round(SLACK * WAVE_RATE)

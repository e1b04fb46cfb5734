"""A clip -> a fixed number of frames, spread evenly over its length, and when each is shown.

In: a `Medium`. Out: PIL images in RGB and their times. PyAV decodes it; frames that are not wanted are not kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.errors import MediaError
from glmkit.multimodal.images import check_pixels
from glmkit.multimodal.media import Medium
from glmkit.multimodal.sounds import opened

MAX_FRAMES = 200_000
"""A clip of more is refused: cut it first."""

USUAL_RATE = 24.0
"""Frames a second of an array that does not say."""


def read_clip(medium: Medium, count: int) -> tuple[list[Any], np.ndarray]:
    """Returns `count` frames (of a shorter clip some twice) and their times, float32 [count], in seconds from the first.

    Raises:
        MediaError: It is damaged, shows nothing, or is too large or too long.
        MissingDependencyError: PyAV or Pillow is not installed.
    """
    return _decoded(medium, count) if medium.is_file else _from_array(medium, count)


def _decoded(medium: Medium, count: int) -> tuple[list[Any], np.ndarray]:
    with opened(medium, "a clip") as container:
        if not container.streams.video:
            raise MediaError(f"{medium.name} shows nothing: it has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise MediaError(f"{medium.name} has a codec that FFmpeg does not decode here")
        check_pixels(medium, stream.codec_context.width, stream.codec_context.height)
        total = stream.frames or _counted(container, stream)
    if not 0 < total <= MAX_FRAMES:
        raise MediaError(f"{medium.name} has {total} frames; allowed are 1 to {MAX_FRAMES:,}")
    wanted = np.linspace(0, total - 1, count).round().astype(int)
    images: dict[int, Any] = {}
    times: dict[int, float] = {}
    with opened(medium, "a clip") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        kept, last = set(wanted.tolist()), 0
        for number, frame in enumerate(container.decode(stream)):
            last = number
            if number in kept or number == 0:
                images[number] = _upright(frame)
                times[number] = float(frame.time) if frame.time is not None else number / USUAL_RATE
            if number >= wanted[-1]:
                break
    if not images:
        raise MediaError(f"{medium.name} shows nothing: no frame of it can be decoded")
    # A header may promise more frames than there are.
    have = np.array(sorted(images))
    chosen = [int(have[np.searchsorted(have, min(one, last), side="right") - 1]) for one in wanted]
    start = times[chosen[0]]
    return [images[one] for one in chosen], np.array(
        [times[one] - start for one in chosen], np.float32
    )


def _counted(container: Any, stream: Any) -> int:
    return sum(1 for packet in container.demux(stream) if packet.size)


def _upright(frame: Any) -> Any:
    image = frame.to_image().convert("RGB")
    turned = int(getattr(frame, "rotation", 0) or 0)
    return image.rotate(turned, expand=True) if turned % 360 else image


def _from_array(medium: Medium, count: int) -> tuple[list[Any], np.ndarray]:
    from PIL import Image

    pair = isinstance(medium.source, tuple)
    frames, rate = medium.source if pair else (medium.source, USUAL_RATE)
    array = np.asarray(frames)
    if (
        array.dtype != np.uint8
        or array.ndim != 4
        or array.shape[3] != 3
        or not len(array)
        or not rate > 0
    ):
        raise MediaError(
            f"{medium.name} has the shape {list(array.shape)}, the type {array.dtype} and {rate} frames a second; needed is uint8 "
            "[frames, height, width, 3] with at least one frame, and a rate above 0"
        )
    check_pixels(medium, array.shape[2], array.shape[1])
    wanted = np.linspace(0, len(array) - 1, count).round().astype(int)
    return [Image.fromarray(array[one]) for one in wanted], (wanted / rate).astype(np.float32)

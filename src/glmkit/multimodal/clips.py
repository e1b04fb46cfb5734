"""A clip -> a fixed number of frames, spread evenly over its length, and when each is shown.

In: a `Medium`. Out: PIL images in RGB and their times. PyAV decodes it; frames that are not wanted are not kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.errors import MediaError
from glmkit.multimodal.images import check_pixels
from glmkit.multimodal.media import Medium
from glmkit.multimodal.sounds import av_module, opened, stream_of

MAX_FRAMES = 200_000
"""A clip of more is refused: cut it first."""

WORTH_THREADS = 320 * 240
"""Pixels of a frame from which on several threads decode a clip faster than one."""

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
    found: dict[int, tuple[Any, float]] = {}
    with opened(medium, "a clip") as container:
        stream = stream_of(medium, container, "video")
        check_pixels(medium, stream.codec_context.width, stream.codec_context.height)
        told = stream.frames
        total = told or _counted(container, stream)
        if not 0 < total <= MAX_FRAMES:
            raise MediaError(
                f"{medium.name} has {total:,} frames; allowed are 1 to {MAX_FRAMES:,}. Cut it"
            )
        wanted = _spread(total, count)
        if told:
            found, seen = _frames(medium, container, stream, wanted)
    if not told:  # counting has read to the end, and not every container can be wound back
        found, seen = _frames_anew(medium, wanted)
    if found and seen <= wanted[-1]:  # a header may promise more frames than there are
        wanted = _spread(seen, count)
        found, _ = _frames_anew(medium, wanted)
    if not found:
        raise MediaError(f"{medium.name} shows nothing: no frame of it can be decoded")
    images, times = zip(*(found[one] for one in wanted), strict=True)
    return list(images), np.array(times, np.float32) - np.float32(times[0])


def _spread(total: int, count: int) -> list[int]:
    """Returns the numbers of `count` among `total` frames, from the first to the last."""
    return np.linspace(0, total - 1, count).round().astype(int).tolist()


def _frames_anew(medium: Medium, wanted: list[int]) -> tuple[dict[int, tuple[Any, float]], int]:
    """As `_frames`, of a file that is opened for it."""
    with opened(medium, "a clip") as container:
        return _frames(medium, container, stream_of(medium, container, "video"), wanted)


def _frames(
    medium: Medium, container: Any, stream: Any, wanted: list[int]
) -> tuple[dict[int, tuple[Any, float]], int]:
    """Returns number -> the frame and its time, in seconds, of those wanted that are there; and how many there were."""
    found: dict[int, tuple[Any, float]] = {}
    kept, seen, pixels = set(wanted), 0, 0
    to_rgb = (
        av_module().video.reformatter.VideoReformatter()
    )  # a frame's own would be made anew for each
    codec = stream.codec_context
    if codec.width * codec.height < WORTH_THREADS:
        codec.thread_count = 1
    else:
        stream.thread_type = "AUTO"
    rate = float(stream.average_rate or USUAL_RATE)
    for number, frame in enumerate(container.decode(stream)):
        seen, pixels = number + 1, pixels + frame.width * frame.height
        medium.decoded(pixels=pixels)
        if number in kept:
            check_pixels(medium, frame.width, frame.height)
            time = number / rate if frame.time is None else float(frame.time)
            found[number] = _upright(frame, to_rgb), time
        if number >= wanted[-1]:
            break
    return found, seen


def _counted(container: Any, stream: Any) -> int:
    return sum(1 for packet in container.demux(stream) if packet.size)


def _upright(frame: Any, to_rgb: Any) -> Any:
    from PIL import Image

    image = Image.fromarray(to_rgb.reformat(frame, format="rgb24").to_ndarray())
    turned = int(getattr(frame, "rotation", 0) or 0)
    return image.rotate(turned, expand=True) if turned % 360 else image


def _from_array(medium: Medium, count: int) -> tuple[list[Any], np.ndarray]:
    from PIL import Image

    pair = isinstance(medium.source, tuple)
    frames, rate = medium.source if pair else (medium.source, USUAL_RATE)
    try:
        array = np.asarray(frames)
    except ValueError as error:  # a list of frames that differ in size
        raise MediaError(f"{medium.name} holds frames of several sizes; needed is one") from error
    if (
        array.dtype != np.uint8
        or array.ndim != 4
        or array.shape[3] != 3
        or not len(array)
        or not isinstance(rate, int | float | np.number)
        or not 0 < rate < np.inf
    ):
        raise MediaError(
            f"{medium.name} has the shape {list(array.shape)}, the type {array.dtype} and {rate} frames a second; needed is uint8 "
            "[frames, height, width, 3] with at least one frame, and a rate above 0"
        )
    check_pixels(medium, array.shape[2], array.shape[1])
    wanted = _spread(len(array), count)
    times = (np.array(wanted) / float(rate)).astype(np.float32)
    return [Image.fromarray(array[one]) for one in wanted], times

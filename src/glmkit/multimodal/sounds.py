"""A sound -> samples of one channel at the encoder's rate.

In: a `Medium`. Out: float32 [n] in [-1, 1]. PyAV decodes whatever FFmpeg knows (WAV, FLAC, MP3, AAC, Opus, the sound of a clip …)
and resamples; it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glmkit.errors import MediaError, missing_dependency
from glmkit.multimodal.media import Medium

MAX_SECONDS = 3600.0
"""A longer sound is refused: cut it first."""

MIN_SECONDS = 0.01


def read_sound(medium: Medium, rate: int) -> np.ndarray:
    """Returns float32 [n]: the mean of all channels, at `rate` Hz.

    Raises:
        MediaError: It is damaged, holds no sound, is too short or too long, or not finite.
        MissingDependencyError: PyAV is not installed.
    """
    samples = _decoded(medium, rate) if medium.is_file else _resampled(medium, rate)
    seconds = len(samples) / rate
    if seconds < MIN_SECONDS:
        raise MediaError(f"{medium.name} is {seconds:.3f} s long; a sound of at least {MIN_SECONDS} s is needed")  # fmt: skip
    return samples


@contextmanager
def opened(medium: Medium, what: str) -> Iterator[Any]:
    """Opens a file with PyAV; what goes wrong in it becomes a `MediaError`."""
    av = _av()
    try:
        with medium.file() as file, av.open(file, metadata_errors="ignore") as container:
            yield container
    except av.error.FFmpegError as error:
        raise MediaError(f"{medium.name} cannot be decoded ({error.strerror or error}); is it {what}, and whole?") from error  # fmt: skip
    except (UnicodeDecodeError, EOFError, MemoryError, IndexError) as error:
        raise MediaError(f"{medium.name} is damaged: {error}") from error


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "reading sounds and clips", "multimodal") from error
    av.logging.set_level(None)  # FFmpeg's own lines; the errors say it
    return av


def _decoded(medium: Medium, rate: int) -> np.ndarray:
    with opened(medium, "a sound") as container:
        if not container.streams.audio:
            raise MediaError(f"{medium.name} holds no sound")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError(f"{medium.name} has a codec that FFmpeg does not decode here")
        return _collected(medium, rate, container.decode(stream))


def _resampled(medium: Medium, rate: int) -> np.ndarray:
    values, given = medium.source
    samples = np.atleast_2d(np.asarray(values))
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / float(np.iinfo(samples.dtype).max)
    if samples.ndim != 2 or len(samples) > 32 or not np.isfinite(samples).all():
        raise MediaError(
            f"{medium.name} has the shape {list(samples.shape)}; needed are finite samples [n] or [channels, n]"
        )
    if not 1000 <= given <= 768_000 or given != int(given):
        raise MediaError(f"{medium.name} has a rate of {given} Hz; allowed are whole numbers from 1,000 to 768,000")  # fmt: skip
    mono = samples.mean(0).astype(np.float32)
    if given == rate or not len(mono):
        return mono
    frame = _av().AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), "fltp", "mono")
    frame.sample_rate = int(given)
    return _collected(medium, rate, iter([frame]))


def _collected(medium: Medium, rate: int, frames: Iterator[Any]) -> np.ndarray:
    """Returns the samples of decoded frames, resampled."""
    resampler = _av().AudioResampler(format="fltp", layout="mono", rate=rate)
    parts: list[np.ndarray] = []
    count = 0
    for frame in frames:
        frame.pts = None  # gaps in a stream's clock are no silence
        for piece in resampler.resample(frame):
            parts.append(piece.to_ndarray()[0])
            count += len(parts[-1])
        if count > MAX_SECONDS * rate:
            raise MediaError(f"{medium.name} is longer than {MAX_SECONDS / 60:.0f} minutes; cut it")
    parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return np.nan_to_num(samples.astype(np.float32))

"""A sound -> samples of one channel at the encoder's rate.

In: a `Medium`. Out: float32 [n], of a file in [-1, 1]. PyAV decodes what FFmpeg knows (WAV, FLAC, MP3, AAC, Opus, the sound of a
clip …) and resamples; it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np

from glmkit.errors import MediaError, UserError, missing_dependency
from glmkit.multimodal.media import Medium

MAX_SECONDS = 3600.0
"""A longer sound is refused: cut it first."""

MIN_SECONDS = 0.01

SAMPLES_OF_SECOND = 2 * 48_000
"""What counts as a second where decoding has a limit, however short it is: silence of a very high rate is a small file, too."""

RATES = (1000, 768_000)
"""Lowest and highest rate of an array, in Hz."""

FORMATS = (
    "wav,w64,aiff,au,flac,mp3,ogg,aac,ac3,eac3,amr,ape,wv,tta,mov,matroska,avi,asf,flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,"
    "av1,ivf,gif,rm,dv"
)
"""Containers that are opened, by FFmpeg's names. Others, such as playlists, would make it open further files and addresses."""


PROBED_OF_WAVE = "8192"
"""Bytes of a WAV file that FFmpeg reads before it believes its header; it would decode five seconds."""


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
    if not np.isfinite(samples).all():
        raise MediaError(f"{medium.name} has samples that are not finite (NaN or infinity); write it anew")  # fmt: skip
    return samples


def count_samples(medium: Medium, rate: int) -> int:
    """Returns how many samples `read_sound` returns, to a few; where a file's header says it, nothing is decoded.

    Raises:
        MediaError: As `read_sound`; of damage behind the header not yet.
    """
    if medium.is_file:
        with opened(medium, "a sound") as container:
            stream = stream_of(medium, container, "audio")
            plain = stream.codec_context.name.startswith(("pcm_", "flac"))
            if plain and stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
                _check_length(medium, seconds)
                if seconds >= MIN_SECONDS:
                    return round(seconds * rate)
    return len(read_sound(medium, rate))


@contextmanager
def opened(medium: Medium, what: str) -> Iterator[Any]:
    """Opens a file with PyAV; what goes wrong in it becomes a `MediaError`."""
    av = av_module()
    only = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        with medium.file() as file:
            if _is_wave(file):
                only["probesize"] = PROBED_OF_WAVE
            with av.open(file, metadata_errors="ignore", container_options=only) as container:
                yield container
    except UserError:
        raise
    except av.error.FFmpegError as error:
        raise MediaError(f"{medium.name} cannot be decoded ({error.strerror or error}); is it {what}, and whole?") from error  # fmt: skip
    except Exception as error:  # a damaged file makes PyAV raise anything
        raise MediaError(f"{medium.name} is damaged ({str(error) or type(error).__name__}); save or download it again") from error  # fmt: skip


def _is_wave(file: Any) -> bool:
    start = file.read(12)
    file.seek(0)
    return bool(start[:4] == b"RIFF" and start[8:] == b"WAVE")


def stream_of(medium: Medium, container: Any, kind: str) -> Any:
    """Returns the first stream of a kind, "audio" or "video"; the picture on a sound's cover is none.

    Raises:
        MediaError: There is none, or FFmpeg cannot decode it.
    """
    cover = av_module().stream.Disposition.attached_pic
    found = [one for one in getattr(container.streams, kind) if not one.disposition & cover]
    if not found:
        there = sorted({one.type for one in container.streams if one not in found})
        lacks = "holds no sound" if kind == "audio" else "shows nothing"
        raise MediaError(
            f"{medium.name} {lacks}: it has no {kind} stream, only {', '.join(there) or 'nothing'}"
        )
    if found[0].codec_context is None:
        raise MediaError(f"{medium.name} has a codec that FFmpeg does not decode here; convert it, to FLAC or MP4 for example")  # fmt: skip
    return found[0]


def av_module() -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "reading sounds and clips", "multimodal") from error
    av.logging.set_level(None)  # FFmpeg's own lines; the errors say it
    return av


def _decoded(medium: Medium, rate: int) -> np.ndarray:
    with opened(medium, "a sound") as container:
        stream = stream_of(medium, container, "audio")
        if stream.duration and stream.time_base:
            _check_length(medium, float(stream.duration * stream.time_base))
        return _collected(medium, rate, container.decode(stream))


def _resampled(medium: Medium, rate: int) -> np.ndarray:
    values, given = medium.source
    samples = np.atleast_2d(np.asarray(values))
    if samples.dtype.kind not in "iuf" or samples.ndim != 2 or not 0 < len(samples) <= 32:
        raise MediaError(
            f"{medium.name} has the shape {list(np.shape(values))} and type {samples.dtype}; needed are samples [n] or "
            "[channels, n] with at most 32 channels, whole or floating numbers"
        )
    if not RATES[0] <= given <= RATES[1] or given != int(given):
        raise MediaError(f"{medium.name} has a rate of {given} Hz; allowed are whole numbers from {RATES[0]:,} to {RATES[1]:,}")  # fmt: skip
    _check_length(medium, samples.shape[1] / given)
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        middle = (
            int(limits.max) + int(limits.min) + 1
        ) // 2  # 0, or half of what unsigned numbers reach
        samples = (samples.astype(np.float64) - middle) / (limits.max - middle + 1)
    return _at_rate(samples.mean(0).astype(np.float32), int(given), rate)


def _check_length(medium: Medium, seconds: float) -> None:
    medium.decoded(seconds=seconds)
    if seconds > MAX_SECONDS:
        raise MediaError(f"{medium.name} is longer than {MAX_SECONDS / 60:.0f} minutes; cut it")


def _collected(medium: Medium, rate: int, frames: Iterator[Any]) -> np.ndarray:
    """Returns the samples of decoded frames as one channel at `rate`; FFmpeg's own way to one channel would add the channels up."""
    parts: list[np.ndarray] = []
    seconds, samples = 0.0, 0
    for given, some in groupby(frames, lambda frame: int(frame.sample_rate)):
        monos = []
        for frame in some:
            monos.append(_mono(frame))
            seconds += len(monos[-1]) / given
            samples += frame.samples * frame.layout.nb_channels
            _check_length(medium, seconds)
            medium.decoded(seconds=samples / SAMPLES_OF_SECOND)
        parts.append(_at_rate(np.concatenate(monos), given, rate))
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _mono(frame: Any) -> np.ndarray:
    """Returns the mean of a frame's channels, float32 [n] in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind in "iu":
        reach = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples - (reach if samples.dtype.kind == "u" else 0.0)) / reach
    return samples.mean(0).astype(np.float32)


def _at_rate(mono: np.ndarray, given: int, rate: int) -> np.ndarray:
    """Returns samples [n] at another rate."""
    if given == rate or not len(mono) or not np.isfinite(mono).all():
        return mono
    av = av_module()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), "fltp", "mono")
    frame.sample_rate = given
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])

"""Media as their encoders read them, decoded once, by several processes.

In: paths of media of one kind, and the model that reads them. Out: `Decoded`, half-precision arrays in a file that is gone with the
program: a lesson reads each medium hundreds of times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.multimodal.media import NAMES, as_medium
from glmkit.multimodal.modeling import GLMMediaModel
from glmkit.multimodal.processor import MediaProcessor

TOGETHER = 64


@dataclass(frozen=True)
class Decoded:
    """Media of one kind.

    Attributes:
        values: float16 [n, …], what the encoder of the kind reads.
        times: float32 [n, frames] of clips, else None.
    """

    values: np.ndarray
    times: np.ndarray | None

    def __len__(self) -> int:
        return len(self.values)


def decode(
    media: GLMMediaModel,
    kind: str,
    paths: Sequence[Path],
    processes: int = 1,
) -> Decoded:
    """Returns decoded media, in the order of their paths; sounds are as long as one window.

    Args:
        media: Who reads them.
        kind: Of the media.
        paths: Where they are.
        processes: That decode.

    Raises:
        MediaError: One cannot be read.
    """
    processor = MediaProcessor.of(media)
    first, times = _prepared(processor, kind, paths[:1])
    file = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the array lives
    values: Any = np.memmap(file, np.float16, "w+", shape=(len(paths), *first.shape[1:]))
    shown = None if times is None else np.empty((len(paths), *times.shape[1:]), np.float32)
    starts = range(0, len(paths), TOGETHER)
    parts = [paths[start : start + TOGETHER] for start in starts]
    job = partial(_prepared, processor, kind)
    with get_context("fork").Pool(processes) as pool:
        for start, (some, when) in zip(starts, pool.imap(job, parts), strict=True):
            values[start : start + len(some)] = some
            if shown is not None:
                shown[start : start + len(some)] = when
    return Decoded(values, shown)


def _prepared(
    processor: MediaProcessor, kind: str, paths: Sequence[Path]
) -> tuple[np.ndarray, np.ndarray | None]:
    found = processor([as_medium(kind, path) for path in paths]).tensors  # type: ignore[arg-type]
    values = found[NAMES[kind]].numpy().astype(np.float16)  # type: ignore[index]
    assert len(values) == len(paths)
    return values, found["video_times"].numpy() if kind == "video" else None

"""A medium as users give it: an image, a sound or a clip that lies somewhere.

In: a path, bytes, a data URL, a record of `datasets`, a PIL image, an array. Out: `Medium`, which knows its kind and can be opened.
Nothing is decoded here, and nothing is ever fetched from the network.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from glmkit.errors import MediaError, MediaLimitError
from glmkit.special_tokens import MEDIA_MARKER, MEDIA_MARKERS

Kind = Literal["image", "audio", "video"]

KINDS: tuple[Kind, ...] = ("image", "audio", "video")
"""In the order in which their rows stand in a batch's table of embeddings."""

NAMES: dict[Kind, str] = {"image": "images", "audio": "audios", "video": "videos"}
"""Kind -> argument of `GLMMediaModel.forward`, field of a request."""

_KIND_OF = {marker: kind for kind, marker in MEDIA_MARKERS.items()}
_DATA_URL = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?(?P<packed>;base64)?,", re.I
)


class Allowance:
    """What decoding some media may take, all of them together: a small file may hold hours, or pictures without end.

    Several threads may take of it; a medium that is decoded twice counts once.

    Args:
        pixels: Most of all images, and of all frames of clips that are decoded on the way to those that are read.
        seconds: Most of all sounds.
    """

    def __init__(self, pixels: int, seconds: float):
        self._most = {"pixels": pixels, "seconds of sound": seconds}
        self._taken: dict[str, dict[int, float]] = {what: {} for what in self._most}
        self._lock = threading.Lock()

    def take(self, medium: Medium, what: str, amount: float) -> None:
        """Notes how much of a medium has been decoded by now.

        Raises:
            MediaLimitError: With this it is more than is allowed.
        """
        with self._lock:
            taken = self._taken[what]
            taken[id(medium)] = max(amount, taken.get(id(medium), 0))
            if sum(taken.values()) <= self._most[what]:
                return
        raise MediaLimitError(
            f"with {medium.name} there are more than {self._most[what]:,} {what} to decode (of clips, all frames count); make the "
            "images, sounds and clips smaller or shorter, or give less at a time"
        )


@dataclass(frozen=True, eq=False)
class Medium:
    """One image, sound or clip.

    Attributes:
        kind: "image", "audio" or "video".
        source: A path; bytes of a file; a `PIL.Image`; for audio `(samples, rate)`, float [n] or [channels, n] and Hz; for video
            an array uint8 [frames, height, width, 3] or `(frames, frames a second)`.
        name: What messages call it.
        allowance: What decoding it may take, together with others; None is without a limit of that kind.
    """

    kind: Kind
    source: Any = field(repr=False)
    name: str
    allowance: Allowance | None = None

    def decoded(self, pixels: int = 0, seconds: float = 0.0) -> None:
        """Is told how much of it has been decoded by now.

        Raises:
            MediaLimitError: It is more than its allowance.
        """
        if self.allowance is not None:
            self.allowance.take(self, "pixels", pixels)
            self.allowance.take(self, "seconds of sound", seconds)

    def file(self) -> BinaryIO:
        """Returns the file's contents, from the start.

        Raises:
            MediaError: There is no such file, it is empty, or no file but a folder or a device.
        """
        empty = f"{self.name} is empty: a file of 0 bytes"
        if isinstance(self.source, bytes):
            if not self.source:
                raise MediaError(empty)
            return io.BytesIO(self.source)
        try:
            if not self.source.stat().st_size and self.source.is_file():
                raise MediaError(empty)
            if not self.source.is_file():  # opening a pipe would wait for ever
                raise MediaError(f"{self.name} is no file, but a folder or a device; name a file")
            return self.source.open("rb")
        except OSError as error:
            raise MediaError(
                f"{self.name} cannot be read: {error.strerror or error}; it is looked for at {str(self.source.absolute())!r}"
            ) from error

    @property
    def is_file(self) -> bool:
        """Whether it has still to be decoded."""
        return isinstance(self.source, bytes | Path)

    @cached_property
    def key(self) -> tuple[str, str]:
        """What equal media have in common: the kind, and a path or the hash of what was given."""
        if isinstance(self.source, Path):
            return self.kind, str(self.source)
        digest = hashlib.blake2b(digest_size=16)
        for part in _contents(self.source):
            digest.update(part)
        return self.kind, digest.hexdigest()

    @property
    def version(self) -> tuple[Any, ...]:
        """The key, and of a file its size and time of change: media with the same look and sound the same.

        Raises:
            MediaError: There is no such file.
        """
        if not isinstance(self.source, Path):
            return self.key
        with self.file():  # complains where there is none
            status = self.source.stat()
        return *self.key, status.st_size, status.st_mtime_ns

    @property
    def label(self) -> str:
        """What tells a medium from others wherever its folder lies: the end of its path, or the hash of its bytes."""
        if isinstance(self.source, Path):
            return "/".join(self.source.parts[-2:])
        return self.key[1]


def as_medium(kind: Kind, given: Any, *, base: Path | None = None, where: str = "") -> Medium:
    """Returns what was given as a medium.

    Args:
        kind: Of the medium.
        given: A path, `data:` URL, bytes, `{"bytes": …, "path": …}` or `{"array": …, "sampling_rate": …}` as `datasets` has
            them, a PIL image, `(samples, rate)`, an array of frames, or a `Medium`.
        base: Folder that a relative path starts from.
        where: What messages call the place that it was given at, such as `file:line`.

    Raises:
        MediaError: It is none of these, an address in the network, or a damaged data URL.
    """
    place = f"{where}: " if where else ""
    if isinstance(given, Medium):
        return given
    if isinstance(given, Mapping):
        given = _from_record(given, f"{place}the {kind}")
    if isinstance(given, bytes | bytearray | memoryview):
        return Medium(kind, bytes(given), f"{place}the {kind} of {len(given):,} bytes")
    if isinstance(given, str) and given[:5].lower() == "data:":
        return Medium(
            kind, _unpacked(given, f"{place}the {kind}"), f"{place}the {kind} in a data URL"
        )
    if isinstance(given, str) and re.match(r"[a-zA-Z][\w+.-]+://", given):
        raise MediaError(
            f"{place}the {kind} {given[:80]!r} is an address in the network, from which glmkit fetches nothing; give a file, "
            "its bytes or a data: URL"
        )
    if isinstance(given, str | Path):
        if not str(given).strip() or "\0" in str(given) or not _encodable(given):
            raise MediaError(f"{place}the path of the {kind} is {str(given)!r}; name a file")
        path = Path(given) if base is None else base / given
        return Medium(kind, path, f"{place}the {kind} {str(given)!r}")
    if not _fits(kind, given):
        raise MediaError(
            f"{place}a {type(given).__name__} is no {kind}; give a path, the file's bytes, a data: URL, or {_ARRAYS[kind]}"
        )
    return Medium(kind, given, f"{place}the {kind} given as {type(given).__name__}")


def kinds_of_markers(text: str) -> list[Kind]:
    """Returns the kinds of the media whose places a text names, in its order."""
    return [_KIND_OF[found] for found in MEDIA_MARKER.findall(text)]  # type: ignore[misc]


def without_markers(text: str) -> str:
    """Returns a text in which nothing looks like the place of a medium."""
    return MEDIA_MARKER.sub(lambda found: found.group().replace("<|", "< |"), text)


def in_order(
    text: str, media: Sequence[Medium], *, where: str = "the text"
) -> tuple[str, list[Medium]]:
    """Returns a text and its media in the order of their places; a text that names none gets them in front.

    Raises:
        MediaError: The text names other media than there are.
    """
    wanted = kinds_of_markers(text)
    if not wanted:
        return "".join(MEDIA_MARKERS[one.kind] for one in media) + text, list(media)
    queues: dict[str, Iterator[Medium]] = {
        kind: iter([one for one in media if one.kind == kind]) for kind in KINDS
    }
    problems = [
        f"{wanted.count(kind)} {MEDIA_MARKERS[kind]} and {given} {kind}(s)"
        for kind in KINDS
        if wanted.count(kind) != (given := sum(one.kind == kind for one in media))
    ]
    if problems:
        raise MediaError(
            f"{where} names other media than were given: {', '.join(problems)}. Write a marker where each belongs, in their order, "
            "or none at all: they stand before the text then"
        )
    return text, [next(queues[kind]) for kind in wanted]


_ARRAYS = {
    "image": "a PIL image, or an array uint8 [height, width, 3]",
    "audio": "(samples, rate): an array [n] or [channels, n] and its rate in Hz",
    "video": "an array uint8 [frames, height, width, 3], or (frames, frames a second)",
}


def _fits(kind: Kind, given: Any) -> bool:
    pair = isinstance(given, tuple) and len(given) == 2
    if kind == "audio":
        return pair and hasattr(given[0], "__len__") and isinstance(given[1], Real)
    if kind == "video":
        frames = given[0] if pair else given
        return hasattr(frames, "shape") or isinstance(frames, list)
    return hasattr(given, "shape") or hasattr(given, "getbands")


def _contents(source: Any) -> Iterator[bytes]:
    """Yields the bytes of something that is no path, with its form."""
    if isinstance(source, bytes):
        yield source
    elif hasattr(source, "getbands"):
        yield f"{source.mode} {source.size} ".encode()
        yield source.tobytes()
    elif isinstance(source, tuple):
        for part in source:
            yield from _contents(part)
    else:
        array = np.asarray(source)
        yield f"{array.dtype} {array.shape} ".encode()
        yield repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def _encodable(path: str | Path) -> bool:
    """Returns whether the system could have a file of that name: half of a character, as JSON may hold it, is none."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _from_record(given: Mapping[str, Any], name: str) -> Any:
    """Returns what a record of `datasets` (or of parquet) holds."""
    if given.get("array") is not None and given.get("sampling_rate"):
        return given["array"], given["sampling_rate"]
    for key in ("bytes", "path"):
        if given.get(key):
            return given[key]
    raise MediaError(f"{name} is a record of {', '.join(given) or 'nothing'}; it needs 'bytes', 'path', or 'array' and 'sampling_rate'")  # fmt: skip


def _unpacked(url: str, name: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None or not head["packed"]:
        raise MediaError(f"{name} is a data URL that is not base64: {url[:40]!r}…; write data:TYPE;base64,…")  # fmt: skip
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{name} is a data URL whose base64 is damaged: {error}") from error

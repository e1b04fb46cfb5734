"""The bodies of requests: read whole, within limits on one and on all together.

In: an ASGI `receive`. Out: bytes. A body with images, sounds and clips may be much larger than one of text, where the model reads such;
what such bodies may take together is bounded, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from glmkit.serving.failures import ClientGone, Failure, QueueFull
from glmkit.serving.settings import ServingSettings
from glmkit.serving.waiting import Receive

READ_PAST = 8
"""So many times the largest body are read and forgotten: who is cut off while sending often never sees why."""

TOGETHER = 8
"""So many times the largest body with media may be held at once, by all requests that are larger than texts may be."""

BASE64 = bytes(byte for byte in range(128) if chr(byte).isalnum() or chr(byte) in "+/=_-\\")
"""What files in base64 consist of, in JSON."""


@dataclass
class Place:
    """What one large body takes of the room for all of them.

    Attributes:
        size: In bytes.
    """

    size: int = 0


class Bodies:
    """Reads bodies for one server.

    Args:
        settings: Its limits.
    """

    def __init__(self, settings: ServingSettings):
        self._small = settings.max_body_bytes
        self._large = self._small + settings.max_media_bytes * 4 // 3 + 4
        self._taken = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """A place for a body, free again when its request has been answered."""
        place = Place()
        try:
            yield place
        finally:
            self._taken -= place.size

    async def read(self, declared: int, receive: Receive, media: bool, place: Place) -> bytes:
        """Returns a body.

        Args:
            declared: Its length in bytes, as its header says; 0 if it does not.
            receive: Gives it piece by piece.
            media: Whether it may have images, sounds and clips.
            place: Its own.

        Raises:
            Failure: It is too large.
            QueueFull: Too many large ones are here.
            ClientGone: The client went.
        """
        most = self._large if media else self._small
        parts, size = [], 0
        while declared <= READ_PAST * most:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            if size <= most:
                parts.append(message.get("body", b""))
                self._take(size, place)
            if not message.get("more_body", False):
                if size > most:
                    break
                return self._checked(b"".join(parts))
            if size > READ_PAST * most:
                break
        raise _too_large(most)

    def _take(self, size: int, place: Place) -> None:
        if size <= self._small:
            return
        self._taken += size - place.size
        place.size = size
        if self._taken > TOGETHER * self._large:
            raise QueueFull(1.0)

    def _checked(self, body: bytes) -> bytes:
        """Refuses a large body that is more than media, before it is parsed: many small values take long, and much memory."""
        if len(body) > self._small and len(body.translate(None, BASE64)) > self._small:
            raise _too_large(self._small, " beside its images, sounds and clips")
        return body


def _too_large(most: int, beside: str = "") -> Failure:
    return Failure(
        413,
        f"the body is larger than {most} bytes{beside}; send less at a time",
        "request_too_large",
    )

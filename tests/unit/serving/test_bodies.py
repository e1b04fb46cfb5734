"""Bodies of requests: how large one may be, and all large ones together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from glmkit.serving.bodies import TOGETHER, Bodies
from glmkit.serving.failures import ClientGone, Failure, QueueFull
from glmkit.serving.settings import ServingSettings

SETTINGS = ServingSettings(max_body_bytes=100, max_media_bytes=3000)
LARGEST = 100 + 4000 + 4


def pieces(*bodies: bytes, end: str = "http.request") -> Any:
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in bodies]
    rest = iter([*messages, {"type": end}])

    async def receive() -> Any:
        return next(rest)

    return receive


def test_what_is_read_and_what_is_refused():
    async def read(*bodies: bytes, media: bool = True, declared: int = 0) -> bytes:
        counted = Bodies(SETTINGS)
        with counted.place() as place:
            return await counted.read(declared, pieces(*bodies), media, place)

    assert asyncio.run(read(b"a" * 60, b"b" * 40, media=False)) == b"a" * 60 + b"b" * 40
    assert asyncio.run(read(b'{"images": "' + b"A" * 4000, b'"}')) == b'{"images": "' + b"A" * 4000 + b'"}'  # fmt: skip
    for bodies, media, declared in (
        ((b"a" * 101,), False, 0),
        ((b"a" * (LARGEST + 1),), True, 0),
        ((), True, 9 * LARGEST),
        ((b"[],",) * 40, True, 0),  # as large as media may be, and none of it base64
    ):
        with pytest.raises(Failure, match="larger than") as refused:
            asyncio.run(read(*bodies, media=media, declared=declared))
        assert refused.value.status == 413
    with pytest.raises(ClientGone):
        asyncio.run(Bodies(SETTINGS).read(0, pieces(b"a", end="http.disconnect"), True, Any))


def test_large_ones_together_have_a_limit_and_free_their_room():
    async def fill_up() -> None:
        counted = Bodies(SETTINGS)
        body = b"A" * LARGEST
        with contextlib.ExitStack() as held:
            for _ in range(TOGETHER):
                place = held.enter_context(counted.place())
                await counted.read(0, pieces(body[:2000], body[2000:]), True, place)
            with counted.place() as place, pytest.raises(QueueFull):
                await counted.read(0, pieces(body), True, place)
            with counted.place() as place:  # texts go on
                assert await counted.read(0, pieces(b"a" * 100), True, place)
        with counted.place() as place:
            assert await counted.read(0, pieces(body), True, place) == body

    asyncio.run(fill_up())

"""Work that nobody may want in the end: what comes back, and that nothing of it goes on."""

from __future__ import annotations

import asyncio
import time

import pytest

from glmkit.serving.failures import ClientGone, DeadlineExceeded
from glmkit.serving.pool import Pool
from glmkit.serving.waiting import in_time, unless_gone


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


def test_work_in_time():
    async def work() -> str:
        await asyncio.sleep(0.01)
        return "诗"

    async def wrong() -> str:
        raise KeyError("诗")

    async def both() -> None:
        assert await in_time(time.monotonic() + 60, work()) == "诗"
        with pytest.raises(KeyError):
            await in_time(time.monotonic() + 60, wrong())

    asyncio.run(both())


@pytest.mark.parametrize("seconds", [0.05, 0.0, -1.0])
def test_its_time_is_over(seconds: float):
    async def late() -> None:
        ended: list[str] = []
        with pytest.raises(DeadlineExceeded):
            await in_time(time.monotonic() + seconds, forever(ended))
        assert ended == ["ended"] or seconds <= 0  # what had no time may not have begun
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(late())


def test_the_client_goes():
    async def left() -> None:
        messages, ended = [{"type": "http.request"}, {"type": "http.disconnect"}], list[str]()

        async def receive() -> dict[str, str]:
            await asyncio.sleep(0.01)
            return messages.pop(0)

        with pytest.raises(ClientGone):
            await unless_gone(receive, forever(ended))
        assert ended == ["ended"]
        assert not messages
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(left())


def test_who_leaves_in_the_turn_in_which_a_result_comes_has_left():
    """The result is on its way when the client goes: what would come next (a text of a minute) must not begin."""
    pool = Pool(1, 1, "test-work")
    next_one: list[str] = []

    async def encode_and_write() -> None:
        next_one.append(await pool.run(lambda: "诗", time.monotonic() + 60))

    async def leave() -> None:
        task = asyncio.ensure_future(encode_and_write())
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still, so that the result waits for it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(leave())
    finally:
        pool.close()
    assert not next_one

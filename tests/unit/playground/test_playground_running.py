"""Work that belongs to a page ends with it; keys stand behind cookies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("fastapi")

from glmkit.playground.login import COOKIE, Door
from glmkit.playground.running import Running
from glmkit.serving.security import Keys


def test_a_session_that_ends_cancels_its_own_work_alone():
    closed: list[str] = []

    async def pieces(name: str) -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
                await asyncio.sleep(0.005 if name == "mine" else 3600)
        finally:
            closed.append(name)

    async def read(running: Running, name: str) -> int:
        count = 0
        async for _ in running.each(name, pieces(name)):
            count += 1
        return count

    async def all_of_it() -> None:
        running = Running()
        mine, other = (asyncio.create_task(read(running, name)) for name in ("mine", "other"))
        await asyncio.sleep(0.03)
        running.end("other")
        running.end("nobody")
        with pytest.raises(asyncio.CancelledError):
            await other
        assert closed == ["other"]
        assert await mine == 100
        assert closed == ["other", "mine"]
        assert not running._tasks  # nothing is kept of sessions that have ended

    asyncio.run(all_of_it())


def test_who_stops_waiting_cancels_and_errors_come_through():
    async def all_of_it() -> None:
        running, began, ended = Running(), asyncio.Event(), asyncio.Event()

        async def work() -> None:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        waiting = asyncio.create_task(running.one("page", work()))
        await began.wait()
        waiting.cancel()
        await asyncio.wait_for(ended.wait(), 5)

        async def wrong() -> None:
            raise ValueError("its own")

        with pytest.raises(ValueError, match="its own"):
            await running.one("page", wrong())
        assert not running._tasks

    asyncio.run(all_of_it())


def test_a_cookie_is_of_a_key_of_this_process_for_a_while(monkeypatch):
    door = Door(Keys(["first", "second"]), ("/zh/",))
    cookie = door.cookie("second")
    assert cookie is not None
    assert door.owner(f"a=b; {COOKIE}={cookie}") == "key 1"
    assert door.cookie("third") is None
    owner, until, signature = cookie.split(".")
    for forged in (
        f"0.{until}.{signature}",
        f"{owner}.{int(until) + 9}.{signature}",
        f"{owner}.{until}.",
        "",
        "a.b.c",
        "é",
    ):
        assert door.owner(f"{COOKIE}={forged}") is None
    assert Door(Keys(["first", "second"]), ("/zh/",)).owner(f"{COOKIE}={cookie}") is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 3600)
    assert door.owner(f"{COOKIE}={cookie}") is None

"""Waiting for work that nobody may want in the end: because the client goes, or because its time is over.

In: something to await. Out: what it returns; when nobody wants it any more it is cancelled at once, and over when the caller goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from glmkit.serving.failures import ClientGone, DeadlineExceeded

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Result = TypeVar("Result")


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """Returns what `work` returns; cancels it as soon as the client goes.

    Raises:
        ClientGone: The client went first.
        Exception: What `work` raises.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        await _ended(task, gone)


async def in_time(deadline: float, work: Awaitable[Result]) -> Result:
    """Returns what `work` returns; cancels it when its time is over.

    Unlike `asyncio.wait_for`, which before Python 3.12 forgets that it was cancelled if the work ends in the same turn of the loop:
    a client that left would then be worked for to the end.

    Args:
        deadline: By `time.monotonic`.
        work: What is awaited.

    Raises:
        DeadlineExceeded: It took too long.
        Exception: What `work` raises.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=max(0.0, deadline - time.monotonic()))
        if not task.done():
            raise DeadlineExceeded
        return task.result()
    finally:
        await _ended(task)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""What the pages are waiting for, so that a page that is closed waits for nothing any more.

In: awaitables with the session that asked for them. Out: what they give. Knows no Gradio and no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Running:
    """The work of all pages."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Future[Any]]] = {}

    async def one(self, session: str, work: Awaitable[Result]) -> Result:
        """Returns what some work gives; it is cancelled with whoever waits for it, or with `end`.

        Raises:
            asyncio.CancelledError: The session has ended.
            Exception: What the work raises.
        """
        task = asyncio.ensure_future(work)
        mine = self._tasks.setdefault(session, set())
        mine.add(task)
        try:
            return await task
        finally:
            task.cancel()
            mine.discard(task)
            if not mine and self._tasks.get(session) is mine:
                del self._tasks[session]

    async def each(self, session: str, pieces: AsyncIterator[Result]) -> AsyncIterator[Result]:
        """Yields what an iterator yields, on the same terms; then the iterator is closed, whatever happened."""
        try:
            while True:
                try:
                    piece = await self.one(session, anext(pieces))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def end(self, session: str) -> None:
        """Cancels all that a session waits for."""
        for task in list(self._tasks.get(session, ())):
            task.cancel()

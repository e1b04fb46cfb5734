"""Work that is not on the engine (labels, scores, embeddings, the n likeliest, long encodings), in a few threads.

In: a function. Out: what it returns, awaited, so that the event loop never waits. How much may wait is bounded. A thread cannot be
stopped: who leaves, or whose time is over, is told so at once, but the work goes on to its end and holds its place till then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from glmkit.serving.failures import Closing, QueueFull
from glmkit.serving.waiting import in_time

Result = TypeVar("Result")


class Pool:
    """Threads for a server's other work.

    Args:
        workers: Threads.
        max_queue: Most calls that wait.
        name: Of the threads.
    """

    def __init__(self, workers: int, max_queue: int, name: str):
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._room, self._workers, self._calls = workers + max_queue, workers, 0
        self._mean_seconds, self._closed = 1.0, False

    async def run(self, work: Callable[[], Result], deadline: float) -> Result:
        """Runs a function; called from one event loop alone.

        Raises:
            QueueFull: Too much is waiting.
            DeadlineExceeded: It took too long.
            Closing: The pool was closed.
            Exception: What the function raises.
        """
        if self._closed:
            raise Closing
        if self._calls >= self._room:
            raise QueueFull(self._mean_seconds * self._calls / self._workers)
        loop, began = asyncio.get_running_loop(), time.monotonic()
        future = self._threads.submit(work)
        self._calls += 1

        def ended(_: Future) -> None:
            self._calls -= 1
            self._mean_seconds += 0.1 * (time.monotonic() - began - self._mean_seconds)

        future.add_done_callback(lambda done: _soon(loop, ended, done))
        return await in_time(deadline, asyncio.wrap_future(future))

    def close(self) -> None:
        """Takes nothing on any more, and drops what waits; what runs goes on to its end."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[Future], None], done: Future) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, done)

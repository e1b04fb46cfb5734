"""Where a page's work is done: on the server's own engine and threads, under the server's own limits.

In: what a person asked. Out: what Gradio shows. All of it is asynchronous, so that no page holds up the API or another page. What is
written goes through the scheduler as the API's requests do, the rest through the pool; when a page is closed or "Stop" is pressed, what
it waits for is cancelled, and the rows of the engine are free at the next step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from glmkit.generation import request as generation
from glmkit.playground import showing
from glmkit.playground.mistakes import Mistake, message_of
from glmkit.playground.running import Running
from glmkit.playground.words import Speaker
from glmkit.serving.answering import Answering
from glmkit.serving.scheduler import Job
from glmkit.serving.server import Server

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Body = Callable[..., AsyncIterator[Any]]


class Desk:
    """What the tabs of one page share.

    Attributes:
        server: What the server's routes share: model, limits, scheduler, pool.
        say: The page's language.
        glm: The model.
        asking: Makes requests of what was asked.
    """

    def __init__(self, server: Server, say: Speaker, running: Running):
        self.server, self.say, self._running = server, say, running
        self.glm, self.asking = server.glm, server.asking

    def handler(self, body: Body, failed: Callable[[str], Any] = str) -> Callable[..., Any]:
        """Returns a listener for Gradio.

        Args:
            body: Yields the outputs of some inputs.
            failed: Message as HTML -> outputs; by default it is the only output.
        """

        async def listen(request: gr.Request, *values: Any) -> AsyncIterator[Any]:
            async for outputs in self._kindly(request, body(*_typed(values)), failed):
                yield outputs

        return listen

    def click_handler(self, body: Body) -> Callable[..., Any]:
        """Returns a listener for a click that says what was clicked on; `body` takes that first."""

        async def listen(request: gr.Request, event: gr.EventData, *values: Any) -> AsyncIterator[Any]:  # fmt: skip
            async for outputs in self._kindly(request, body(event, *_typed(values)), str):
                yield outputs

        return listen

    async def _kindly(
        self, request: gr.Request, pieces: AsyncIterator[Any], failed: Callable[[str], Any]
    ) -> AsyncIterator[Any]:
        """Yields outputs; an error is shown in their place."""
        try:
            async for outputs in self._running.each(str(request.session_hash), pieces):
                yield outputs
        except Exception as error:
            number = request.state.request_id
            yield failed(showing.mistake(self.say, *message_of(error, self.say, number)))

    def log(self, kind: str, what: Any) -> None:
        """Logs what a user wrote or got, where the server was asked to."""
        if self.server.settings.log_text:
            logger.info("page %s: %r", kind, what)

    def needed(self, text: str | None, otherwise: str) -> str:
        """Returns a text that must be there, within the server's limits.

        Raises:
            Mistake: It is not there.
            Failure: It is too long.
        """
        if not (text or "").strip():
            raise Mistake(self.say(otherwise))
        [checked] = self.asking.texts(str(text))
        self.log("asked", checked)
        return checked

    async def write(
        self,
        make: Callable[[], list[generation.Request]],
        *,
        live: bool = False,
        media: bool = False,
    ) -> Job:
        """Encodes what was asked, perhaps with media, and submits it to the engine."""
        return await self.server.write(make, self._deadline(), live=live, media=media)

    async def grow(self, job: Job, *, chat: bool = False) -> AsyncIterator[str]:
        """Yields what is written of the only request of a live job, longer and longer."""
        answering = Answering(self.glm.vocabulary, self.server.settings.name, chat=chat)
        longest = [self.asking.longest(one) for one in job.requests]
        written = ""
        async for chunk in answering.chunks(job, longest, with_usage=False):
            [choice] = chunk["choices"]
            piece = choice["delta"].get("content", "") if chat else choice["text"]
            if piece:
                written += piece
                yield written
        self.log("got", written)
        yield written

    async def think(self, work: Callable[[], Result]) -> Result:
        """Does work that is not on the engine."""
        return await self.server.pool.run(work, self._deadline())

    async def explain(self, work: Callable[[Callable[[], None]], Result]) -> Result:
        """Does the work of explaining, which takes longest and ends half-way when nobody waits for it."""
        found: Result = await self.server.explain(self._deadline(), work)
        return found

    async def steps(self, work: Iterator[Result]) -> AsyncIterator[Result]:
        """Yields what an iterator yields, each step a call of its own, so that others have their turn in between."""
        deadline, end = self._deadline(), object()
        while (found := await self.server.pool.run(lambda: next(work, end), deadline)) is not end:
            yield found  # type: ignore[misc]

    def _deadline(self) -> float:
        return time.monotonic() + self.server.settings.timeout


def _typed(values: tuple[Any, ...]) -> list[Any]:
    """Returns inputs as bodies have them: a field that nobody has touched may come as None."""
    return ["" if value is None else value for value in values]


def whole(text: str, low: int, high: int) -> int | None:
    """Returns the whole number between two others that a text is, or None where it is none."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if low <= number <= high else None

"""What all endpoints of a server share: the model, what writes, what does the rest, and how a request gets its answer.

In: a `GLM`, `ServingSettings`. Out: `Server`, whose methods take a client's request to the scheduler or the pool and back. Knows no
paths; the endpoints are in `openai_routes` and `own_routes`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from glmkit.generation import request as generation
from glmkit.generation.infill import make_engine
from glmkit.serving import schemas
from glmkit.serving.answering import Answering
from glmkit.serving.asking import Asking
from glmkit.serving.failures import DeadlineExceeded, Failure
from glmkit.serving.media import brief, has_media
from glmkit.serving.metrics import Metrics
from glmkit.serving.pool import Pool
from glmkit.serving.scheduler import Job, Scheduler
from glmkit.serving.settings import ServingSettings
from glmkit.serving.streaming import EventStream, first_piece
from glmkit.serving.waiting import unless_gone

logger = logging.getLogger(__name__)


class Server:
    """What the routes share.

    Attributes:
        glm: The model.
        settings: The server's settings.
        metrics: What is counted.
        scheduler: What writes.
        pool: What does the rest.
        explainer: What explains, which takes longest.
        encoders: What encodes texts, so that long ones do not hold up the event loop.
        viewers: What encodes (and labels) texts with media, which takes much longer: texts alone do not wait for it.
        stopping: Set when the server is told to stop; streams without an end of their own end then.
    """

    def __init__(self, glm: Any, settings: ServingSettings):
        self.glm, self.settings, self.metrics = glm, settings, Metrics()
        self.created = int(time.time())
        # Without a limit a text of many blanks could come to as many tokens as the model has positions, squared.
        usual = 2 * settings.max_batch * glm.model.config.max_sequence_length
        limits = {
            "max_batch": settings.max_batch,
            "max_tokens": settings.max_cache_tokens or usual,
        }
        self.scheduler = Scheduler(
            functools.partial(make_engine, glm.model, glm.vocabulary, **limits),
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            watcher=self.metrics,
        )
        self.pool = Pool(settings.workers, settings.max_queue, "glmkit-work")
        # One at a time: attention maps need the model's attention code switched.
        self.explainer = Pool(1, settings.max_queue, "glmkit-explain")
        self.encoders = Pool(1, settings.max_batch + settings.max_queue, "glmkit-encode")
        if glm.media is not None:
            glm.media.processor  # noqa: B018 - loads what reads media now, not with the first request
        self.viewers = Pool(1, settings.max_batch + settings.max_queue, "glmkit-view")
        self.asking = Asking(glm.model, glm.vocabulary, settings, glm.media)
        self.stopping = asyncio.Event()

    def check_model(self, name: str | None) -> str:
        """Returns the model's name; it is compared and never used as a path.

        Raises:
            Failure: Another one was asked for.
        """
        if name not in (None, self.settings.name):
            raise Failure(
                404,
                f"there is no model {name!r:.80}; this server has {self.settings.name!r}",
                "model_not_found",
                param="model",
            )
        return self.settings.name

    def log(self, request: Request, kind: str, text: Any, media: Collection[str] = ()) -> None:
        """Logs what a user wrote or got, where that was asked for; of the fields `media` of records the sizes."""
        if self.settings.log_text:
            logger.info("request %s %s: %r", request.state.request_id, kind, brief(text, media))

    async def ask(
        self,
        request: Request,
        make: Callable[[], list[generation.Request]],
        *,
        live: bool = False,
        media: bool = False,
    ) -> Job:
        """Encodes what a client asked, perhaps with media, and submits it."""
        return await self.write(make, request.state.deadline, live=live, media=media)

    async def write(
        self,
        make: Callable[[], list[generation.Request]],
        deadline: float,
        *,
        live: bool = False,
        media: bool = False,
    ) -> Job:
        """Encodes what was asked, perhaps with media, and submits it."""
        made = await (self.viewers if media else self.encoders).run(make, deadline)
        return self.scheduler.submit(made, deadline, live=live)

    async def work(self, request: Request, body: Callable[[], Any], *, media: bool = False) -> Any:
        """Does work that is not on the engine, perhaps with media."""
        pool = self.viewers if media else self.pool
        return await unless_gone(request.receive, pool.run(body, request.state.deadline))

    async def explain(self, deadline: float, body: Callable[[Callable[[], None]], Any]) -> Any:
        """Explains, until nobody waits for it or its time is over; `body` calls what it is given again and again."""
        left = threading.Event()

        def still_wanted() -> None:
            if left.is_set() or time.monotonic() > deadline:
                raise DeadlineExceeded

        def work() -> Any:
            still_wanted()
            return body(still_wanted)

        try:
            return await self.explainer.run(work, deadline)
        finally:
            left.set()

    def close(self) -> None:
        """Lets what runs go on for the settings' `grace`, and ends all threads; blocks."""
        self.scheduler.close(self.settings.grace)
        for pool in (self.pool, self.explainer, self.encoders, self.viewers):
            pool.close()

    async def openai(
        self,
        request: Request,
        asked: schemas.OpenAIRequest,
        make: Callable[[], list[generation.Request]],
        answering: Answering,
    ) -> Response:
        """Answers a completion or a chat, as a whole or in pieces."""
        self.log(request, "asked", asked.model_dump(exclude_none=True))
        media = has_media(asked)
        if not asked.stream:

            async def whole() -> Any:
                job = await self.ask(request, make, media=media)
                await job.written()
                return answering.whole(job)

            answer = await unless_gone(request.receive, whole())
            self.log(request, "got", [one.model_dump() for one in answer.choices])
            return JSONResponse(answer.model_dump())

        async def pieces() -> AsyncIterator[schemas.Body]:
            job = await self.ask(request, make, live=True, media=media)
            longest = [self.asking.longest(one) for one in job.requests]
            options = asked.stream_options
            async for chunk in answering.chunks(
                job, longest, bool(options and options.include_usage)
            ):
                yield chunk
            if self.settings.log_text:
                choices = answering.whole(job).choices
                self.log(request, "got", [one.model_dump() for one in choices])

        later = pieces()
        return EventStream(await unless_gone(request.receive, first_piece(later)), later)

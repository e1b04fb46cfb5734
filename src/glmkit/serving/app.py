"""The application: a loaded GLM and settings -> FastAPI's application, OpenAI's interface and GLM's own.

In: a `GLM`, `ServingSettings`. Out: an ASGI application; it has a scheduler of its own from the moment it is made until its lifespan
ends. The routes join the modules beside this one: what is asked (`asking`), written (`scheduler`, `pool`) and answered
(`answering`). Every error has OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from glmkit import __version__
from glmkit.applications.labels import resolve_task
from glmkit.errors import UserError, nearest
from glmkit.generation import request as generation
from glmkit.generation.infill import filled, make_engine
from glmkit.serving import schemas
from glmkit.serving.answering import Answering, filled_text, usage
from glmkit.serving.asking import Asking
from glmkit.serving.failures import Closing, DeadlineExceeded, Failure, QueueFull, failure_of
from glmkit.serving.gate import ClientGone, Gate, unless_gone
from glmkit.serving.metrics import Metrics
from glmkit.serving.pool import Pool
from glmkit.serving.scheduler import Job, Scheduler
from glmkit.serving.settings import ServingSettings
from glmkit.serving.streaming import EventStream, first_piece
from glmkit.tasks.task import catalog
from glmkit.tokens.blanked import encode_plain

logger = logging.getLogger(__name__)

CATCHES = (RequestValidationError, HTTPException, Failure, UserError, QueueFull, DeadlineExceeded, Closing, Exception)  # fmt: skip


class Server:
    """What the routes share.

    Attributes:
        glm: The model.
        settings: The server's settings.
        metrics: What is counted.
        scheduler: What writes.
        pool: What does the rest.
        encoders: What encodes texts, so that long ones do not hold up the event loop.
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
            functools.partial(make_engine, glm.model, glm.tokenizer, **limits),
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            watcher=self.metrics,
        )
        self.pool = Pool(settings.workers, settings.max_queue, "glmkit-work")
        self.encoders = Pool(1, settings.max_batch + settings.max_queue, "glmkit-encode")
        self.asking = Asking(glm.model, glm.tokenizer, settings)

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

    def log(self, request: Request, kind: str, text: Any) -> None:
        """Logs what a user wrote or got, where that was asked for."""
        if self.settings.log_text:
            logger.info("request %s %s: %r", request.state.request_id, kind, text)

    async def ask(
        self,
        request: Request,
        make: Callable[[], list[generation.Request]],
        *,
        live: bool = False,
    ) -> Job:
        """Encodes what a client asked, and submits it."""
        deadline = request.state.deadline
        made = await self.encoders.run(make, deadline)
        return self.scheduler.submit(made, deadline, live=live)

    async def work(self, request: Request, body: Callable[[], Any]) -> Any:
        """Does work that is not on the engine."""
        return await unless_gone(request.receive, self.pool.run(body, request.state.deadline))

    async def openai(
        self,
        request: Request,
        asked: schemas.OpenAIRequest,
        make: Callable[[], list[generation.Request]],
        answering: Answering,
    ) -> Response:
        """Answers a completion or a chat, as a whole or in pieces."""
        self.log(request, "asked", asked.model_dump(exclude_none=True))
        if not asked.stream:

            async def whole() -> Any:
                job = await self.ask(request, make)
                await job.written()
                return answering.whole(job)

            answer = await unless_gone(request.receive, whole())
            self.log(request, "got", [one.model_dump() for one in answer.choices])
            return JSONResponse(answer.model_dump())

        async def pieces() -> AsyncIterator[schemas.Body]:
            job = await self.ask(request, make, live=True)
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


def make_app(glm: Any, settings: ServingSettings | None = None) -> FastAPI:
    """Returns the application; `app.state.server` has what the routes share.

    Args:
        glm: What `glmkit.load` returns.
        settings: By default those of a server on this machine alone, without keys.
    """
    settings = settings or ServingSettings()
    server = Server(glm, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.scheduler.close, settings.grace)
        server.pool.close()
        server.encoders.close()

    app = FastAPI(
        title="glmkit",
        version=__version__,
        description="A General Language Model (GLM): OpenAI's interface, and blanks.",
        lifespan=lifespan,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={"4XX": {"model": schemas.ErrorResponse}, "5XX": {"model": schemas.ErrorResponse}},
    )  # fmt: skip
    app.state.server = server
    _add_errors(app)
    _add_operations(app, server)
    _add_openai(app, server)
    _add_own(app, server)
    paths = [path for route in app.routes if (path := getattr(route, "path", None))]
    app.add_middleware(Gate, settings=settings, metrics=server.metrics, paths=paths)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Timeout"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app


def _add_errors(app: FastAPI) -> None:
    async def answer(request: Request, error: Exception) -> Response:
        failure = failure_of(error, request.state.request_id)
        return JSONResponse(failure.body, failure.status, failure.headers)

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; counted as such

    for kind in CATCHES:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(ClientGone, gone)


def _add_operations(app: FastAPI, server: Server) -> None:
    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def readyz() -> dict[str, str]:
        """It takes requests on."""
        if not server.scheduler.ready:
            raise Closing
        return {"status": "ready"}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_openai(app: FastAPI, server: Server) -> None:
    def card() -> schemas.ModelCard:
        return schemas.ModelCard(id=server.settings.name, created=server.created)

    @app.get("/v1/models", tags=["OpenAI"])
    async def models() -> schemas.ModelList:
        """The model that this server has."""
        return schemas.ModelList(data=[card()])

    @app.get("/v1/models/{name}", tags=["OpenAI"])
    async def model(name: str) -> schemas.ModelCard:
        """The model of a name."""
        server.check_model(name)
        return card()

    @app.post("/v1/completions", tags=["OpenAI"], response_model=schemas.Completion)
    async def completions(asked: schemas.CompletionRequest, request: Request) -> Response:
        """Goes on with a text, or fills its only blank."""
        name, wants = server.check_model(asked.model), asked.logprobs is not None
        if asked.echo and (asked.stream or wants):
            raise Failure(
                400,
                "echo goes with neither stream nor logprobs: GLM reads a prompt in both directions, and scores none of it; "
                "POST /v1/score scores a text",
                "invalid_value",
                param="echo",
            )
        answering = Answering(
            server.glm.tokenizer, name, chat=False, logprobs=wants, echo=asked.echo
        )
        make = functools.partial(server.asking.completion, asked)
        return await server.openai(request, asked, make, answering)

    @app.post("/v1/chat/completions", tags=["OpenAI"], response_model=schemas.ChatCompletion)
    async def chat(asked: schemas.ChatRequest, request: Request) -> Response:
        """Writes the next reply of a conversation."""
        name, wants = server.check_model(asked.model), bool(asked.logprobs)
        answering = Answering(server.glm.tokenizer, name, chat=True, logprobs=wants)
        make = functools.partial(server.asking.chat, asked)
        return await server.openai(request, asked, make, answering)

    @app.post("/v1/embeddings", tags=["OpenAI"])
    async def embeddings(asked: schemas.EmbeddingsRequest, request: Request) -> schemas.Embeddings:
        """A vector for each text."""
        name, texts = server.check_model(asked.model), server.asking.texts(asked.input)
        server.log(request, "asked", texts)

        def body() -> tuple[Any, int]:
            tokens = sum(len(encode_plain(server.glm.tokenizer, text)) for text in texts)
            return server.glm.embed(texts), tokens

        vectors, tokens = await server.work(request, body)
        return schemas.Embeddings(
            model=name,
            data=[
                schemas.Embedding(index=index, embedding=_vector(one, asked.encoding_format))
                for index, one in enumerate(vectors)
            ],
            usage=schemas.EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )


def _add_own(app: FastAPI, server: Server) -> None:
    glm = server.glm

    @app.post("/v1/fill", tags=["GLM"], response_model=schemas.FillResponse)
    async def fill(asked: schemas.FillRequest, request: Request) -> Response:
        """Fills every blank of each text, or finds the n likeliest ways to fill them together."""
        name = server.check_model(asked.model)
        server.log(request, "asked", asked.model_dump(exclude_none=True))
        if asked.n is not None:
            texts, chosen = server.asking.texts(asked.texts), server.asking.fill_settings(asked)
            found = await server.work(
                request,
                lambda: glm.fill(
                    [server.asking.prompt(text) for text in texts], n=asked.n, **asdict(chosen)
                ),
            )
            data = [filled_text(one) for one in found]
            answer = schemas.FillResponse(model=name, data=data, usage=None)
        else:

            async def whole() -> schemas.FillResponse:
                job = await server.ask(request, functools.partial(server.asking.fill, asked))
                samples = await job.written()
                texts = [
                    filled_text(filled(glm.tokenizer, one.prompt, blanks))
                    for one, [blanks] in zip(job.requests, samples, strict=True)
                ]
                return schemas.FillResponse(model=name, data=texts, usage=usage(job))

            answer = await unless_gone(request.receive, whole())
        server.log(request, "got", [one.text for one in answer.data])
        return JSONResponse(answer.model_dump())

    @app.post("/v1/classify", tags=["GLM"])
    async def classify(
        asked: schemas.ClassifyRequest, request: Request
    ) -> schemas.ClassifyResponse:
        """Says which label each text has."""
        name, texts = server.check_model(asked.model), server.asking.texts(asked.texts)
        server.log(request, "asked", asked.model_dump(exclude_none=True))
        task = _task(server, asked)
        found = await server.work(
            request,
            lambda: glm.classify(
                texts,
                task,
                labels=asked.labels,
                template=asked.template,
                language=asked.language,
                long_texts=asked.long_texts,
            ),
        )
        data = [schemas.Labelled(**asdict(one)) for one in found]
        return schemas.ClassifyResponse(model=name, data=data)

    @app.post("/v1/score", tags=["GLM"])
    async def score(asked: schemas.ScoreRequest, request: Request) -> schemas.ScoreResponse:
        """The log-probability of each text."""
        name, texts = server.check_model(asked.model), server.asking.texts(asked.texts)
        server.log(request, "asked", texts)
        found = await server.work(request, lambda: glm.score(texts))
        data = [
            schemas.Scored(**{field: getattr(one, field) for field in schemas.Scored.model_fields})
            for one in found
        ]
        return schemas.ScoreResponse(model=name, data=data)


def _task(server: Server, asked: schemas.ClassifyRequest) -> Any:
    """Returns the task of a name: one of the catalog or of the model, never a file.

    Raises:
        Failure: No such task.
    """
    own = server.glm.tasks
    if asked.task is None:
        return None if asked.labels or own else resolve_task("topics", None)
    known = [*own, *catalog()]
    if asked.task not in known:
        raise Failure(
            400,
            f"there is no task {asked.task!r:.80}{nearest(asked.task, known)}; there are {', '.join(known)}",
            "task_not_found",
            param="task",
        )
    return own.get(asked.task) or asked.task


def _vector(values: np.ndarray, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return values.tolist()


def make_server(
    glm: Any, settings: ServingSettings, on_ready: Callable[[str], None] | None = None
) -> uvicorn.Server:
    """Returns a server; its `run` serves until the process is told to stop (SIGTERM, Ctrl-C), or `should_exit` is set.

    What runs then may go on for `settings.grace` seconds.

    Args:
        glm: What `glmkit.load` returns.
        settings: The server's settings.
        on_ready: Called with the server's address when it takes requests.
    """

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started and on_ready is not None:
                port = self.servers[0].sockets[0].getsockname()[1]
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                on_ready(f"http://{host}:{port}")

    return Announcing(
        uvicorn.Config(
            make_app(glm, settings),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            ws="none",
            proxy_headers=False,  # a client must not choose the address by which it is counted
            server_header=False,
            timeout_graceful_shutdown=max(1, int(settings.grace)),
        )
    )

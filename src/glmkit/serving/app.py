"""The application: a loaded GLM and settings -> FastAPI's application, OpenAI's interface and GLM's own.

In: a `GLM`, `ServingSettings`. Out: an ASGI application; it has a scheduler of its own from the moment it is made until its lifespan
ends. The routes join the modules beside this one: what is asked (`asking`), written (`scheduler`, `pool`) and answered
(`answering`). Every error has OpenAI's shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from glmkit import __version__
from glmkit.errors import UserError
from glmkit.serving import schemas
from glmkit.serving.docs_page import add_docs
from glmkit.serving.failures import (
    ClientGone,
    Closing,
    DeadlineExceeded,
    Failure,
    QueueFull,
    failure_of,
)
from glmkit.serving.gate import Door, Gate
from glmkit.serving.openai_routes import add_openai
from glmkit.serving.own_routes import add_own
from glmkit.serving.server import Server
from glmkit.serving.settings import ServingSettings

CATCHES = (RequestValidationError, HTTPException, Failure, UserError, QueueFull, DeadlineExceeded, Closing, Exception)  # fmt: skip


Page = Callable[[FastAPI, Server], Door]
"""Gives an application pages for people, and says who may see them (`playground.mounting.mount`)."""


def make_app(
    glm: Any, settings: ServingSettings | None = None, page: Page | None = None
) -> FastAPI:
    """Returns the application; `app.state.server` has what the routes share.

    Args:
        glm: What `glmkit.load` returns.
        settings: By default those of a server on this machine alone, without keys.
        page: Pages for people beside the interface for programs; by default none.
    """
    settings = settings or ServingSettings()
    server = Server(glm, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        server.stopping.set()
        await asyncio.to_thread(server.close)

    app = FastAPI(
        title="glmkit",
        version=__version__,
        description="A General Language Model (GLM): OpenAI's interface, and blanks.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's loads its script from a public address
        redoc_url=None,
        responses={"4XX": {"model": schemas.ErrorResponse}, "5XX": {"model": schemas.ErrorResponse}},
    )  # fmt: skip
    app.state.server = server
    _add_errors(app)
    add_docs(app)
    _add_operations(app, server)
    add_openai(app, server)
    add_own(app, server)
    paths = [path for route in app.routes if (path := getattr(route, "path", None))]
    door = page(app, server) if page else None
    app.add_middleware(
        Gate,
        settings=settings,
        metrics=server.metrics,
        paths=paths,
        door=door,
        media=media_paths(app) if glm.media is not None else (),
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Timeout"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app


def media_paths(app: FastAPI) -> set[str]:
    """Returns the paths of the endpoints that take images, sounds and clips, as their requests' schemas say."""
    return {
        route.path
        for route in app.routes
        if isinstance(route, APIRoute)
        for one in get_type_hints(route.endpoint).values()
        if isinstance(one, type) and issubclass(one, schemas.MediaRequest)
    }


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


def make_server(
    glm: Any,
    settings: ServingSettings,
    on_ready: Callable[[str], None] | None = None,
    page: Page | None = None,
) -> uvicorn.Server:
    """Returns a server; its `run` serves until the process is told to stop (SIGTERM, Ctrl-C), or `should_exit` is set.

    What runs then may go on for `settings.grace` seconds.

    Args:
        glm: What `glmkit.load` returns.
        settings: The server's settings.
        on_ready: Called with the server's address when it takes requests.
        page: As in `make_app`.
    """
    app = make_app(glm, settings, page)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started and on_ready is not None:
                port = self.servers[0].sockets[0].getsockname()[1]
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                on_ready(f"http://{host}:{port}")

        async def shutdown(self, sockets: Any = None) -> None:
            app.state.server.stopping.set()  # before it waits for what is open
            await super().shutdown(sockets)

    return Announcing(
        uvicorn.Config(
            app,
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

"""What every request passes: who it is, how much it sends, how long it may take; and what every answer leaves behind.

In: an ASGI application. Out: one before it that refuses wrong keys, too many and too large requests, knows a client that goes away,
and counts and logs answers: method, path of the table, status, time; never a text, a key or a query.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Protocol

from starlette.responses import JSONResponse

from glmkit.serving.bodies import Bodies, Place
from glmkit.serving.docs_page import FILES
from glmkit.serving.failures import ClientGone, Failure, failure_of
from glmkit.serving.metrics import Metrics
from glmkit.serving.security import Keys, RateLimit
from glmkit.serving.settings import ServingSettings, is_loopback
from glmkit.serving.waiting import Message, Receive, in_time

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz", "/docs", "/openapi.json")
"""Paths that need no key: they say nothing that a user wrote, and load balancers and browsers have no key."""

TIMEOUT_HEADER = b"x-request-timeout"


class Door(Protocol):
    """How people come to pages: a browser sends no key, but a cookie."""

    def covers(self, path: str) -> bool:
        """Returns whether a path is a page's."""

    def is_open(self, path: str) -> bool:
        """Returns whether a page needs no key."""

    def owner(self, cookies: str) -> str | None:
        """Returns a name for the key behind a `Cookie` header, or None where there is none."""

    def refusal(self, path: str) -> Failure:
        """Returns what is answered where there is none."""


class Gate:
    """The application behind its gate.

    Args:
        app: The application.
        settings: Limits, keys.
        metrics: Is told of every answer.
        paths: The endpoints' paths, as they are counted; anything else is counted as "other", or "page".
        door: Who may see pages, where there are any.
        media: Paths whose bodies may have images, sounds and clips; with any, pages' may, too.
    """

    def __init__(
        self,
        app: App,
        settings: ServingSettings,
        metrics: Metrics,
        paths: Collection[str],
        door: Door | None = None,
        media: Collection[str] = (),
    ):
        self._app, self._settings, self._metrics, self._paths = app, settings, metrics, set(paths)
        self._keys = Keys(settings.api_keys)
        self._limit, self._door = RateLimit(settings.requests_per_minute), door
        self._bodies, self._media = Bodies(settings), media

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, request_id = time.monotonic(), 499, uuid.uuid4().hex  # 499: the client left
        scope.setdefault("state", {}).update(request_id=request_id)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            with self._bodies.place() as place:
                body = await self._admit(scope, receive, began, place)
                await self._app(scope, _replay(body, receive), answer)
        except ClientGone:
            pass
        except Exception as error:
            failure = failure_of(error, request_id)
            if status == 499:
                response = JSONResponse(failure.body, failure.status, failure.headers)
                if failure.status in (408, 413):
                    # What was not read must not be taken for a request.
                    response.headers["Connection"] = "close"
                await response(scope, receive, answer)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            path = "page" if self._is_page(scope) else path
            seconds = time.monotonic() - began
            self._metrics.answered(path, status, seconds)
            logger.info(
                "%s %s %d %.3f s request %s", scope["method"], path, status, seconds, request_id
            )

    async def _admit(self, scope: Scope, receive: Receive, began: float, place: Place) -> bytes:
        """Checks a request and returns its body.

        Raises:
            Failure: It is refused.
        """
        headers = dict(scope["headers"])
        self._check_host(headers)
        scope["state"]["deadline"] = began + self._seconds(headers)
        if scope["path"] not in OPEN and not scope["path"].startswith(f"{FILES}/"):
            client = (scope.get("client") or ("unknown",))[0]
            if self._keys and not (self._door is not None and self._door.is_open(scope["path"])):
                client = self._owner(scope, headers)
            # A page loads many files; what makes work are its posts.
            counts = scope["method"] == "POST" or not self._is_page(scope)
            if counts and (wait := self._limit.wait(client)):
                raise Failure(
                    429,
                    f"more than {self._settings.requests_per_minute} requests a minute; ask again after the seconds in "
                    "Retry-After",
                    "rate_limit_exceeded",
                    retry_after=wait,
                )
        declared = 0
        with contextlib.suppress(ValueError):
            declared = int(headers.get(b"content-length", b"0"))
        media = bool(self._media) and (scope["path"] in self._media or self._is_page(scope))
        reading = self._bodies.read(declared, receive, media, place)
        return await in_time(scope["state"]["deadline"], reading)

    def _is_page(self, scope: Scope) -> bool:
        return self._door is not None and self._door.covers(scope["path"])

    def _owner(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Returns the name of the key that came with a request.

        Raises:
            Failure: There was none, or a wrong one.
        """
        owner = self._keys.owner(headers.get(b"authorization", b"").decode("latin-1"))
        if self._door is not None and self._is_page(scope):
            owner = owner or self._door.owner(headers.get(b"cookie", b"").decode("latin-1"))
            if owner is None:
                raise self._door.refusal(scope["path"])
        if owner is None:
            raise Failure(
                401,
                "the API key is missing or wrong; send one as Authorization: Bearer KEY",
                "invalid_api_key",
            )
        return owner

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Refuses other names than this machine's where no key protects a server on loopback.

        A web page could otherwise let its own name mean 127.0.0.1 and read what the server answers.
        """
        if self._keys or not is_loopback(self._settings.host):
            return
        host = headers.get(b"host", b"localhost").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if not is_loopback(name):
            raise Failure(
                403,
                "this server answers to the names 127.0.0.1 and localhost alone; start it with API keys to reach it by others",
                "wrong_host",
            )

    def _seconds(self, headers: dict[bytes, bytes]) -> float:
        given = headers.get(TIMEOUT_HEADER)
        if given is None:
            return self._settings.timeout
        try:
            seconds = float(given)
        except ValueError:
            seconds = 0.0
        if not seconds > 0:
            raise Failure(
                400, "X-Request-Timeout must be seconds, a number above 0", "invalid_value"
            )
        return min(seconds, self._settings.timeout)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that gives the body first."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

"""The page in a server: `mount` gives a FastAPI application the paths `/`, `/zh/`, `/en/` and `/login`.

In: the application and what its routes share. Out: the page's door, for the gate. Each language is a Gradio application of its own, made
when somebody first asks for it (importing Gradio takes seconds, and a server that programs use needs none). In front of it stands
`_Guard`: of all that Gradio would answer it lets through what this page uses, no uploads and no files, and tells browsers to ask
nobody else for anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from glmkit.playground.login import LOGIN, LOGOUT, Door
from glmkit.playground.running import Running
from glmkit.playground.words import Speaker, prefers_chinese
from glmkit.serving.failures import Failure
from glmkit.serving.gate import Message, Receive, Scope, Send
from glmkit.serving.security import Keys
from glmkit.serving.server import Server

LANGUAGES = {"zh": True, "en": False}
SESSION = "/gradio_api/heartbeat/"
"""Beginning of the path of a stream that a page reads for as long as it is open."""

_READ = re.compile(
    r"/(config|theme\.css|favicon\.ico|(assets|static|svelte)/(?!.*\.\.).*"
    r"|gradio_api/(theme\.css|app_id|startup-events|queue/data|heartbeat/[\w-]+))?"
)
_WRITE = re.compile(r"/gradio_api/(queue/join|cancel|reset)/?")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# What Gradio's page says about Gradio to other sites, and a file that it has not in a folder.
_FOREIGN = re.compile(rb'<meta\s+(property="og:|name="twitter:)[^>]*>|<link rel="manifest"[^>]*>')
_ICON = (
    b"<link rel=icon href=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
    b"<rect width='32' height='32' rx='8' fill='%230f766e'/><path d='M7 21h6M16 21h9M7 12h9' stroke='white' stroke-width='3'/></svg>\">"
)


def mount(app: FastAPI, server: Server) -> Door:
    """Gives an application the page.

    Args:
        app: The application.
        server: What its routes share.

    Returns:
        Who may see it, for the gate.
    """
    door = Door(Keys(server.settings.api_keys), tuple(f"/{language}/" for language in LANGUAGES))
    running, making = Running(), asyncio.Lock()

    async def home(request: Request) -> Response:
        chinese = prefers_chinese(request.headers.get("accept-language", ""))
        headers = {"Cache-Control": "no-store", "Vary": "Accept-Language"}
        return RedirectResponse("/zh/" if chinese else "/en/", 307, headers)

    guards = {
        language: _Guard(server, Speaker(chinese), running, making)
        for language, chinese in LANGUAGES.items()
    }

    async def form(request: Request) -> Response:
        chinese = prefers_chinese(request.headers.get("accept-language", ""))
        guards["zh" if chinese else "en"].prepare()  # while the key is typed
        return await door.form(request)

    app.add_route("/", home, include_in_schema=False)
    app.add_route(LOGIN, form, methods=["GET"], include_in_schema=False)
    app.add_route(LOGIN, door.enter, methods=["POST"], include_in_schema=False)
    app.add_route(LOGOUT, door.leave, methods=["POST"], include_in_schema=False)
    for language, guard in guards.items():
        app.mount(f"/{language}", guard)
    return door


class _Guard:
    """One language's page."""

    def __init__(self, server: Server, say: Speaker, running: Running, making: asyncio.Lock):
        self._server, self._say, self._running, self._making = server, say, running, making
        self._page: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        headers = Headers(scope=scope)
        if not (_WRITE if method == "POST" else _READ).fullmatch(path) or method not in ("GET", "HEAD", "POST"):  # fmt: skip
            raise Failure(404, "there is no such path here; the page is at /", "not_found")
        origin = headers.get("origin", "")
        if method == "POST" and origin and origin.split("://")[-1] != headers.get("host"):
            raise Failure(403, "another site's page may not use this one", "wrong_origin")
        page = await self._made()
        answer = _guarded(send)
        if path.startswith(SESSION):
            await self._session(page, path.removeprefix(SESSION), scope, receive, answer)
        elif path == "/" and method == "GET":
            await self._index(page, scope, receive, answer)
        else:
            await page(scope, receive, answer)

    async def _made(self) -> Any:
        """Returns Gradio's application, which is made once."""
        async with self._making:  # Gradio makes one page at a time
            if self._page is None:
                from glmkit.playground.page import make_page

                page = await asyncio.to_thread(make_page, self._server, self._say, self._running)
                ready = asyncio.Event()
                self._start(self._live(page, ready))
                await ready.wait()
                self._page = page
        return self._page

    def prepare(self) -> None:
        """Begins to make the page, so that it is there sooner when it is asked for."""
        if self._page is None and not self._tasks:
            self._start(self._made())

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, page: Any, ready: asyncio.Event) -> None:
        async with page.router.lifespan_context(page):
            ready.set()
            await self._server.stopping.wait()

    async def _session(
        self, page: Any, session: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers the stream that lasts as long as a page is open; then ends what the page waits for."""
        stream = asyncio.ensure_future(page(scope, receive, send))
        stopping = asyncio.ensure_future(self._server.stopping.wait())
        try:
            await asyncio.wait((stream, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not stream.done():  # or the server would wait for it
                stream.cancel()
                await asyncio.gather(stream, return_exceptions=True)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            stream.cancel()
            stopping.cancel()
            self._running.end(session)

    async def _index(self, page: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends Gradio's page, its language told, without what is another site's."""
        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body += message.get("body", b"")

        await page({**scope, "headers": plain}, receive, collect)
        body = _FOREIGN.sub(b"", body).replace(b'lang="en"', f'lang="{self._say.tag}"'.encode(), 1)
        body = body.replace(b"<head>", b"<head>" + _ICON, 1)
        headers = MutableHeaders(scope=start)
        headers["content-length"] = str(len(body))
        headers["cache-control"] = "no-store"
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _guarded(send: Send) -> Send:
    """Returns a `send` that adds what a browser may load."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = _POLICY
            headers["referrer-policy"] = "no-referrer"
        await send(message)

    return answer

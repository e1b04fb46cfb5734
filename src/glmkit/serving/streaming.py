"""Server-sent events: an answer that comes in pieces.

In: an iterator of JSON objects. Out: `data: {…}` for each, `data: [DONE]` at the end, as OpenAI writes them. An error after the first
piece is an event with OpenAI's error and ends the stream. A client that goes away ends the iterator at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from glmkit.serving.failures import ClientGone, failure_of
from glmkit.serving.gate import Scope, Send
from glmkit.serving.waiting import Receive, unless_gone


class EventStream(Response):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, first: list[dict[str, Any]], later: AsyncIterator[dict[str, Any]]):
        """Prepares the headers.

        Args:
            first: The pieces that are there already.
            later: Those to come.
        """
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"  # proxies pass each piece on at once
        self._first, self._later = first, later

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all pieces."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with contextlib.suppress(ClientGone):
            await unless_gone(receive, self._send_all(scope["state"]["request_id"], send))

    async def _send_all(self, request_id: str, send: Send) -> None:
        async def event(text: str, more: bool = True) -> None:
            body = f"data: {text}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            for piece in self._first:
                await event(_json(piece))
            async for piece in self._later:
                await event(_json(piece))
        except Exception as error:
            await event(_json(failure_of(error, request_id).body), more=False)
        else:
            await event("[DONE]", more=False)
        finally:
            if hasattr(self._later, "aclose"):
                await self._later.aclose()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


async def first_piece(pieces: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Waits for the first piece, so that an error before it has a status of its own; an empty list where there is none."""
    async for piece in pieces:
        return [piece]
    return []

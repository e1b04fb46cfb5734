"""What went wrong -> status and body in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

In: any exception. Out: a `Failure`. A `UserError` is the client's mistake and its message is passed on; of anything unknown the client
learns nothing but a number, under which the server's log has the place in the code, without the message (which may quote a user).
"""

from __future__ import annotations

import itertools
import logging
import math
import traceback
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from glmkit.errors import MediaLimitError, UserError

logger = logging.getLogger(__name__)


class Failure(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        retry_after: float | None = None,
    ):
        """Describes the error.

        Args:
            status: Of HTTP.
            message: What was given, what is allowed, what to do.
            code: OpenAI's code, or one of its kind.
            param: The field that is wrong.
            retry_after: Seconds after which it is worth while to ask again.
        """
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }


class QueueFull(Exception):
    """There is no room for more work.

    Attributes:
        retry_after: Seconds after which there may be.
    """

    def __init__(self, retry_after: float):
        super().__init__("too much is waiting")
        self.retry_after = retry_after


class DeadlineExceeded(Exception):
    """The time that a request may take is over."""


class Closing(Exception):
    """The server takes no more work: it is about to stop."""


class ClientGone(Exception):
    """The client has gone; nobody reads an answer."""


def failure_of(error: BaseException, request_id: str) -> Failure:
    """Returns what a client is told; logs what it is not told."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, QueueFull):
        return Failure(
            429,
            "the server has as much to do as it takes on; ask again after the seconds in Retry-After",
            "queue_full",
            retry_after=error.retry_after,
        )
    if isinstance(error, DeadlineExceeded):
        return Failure(
            504,
            "the request took longer than it may; ask for fewer tokens or texts, or allow more time "
            "(X-Request-Timeout, up to the server's --timeout)",
            "deadline_exceeded",
        )
    if isinstance(error, Closing):
        return Failure(
            503, "the server is about to stop; ask another, or later", "closing", retry_after=5
        )
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _refused(error)
    if isinstance(error, MediaLimitError):
        return Failure(413, str(error), "media_too_large")
    if isinstance(error, UserError):
        return Failure(400, str(error), "invalid_value")
    logger.error("request %s failed with %s", request_id, described(error))
    return Failure(
        500, f"the server made a mistake; its log has it as request {request_id}", "internal_error"
    )


def described(error: BaseException) -> str:
    """Returns an error's type and where it came from, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{one.name}:{one.lineno}" for one in reversed(frames[-8:]))
    return f"{type(error).__name__} at {places}"


def _invalid(error: RequestValidationError) -> Failure:
    """Returns the failure of a body that is no JSON, or not of the right form: the first thing that is wrong."""
    errors = error.errors()
    field = errors[0]["loc"][:2]
    # Of a field that may have several forms, the form that came nearest says what is wrong.
    first = max((one for one in errors if one["loc"][:2] == field), key=lambda one: len(one["loc"]))
    place, kind = [str(part)[:80] for part in first["loc"]], first["type"]
    if kind == "json_invalid":
        return Failure(400, f"the body is not JSON: {first['ctx']['error']}", "invalid_json")
    path = [part for part in place[1:] if _is_place(part)]
    if kind == "extra_forbidden" and not _is_place(place[-1]):
        path += place[-1:]
    # The form of a part has the name of its field.
    param = ".".join(part for part, _ in itertools.groupby(path)) or None
    if param is None:
        return Failure(
            400,
            "the body must be a JSON object, with the header Content-Type: application/json",
            "invalid_type",
        )
    if kind == "extra_forbidden":
        return Failure(
            400,
            f"unknown field {param!r}; /openapi.json lists the fields of each endpoint",
            "unknown_parameter",
            param=param,
        )
    return Failure(400, f"{param}: {first['msg']}", "invalid_value", param=param)


def _is_place(part: str) -> bool:
    """Returns whether a part of pydantic's path is a field or a number, and not an alternative of a field's type."""
    return part.isdigit() or (part.isidentifier() and part.islower() and part not in _TYPES)


_TYPES = {"str", "int", "float", "bool", "list", "dict", "none"}


def _refused(error: HTTPException) -> Failure:
    if error.status_code == 404:
        return Failure(
            404, "there is no such path here; /openapi.json lists what there is", "not_found"
        )
    if error.status_code == 405:
        failure = Failure(
            405, "this path takes another method; /openapi.json lists them", "method_not_allowed"
        )
        failure.headers.update(error.headers or {})  # Allow
        return failure
    if error.status_code == 400:
        return Failure(400, "the body cannot be read as JSON", "invalid_json")
    return Failure(error.status_code, str(error.detail))

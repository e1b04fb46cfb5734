"""Images, sounds and clips that clients send -> `Medium`s, within one server's limits.

In: `data:` URLs and base64 of checked requests (`schemas`). Out: media that are bytes. A client reaches nothing else by them: no file of
the server's and no address. Runs in a thread, for base64 of millions of characters takes a while.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from glmkit.applications.prompts import media_for_each
from glmkit.errors import nearest
from glmkit.multimodal.media import NAMES, Allowance, Kind, Medium, as_medium
from glmkit.serving import schemas
from glmkit.serving.failures import Failure
from glmkit.serving.settings import ServingSettings
from glmkit.tasks.task import Task

FIELDS = {name: kind for kind, name in NAMES.items()}
"""Field of a request -> what it has."""

_SHOWN = 60


class Received:
    """The media of one request, counted together; so is what decoding them takes.

    Args:
        settings: The server's limits.
    """

    def __init__(self, settings: ServingSettings):
        self._settings, self._count, self._bytes = settings, 0, 0
        self._allowance = Allowance(settings.max_media_pixels, settings.max_media_seconds)

    def take(self, kind: Kind, given: str, place: str) -> Medium:
        """Returns a medium that was sent.

        Args:
            kind: Of the medium.
            given: A `data:` URL, or the base64 of a file.
            place: The field that it came in.

        Raises:
            Failure: It is something else (400), one too many (400), or too large (413).
        """
        self._count += 1
        self._bytes += len(given) * 3 // 4
        most, bytes_ = self._settings.max_media, self._settings.max_media_bytes
        if self._count > most:
            raise Failure(
                400,
                f"the request has more than {most} images, sounds and clips; send at most {most} at a time",
                "too_many_media",
                param=place,
            )
        if self._bytes > bytes_:
            raise Failure(
                413,
                f"the images, sounds and clips of the request have more than {bytes_:,} bytes together; make them smaller or "
                "shorter, or send less at a time",
                "media_too_large",
                param=place,
            )
        file: str | bytes = given
        if given[:5].lower() != "data:":
            try:
                file = base64.b64decode(given, validate=True)
            except (binascii.Error, ValueError):
                file = b""
        if not file:
            raise Failure(
                400,
                f"{place}: {given[:_SHOWN]!r} is neither a data: URL nor a file's bytes in base64. This server opens no files of its "
                "own and fetches nothing from addresses: send the file itself, as data:TYPE;base64,…",
                "invalid_media",
                param=place,
            )
        return replace(as_medium(kind, file, where=place), allowance=self._allowance)

    def record(self, task: Task, given: schemas.Record, place: str) -> dict[str, Any]:
        """Returns a record of a task, its media as such: what stands in a field of media is never read as anything else.

        Raises:
            Failure: A field that the task does not have (400); as `take`.
            MediaError: Damaged base64.
        """
        for name in given.keys() - task.fields.keys():
            raise Failure(
                400,
                f"{place}: the task {task.name!r} has no field {name!r:.80}{nearest(name, task.fields) or '.'} It has "
                f"{', '.join(task.fields)}",
                "invalid_value",
                param=place,
            )
        return {
            name: self._taken(task.media[name], one, f"{place}.{name}") if name in task.media else one
            for name, one in given.items()
        }  # fmt: skip

    def of_texts(self, asked: schemas.WithMedia, texts: Any) -> list[list[Medium]]:
        """Returns the media of each text.

        Args:
            asked: The request.
            texts: Its texts (or records): one, or a list.

        Raises:
            Failure: As `take`.
            MediaError: Lists that do not match the texts, damaged base64.
        """
        given = {}
        for field, kind in FIELDS.items():
            some = getattr(asked, field)
            if some is not None:
                given[kind] = self._taken(kind, some, field)
        return media_for_each(texts, given)

    def _taken(self, kind: Kind, given: Any, place: str) -> Any:
        if given is None:
            return None
        if isinstance(given, str):
            return self.take(kind, given, place)
        return [self._taken(kind, one, f"{place}[{n}]") for n, one in enumerate(given)]

    def content(self, content: str | list[schemas.Part], place: str) -> str | list[dict[str, Any]]:
        """Returns a message's content as `multimodal.messages.read_parts` takes it; of text alone as one text.

        Raises:
            Failure: As `take`.
            MediaError: Damaged base64.
        """
        if isinstance(content, str):
            return content
        if all(isinstance(part, schemas.TextPart) for part in content):
            return "\n".join(part.text for part in content if isinstance(part, schemas.TextPart))
        parts: list[dict[str, Any]] = []
        for number, part in enumerate(content):
            if isinstance(part, schemas.TextPart):
                parts.append({"type": "text", "text": part.text})
                continue
            kind, given = part.sent
            medium = self.take(kind, given, f"{place}[{number}]")
            parts.append({"type": kind, kind: medium})
        return parts


def has_media(asked: schemas.Strict, task: Task | None = None) -> bool:
    """Returns whether a request has media, beside its texts or in a task's records."""
    if isinstance(asked, schemas.ChatRequest):
        contents = [one.content for one in asked.messages if isinstance(one.content, list)]
        return any(not isinstance(part, schemas.TextPart) for some in contents for part in some)
    if task is not None and task.media:
        some = listed(asked.texts)  # type: ignore[attr-defined]
        if any(task.media.keys() & one.keys() for one in some if isinstance(one, dict)):
            return True
    return any(getattr(asked, field, None) is not None for field in FIELDS)


def listed(texts: Any) -> list[Any]:
    """Returns texts or records as a list, where they may be one."""
    return texts if isinstance(texts, list) else [texts]


def characters(content: str | list[schemas.Part]) -> int:
    """Returns how long the text of a message is."""
    if isinstance(content, str):
        return len(content)
    return sum(len(part.text) for part in content if isinstance(part, schemas.TextPart))


def brief(value: Any, media: Collection[str] = ()) -> Any:
    """Returns a request's data for the log, in which media are their sizes; `media` are fields that hold some."""
    if isinstance(value, dict):
        return {
            name: _sizes(one) if name in (*FIELDS, "url", "data", *media) or name.endswith("_url") else brief(one, media)
            for name, one in value.items()
        }  # fmt: skip
    if isinstance(value, list):
        return [brief(one, media) for one in value]
    return value


def _sizes(value: Any) -> Any:
    if isinstance(value, str):
        return f"{len(value) * 3 // 4} bytes"
    return [_sizes(one) for one in value] if isinstance(value, list) else brief(value)

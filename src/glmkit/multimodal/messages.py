"""A message that holds media -> its text, with markers, and the media.

In: the content of a chat message: a text, or parts as chat APIs and `datasets` have them. Out: a text, and what stands at its
markers. What looks like a marker in a text that a user wrote is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glmkit.errors import MediaError
from glmkit.multimodal.media import Kind, without_markers
from glmkit.special_tokens import MEDIA_MARKERS

PARTS: dict[str, Kind] = {
    "image_url": "image",
    "image": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "audio": "audio",
    "video_url": "video",
    "video": "video",
    "input_video": "video",
}
"""Type of a part -> the kind of medium that it holds."""


def read_parts(content: Any, where: str = "content") -> tuple[str, list[tuple[Kind, Any]]]:
    """Returns a message's text, with a marker where a medium stands, and of each its kind and what was given.

    Args:
        content: A text, or a list of `{"type": "text", "text": …}`, `{"type": "image_url", "image_url": {"url": …}}`,
            `{"type": "input_audio", "input_audio": {"data": base64, "format": "wav"}}`, `{"type": "image", "image": …}` and
            likewise with audio and video.
        where: What messages call it.

    Raises:
        MediaError: A part of another form.
    """
    if isinstance(content, str):
        return without_markers(content), []
    if not isinstance(content, Sequence):
        raise MediaError(f"{where} must be a text or a list of parts, not {type(content).__name__}")
    text, media = "", []
    for number, part in enumerate(content):
        name = f"{where}[{number}]"
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise MediaError(
                f'{name} must be {{"type": …}} with what it holds; given was {part!r:.80}'
            )
        if part["type"] in ("text", "input_text"):
            if not isinstance(part.get("text"), str):
                raise MediaError(f"{name} is of the type {part['type']!r} and has no field 'text' with a text")  # fmt: skip
            text += without_markers(part["text"])
            continue
        kind = PARTS.get(part["type"])
        if kind is None:
            raise MediaError(
                f"{name} has the type {part['type']!r}; there are text, {', '.join(PARTS)}"
            )
        value = part.get(part["type"], part.get(kind))
        if isinstance(value, Mapping) and "data" in value:
            value = f"data:{kind}/{value.get('format', 'octet-stream')};base64,{value['data']}"
        elif isinstance(value, Mapping) and "url" in value:
            value = value["url"]
        if value is None:
            raise MediaError(
                f"{name} is of the type {part['type']!r} and has no field {part['type']!r}"
            )
        text += MEDIA_MARKERS[kind]
        media.append((kind, value))
    return text, media

r"""One record -> its text, by a rule that the user may spell out.

`text_field` is a field (`"text"`), several (`"title,lines"`, joined by newlines) or a template
(`"{title}\n{author}\n{lines}"`). Lists are joined by newlines. Without it, the first of `BODY_FIELDS` that
the record has is the text, and a body that is a list of lines (a poem) is preceded by the record's title.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from glmkit.errors import DataError, nearest

BODY_FIELDS = (
    "text",
    "content",
    "body",
    "article",
    "document",
    "lines",
    "paragraphs",
    "sentences",
    "turns",
)
"""Fields looked for when the user names none, in this order."""


def record_text(record: Mapping[str, Any], text_field: str | None, where: object) -> str:
    """Returns the text of a record.

    Args:
        record: Field -> value.
        text_field: A field, several separated by commas, a template with fields in braces, or None.
        where: Formats as `file:line`, for the message.

    Raises:
        DataError: The record lacks a field that is asked for, or none of its fields fits.
    """
    if text_field is None:
        return _guess(record, where)
    if "{" in text_field:
        fields = [name for _, name, _, _ in string.Formatter().parse(text_field) if name]
        values = {name: _value(record, name, where) for name in fields}
        return text_field.replace("\\n", "\n").format_map(values)
    names = (name.strip() for name in text_field.split(","))
    return "\n".join(filter(None, (_value(record, name, where) for name in names)))


def _guess(record: Mapping[str, Any], where: object) -> str:
    for name in BODY_FIELDS:
        if name in record:
            body = _value(record, name, where)
            title = record.get("title")
            if isinstance(record[name], list) and isinstance(title, str) and title:
                return f"{title}\n{body}"
            return body
    texts = [name for name, value in record.items() if isinstance(value, str)] or ["FIELD"]
    template = "\\n".join(f"{{{name}}}" for name in texts[:2])
    raise DataError(
        f"{where}: no field of the record is known to hold text (looked for {', '.join(BODY_FIELDS)}); "
        f"it has {', '.join(record) or 'no fields'}. Say which, for example "
        f'text_field="{texts[0]}", or a template such as text_field="{template}".'
    )


def _value(record: Mapping[str, Any], name: str, where: object) -> str:
    if name not in record:
        raise DataError(
            f"{where}: the record has no field {name!r}, it has {', '.join(record) or 'none'}"
            f"{nearest(name, record) or '.'} Change text_field."
        )
    value = record[name]
    if value is None:
        return ""
    if isinstance(value, list):
        with suppress(TypeError):  # of items that are no texts
            return "\n".join(value)
    if isinstance(value, (dict, list)):
        raise DataError(
            f"{where}: the field {name!r} holds a {type(value).__name__} of records, expected text or a "
            "list of texts. Choose another text_field, or flatten the records first."
        )
    return str(value)

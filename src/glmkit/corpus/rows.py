"""What every reader of records hands on: a row, and the place it came from; and which rows make a part."""

from __future__ import annotations

from typing import Any, NamedTuple

from glmkit.errors import DataError

Part = tuple[int, int]
"""(k, n): the k-th of the n parts that together are the file."""


class Row(NamedTuple):
    """One record.

    Attributes:
        key: Unique within the file: its line or its number.
        where: Tells file and line when it is formatted.
        record: Field -> value; None for a blank line.
    """

    key: str
    where: Any
    record: dict[str, Any] | None


def as_record(value: Any, where: object) -> dict[str, Any]:
    """Returns a value that was parsed from JSON, if it is an object.

    Raises:
        DataError: It is anything else.
    """
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: expected a JSON object, found a {type(value).__name__}. "
            'Write each text as {"text": …}.'
        )
    return value

"""Methods of `GLM` take one text (or record) and return one result, or several and return a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from glmkit.errors import DataError


def as_list(texts: Any) -> list[Any]:
    """Returns texts (or records) as a list, also one alone.

    Raises:
        DataError: It is neither a text nor a record nor several of them.
    """
    if isinstance(texts, str | Mapping):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise DataError(
            f"a text or a list of texts is needed, not {type(texts).__name__} {texts!r:.80}"
        )
    return list(texts)


def like(texts: Any, results: list[Any]) -> Any:
    """Returns one result for one text, a list for a list."""
    return results[0] if isinstance(texts, str | Mapping) else results

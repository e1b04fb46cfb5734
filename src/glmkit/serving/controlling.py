"""What a client says that a text must be -> constraints: OpenAI's `response_format`, and the fields of `generation.control`.

In: checked requests (`schemas`), a tokenizer. Out: constraints of the blanks. What cannot be kept is the client's mistake and names the
field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glmkit.errors import GenerationError
from glmkit.generation.constraints import All, Constraint
from glmkit.generation.control import NAMES, Control
from glmkit.serving.failures import Failure
from glmkit.serving.schemas import Controlled, FillRequest, OpenAIRequest, ResponseFormat

ANY_OBJECT: dict[str, Any] = {"type": "object"}


def of_answer(tokenizer: Any, asked: OpenAIRequest) -> Constraint | None:
    """Returns what a completion or reply may contain.

    Raises:
        Failure: It cannot be kept, or contradicts itself.
    """
    given = _given(asked)
    schema = _schema(asked.response_format)
    if schema is None:
        return _constraint(tokenizer, given)
    if "json_schema" in given:
        raise Failure(
            400,
            "response_format and json_schema both give a schema; give one of them",
            "invalid_value",
            param="response_format",
        )
    return _constraint(tokenizer, {**given, "json_schema": schema}, "response_format")


def of_blanks(
    tokenizer: Any, asked: FillRequest, counts: Sequence[int]
) -> list[list[Constraint | None]]:
    """Returns for each text what each of its blanks may contain.

    Args:
        tokenizer: A `GLMTokenizer`.
        asked: The request.
        counts: How many blanks each text has.

    Raises:
        Failure: It cannot be kept, or is for another number of blanks.
    """
    common = _constraint(tokenizer, _given(asked))
    if asked.constraints is None:
        return [[common] * count for count in counts]
    for number, count in enumerate(counts):
        if count != len(asked.constraints):
            raise Failure(
                400,
                f"constraints has {len(asked.constraints)} items, text {number} has {count} blanks; give one (or null) for "
                "each blank, and texts with other numbers of blanks in other requests",
                "invalid_value",
                param="constraints",
            )
    own = [_constraint(tokenizer, _given(one), "constraints") for one in asked.constraints]
    both = [common if one is None else one if common is None else All(common, one) for one in own]
    return [both for _ in counts]


def _given(asked: Controlled | None) -> dict[str, Any]:
    if asked is None:
        return {}
    return {name: value for name in NAMES if (value := getattr(asked, name)) is not None}


def _constraint(
    tokenizer: Any, given: dict[str, Any], param: str | None = None
) -> Constraint | None:
    try:
        return Control(**given).constraint(tokenizer)
    except GenerationError as error:
        name = param or (next(iter(given)) if len(given) == 1 else None)
        raise Failure(400, str(error), "invalid_value", param=name) from error


def _schema(wanted: ResponseFormat | None) -> dict[str, Any] | bool | None:
    """Returns the schema of a response format; None is any text."""
    if wanted is None:
        return None
    if (wanted.type == "json_schema") != (wanted.json_schema is not None):
        raise Failure(
            400,
            f"response_format has the type {wanted.type}; json_schema belongs to the type json_schema, and to no other",
            "invalid_value",
            param="response_format.json_schema",
        )
    if wanted.json_schema is not None and wanted.json_schema.schema_ is not None:
        return wanted.json_schema.schema_
    return None if wanted.type == "text" else ANY_OBJECT

"""Attention back ends by name: glmkit's own, and what somebody has registered with transformers' `AttentionInterface`.

Knows no mask and no weights.
"""

from __future__ import annotations

from typing import Any

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from glmkit.errors import ConfigError, nearest

ATTENTION = ("flex_attention", "sdpa", "eager")
"""What the model knows by itself."""


def attention_names() -> list[str]:
    """Returns the names that `attn_implementation` may have; transformers' other ones take no mask for blanks."""
    registered = [
        name
        for name, function in ALL_ATTENTION_FUNCTIONS.items()
        if not str(getattr(function, "__module__", "")).startswith("transformers.")
    ]
    return list(dict.fromkeys((*ATTENTION, *registered)))


def unknown_attention(name: Any) -> str:
    """Returns what is wrong with a name, or an empty string; None and kernels of the Hub (`owner/name`) are fine."""
    known = attention_names()
    if name is None or name in known or "/" in str(name):
        return ""
    return (
        f"attn_implementation = {name!r}{nearest(str(name), known) or ' is unknown.'} There are {', '.join(known)}. One of your own has to "
        "be registered first: transformers.AttentionInterface.register(name, function)"
    )


def check_attention(name: Any) -> None:
    """Refuses the name of an attention that there is not.

    Raises:
        ConfigError: It is unknown.
    """
    if wrong := unknown_attention(name):
        raise ConfigError(wrong)


def check_attended(attended: Any, name: Any, shape: tuple[int, int, int, int]) -> None:
    """Refuses what no back end may return.

    Args:
        attended: Its answer.
        name: Of the back end.
        shape: (B, S, N, D) of the context.

    Raises:
        ConfigError: It is not a context of that shape beside weights or None.
    """
    given: Any = type(attended).__name__
    if isinstance(attended, tuple | list) and len(attended) == 2:
        given = list(getattr(attended[0], "shape", [type(attended[0]).__name__]))
    if given != list(shape):
        raise ConfigError(
            f"the attention {name!r} returned {given}; it must return (context, weights): context [B, S, N, D] = {list(shape)}, "
            "weights or None"
        )

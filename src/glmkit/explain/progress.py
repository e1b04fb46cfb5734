"""Being told of a model's passes: to show how far an explanation is, or to end one that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def watched(model: Any, progress: Callable[[], None] | None) -> Iterator[None]:
    """Calls `progress` before each pass that this thread makes through a model; what it raises ends the work there.

    Args:
        model: A `GLMForConditionalGeneration`, or a head.
        progress: What to call, without arguments; None is nothing.
    """
    if progress is None:
        yield
        return
    thread = threading.get_ident()  # others run the same model

    def before(*_: Any) -> None:
        if threading.get_ident() == thread:
            progress()

    handle = model.glm.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()

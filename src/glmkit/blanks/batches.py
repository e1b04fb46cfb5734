"""Which of many texts are read together: those of similar length, so that little is filled up.

In: lengths, the size of a batch. Out: indices, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glmkit.errors import ConfigError


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yields the indices of at most `batch_size` texts at a time, shorter ones first.

    Raises:
        ConfigError: A batch of less than one text.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1")
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]

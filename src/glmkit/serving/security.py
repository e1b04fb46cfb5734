"""Who may ask, and how often: keys compared in constant time, and a limit of requests for each.

In: headers, a client's address, the time. Out: the name under which a client is counted, or the seconds that it has to wait. Knows
no HTTP library. Keys are kept as digests and never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

MOST_CLIENTS = 10_000
"""Clients whose requests are counted; beyond it those that were silent longest are forgotten."""


class Keys:
    """The API keys of a server."""

    def __init__(self, keys: Iterable[str]):
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str) -> str | None:
        """Returns a name for the key in an `Authorization` header, or None where there is no right one.

        Every key is compared, each in constant time: how long it takes says nothing about a key.
        """
        scheme, _, given = authorization.partition(" ")
        digest, owner = _digest(given.strip()), None
        for number, known in enumerate(self._digests):
            if hmac.compare_digest(digest, known):
                owner = f"key {number}"
        return owner if scheme.lower() == "bearer" else None


class RateLimit:
    """So many requests a minute for each client; what was saved up can be spent at once (a token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        """Begins with full buckets.

        Args:
            per_minute: Requests; 0 is no limit.
            clock: Seconds.
        """
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Counts a request; returns 0, or the seconds after which the client may ask again."""
        if not self._per_minute:
            return 0.0
        now, rate = self._clock(), self._per_minute / 60
        left, since = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * rate)
        allowed = left >= 1
        self._buckets[client] = (left - allowed, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / rate


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

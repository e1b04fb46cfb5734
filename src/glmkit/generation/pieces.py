"""A text that is being written -> the pieces of it that are sure.

In: the contents of a blank, again and again, as they grow. Out: pieces that are whole characters, that no stop string will
take back, and that join to the contents. Knows no tokens and no engine.
"""

from __future__ import annotations

from glmkit.generation.stopping import StopStrings


class TextPieces:
    """The pieces of one blank."""

    def __init__(self, stop: StopStrings | None = None, *, strip: bool = False):
        """Begins with nothing written.

        Args:
            stop: Strings before which the blank ends; what may be the beginning of one is held back.
            strip: The pieces join to the contents without white space around them.
        """
        self._stop, self._strip = stop, strip
        self._sent = ""

    def add(self, written: str, finished: bool = False) -> str:
        """Returns what has become sure, perhaps nothing.

        Args:
            written: All contents so far.
            finished: Whether the blank has ended by itself, or before a stop string.
        """
        # A character of several byte tokens shows as U+FFFD until it is whole; a space may still be cleaned up.
        ready = written.rstrip("�")
        if self._stop and not finished:
            ready = ready[: len(ready) - self._stop.held_back(ready)]
        ready = ready.rstrip()
        if self._strip:
            ready = ready.lstrip()
        return self._send(ready) if ready.startswith(self._sent) else ""

    def rest(self, written: str) -> str:
        """Returns what is left of the contents when nothing more will be written."""
        return self._send(written.strip() if self._strip else written)

    def _send(self, ready: str) -> str:
        piece = ready[len(self._sent) :]
        self._sent += piece
        return piece

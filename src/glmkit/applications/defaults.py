"""Settings of each application unless others are given: plain values, so that the command can show them quickly."""

from __future__ import annotations

from typing import Any

CHAT: dict[str, Any] = {"max_new_tokens": 96, "no_repeat_ngram_size": 4}

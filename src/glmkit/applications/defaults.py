"""Settings of each application unless others are given: plain values, so that the command can show them quickly."""

from __future__ import annotations

from typing import Any

ARTICLE: dict[str, Any] = {
    "max_new_tokens": 256,
    "do_sample": True,
    "temperature": 0.8,
    "top_p": 0.9,
    "no_repeat_ngram_size": 6,
}

CHAT: dict[str, Any] = {"max_new_tokens": 96, "no_repeat_ngram_size": 4}

SHAPED_CHAT: dict[str, Any] = {"max_new_tokens": 96}
"""Of a reply whose whole form a constraint says: JSON repeats itself."""

SUMMARY: dict[str, Any] = {"max_new_tokens": 64, "num_beams": 4, "no_repeat_ngram_size": 4}
"""Where nothing is drawn; a summary with `do_sample` takes `SAMPLED_SUMMARY`."""

SAMPLED_SUMMARY: dict[str, Any] = {"max_new_tokens": 64, "no_repeat_ngram_size": 4}

FREE_ANSWER: dict[str, Any] = {"max_new_tokens": 64, "num_beams": 3}

SAMPLED_ANSWER: dict[str, Any] = {"max_new_tokens": 64}

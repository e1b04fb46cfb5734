"""Texts -> vectors: the mean of the final hidden states over a text's tokens.

In: a model, its tokenizer, texts. Out: one vector of length 1 for each. A text is read as part A, where every token sees all others,
without a blank; its markers ([CLS], the end) are read but do not count. A text that is too long is read in windows side by side, and
the mean is over the tokens of all. GLM was not trained for it: near vectors mean similar words and topics, not the same meaning.

Shapes: B rows, L tokens of a row, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glmkit.blanks.batches import by_length
from glmkit.errors import GenerationError
from glmkit.generation.arrays import as_array, reading
from glmkit.generation.reading import part_a_inputs
from glmkit.tokens.blanked import encode_plain


def embed(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 16
) -> list[np.ndarray]:
    """Returns float32 [H] for each text; an empty text has the mean of its two markers.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        texts: The texts; special tokens' strings in them are plain text.
        batch_size: Rows read together, those of similar length.

    Raises:
        ConfigError: A batch of less than one row.
        GenerationError: A text that is no string.
    """
    ids, room = tokenizer.special_ids, model.config.max_sequence_length - 2
    rows: list[tuple[int, np.ndarray]] = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise GenerationError(f"a text must be a string, not {type(text).__name__}")
        body = encode_plain(tokenizer, text)
        for start in range(0, max(1, len(body)), room):
            window = [ids.cls, *body[start : start + room], ids.eos]
            rows.append((number, np.asarray(window, np.int64)))
    sums = np.zeros((len(texts), model.config.hidden_size))
    for indices in by_length([len(row) for _, row in rows], batch_size):
        some = [rows[index] for index in indices]
        for (number, _), states in zip(some, _states(model, ids, [row for _, row in some]), strict=True):  # fmt: skip
            sums[number] += states
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return list((sums / np.maximum(lengths, 1e-12)).astype(np.float32))


def _states(model: Any, ids: Any, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Returns float64 [B, H]: the sums of the final hidden states of the rows' tokens, markers aside."""
    inputs = part_a_inputs(model, rows, ids)
    with reading(model):
        states = as_array(model.glm(**inputs).last_hidden_state).astype(np.float64)  # [B, L, H]
    counted = np.zeros(states.shape[:2])
    for place, row in enumerate(rows):
        inner = 1 if len(row) > 2 else 0
        counted[place, inner : len(row) - inner] = 1
    return np.einsum("blh,bl->bh", states, counted)

"""Log-probabilities of tokens, batched: the one place where evaluation runs the model.

In: texts (or examples), a model, its tokenizer. Out: the log-probability of every predicted token, in nats. Padding
and the company in a batch change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from glmkit.blanks.batches import by_length
from glmkit.blanks.layout import IGNORE_INDEX, Example, collate
from glmkit.blanks.media import check_media, one_table
from glmkit.blanks.windows import left_to_right_examples
from glmkit.errors import DataError
from glmkit.generation.arrays import (
    for_model,
    likeliest,
    log_probabilities_at,
    reading,
    takes_arrays,
)
from glmkit.tokens.blanked import encode_plain

LOGIT_ROWS = 512
"""Tokens whose logits [512, V] are held at once."""


def encode(tokenizer: Any, text: str) -> np.ndarray:
    """Returns the ids (int64) of a text without special tokens around it; special strings are plain text.

    Raises:
        DataError: It is no string.
    """
    if not isinstance(text, str):
        raise DataError(f"a text must be a string, not {type(text).__name__}")
    return np.asarray(encode_plain(tokenizer, text), np.int64)


def label_log_probabilities(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    *,
    batch_size: int = 8,
    media: Sequence[Any] | None = None,
) -> list[np.ndarray]:
    """Returns for each example the log-probabilities (float64, nats) of its labels, in order.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        examples: What to predict; examples of similar length share a batch.
        pad: Id that fills up rows.
        batch_size: Examples at a time.
        media: For each example the rows that its ids from `FIRST_MEDIA_ID` on mean, [M, H], or None.

    Raises:
        ConfigError: A batch of less than one example.
        GenerationError: Ids of media without their rows, or rows that are not as wide as the model.
    """
    found = _of_labels(model, examples, pad, batch_size, _at_labels, media)
    return [values.astype(np.float64) for values in found]


def likeliest_tokens(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    *,
    batch_size: int = 8,
    media: Sequence[Any] | None = None,
) -> list[np.ndarray]:
    """Returns for each example int64 [labels]: the likeliest token where each of its labels stands (teacher forcing).

    Rows of the vocabulary that are no tokens never are; arguments as for `label_log_probabilities`.
    """
    known = model.config.num_tokens

    def best(logits: Any, labels: np.ndarray) -> np.ndarray:
        return likeliest(logits[:, :known])

    return _of_labels(model, examples, pad, batch_size, best, media)


def label_scores(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    *,
    forbidden: Sequence[int] = (),
    batch_size: int = 8,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns log-probabilities as `label_log_probabilities`, and whether each label (bool) is the likeliest token.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        examples: What to predict.
        pad: Id that fills up rows.
        forbidden: Ids that decoding never writes, with which no label is compared.
        batch_size: Examples at a time.
    """

    def both(logits: Any, labels: np.ndarray) -> np.ndarray:
        """Logits [T, V], labels [T] -> float32 [T, 2]: log-probability; 1 where it is the likeliest."""
        right = likeliest(logits, forbidden) == labels
        return np.stack((_at_labels(logits, labels), right.astype(np.float32)), 1)

    found = _of_labels(model, examples, pad, batch_size, both)
    return [(one[:, 0].astype(np.float64), one[:, 1] > 0) for one in found]


def _of_labels(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    batch_size: int,
    function: Callable[[Any, np.ndarray], np.ndarray],
    media: Sequence[Any] | None = None,
) -> list[np.ndarray]:
    """Returns for each example what `function(logits [T, V], labels [T])` says of its labels, `LOGIT_ROWS` of them at a time."""
    tables = [None] * len(examples) if media is None else media
    for example, own in zip(examples, tables, strict=True):
        check_media(example.input_ids, own, model.config.hidden_size)
    results = [np.empty(0)] * len(examples)
    for chosen in by_length(list(map(len, examples)), batch_size):
        some = [examples[index] for index in chosen]
        ids, table = one_table(
            [one.input_ids for one in some],
            [tables[index] for index in chosen],
            "cpu" if takes_arrays(model) else model.device,
        )
        some = [replace(one, input_ids=np.asarray(own)) for one, own in zip(some, ids, strict=True)]
        batch = collate(some, pad)
        labels = batch.pop("labels")
        predicted = labels != IGNORE_INDEX
        targets = labels[predicted]
        with reading(model):
            states = model.glm(**for_model(model, batch), media_embeds=table).last_hidden_state
            hidden = states[for_model(model, {"predicted": predicted})["predicted"]]
            parts = [
                function(model.lm_head(hidden[start : start + LOGIT_ROWS]), targets[start : start + LOGIT_ROWS])
                for start in range(0, max(1, len(targets)), LOGIT_ROWS)
            ]  # fmt: skip
        ends = np.cumsum(predicted.sum(1))[:-1]
        for index, part in zip(chosen, np.split(np.concatenate(parts), ends), strict=True):
            results[index] = part
    return results


def _at_labels(logits: Any, labels: np.ndarray) -> np.ndarray:
    """Logits [T, V], labels [T] -> float32 [T], log-probabilities in nats."""
    return log_probabilities_at(logits, np.arange(len(labels)), labels)


def text_log_probabilities(
    model: Any, tokenizer: Any, texts: Iterable[str], *, batch_size: int = 8, **windows_as: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns for each text its ids [n] and their log-probabilities [n] in nats, left to right.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        texts: The texts.
        batch_size: Windows at a time.
        **windows_as: `stride` and `bidirectional` of `blanks.windows.left_to_right_examples`.
    """
    specials, limit = tokenizer.special_ids, model.config.max_sequence_length
    encoded = [encode(tokenizer, text) for text in texts]
    windows = [left_to_right_examples(ids, specials, limit, **windows_as) for ids in encoded]
    flat = [example for examples in windows for example in examples]
    scores = iter(label_log_probabilities(model, flat, specials.pad, batch_size=batch_size))
    return [
        (ids, np.concatenate([np.empty(0), *(next(scores) for _ in examples)]))
        for ids, examples in zip(encoded, windows, strict=True)
    ]

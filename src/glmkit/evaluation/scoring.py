"""Log-probabilities of tokens, batched: the one place where evaluation runs the model.

In: texts (or examples), a model, its tokenizer. Out: the log-probability of every predicted token, in nats. Padding
and the company in a batch change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from glmkit.blanks.batches import by_length
from glmkit.blanks.layout import IGNORE_INDEX, Example, collate
from glmkit.blanks.windows import left_to_right_examples
from glmkit.errors import DataError
from glmkit.model.media import check_media, one_table
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


@torch.inference_mode()
def label_log_probabilities(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    *,
    batch_size: int = 8,
    media: Sequence[torch.Tensor | None] | None = None,
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
    found = _of_labels(model, examples, pad, batch_size, _negative_log_likelihood, media)
    return [-values.double().numpy() for values in found]


@torch.inference_mode()
def likeliest_tokens(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    *,
    batch_size: int = 8,
    media: Sequence[torch.Tensor | None] | None = None,
) -> list[np.ndarray]:
    """Returns for each example int64 [labels]: the likeliest token where each of its labels stands (teacher forcing).

    Rows of the vocabulary that are no tokens never are; arguments as for `label_log_probabilities`.
    """
    found = _of_labels(model, examples, pad, batch_size, _likeliest, media)
    return [tokens.numpy() for tokens in found]


@torch.inference_mode()
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

    def both(model: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Hidden [T, H], labels [T] -> float32 [T, 2]: log-probability; 1 where it is the likeliest."""
        parts = [hidden.new_zeros((0, 2), dtype=torch.float32)]
        for rows, targets in zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True):
            logits = model.lm_head(rows).float()
            values = -F.cross_entropy(logits, targets, reduction="none")
            logits[:, list(forbidden)] = -torch.inf
            parts.append(torch.stack((values, (logits.argmax(-1) == targets).float()), 1))
        return torch.cat(parts)

    found = _of_labels(model, examples, pad, batch_size, both)
    return [(one[:, 0].double().numpy(), one[:, 1].bool().numpy()) for one in found]


def _of_labels(
    model: Any,
    examples: Sequence[Example],
    pad: int,
    batch_size: int,
    function: Any,
    media: Sequence[torch.Tensor | None] | None = None,
) -> list[torch.Tensor]:
    """Returns for each example what `function(model, hidden [T, H], labels [T])` says of its labels."""
    tables = [None] * len(examples) if media is None else media
    for example, own in zip(examples, tables, strict=True):
        check_media(example.input_ids, own, model.config.hidden_size)
    results = [torch.empty(0)] * len(examples)
    for chosen in by_length(list(map(len, examples)), batch_size):
        some = [examples[index] for index in chosen]
        ids, table = one_table(
            [one.input_ids for one in some], [tables[index] for index in chosen], model.device
        )
        some = [replace(one, input_ids=np.asarray(own)) for one, own in zip(some, ids, strict=True)]
        batch = collate(some, pad)
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
        labels = inputs.pop("labels")
        hidden = model.glm(**inputs, media_embeds=table).last_hidden_state
        predicted = labels != IGNORE_INDEX
        values = function(model, hidden[predicted], labels[predicted])
        counts = predicted.sum(1).tolist()
        for index, part in zip(chosen, values.split(counts), strict=True):
            results[index] = part.cpu()
    return results


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


def _negative_log_likelihood(
    model: Any, hidden: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Hidden [T, H], labels [T] -> float32 [T], with logits of `LOGIT_ROWS` tokens at a time."""
    parts = [
        F.cross_entropy(model.lm_head(states).float(), targets, reduction="none")
        for states, targets in zip(hidden.split(LOGIT_ROWS), labels.split(LOGIT_ROWS), strict=True)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def _likeliest(model: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Hidden [T, H] -> int64 [T]."""
    known = model.config.num_tokens
    parts = [model.lm_head(rows)[:, :known].argmax(-1) for rows in hidden.split(LOGIT_ROWS)]
    return torch.cat(parts) if parts else labels

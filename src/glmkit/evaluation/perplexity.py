"""Perplexity: left to right and on blanks; per token, character and byte.

In: a model, its tokenizer, texts. Out: numbers comparable across vocabularies where the unit is a character or a byte.
Perplexity per unit = exp(-sum of the log-probabilities of all tokens / number of units in all texts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from glmkit.blanks.objectives import ObjectiveSettings, make_example
from glmkit.errors import DataError
from glmkit.evaluation.scoring import (
    encode,
    label_log_probabilities,
    text_log_probabilities,
)
from glmkit.generation.results import Score

Unit = Literal["token", "character", "byte"]


@dataclass(frozen=True)
class Totals:
    """Sums over texts, from which every unit's perplexity follows.

    Attributes:
        log_probability: Of all predicted tokens, in nats.
        tokens: Predicted tokens.
        characters: Unicode characters that these tokens stand for.
        bytes: Their UTF-8 bytes.
    """

    log_probability: float
    tokens: int
    characters: int
    bytes: int

    def perplexity(self, unit: Unit = "token") -> float:
        """Returns the perplexity per unit.

        Raises:
            DataError: An unknown unit, or nothing was predicted.
        """
        counts = {"token": self.tokens, "character": self.characters, "byte": self.bytes}
        if unit not in counts:
            raise DataError(f"unit={unit!r} is not one of {', '.join(get_args(Unit))}")
        if not counts[unit]:
            raise DataError("the texts are empty; perplexity needs at least one token")
        return math.exp(-self.log_probability / counts[unit])

    @property
    def bits_per_character(self) -> float:
        """Mean bits that the model needs for a character."""
        return math.log2(self.perplexity("character"))


def score_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 8
) -> list[Score]:
    """Returns each text's log-probability, token by token, left to right (an empty text scores 0)."""
    return [
        Score(
            text=text,
            log_probability=float(values.sum()),
            tokens=[tokenizer.decode([token]) for token in ids.tolist()],
            token_log_probabilities=values.tolist(),
            perplexity=math.exp(-float(values.mean())) if len(values) else 1.0,
        )
        for text, (ids, values) in zip(
            texts,
            text_log_probabilities(model, tokenizer, texts, batch_size=batch_size),
            strict=True,
        )
    ]


def left_to_right(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 8
) -> Totals:
    """Predicts every token of every text once, from the tokens left of it; see `left_to_right_examples`."""
    scored = text_log_probabilities(model, tokenizer, texts, batch_size=batch_size)
    return Totals(
        log_probability=float(sum(values.sum() for _, values in scored)),
        tokens=sum(len(ids) for ids, _ in scored),
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode("utf-8", errors="replace")) for text in texts),
    )


def on_blanks(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    objective: str = "token",
    seed: int = 0,
    batch_size: int = 8,
    settings: ObjectiveSettings | None = None,
) -> Totals:
    """Hides blanks as pretraining does (nothing corrupted), and predicts their contents and ends.

    Texts are cut into chunks that leave room for masks; those too short for the objective are left out. The end
    markers' log-probabilities count, their characters (none) do not.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        texts: The texts.
        objective: "token", "sentence" or "document".
        seed: Of the blanks; chunk i of text j has the same blanks in every call.
        batch_size: Chunks at a time.
        settings: How blanks are made; the published ones without corruption by default.
    """
    settings = settings or ObjectiveSettings(block_mask_prob=0.0)
    specials = tokenizer.special_ids
    sentence_ends = tokenizer.sentence_ends() if objective == "sentence" else None
    room = int(model.config.max_sequence_length * 0.8) - 2
    examples, characters, size = [], 0, 0
    for number, text in enumerate(texts):
        ids = encode(tokenizer, text)
        for place, start in enumerate(range(0, len(ids), room)):
            chunk = np.concatenate(([specials.cls], ids[start : start + room], [specials.eos]))
            rng = np.random.default_rng([seed, number, place])
            example = make_example(chunk, objective, rng, specials, settings, sentence_ends)
            if example is None:
                continue
            examples.append(example)
            hidden = example.labels[example.labels >= 0]
            hidden = hidden[(hidden != specials.eop) & (hidden != specials.eos)]
            words = str(tokenizer.decode(hidden.tolist()))
            characters += len(words)
            size += len(words.encode("utf-8"))
    values = label_log_probabilities(model, examples, specials.pad, batch_size=batch_size)
    return Totals(
        log_probability=float(sum(value.sum() for value in values)),
        tokens=sum(map(len, values)),
        characters=characters,
        bytes=size,
    )


def perplexity(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    unit: Unit = "token",
    batch_size: int = 8,
) -> float:
    """Returns the left-to-right perplexity of texts per token, character or UTF-8 byte.

    Raises:
        DataError: An unknown unit, or nothing but empty texts.
    """
    return left_to_right(model, tokenizer, texts, batch_size=batch_size).perplexity(unit)


def bits_per_character(
    model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 8
) -> float:
    """Returns the mean number of bits that the model needs for a character, left to right."""
    return left_to_right(model, tokenizer, texts, batch_size=batch_size).bits_per_character

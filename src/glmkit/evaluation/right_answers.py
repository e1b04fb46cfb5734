"""What a model makes of the right answers' tokens, each read after those before it (teacher forcing): nothing is written.

In: `Asked` questions. Out: sums of log-probabilities; whether the answer is what greedy decoding would write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from glmkit.blanks.layout import Piece, lay_out
from glmkit.blanks.windows import continuation
from glmkit.errors import ConfigError
from glmkit.evaluation.asking import Answers, Asked, Record, Sums, bits
from glmkit.evaluation.metrics import Outcome
from glmkit.evaluation.scoring import label_log_probabilities, likeliest_tokens
from glmkit.tasks.task import Task
from glmkit.tokens.blanked import encode_plain

MEASURED_BY_TOKENS = ("perplexity", "bits_per_character", "word_perplexity", "greedy_match")
"""Metrics for which nothing is written: what the model makes of the right answer's tokens."""


def likelihood(glm: Any, asked: Sequence[Asked]) -> dict[str, Sums]:
    """Returns what the right answers cost: bits per character without the end marker, perplexity per token with it."""
    ids = glm.vocabulary.special_ids
    examples = [
        lay_out(
            one.prompt.ids,
            [Piece(int(one.prompt.mask_indices[0]), np.asarray(one.answer, np.int64), ids.eop)],
            ids.sop,
        )
        for one in asked
    ]
    media = [one.prompt.embeddings for one in asked]
    scores = label_log_probabilities(glm.model, examples, ids.pad, batch_size=16, media=media)
    return {
        "bits_per_character": Sums(
            [-float(one[:-1].sum()) for one in scores],
            [float(len(one.question.answer)) for one in asked],
            bits,
        ),
        "perplexity": Sums(
            [-float(one.sum()) for one in scores], [float(len(one)) for one in scores], math.exp
        ),
    }


def greedily(
    glm: Any, task: Task, asked: Sequence[Asked], kept: list[Record], skipped: int
) -> Answers:
    """Returns whether each token of the answers is the likeliest one after those before it; the end does not count."""
    tokenizer, ids = glm.vocabulary, glm.vocabulary.special_ids
    left_to_right = task.reading.context == "unidirectional"
    if left_to_right and any(one.prompt.media for one in asked):
        raise ConfigError(
            f"the task {task.name!r} is read left to right (reading.context = unidirectional), where media have no place: they "
            "stand in part A, which is read in both directions"
        )
    examples = []
    for one in asked:
        answer = np.asarray(one.answer, np.int64)
        if left_to_right:
            before = encode_plain(tokenizer, one.question.before.rstrip())
            examples.append(continuation(np.asarray(before, np.int64), answer, ids, False))
        else:
            piece = Piece(int(one.prompt.mask_indices[0]), answer)
            examples.append(lay_out(one.prompt.ids, [piece], ids.sop))
    media = [one.prompt.embeddings for one in asked]
    scores = label_log_probabilities(glm.model, examples, ids.pad, batch_size=16, media=media)
    tokens = likeliest_tokens(glm.model, examples, ids.pad, batch_size=16, media=media)
    hits = [float((found == one.answer).all()) for found, one in zip(tokens, asked, strict=True)]
    return Answers(
        [
            Outcome(tokenizer.decode(found).strip(), [one.question.answer])
            for found, one in zip(tokens, asked, strict=True)
        ],
        kept,
        skipped,
        sums={
            "greedy_match": Sums(hits, [1.0] * len(hits), float),
            "perplexity": Sums(
                [-float(one.sum()) for one in scores], [float(len(one)) for one in scores], math.exp
            ),
        },
    )

"""What a model of any family makes of questions: log-probabilities of the right answers, and answers of its own.

In: a model, its layout, questions. Out: numbers. Every step reads the whole text again: no family has an advantage of
implementation, and at this size it costs little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from glmkit.blanks.layout import IGNORE_INDEX, Example
from glmkit.comparison.layouts import Layout, Question
from glmkit.comparison.models import logits, states
from glmkit.comparison.tuning import Classifier, collated
from glmkit.evaluation.metrics import distinct_n, macro_f1

METRICS: dict[str, tuple[tuple[str, str], bool]] = {
    "accuracy": (("accuracy", "准确率"), True),
    "macro_f1": (("macro F1", "宏平均 F1"), True),
    "nats": (("nats per right token", "每个正确词元的 nats"), False),
    "exact": (("exactly right, length by the model", "完全正确（长度由模型决定）"), True),
    "exact_given_length": (("exactly right, length given", "完全正确（给定长度）"), True),
    "exact_in_order": (
        ("exactly right, length given, token by token", "完全正确（给定长度，逐词元填写）"),
        True,
    ),
    "token_f1": (("F1 of tokens", "词元 F1"), True),
    "distinct_2": (("different bigrams", "不同二元组占比"), True),
}
"""Name -> title in English and Chinese, and whether more is better."""


@torch.inference_mode()
def classification(
    model: Classifier, examples: Sequence[Example], classes: np.ndarray, pad: int, rows: int = 32
) -> dict[str, float]:
    """Returns `accuracy` and `macro_f1`."""
    predicted = np.empty(len(examples), np.int64)
    for chosen in _by_length([len(one) for one in examples], rows):
        batch = collated([examples[index] for index in chosen], pad, _device(model))
        predicted[chosen] = model(**batch).logits.argmax(1).cpu().numpy()
    return {
        "accuracy": float(np.mean(predicted == classes)),
        "macro_f1": macro_f1([str(one) for one in predicted], [str(one) for one in classes]),
    }


@torch.inference_mode()
def nats_per_token(
    model: Any,
    layout: Layout,
    questions: Sequence[Question],
    pad: int,
    banned: int | None = None,
    rows: int = 32,
) -> float:
    """Returns -log p of the right answers, in nats per token.

    `banned` is the end marker: its share goes to the other tokens, since some families are told an answer's length.
    """
    examples = [example for question in questions for example in layout.scoring(question)]
    total, tokens = 0.0, 0
    for chosen in _by_length([len(one) for one in examples], rows):
        scores, labels = _predictions(model, [examples[index] for index in chosen], pad)
        if banned is not None:
            scores[:, banned] = -torch.inf
        total += float(F.cross_entropy(scores, labels, reduction="sum"))
        tokens += len(labels)
    return total / tokens


def infilling(
    model: Any,
    layout: Layout,
    questions: Sequence[Question],
    pad: int,
    eop: int,
    num_tokens: int,
    longest: int,
) -> dict[str, float]:
    """Returns the numbers of blanks inside texts, see `METRICS`; greedy.

    A family that writes a blank in order also decides its length (`exact`); one that fills it at once is told the length,
    and is measured filling token by token too (`exact_in_order`).
    """
    found = {"nats": nats_per_token(model, layout, questions, pad, eop)}
    limits = [len(one.answer) for one in questions]
    written = _write(model, layout, questions, limits, pad, num_tokens, banned=eop)
    if layout.writes_in_order:
        most = [longest + 1] * len(questions)  # one more and it is wrong anyway
        own = _write(model, layout, questions, most, pad, num_tokens, end=eop)
        found["exact"] = _exact(own, questions)
        found["exact_given_length"] = _exact(written, questions)
        found["token_f1"] = _token_f1(own, questions)
        return found
    at_once = _at_once(model, layout, questions, pad, num_tokens, eop)
    found["exact_given_length"] = _exact(at_once, questions)
    found["exact_in_order"] = _exact(written, questions)
    found["token_f1"] = _token_f1(at_once, questions)
    return found


def generation(
    model: Any,
    layout: Layout,
    questions: Sequence[Question],
    tokenizer: Any,
    eop: int,
    num_tokens: int,
) -> dict[str, float]:
    """Returns the numbers of texts gone on with, see `METRICS`; greedy, as many tokens as the right answer has."""
    pad = tokenizer.special_ids.pad
    limits = [len(one.answer) for one in questions]
    written = _write(model, layout, questions, limits, pad, num_tokens, banned=eop)
    return {
        "nats": nats_per_token(model, layout, questions, pad, eop),
        "token_f1": _token_f1(written, questions),
        "distinct_2": distinct_n([tokenizer.decode(one.tolist()) for one in written], 2),
    }


@torch.inference_mode()
def _write(
    model: Any,
    layout: Layout,
    questions: Sequence[Question],
    limits: Sequence[int],
    pad: int,
    num_tokens: int,
    *,
    end: int | None = None,
    banned: int | None = None,
    rows: int = 32,
) -> list[np.ndarray]:
    """Returns for each question the tokens that a model writes, the likeliest first, up to its limit or its end.

    Args:
        model: Of any family.
        layout: Of the family.
        questions: Their answers are not looked at, but by their length where a layout needs it.
        limits: Tokens to write at most.
        pad: Id that fills up rows.
        num_tokens: Of the vocabulary; the head's rows above are padding.
        end: The id that ends an answer, if it ends.
        banned: An id that is never written.
        rows: Questions read at once.
    """
    written: list[list[int]] = [[] for _ in questions]
    going = [index for index, limit in enumerate(limits) if limit]
    while going:
        ended = set()
        for start in range(0, len(going), rows):
            chosen = going[start : start + rows]
            examples = [
                layout.next_token(questions[i], np.array(written[i], np.int64)) for i in chosen
            ]
            scores, _ = _predictions(model, examples, pad)
            best = _likeliest(scores, num_tokens, banned)
            for index, token in zip(chosen, best.tolist(), strict=True):
                if token == end:
                    ended.add(index)
                else:
                    written[index].append(token)
        going = [i for i in going if i not in ended and len(written[i]) < limits[i]]
    return [np.array(one, np.int64) for one in written]


@torch.inference_mode()
def _at_once(
    model: Any,
    layout: Layout,
    questions: Sequence[Question],
    pad: int,
    num_tokens: int,
    banned: int,
) -> list[np.ndarray]:
    """Returns the likeliest token of each place of each answer, all predicted independently."""
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(questions)
    examples = [layout.scoring(question)[0] for question in questions]
    for chosen in _by_length([len(one) for one in examples], 32):
        scores, _ = _predictions(model, [examples[index] for index in chosen], pad)
        best = _likeliest(scores, num_tokens, banned).cpu().numpy()
        ends = np.cumsum([len(questions[index].answer) for index in chosen])
        for index, part in zip(chosen, np.split(best, ends[:-1]), strict=True):
            found[index] = part
    return found


def _predictions(
    model: Any, examples: Sequence[Example], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns float32 logits [T, V] at the labels, and the labels [T], example by example."""
    batch = collated(examples, pad, _device(model))
    labels = batch.pop("labels")
    predicted = labels != IGNORE_INDEX
    return logits(model, states(model, batch)[predicted]), labels[predicted]


def _likeliest(scores: torch.Tensor, num_tokens: int, banned: int | None) -> torch.Tensor:
    scores = scores[:, :num_tokens]
    if banned is not None:
        scores[:, banned] = -torch.inf
    return scores.argmax(1)


def _exact(written: Sequence[np.ndarray], questions: Sequence[Question]) -> float:
    pairs = zip(written, questions, strict=True)
    return float(np.mean([np.array_equal(one, question.answer) for one, question in pairs]))


def _token_f1(written: Sequence[np.ndarray], questions: Sequence[Question]) -> float:
    """Returns the mean F1 of the bags of tokens of answer and right answer."""
    scores = []
    for one, question in zip(written, questions, strict=True):
        shared = Counter(one.tolist()) & Counter(question.answer.tolist())
        scores.append(2 * shared.total() / (len(one) + len(question.answer)))
    return float(np.mean(scores))


def _by_length(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Returns indices in batches of similar length."""
    order = np.argsort(lengths, kind="stable").tolist()
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device

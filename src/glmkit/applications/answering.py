"""Questions about a text: the answer is a span of it, or written freely.

In: questions and contexts. Out: `Answer`s. A long context is read in overlapping windows, and the likeliest answer of
all windows wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from glmkit.applications import defaults
from glmkit.applications.prompts import question_prompt
from glmkit.applications.windows import windows
from glmkit.errors import GenerationError
from glmkit.generation import infill
from glmkit.generation.choices import score_choices
from glmkit.generation.results import Answer
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.spans import MAX_UNITS, SpanSearch
from glmkit.tasks.rendering import Question, asked_language, question
from glmkit.tasks.task import Language, Task, load_task

Mode = Literal["span", "free"]

CANDIDATES = 4
"""Spans of a window that are judged by all patterns."""
OVERLAP = 0.25
"""Share of a window that the next one repeats, at most: an answer needs the sentences around it."""
NOTHING = Answer("", 0.0, -1, -1)


def answer(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    mode: Mode = "span",
    no_answer_threshold: float = 0.0,
    no_answer: str | None = "",
    max_words: int = MAX_UNITS,
    task: Task | None = None,
    language: Language | None = None,
    **settings: Any,
) -> list[Answer]:
    """Answers each question from its context.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        questions: The questions.
        contexts: A text for each.
        mode: "span": the answer is the likeliest span of the context, found exactly; "free": it is written, and may be
            words that the context does not have.
        no_answer_threshold: An answer that the model finds less probable than this (0 to 1) is no answer.
        no_answer: What the model was trained to write where there is no answer, such as "无"; by default an empty blank.
            Where it is likelier than every span, or is written, there is no answer. None: there always is one.
        max_words: Most words, numbers or Chinese characters of a span.
        task: A task with fields `context` and `question`; by default the catalog's qa.
        language: Of the patterns; by default that of question and context.
        **settings: Of a free answer, see `DecodingSettings`.

    Raises:
        GenerationError: Questions and contexts that do not match, an unknown mode, settings where nothing is written
            freely, or a question too long for the model.
    """
    _check(questions, contexts, mode, no_answer_threshold, settings)
    task = load_task("qa") if task is None else task
    usual = defaults.SAMPLED_ANSWER if settings.get("do_sample") else defaults.FREE_ANSWER
    decoding = DecodingSettings.from_arguments(**{**usual, **settings})
    results = []
    for number, (asked, context) in enumerate(zip(questions, contexts, strict=True)):
        record = {"question": asked, "context": context}
        spoken = asked_language(task, record, language)
        spans = _windows(model, tokenizer, task, record, spoken, f"question {number + 1}")
        best = NOTHING
        for start, end in spans:
            part = {**record, "context": context[start:end]}
            asks = _questions(task, part, spoken)
            if mode == "span":
                one = _best_span(model, tokenizer, asks, context[start:end], max_words, no_answer)
            else:
                one = _free(model, tokenizer, asks[0], context[start:end], decoding)
                if no_answer is not None and one.text == no_answer.strip():
                    one = Answer("", one.score, -1, -1)
            if (bool(one.text), one.score) > (bool(best.text), best.score):
                shift = start if one.start >= 0 else 0
                best = Answer(one.text, one.score, one.start + shift, one.end + shift)
        enough = best.text and best.score >= no_answer_threshold
        results.append(best if enough else Answer("", best.score, -1, -1))
    return results


def _check(
    questions: Sequence[str],
    contexts: Sequence[str],
    mode: str,
    threshold: float,
    settings: dict[str, Any],
) -> None:
    if len(questions) != len(contexts):
        raise GenerationError(
            f"{len(questions)} questions were given for {len(contexts)} contexts; give one context for each question, "
            "or one text for all"
        )
    for text in (*questions, *contexts):
        if not isinstance(text, str):
            raise GenerationError(
                f"questions and contexts must be strings, not {type(text).__name__}"
            )
    if mode not in ("span", "free"):
        raise GenerationError(f"mode={mode!r} must be 'span' or 'free'")
    if not 0 <= threshold <= 1:
        raise GenerationError(f"no_answer_threshold={threshold} must be between 0 and 1")
    if mode == "span" and settings:
        raise GenerationError(
            f"{', '.join(settings)}: a span is found exactly, without decoding settings; they need mode='free'"
        )


def _questions(task: Task, record: dict[str, str], language: Language) -> list[Question]:
    """Returns a record asked in every pattern of a language; the answer is not known, and empty."""
    return [
        question(task, record, "the context", pattern=one, language=language, answered=False)
        for one in range(len(task.patterns[language]))
    ]


def _windows(
    model: Any,
    tokenizer: Any,
    task: Task,
    record: dict[str, str],
    language: Language,
    where: str,
) -> list[tuple[int, int]]:
    """Returns what is read of the context at a time."""
    bare = _questions(task, {**record, "context": ""}, language)
    used = max(len(question_prompt(one, tokenizer).ids) for one in bare)
    room = model.config.max_sequence_length - used - 2
    if room < 16:
        raise GenerationError(
            f"{where}: it has {used} tokens as the model is asked, which leaves no room for a context among the "
            f"{model.config.max_sequence_length} that it reads; shorten the question"
        )
    return windows(tokenizer, record["context"], room, overlap=int(OVERLAP * room))


def _best_span(
    model: Any,
    tokenizer: Any,
    asks: Sequence[Question],
    text: str,
    max_words: int,
    no_answer: str | None,
) -> Answer:
    """Returns the span of a window that is likeliest by all patterns together (mean log-probability)."""
    first, *others = [question_prompt(asked, tokenizer) for asked in asks]
    search = SpanSearch(model, tokenizer, first, text, max_words)
    spans = search.best(CANDIDATES)
    if not spans:
        return NOTHING
    texts = [text[span.start : span.end] for span in spans]
    rivals = [] if no_answer is None else [no_answer]
    # What the search has read by the first pattern is not read again.
    known = [span.log_probability for span in spans] + [
        search.log_probability(one) for one in rivals
    ]
    rest = score_choices(model, tokenizer, others, [*texts, *rivals])
    totals = np.mean([np.array(known), *rest], axis=0)
    best = int(totals[: len(texts)].argmax())
    score = math.exp(totals[best])
    if totals.max() > totals[best]:
        return Answer("", score, -1, -1)
    return Answer(texts[best], score, spans[best].start, spans[best].end)


def _free(
    model: Any, tokenizer: Any, asked: Question, text: str, settings: DecodingSettings
) -> Answer:
    """Returns an answer in the model's own words, and where the context has them."""
    [filled] = infill.fill(model, tokenizer, [asked.before + asked.mask + asked.after], settings)
    written = filled.blanks[0]
    at = text.find(written) if written else -1
    return Answer(written, math.exp(filled.scores[0]), at, at + len(written) if at >= 0 else -1)

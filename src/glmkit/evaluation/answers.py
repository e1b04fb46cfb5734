"""A model's answers to the records of a task: one function for each kind of task.

In: a loaded `GLM`, a `Task`, records. Out: `Answers`, outcomes to count and sums to divide. Questions are asked as a
user would ask them: by `classify`, `answer` and `summarize` where the task is one of theirs, and else by filling the
task's blank. Knows no metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from glmkit.applications.prompts import question_prompt
from glmkit.corpus.records import record_text
from glmkit.errors import ConfigError, DataError
from glmkit.evaluation.asking import Answers, Record, Sums, bits, fitted
from glmkit.evaluation.contents import Contents, Letters
from glmkit.evaluation.metrics import Outcome
from glmkit.evaluation.perplexity import on_blanks
from glmkit.evaluation.right_answers import MEASURED_BY_TOKENS, greedily, likelihood
from glmkit.evaluation.scoring import text_log_probabilities
from glmkit.generation import infill
from glmkit.generation.choices import score_choices
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.tasks.agreement import span_hits
from glmkit.tasks.rendering import (
    Question,
    asked_language,
    choices_of,
    question,
    right_labels,
    text_of,
)
from glmkit.tasks.tagging import tagged_text
from glmkit.tasks.task import PLACEHOLDER, Task

MAX_NEW_TOKENS = 64
"""Of an answer that is written freely."""

ANSWERS = 10
"""Answers to a filling task, best first."""

BLANK_OBJECTIVES = ("token", "sentence")
"""Blanks on which texts are measured, beside left to right."""

BLANK_TEXTS = 1000
"""Texts that are measured on blanks at most, the first ones."""


def classification(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Asks for labels, by `GLM.classify`."""
    right = [right_labels(record.get(str(task.label)))[0] for record, _ in records]
    for label, (record, where) in zip(right, records, strict=True):
        if label not in task.labels:
            question(task, record, where)  # raises, with all that helps
    found = glm.classify([record for record, _ in records], task=task)
    return Answers(
        [
            Outcome(
                one.label, [label], one.probabilities, group=text_of(record.get(str(task.group)))
            )
            for one, label, (record, _) in zip(found, right, records, strict=True)
        ],
        list(records),
    )


def multiple_choice(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Scores the records' own choices in the blank."""
    asked, kept, skipped = fitted(glm, task, records)
    choices = [choices_of(task, one, where, asked_language(task, one)) for one, where in kept]
    scores = score_choices(glm.model, glm.vocabulary, [one.prompt for one in asked], choices)
    outcomes = []
    for one, some, score, (record, _) in zip(asked, choices, scores, kept, strict=True):
        named = record.get(str(task.label))
        right = right_labels(named) if isinstance(named, list) else [one.question.answer]
        chances = np.exp(score - np.logaddexp.reduce(score)).tolist()
        best = some[int(np.argmax(score))]
        outcomes.append(Outcome(best, right, dict(zip(some, chances, strict=True))))
    return Answers(outcomes, kept, skipped)


def generation(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Asks for texts: by `GLM.answer` where a question has a context, by `GLM.summarize` for ROUGE, else by filling."""
    if {"context", "question"} <= set(task.fields) and "{question}" not in str(task.answer):
        found = glm.answer(
            [text_of(one.get("question")) for one, _ in records],
            [text_of(one.get("context")) for one, _ in records],
            task=task,
        )
        return _against_references(task, [one.text for one in found], records)
    if task.metric == "rouge" and "text" in task.fields:
        texts = [text_of(record.get("text")) for record, _ in records]
        return _against_references(task, glm.summarize(texts, task=task, **task.decoding), records)
    asked, kept, skipped = fitted(glm, task, records)
    if task.metric == "greedy_match":
        return greedily(glm, task, asked, kept, skipped)
    answers = Answers([], kept, skipped, sums=likelihood(glm, asked))
    if task.metric not in MEASURED_BY_TOKENS:
        settings = DecodingSettings.from_arguments(
            **{"max_new_tokens": MAX_NEW_TOKENS, **task.decoding}
        )
        filled = infill.fill(
            glm.model, glm.vocabulary, [one.prompt for one in asked], settings, batch_size=32
        )
        texts = [one.blanks[0] for one in filled]
        answers.outcomes = _against_references(task, texts, kept).outcomes
    return answers


def filling(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Asks for what is hidden: the likeliest contents of the right number of characters, and (`free`) of any."""
    model, tokenizer = glm.model, glm.vocabulary
    limit = model.config.max_sequence_length
    asked: list[Question] = []
    kept: list[Record] = []
    for record, where in records:
        one = question(task, record, where, seed=seed)
        if one.answer:
            asked.append(one)
            kept.append((record, where))
    prompts = [_around_blank(one, tokenizer, limit) for one in asked]
    letters = Letters(tokenizer)
    limits = [[Contents(letters, len(one.answer))] for one in asked]
    longest = max((len(one.answer) for one in asked), default=1)
    # No token stands for less than a character here, so no blank is cut.
    settings = DecodingSettings(max_new_tokens=longest + 2)
    best = infill.fill(model, tokenizer, prompts, settings, constraints=limits, n=ANSWERS)
    outcomes = []
    for one, found in zip(asked, best, strict=True):
        chances = {text: math.exp(score) for text, score in found.alternatives[0]}
        outcomes.append(Outcome(found.blanks[0], [one.answer], chances, list(chances)))
    settings = DecodingSettings(max_new_tokens=2 * longest + 8)
    free = infill.fill(model, tokenizer, prompts, settings, batch_size=32)
    further = [
        Outcome(filled.blanks[0], [one.answer]) for filled, one in zip(free, asked, strict=True)
    ]
    return Answers(outcomes, kept, len(records) - len(kept), further={"free": further})


def text(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Measures whole texts, left to right and on blanks."""
    texts = []
    for record, where in records:
        known = (
            {**record, "text": record_text(record, None, where)} if "text" not in record else record
        )
        texts.append(question(task, known, where).answer)
    scored = text_log_probabilities(
        glm.model,
        glm.vocabulary,
        texts,
        batch_size=16,
        stride=task.reading.stride,
        bidirectional=task.reading.context == "bidirectional",
    )
    nats = [-float(values.sum()) for _, values in scored]
    sums = {
        "bits_per_character": Sums(nats, [float(len(one)) for one in texts], bits),
        "perplexity": Sums(nats, [float(len(ids)) for ids, _ in scored], math.exp),
    }
    if task.metric == "word_perplexity":
        words = [float(record.get("words") or len(record_text(record, None, where).split())) for record, where in records]  # fmt: skip
        return Answers([], list(records), sums={**sums, "word_perplexity": Sums(nats, words, math.exp)})  # fmt: skip
    values = {}
    for objective in BLANK_OBJECTIVES:
        totals = on_blanks(
            glm.model,
            glm.vocabulary,
            texts[:BLANK_TEXTS],
            objective=objective,
            seed=seed,
            batch_size=16,
        )
        if totals.characters:
            values[f"bits_per_character_{objective}_blanks"] = totals.bits_per_character
    return Answers([], list(records), sums=sums, values=values)


def tagging(glm: Any, task: Task, records: Sequence[Record], seed: int) -> Answers:
    """Asks for spans, by `GLM.tag`; sums whose ratio is entity F1."""
    right = [tagged_text(task, record, where) for record, where in records]
    tagger = glm.tagger
    if tagger is None or {*task.labels} != {*tagger.task.labels}:
        raise ConfigError(
            f"the task {task.name!r} needs a model that was fine-tuned to tag {', '.join(task.labels)}; this one tags "
            + (", ".join(tagger.task.labels) if tagger else "nothing")
        )
    found = glm.tag([text for text, _ in right])
    counts = [
        span_hits([(one.start, one.end, one.label) for one in result.spans], spans)
        for result, (_, spans) in zip(found, right, strict=True)
    ]
    sums = Sums([float(a) for a, _ in counts], [float(b) for _, b in counts], float)
    return Answers([], list(records), sums={"entity_f1": sums})


RUNNERS: dict[str, Callable[[Any, Task, Sequence[Record], int], Answers]] = {
    "classification": classification,
    "multiple_choice": multiple_choice,
    "generation": generation,
    "filling": filling,
    "text": text,
    "tagging": tagging,
}
"""Kind of task -> what asks it."""


def _against_references(task: Task, texts: Sequence[str], records: Sequence[Record]) -> Answers:
    """Returns outcomes; of an answer `{field[0]}` all items of the field are right."""
    only = PLACEHOLDER.fullmatch(task.answer or "")
    outcomes = []
    for text, (record, where) in zip(texts, records, strict=True):
        several = record.get(only[1]) if only and only[2] is not None else None
        references = list(map(text_of, several)) if isinstance(several, list) and several else []
        if not references:
            references = [question(task, record, where).answer]
        outcomes.append(Outcome(text, references))
    return Answers(outcomes, list(records))


def _around_blank(asked: Question, tokenizer: Any, limit: int) -> Prompt:
    """Returns a filling question's prompt, cut to what is around the blank where the model cannot read all of it.

    Raises:
        DataError: What is hidden leaves no room for anything else.
    """
    room = limit - 1
    prompt = question_prompt(asked, tokenizer)
    while len(prompt.ids) > room:
        keep = int(max(len(asked.before), len(asked.after)) * min(0.9, room / len(prompt.ids)))
        if keep < 1:
            raise DataError(f"the model reads {limit} tokens, too few for {asked.answer[:40]!r}")
        asked = replace(asked, before=asked.before[-keep:], after=asked.after[:keep])
        prompt = question_prompt(asked, tokenizer)
    return prompt

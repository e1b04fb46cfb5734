"""Which label does a text have? By filling in the blank of a question about it (cloze), without training or with.

In: texts (or records) and a task of the catalog, of the user's own file, or labels alone. Out: `Classification`s. Each
label's word (verbalizer) is scored in the blank; all patterns of a text's language count alike (mean log-probability).

Sources: cloze with verbalizers, GLM paper section 2.4 and Schick & Schütze 2021 (arXiv 2001.07676).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from glmkit.applications.calibration import Calibration
from glmkit.applications.calibration import fit as fit_scores
from glmkit.applications.heads import head_scores, is_head
from glmkit.applications.labels import as_records
from glmkit.applications.prompts import placed_prompt
from glmkit.applications.windows import windows
from glmkit.errors import ConfigError, DataError, GenerationError, nearest
from glmkit.generation.choices import score_choices
from glmkit.generation.prompts import Prompt
from glmkit.generation.results import Classification
from glmkit.special_tokens import MEDIA_MARKER
from glmkit.tasks.choices import encode_choices
from glmkit.tasks.encoding import CountRows, encode_question
from glmkit.tasks.rendering import asked_language, question, text_of
from glmkit.tasks.task import Language, Task

LongTexts = Literal["shorten", "windows"]

CONTENT_FREE = ("", "N/A", "。")
"""Texts that say nothing: what a model answers to them is its prejudice (Zhao et al. 2021, section 5)."""


def label_scores(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Mapping[str, Any]],
    task: Task,
    *,
    language: Language | None = None,
    long_texts: LongTexts = "shorten",
    batch_size: int = 16,
    reader: Any = None,
) -> np.ndarray:
    """Returns float64 [texts, labels]: each label's mean log-probability over the patterns, in nats.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode, or a `GLMForSequenceClassification` whose outputs are in
            the order of the task's labels.
        tokenizer: Its `GLMTokenizer`.
        texts: Texts, or records with the task's fields (a label in them is not looked at).
        task: A classification task.
        language: Of the patterns; by default each text's own.
        long_texts: What becomes of a text that does not fit: "shorten" it as the task says, as in training; or read
            it in "windows", whose label distributions are averaged by their length.
        batch_size: Prompts read together.
        reader: What reads the media of records (`multimodal.reader.MediaReader`), or None.

    Raises:
        MediaError: Media that cannot be read, or a model that reads none.
        ConfigError: A task that is no classification, or an unknown `long_texts`.
        DataError: A record lacks a field of the task.
        GenerationError: A text that cannot be shortened enough.
    """
    if long_texts not in ("shorten", "windows"):
        raise ConfigError(f"long_texts={long_texts!r} must be 'shorten' or 'windows'")
    limit = min(model.config.max_sequence_length, task.max_length or sys.maxsize)
    several = long_texts == "windows"
    asks = [
        asked
        for number, record in enumerate(as_records(task, texts))
        for asked in _asks(task, record, tokenizer, limit, number, language, several, reader)
    ]
    prompts = [asked.prompt for asked in asks]
    if is_head(model):
        scored = head_scores(model, prompts, tokenizer.special_ids, batch_size=batch_size)
    else:
        contents = [asked.contents for asked in asks]
        scored = score_choices(model, tokenizer, prompts, contents, batch_size=batch_size)
    sums = np.zeros((len(texts), len(task.labels)))
    totals = np.zeros(len(texts))
    for asked, scores in zip(asks, scored, strict=True):
        # Over windows, distributions over the labels are averaged; a constant of a prompt's own does no harm.
        weight = asked.length if several else 1.0
        own = scores - np.logaddexp.reduce(scores) if several else scores
        sums[asked.text] += weight * own
        totals[asked.text] += weight
    return sums / np.maximum(totals, 1e-9)[:, None]


def classify(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Mapping[str, Any]],
    task: Task,
    *,
    calibration: Calibration | None = None,
    contextual: bool = False,
    language: Language | None = None,
    **settings: Any,
) -> list[Classification]:
    """Returns the label of each text, and the probability of every label.

    Args:
        model: As in `label_scores`; so are `tokenizer`, `texts`, `task`, `language`.
        tokenizer: The tokenizer.
        texts: The texts.
        task: The task.
        calibration: Makes scores into probabilities; by default a softmax.
        contextual: Take off what the model answers to texts that say nothing (for labels it was not trained on).
        language: Of the patterns.
        **settings: `long_texts`, `batch_size`, `reader`.

    Raises:
        ConfigError, DataError, GenerationError, MediaError: As `label_scores`.
    """
    scores = label_scores(model, tokenizer, texts, task, language=language, **settings)
    if contextual and len(texts):
        free = prejudice(model, tokenizer, task)
        spoken = [asked_language(task, record, language) for record in as_records(task, texts)]
        scores = scores - np.stack([free[one] for one in spoken])
    labels = list(task.labels)
    found = (calibration or Calibration()).probabilities(scores, labels)
    return [classification(row, labels) for row in found]


def classification(probabilities: np.ndarray, labels: Sequence[str]) -> Classification:
    """Returns the result for a row of probabilities [L]."""
    by_label = dict(zip(labels, probabilities.tolist(), strict=True))
    return Classification(max(by_label, key=by_label.__getitem__), by_label)


def rename_labels(
    results: Sequence[Classification], names: Mapping[str, str]
) -> list[Classification]:
    """Returns results under other names of the labels."""
    return [
        Classification(
            names.get(one.label, one.label),
            {names.get(label, label): value for label, value in one.probabilities.items()},
        )
        for one in results
    ]


def fit_calibration(
    scores: np.ndarray, labels: Sequence[Any], task: Task, *, bias: bool = True
) -> Calibration:
    """Returns the calibration of a task, fitted on labelled texts that the model was not trained on.

    Args:
        scores: float [texts, labels], what `label_scores` gives of them.
        labels: Their right labels, as the task writes them.
        task: The task.
        bias: Whether to fit a bias for each label beside the temperature.

    Raises:
        DataError: A number of labels that does not fit, or a label that is not the task's.
    """
    known = list(task.labels)
    if len(labels) != len(scores):
        raise DataError(f"{len(labels)} labels were given for {len(scores)} texts")
    for label in map(str, labels):
        if label not in known:
            raise DataError(
                f"the label {label!r} is not one of {', '.join(known)}{nearest(label, known)}"
            )
    answers = np.array([known.index(str(label)) for label in labels], np.int64)
    return fit_scores(scores, answers, known, bias=bias)


@dataclass(frozen=True)
class _Ask:
    """One question about (a part of) a text: the prompt, the labels' words as ids, the text's number, its length."""

    prompt: Prompt
    contents: list[np.ndarray]
    text: int
    length: float


def _asks(
    task: Task,
    record: Mapping[str, Any],
    tokenizer: Any,
    limit: int,
    number: int,
    language: Language | None,
    in_windows: bool,
    reader: Any,
) -> Iterator[_Ask]:
    """Yields a record's questions in every pattern of its language, as training lays them out."""
    where, spoken = f"text {number + 1}", asked_language(task, record, language)
    count_rows = None if reader is None else reader.count_rows
    parts = [record]
    if in_windows:
        parts = _parts(task, record, tokenizer, limit, spoken, count_rows)
    for part in parts:
        for pattern in range(len(task.patterns[spoken])):
            options: dict[str, Any] = {"pattern": pattern, "language": spoken, "answered": False}
            found, _ = encode_choices(
                task, part, tokenizer, limit, where, count_rows=count_rows, **options
            )
            if found is None:
                raise GenerationError(
                    f"{where}: as the task {task.name!r} asks about it, it has more than the {limit} tokens that the model "
                    "reads, and it could not be shortened. Say in the task which field may give way (shorten), or shorten "
                    "it"
                )
            prompt = placed_prompt(found.part_a, ["", ""], found.media, tokenizer, reader)
            length = len(text_of(part.get(_text_field(task)))) + 1.0
            yield _Ask(prompt, found.contents, number, length)


def _parts(
    task: Task,
    record: Mapping[str, Any],
    tokenizer: Any,
    limit: int,
    language: Language,
    count_rows: CountRows | None,
) -> list[Mapping[str, Any]]:
    """Returns a record once for each window of its text; all of them have its media."""
    name = _text_field(task)
    text = text_of(record.get(name))
    if name == "" or task.media and MEDIA_MARKER.search(text):
        return [record]
    bare = {**record, name: ""}
    asks = (
        question(task, bare, "", pattern=one, language=language, answered=False)
        for one in range(len(task.patterns[language]))
    )
    used = max(len(encode_question(asked, tokenizer, count_rows)[0]) for asked in asks)
    spans = windows(tokenizer, text, max(16, limit - used - 2))
    return [{**record, name: text[a:b]} for a, b in spans]


def _text_field(task: Task) -> str:
    """Returns the field that may be long, "" where all are media."""
    if task.shorten:
        return task.shorten.field
    return next((one for one in task.fields if one != task.label and one not in task.media), "")


def prejudice(model: Any, tokenizer: Any, task: Task) -> dict[Language, np.ndarray]:
    """Returns for each language float64 [labels]: the mean score of each label for texts that say nothing.

    Args:
        model: As in `label_scores`.
        tokenizer: Its tokenizer.
        task: The task.
    """
    names = [name for name in task.fields if name != task.label and name not in task.media]
    records = [dict.fromkeys(names, text) for text in CONTENT_FREE]
    found: dict[Language, np.ndarray] = {}
    for language in ("zh", "en"):
        scores = label_scores(model, tokenizer, records, task, language=language)  # type: ignore[arg-type]
        shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).mean(0)
        found[language] = np.log(shares)  # type: ignore[index]
    return found

"""Summaries of a wished length; long texts by summaries of their parts (map), and of those (reduce).

In: texts. Out: a summary of each, never empty unless the text is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glmkit.applications import defaults
from glmkit.applications.prompts import question_prompt
from glmkit.applications.windows import sentences, windows
from glmkit.errors import GenerationError
from glmkit.generation import infill
from glmkit.generation.constraints import Length
from glmkit.generation.settings import DecodingSettings
from glmkit.tasks.rendering import Question, asked_language, question
from glmkit.tasks.task import Language, Task, load_task

ROUNDS = 4
"""Summaries of summaries at most; then the first part's stands for all."""
JOINT: dict[Language, str] = {"zh": "。", "en": ". "}
"""What comes between the summaries of parts."""


def summarize(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_characters: int | None = None,
    min_characters: int | None = None,
    task: Task | None = None,
    language: Language | None = None,
    batch_size: int = 8,
    **settings: Any,
) -> list[str]:
    """Returns a summary of each text.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        texts: The texts. One longer than the model reads is cut between sentences, each part summarised, and the
            summaries, joined, are summarised again.
        max_characters: Most characters of a summary, kept exactly.
        min_characters: Fewest characters of a summary, kept exactly.
        task: A task with a field `text`; by default the catalog's summary.
        language: Of the patterns; by default each text's.
        batch_size: Texts decoded together.
        **settings: See `DecodingSettings`; by default four beams, no four tokens repeated.

    Raises:
        GenerationError: A text that is no string, limits that contradict each other, or unknown settings.
    """
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise GenerationError(f"text {number + 1} must be a string, not {type(text).__name__}")
    usual = defaults.SAMPLED_SUMMARY if settings.get("do_sample") else defaults.SUMMARY
    decoding = DecodingSettings.from_arguments(**{**usual, **settings})
    limit = None
    if max_characters is not None or min_characters is not None:
        limit = Length(tokenizer, min_characters or 1, max_characters)
    writer = _Writer(model, tokenizer, task or load_task("summary"), decoding, batch_size)
    return writer.write([text.strip() for text in texts], language, limit)


class _Writer:
    """Writes summaries of many texts at once, round by round."""

    def __init__(
        self, model: Any, tokenizer: Any, task: Task, decoding: DecodingSettings, batch_size: int
    ):
        self._model, self._tokenizer, self._task = model, tokenizer, task
        self._decoding, self._batch_size = decoding, batch_size

    def write(
        self, texts: Sequence[str], language: Language | None, limit: Length | None
    ) -> list[str]:
        """Returns the summaries; the length limits hold for them, not for the summaries of parts."""
        spoken = [asked_language(self._task, {"text": text}, language) for text in texts]
        waiting = [index for index, text in enumerate(texts) if text]
        current, results = list(texts), [""] * len(texts)
        for turn in range(ROUNDS):
            parts = {index: self._parts(current[index], spoken[index]) for index in waiting}
            if turn == ROUNDS - 1:
                parts = {index: some[:1] for index, some in parts.items()}
            short = [index for index in waiting if len(parts[index]) == 1]
            long = [index for index in waiting if len(parts[index]) > 1]
            final = self._summaries([parts[i][0] for i in short], [spoken[i] for i in short], limit)
            for index, text in zip(short, final, strict=True):
                results[index] = text
            flat = [part for index in long for part in parts[index]]
            owners = [index for index in long for _ in parts[index]]
            written = self._summaries(flat, [spoken[index] for index in owners], None)
            for index in long:
                own = [one for owner, one in zip(owners, written, strict=True) if owner == index]
                joint = JOINT[spoken[index]]
                joined = joint.join(one.rstrip("。.") for one in own) + joint.strip()
                # Summaries of parts must be shorter than the parts, or there would be no end.
                current[index] = joined if len(joined) < len(current[index]) else parts[index][0]
            waiting = long
        return results

    def _parts(self, text: str, language: Language) -> list[str]:
        bare = question_prompt(self._question("", language), self._tokenizer)
        room = max(16, self._model.config.max_sequence_length - len(bare.ids) - 2)
        spans = windows(self._tokenizer, text, room)
        return [text[a:b].strip() for a, b in spans if text[a:b].strip()] or [text]

    def _question(self, text: str, language: Language) -> Question:
        return question(self._task, {"text": text}, "the text", language=language, answered=False)

    def _summaries(
        self, texts: Sequence[str], languages: Sequence[Language], limit: Length | None
    ) -> list[str]:
        """Returns a summary of each text that fits into the model."""
        if not texts:
            return []
        asks = [self._question(text, one) for text, one in zip(texts, languages, strict=True)]
        filled = infill.fill(
            self._model,
            self._tokenizer,
            [asked.before + asked.mask + asked.after for asked in asks],
            self._decoding,
            batch_size=self._batch_size,
            constraints=None if limit is None else [limit] * len(asks),
        )
        return [
            one.blanks[0] or _first_sentence(text) for one, text in zip(filled, texts, strict=True)
        ]


def _first_sentence(text: str) -> str:
    """Returns what stands for a summary where the model writes none (nothing but spaces)."""
    start, end = sentences(text)[0]
    return text[start:end].strip() or text

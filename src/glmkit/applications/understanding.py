"""The methods of `glmkit.GLM` that understand texts: sentiment, topics and other labels, answers, summaries.

One text gives one result, a list gives a list. The work is in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.applications import answering, classification, summary, tagging
from glmkit.applications.calibration import Calibration, save_calibrations
from glmkit.applications.heads import Head, load_head
from glmkit.applications.labels import SENTIMENTS, as_records, resolve_task
from glmkit.applications.one_or_many import as_list, like
from glmkit.applications.prompts import media_for_each
from glmkit.applications.tagging import Tagger, load_tagger
from glmkit.errors import ConfigError
from glmkit.tasks.task import Task


class Understanding:
    """What `GLM` inherits.

    Attributes:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        vocabulary: What encodes its texts: its `GLMTokenizer`, or the `LightTokenizer` that stands for it.
        calibrations: Name of a task -> its `Calibration`, loaded from the model's folder.
        tasks: Name -> task that the model was fine-tuned for, loaded from its folder; they go before the catalog's.
        head: The classification head of the model's folder, or None.
        tagger: Its tagging head, or None.
        media: What reads images, sounds and clips, or None.
    """

    model: Any
    vocabulary: Any
    calibrations: dict[str, Calibration]
    tasks: dict[str, Task]
    head: Head | None
    tagger: Tagger | None
    media: Any

    def sentiment(
        self, texts: Any, *, head: str | Path | Head | None = None, **settings: Any
    ) -> Any:
        """Says whether texts are positive or negative, by the task sentiment.

        Args:
            texts: A text or a list of texts, Chinese or English.
            head: A folder with a classification head trained for it (or what `load_head` loaded), to be used instead of
                the blank.
            **settings: `language`, `long_texts` ("shorten" or "windows"), `batch_size`.

        Returns:
            `Classification` with the labels `positive` and `negative`, for each text.

        Raises:
            GenerationError, DataError: As `classify`.
        """
        results = self._classified(self.task_of("sentiment"), texts, head, **settings)
        return like(texts, classification.rename_labels(results, SENTIMENTS))

    def classify(
        self,
        texts: Any,
        task: str | Path | Task | None = None,
        *,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        template: str | None = None,
        contextual: bool | None = None,
        head: str | Path | Head | None = None,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        **settings: Any,
    ) -> Any:
        """Says which label texts have.

        Args:
            texts: A text or a list of texts; of a task with several fields, a record or a list of records.
            task: A task of the catalog ("topics"), the path of a YAML file of one's own, or a `Task`; by default that
                which the model (or the head) was fine-tuned for.
            labels: In place of a task: labels, or label -> the word that fills the blank; no training is needed.
            template: With labels: how to ask, such as "{text} 这条新闻属于[MASK]。".
            contextual: Take off what the model answers to texts that say nothing; by default with `labels`.
            head: A folder with a classification head, to be used instead of the blank.
            images: As in `fill`; so are `audios` and `videos`. They come into the task's fields of their kinds, if the record does
                not have them itself.
            audios: Sounds.
            videos: Clips.
            **settings: `language` ("zh" or "en"), `long_texts` ("shorten" or "windows"), `batch_size`.

        Returns:
            `Classification(label, probabilities)` for each text. Probabilities are calibrated where the model's folder
            has a `calibration.json` with the task.

        Raises:
            ConfigError: No such task, both or none of task and labels, or labels that cannot be used.
            DataError: A text of the wrong type, or a record without a field.
            MediaError: Media that cannot be read, or do not belong to the task or the texts.
            GenerationError: A text that cannot be shortened enough.
        """
        meant = self.task_of(task, labels, template, head)
        some = texts if isinstance(texts, str | Mapping) else as_list(texts)
        settings["media"] = media_for_each(some, {"image": images, "audio": audios, "video": videos})  # fmt: skip
        settings["contextual"] = labels is not None if contextual is None else contextual
        return like(texts, self._classified(meant, some, head, **settings))

    def answer(self, questions: Any, contexts: Any, **settings: Any) -> Any:
        """Answers questions from contexts.

        Args:
            questions: A question or a list of them.
            contexts: A text for all of them, or one for each.
            **settings: `mode` ("span": the likeliest span of the context, exactly; "free": in the model's own words),
                `no_answer_threshold`, `no_answer`, `max_words`, `language`; with "free" the fields of `DecodingSettings`.

        Returns:
            `Answer(text, score, start, end)` for each question; without an answer the text is empty, start and end -1.

        Raises:
            GenerationError: Numbers of questions and contexts that differ, or settings that are not allowed.
        """
        asked = as_list(questions)
        given = [contexts] * len(asked) if isinstance(contexts, str) else as_list(contexts)
        if isinstance(questions, str) and not isinstance(contexts, str):
            asked = asked * len(given)
        results = answering.answer(self.model, self.vocabulary, asked, given, **settings)
        single = isinstance(questions, str) and isinstance(contexts, str)
        return results[0] if single else results

    def summarize(self, texts: Any, **settings: Any) -> Any:
        """Summarises texts in a sentence or a title.

        Args:
            texts: A text or a list of texts of any length.
            **settings: `max_characters`, `min_characters` (both kept exactly), `language`, `batch_size`, and fields of
                `DecodingSettings`.

        Returns:
            A str for each text; empty only where the text is.

        Raises:
            GenerationError: A text that is no string, or settings that are not allowed.
        """
        results = summary.summarize(self.model, self.vocabulary, as_list(texts), **settings)
        return like(texts, results)

    def tag(self, texts: Any, *, tagger: str | Path | Tagger | None = None, **settings: Any) -> Any:
        """Finds names, words or other spans in texts, whatever the model was fine-tuned to find.

        Args:
            texts: A text or a list of texts, of any length.
            tagger: A folder that `glmkit finetune` wrote for a task of the kind tagging (or what
                `applications.tagging.load_tagger` loaded); by default the model's own.
            **settings: `batch_size`.

        Returns:
            `Tagging(text, spans)` for each text; a `Span` has `label`, `text`, `start`, `end` and `score`.

        Raises:
            ConfigError: Neither the model nor `tagger` tags.
            GenerationError: A text that is no string.
        """
        chosen = self.tagger if tagger is None else tagger
        if isinstance(chosen, str | Path):
            chosen = load_tagger(chosen, self.model)
        if chosen is None:
            raise ConfigError(
                "this model was not fine-tuned to tag texts; train one with glmkit finetune MODEL ner --data FILE, and load its "
                "model/ or give it as tagger="
            )
        return like(texts, tagging.tag(chosen, as_list(texts), **settings))

    def label_scores(
        self, texts: Any, task: str | Path | Task = "sentiment", **settings: Any
    ) -> np.ndarray:
        """Returns float64 [texts, labels]: the log-probability (nats) of each label's word, the mean over patterns.

        Args:
            texts: A text or a list of texts, or records.
            task: As in `classify`.
            **settings: `language`, `long_texts`, `batch_size`.
        """
        meant = self.task_of(task) or resolve_task(task, None)
        return classification.label_scores(
            self.model, self.vocabulary, as_list(texts), meant, reader=self.media, **settings
        )

    def fit_calibration(
        self,
        texts: Sequence[Any],
        labels: Sequence[Any],
        task: str | Path | Task = "sentiment",
        *,
        bias: bool = True,
        scores: np.ndarray | None = None,
        **settings: Any,
    ) -> Calibration:
        """Fits the probabilities of a task on labelled texts that the model was not trained on, and uses them from now on.

        Args:
            texts: Some hundred texts or more.
            labels: Their right labels, as the task writes them.
            task: As in `classify`.
            bias: Whether to fit a bias for each label beside the temperature.
            scores: What `label_scores` gave of the texts, where it is known.
            **settings: As in `label_scores`.

        Returns:
            The calibration; `save_calibrations` keeps it beside the model.

        Raises:
            DataError: A label that is not the task's, or a number of labels that does not fit.
        """
        meant = self.task_of(task) or resolve_task(task, None)
        if scores is None:
            scores = self.label_scores(texts, meant, **settings)
        found = classification.fit_calibration(scores, labels, meant, bias=bias)
        self.calibrations[meant.name] = found
        return found

    def save_calibrations(self, folder: str | Path) -> Path:
        """Writes `calibration.json` into a model's folder, where `glmkit.load` finds it.

        Raises:
            ConfigError: There is no such folder.
        """
        if not Path(folder).is_dir():
            raise ConfigError(f"{folder} is not a folder; give the folder of the model")
        return save_calibrations(self.calibrations, folder)

    def load_head(self, folder: str | Path, task: str | Path | Task | None = None) -> Head:
        """Loads a classification head once, to be used again and again as `head=`.

        Args:
            folder: What `glmkit finetune` with `method: head` wrote.
            task: How it was asked, where the folder does not say.

        Raises:
            ConfigError: There is no head, or not of this task.
        """
        return load_head(folder, self.model, None if task is None else self.task_of(task))

    def task_of(
        self,
        task: str | Path | Task | None,
        labels: Any = None,
        template: str | None = None,
        head: str | Path | Head | None = None,
    ) -> Task | None:
        """Returns the task that `classify` and `explain` mean by their arguments; None is that of the head that is given.

        Raises:
            ConfigError: As `classify`.
        """
        if task is None and labels is None and template is None:
            if head is not None:
                return None
            own = [one for one in self.tasks.values() if one.kind == "classification"]
            if len(own) == 1:
                return own[0]
        if isinstance(task, str) and task in self.tasks:
            return self.tasks[task]
        return resolve_task(task, labels, template)

    def _classifier(
        self, task: Task | None, given: str | Path | Head | None
    ) -> tuple[Task, Any, Any, Calibration | None, Any]:
        """Returns what tells labels: the task, a model (perhaps a head), its tokenizer, its calibration, what reads media."""
        head = self.head if task is None or self.head and self.head.task.name == task.name else None
        if isinstance(given, Head):
            head = given
        elif given is not None:
            head = load_head(given, self.model, task)
        if head is not None:
            return head.task, head.model, head.tokenizer, head.calibration, None
        assert task is not None
        return task, self.model, self.vocabulary, self.calibrations.get(task.name), self.media

    def _classified(
        self,
        task: Task | None,
        texts: Any,
        given: str | Path | Head | None,
        media: Any = None,
        **settings: Any,
    ) -> list[Any]:
        meant, model, tokenizer, calibration, reader = self._classifier(task, given)
        return classification.classify(
            model,
            tokenizer,
            as_records(meant, as_list(texts), media),
            meant,
            calibration=calibration,
            reader=reader,
            **settings,
        )

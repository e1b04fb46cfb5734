"""Reading and cleaning as datatrove steps, so that one process, many, Slurm or Ray run the same pipeline.

A task of the pipeline is one part of a large source file, or several small files; which tasks there are depends on
the files alone, never on the number of workers. Steps hand on datatrove's Documents, so its own filters fit between ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from glmkit.corpus.cleaning import digest
from glmkit.corpus.document import ReadLog
from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part
from glmkit.corpus.sources import count_parts, read_file
from glmkit.corpus.steps.accounts import Accounts, StepCounts, length_bin
from glmkit.corpus.steps.language import LanguageRule, script_of
from glmkit.corpus.steps.rules import Step
from glmkit.corpus.steps.settings import Steps
from glmkit.errors import ConfigError, missing_dependency

try:
    from datatrove.data import Document as PipelineDocument
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise missing_dependency("datatrove", "Preparing a corpus", "corpus") from error

PART_BYTES = 8 * 2**20
"""A task reads about this much of a file (a compressed byte counts as four)."""

EXAMPLE_CHARS = 1000
"""Of a dropped text so much is kept as an example."""


@dataclass(frozen=True)
class Task:
    """What one task reads.

    Attributes:
        shares: Files with the share of each that is read: a part of one large file, or several small files.
        size: Bytes of the files, as stored, that this comes to.
    """

    shares: tuple[tuple[SourceFile, Part], ...]
    size: int


def plan(files: list[SourceFile]) -> list[Task]:
    """Returns the tasks that together read the files, in order."""
    tasks: list[Task] = []
    small: list[tuple[SourceFile, Part]] = []
    small_size = weight = 0
    for file in files:
        size, parts = file.size(), count_parts(file, PART_BYTES)
        file_weight = size * (4 if file.compression else 1)
        if small and (parts > 1 or weight + file_weight > PART_BYTES):
            tasks.append(Task(tuple(small), small_size))
            small, small_size, weight = [], 0, 0
        if parts > 1:
            tasks += [Task(((file, (index, parts)),), size // parts) for index in range(parts)]
        else:
            small.append((file, (0, 1)))
            small_size, weight = small_size + size, weight + file_weight
    if small:
        tasks.append(Task(tuple(small), small_size))
    return tasks


def _wrong_answer(rule: Step, answer: object, wanted: str) -> ConfigError:
    return ConfigError(f"the step {rule.name!r} returned {answer!r}; it must return {wanted}")


@dataclass
class Tally:
    """What one task has read and dropped so far; its steps share one.

    Attributes:
        log: Documents and bytes read, and the counts of what the reader dropped, by reason.
        accounts: What became of the documents.
    """

    log: ReadLog = field(default_factory=ReadLog)
    accounts: Accounts = field(default_factory=Accounts)


class ReadStep(PipelineStep):
    """Yields the documents of the task whose number is the rank."""

    type, name = "reader", "glmkit"

    def __init__(self, tasks: list[Task], text_field: str | None, tally: Tally):
        super().__init__()
        self.tasks, self.text_field, self.tally = tasks, text_field, tally

    def run(
        self, data: Iterator[PipelineDocument] | None, rank: int = 0, world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Ignores `data`: this is where the pipeline begins."""
        for file, part in self.tasks[rank].shares:
            for document in read_file(
                file, text_field=self.text_field, log=self.tally.log, part=part
            ):
                yield PipelineDocument(document.text, document.id, metadata=document.metadata)


class CleanStep(PipelineStep):
    """Sends each text through the steps of `steps.rules`; drops what is repeated within the task.

    Args:
        rules: From `build_rules`.
        steps: The settings.
        tally: Gets the accounts.
    """

    type, name = "filter", "clean"

    def __init__(self, rules: list[Step], steps: Steps, tally: Tally):
        super().__init__()
        self.rules, self.steps, self.tally = rules, steps, tally

    def run(
        self, data: Iterator[PipelineDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Yields the documents that stay; `metadata["digest"]` stands for the cleaned text."""
        accounts, seen = self.tally.accounts, set[bytes]()
        for name in (
            *(rule.name for rule in self.rules),
            *(["duplicates"] * self.steps.duplicates),
        ):
            accounts.steps[name] = StepCounts()
        for document in data:
            accounts.lengths[length_bin(len(document.text))] += 1
            reason = self._apply(document)
            if reason is None:
                text_digest = digest(document.text)
                if not self.steps.duplicates or self._is_new(document, text_digest, seen):
                    document.metadata["digest"] = text_digest
                    yield document

    def _apply(self, document: PipelineDocument) -> str | None:
        """Changes the document's text; returns why it is dropped, or None."""
        accounts, text = self.tally.accounts, document.text
        label: Callable[[str], str] = script_of
        for rule in self.rules:
            counts = accounts.steps[rule.name]
            if rule.change is not None:
                changed = rule.change(text)
                if not isinstance(changed, str):
                    raise _wrong_answer(rule, changed, "the changed text")
                counts.keep(len(text), len(changed), changed != text)
                text = changed
                continue
            assert rule.drop is not None
            reason = rule.drop(text)
            if not (reason is None or isinstance(reason, str) and reason):
                raise _wrong_answer(rule, reason, "the reason to drop the text, or None")
            if isinstance(rule.drop, LanguageRule):
                label = rule.drop.language_of
            if reason is not None:
                counts.drop(reason, len(text))
                document.text = text
                self._example(rule.name, reason, document)
                if rule.name != "length":
                    accounts.languages[label(text)] += 1
                return reason
            counts.keep(len(text), len(text))
        accounts.languages[label(text)] += 1
        document.text = text
        return None

    def _is_new(self, document: PipelineDocument, text_digest: bytes, seen: set[bytes]) -> bool:
        counts, length = self.tally.accounts.steps["duplicates"], len(document.text)
        if text_digest in seen:
            counts.drop("duplicate", length)
            self._example("duplicates", "duplicate", document)
            return False
        seen.add(text_digest)
        counts.keep(length, length)
        return True

    def _example(self, step: str, reason: str, document: PipelineDocument) -> None:
        examples = self.tally.accounts.examples
        if sum(one["reason"] == reason for one in examples) < self.steps.examples:
            text = document.text[:EXAMPLE_CHARS]
            examples.append({"step": step, "reason": reason, "id": document.id, "text": text})

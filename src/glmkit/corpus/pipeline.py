"""Reading and cleaning as datatrove steps, so that one process, many, Slurm or Ray run the same pipeline.

A task of the pipeline is one part of one source file; which parts there are depends on the files alone, never
on the number of workers. Steps hand on datatrove's Documents, so its own filters fit between ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from glmkit.corpus.cleaning import Cleaner
from glmkit.corpus.document import ReadLog
from glmkit.corpus.files import SourceFile
from glmkit.corpus.sources import Part, count_parts, read_file
from glmkit.errors import missing_dependency

try:
    from datatrove.data import Document as PipelineDocument
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise missing_dependency("datatrove", "Preparing a corpus", "corpus") from error

PART_BYTES = 32 * 2**20
"""A task reads about this much of a file (a compressed byte counts as four)."""


@dataclass(frozen=True)
class Task:
    """What one task reads: the share `part` of `file`."""

    file: SourceFile
    part: Part


def plan(files: list[SourceFile]) -> list[Task]:
    """Returns the tasks that together read the files, in order."""
    tasks = []
    for file in files:
        parts = count_parts(file, PART_BYTES)
        tasks += [Task(file, (index, parts)) for index in range(parts)]
    return tasks


@dataclass
class Tally:
    """What one task has read and dropped so far; its steps share one.

    Attributes:
        log: Documents and bytes read, and the counts of what was dropped, by reason.
        chars_read: Characters before cleaning.
    """

    log: ReadLog = field(default_factory=ReadLog)
    chars_read: int = 0

    @property
    def dropped(self) -> Counter[str]:
        """Reason -> number of documents."""
        return self.log.dropped


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
        task = self.tasks[rank]
        for document in read_file(
            task.file, text_field=self.text_field, log=self.tally.log, part=task.part
        ):
            self.tally.chars_read += len(document.text)
            yield PipelineDocument(document.text, document.id, metadata=dict(document.metadata))


class CleanStep(PipelineStep):
    """Normalises texts; drops the short ones, and the repeated ones within the task."""

    type, name = "filter", "clean"

    def __init__(self, min_chars: int, tally: Tally):
        super().__init__()
        self.min_chars, self.tally = min_chars, tally

    def run(
        self, data: Iterator[PipelineDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Yields the documents that stay; `metadata["digest"]` stands for the cleaned text."""
        cleaner = Cleaner(self.min_chars, self.tally.dropped)
        for document in data:
            cleaned = cleaner(document.text)
            if cleaned is not None:
                document.text, document.metadata["digest"] = cleaned
                yield document

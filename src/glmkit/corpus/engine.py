"""Runs the tasks of a pipeline with datatrove, quietly; the one place that chooses its executor.

Tasks that are done are noted in `log_folder/completions` and not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glmkit.errors import missing_dependency

try:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from loguru import logger as datatrove_logger
except ImportError as error:
    raise missing_dependency("datatrove", "Preparing a corpus", "corpus") from error


class _Quiet(PipelineStep):
    """Silences datatrove's own messages to the terminal, in this process and, by unpickling, in workers."""

    type, name = "log", "quiet"

    def __init__(self) -> None:
        super().__init__()
        datatrove_logger.disable("datatrove")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        datatrove_logger.disable("datatrove")

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        return data


def run_tasks(steps: list[PipelineStep], tasks: int, workers: int, log_folder: Path) -> None:
    """Runs tasks 0 … tasks - 1 of the pipeline on so many processes; errors come back as they were raised."""
    LocalPipelineExecutor(
        [_Quiet(), *steps], tasks=tasks, workers=min(workers, tasks), logging_dir=str(log_folder)
    ).run()

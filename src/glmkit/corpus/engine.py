"""Runs the tasks of a pipeline with datatrove, quietly; the one place that chooses its executor.

Tasks that are done are noted in `folder/completions` and not done again. An error that a user can mend comes back as
it was raised, from whatever machine: the task notes it in `folder/errors`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import glmkit.errors
from glmkit.corpus.engine_settings import Engine
from glmkit.errors import ConfigError, DataError, UserError, missing_dependency

try:
    from datatrove.executor.base import PipelineExecutor
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from loguru import logger as datatrove_logger
except ImportError as error:
    raise missing_dependency("datatrove", "Preparing a corpus", "corpus") from error


class _Quiet(PipelineStep):
    """Silences datatrove's own messages to the terminal, in this process and, by unpickling, in workers.

    Args:
        several: The tasks run in several processes here: none of them starts threads for all cores.
    """

    type, name = "log", "quiet"

    def __init__(self, several: bool):
        super().__init__()
        self.several = several
        datatrove_logger.disable("datatrove")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        datatrove_logger.disable("datatrove")
        if self.several:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        return data


@contextmanager
def _collecting_own_garbage() -> Iterator[None]:
    """Spares what is there already, modules above all, from each garbage collection of a task: a sixth of its time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _NoteErrors(PipelineStep):
    """The last step: all errors of the steps before it pass through here."""

    type, name = "log", "errors"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        try:
            with _collecting_own_garbage():
                yield from data or ()
        except UserError as error:
            self.folder.mkdir(parents=True, exist_ok=True)
            note = {"type": type(error).__name__, "message": str(error)}
            temporary = self.folder / f".{rank:05d}.{os.getpid()}"
            temporary.write_text(json.dumps(note), encoding="utf-8")
            temporary.rename(self.folder / f"{rank:05d}.json")
            raise


def run_tasks(steps: list[PipelineStep], tasks: int, engine: Engine, folder: Path) -> None:
    """Runs tasks 0 … tasks - 1 of the pipeline, those that are not done yet.

    Args:
        steps: datatrove's steps; the first one reads what its rank says.
        tasks: Their number.
        engine: Where they run.
        folder: For logs and notes of what is done; on Slurm and Ray on a shared file system.

    Raises:
        UserError: As a task raised it.
        DataError: Tasks did not finish for another reason; names the folder with their logs.
        ConfigError: Slurm's commands are not here, or no Ray cluster at the address.
        MissingDependencyError: Ray is not installed.
    """
    folder = folder.absolute()
    shutil.rmtree(folder / "errors", ignore_errors=True)
    several = engine.kind == "local" and min(engine.workers, tasks) > 1
    pipeline = [_Quiet(several), *steps, _NoteErrors(folder / "errors")]
    make = {"local": _local, "slurm": _slurm, "ray": _ray}[engine.kind]
    executor = make(pipeline, tasks, engine, folder)
    try:
        executor.run()
    except subprocess.CalledProcessError as error:  # sbatch
        _raise_noted(folder)
        raise DataError(
            f"Slurm did not finish the tasks ({' '.join(map(str, error.cmd))} returned {error.returncode}); their logs "
            f"are in {folder}/slurm_logs. Finished tasks are kept: mend the cause and run again."
        ) from error
    _raise_noted(folder)
    missing = executor.get_incomplete_ranks()
    if missing:
        raise DataError(
            f"{len(missing)} of {tasks} tasks did not finish (the first: {missing[0]}); their logs are in {folder}. "
            "Finished tasks are kept: mend the cause and run again."
        )


def _raise_noted(folder: Path) -> None:
    for path in sorted((folder / "errors").glob("*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        raise getattr(glmkit.errors, note["type"], UserError)(note["message"])


def _local(pipeline: list, tasks: int, engine: Engine, folder: Path) -> PipelineExecutor:
    # Forked workers start at once and share what is imported. Elsewhere than on Linux, system libraries do not bear it.
    return LocalPipelineExecutor(
        pipeline,
        tasks=tasks,
        workers=min(engine.workers, tasks),
        logging_dir=str(folder),
        start_method="fork" if sys.platform == "linux" else "forkserver",
    )


def _slurm(pipeline: list, tasks: int, engine: Engine, folder: Path) -> PipelineExecutor:
    """`sbatch --wait` returns when the job array has ended, so the call that follows finds its results."""
    from datatrove.executor.slurm import SlurmPipelineExecutor

    if shutil.which("sbatch") is None:
        raise ConfigError(
            "engine=slurm, but there is no sbatch on the PATH. Run this on a login node of the cluster, or choose "
            "engine=local."
        )
    python = shlex.quote(str(Path(sys.executable).parent))
    return SlurmPipelineExecutor(
        pipeline,
        tasks=tasks,
        workers=engine.workers,
        time=engine.time,
        partition=engine.partition,
        cpus_per_task=engine.cpus_per_task,
        mem_per_cpu_gb=engine.mem_per_cpu_gb,
        qos=engine.qos,
        job_name="glmkit-prepare",
        env_command=engine.setup or f"export PATH={python}:$PATH",
        sbatch_args={"wait": "", **engine.sbatch},
        logging_dir=str(folder),
        requeue_signals=None,
    )


def _ray(pipeline: list, tasks: int, engine: Engine, folder: Path) -> PipelineExecutor:
    try:
        import ray
    except ImportError as error:
        raise missing_dependency("ray", "The engine ray", "ray") from error
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
        address = engine.address or os.environ.get("RAY_ADDRESS")
        try:
            ray.init(
                address=address,
                num_cpus=None if address else engine.workers * engine.cpus_per_task,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise ConfigError(f"engine=ray: no cluster answers at {address} ({error}).") from error
    return RayPipelineExecutor(
        pipeline,
        tasks=tasks,
        workers=min(engine.workers, tasks),
        cpus_per_task=engine.cpus_per_task,
        mem_per_cpu_gb=engine.mem_per_cpu_gb,
        logging_dir=str(folder),
    )

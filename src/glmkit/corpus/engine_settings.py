"""On what machines a preparation runs, as the `engine` section of a recipe. Values only; checks itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}")


@dataclass
class Engine:
    """Where the tasks run; what comes out does not depend on it.

    Slurm and Ray need a file system that all machines share, for the sources, the output and the Python environment.

    Attributes:
        kind: `local` (processes here), `slurm` (a job array; `prepare` waits for it) or `ray` (a cluster, or this
            machine).
        workers: Tasks that run at the same time.
        cpus_per_task: CPUs of one task (Slurm, Ray).
        mem_per_cpu_gb: Memory of one CPU, in GB (Slurm, Ray); a task needs about 1 GB.
        partition: Where a Slurm job goes.
        time: Limit of a Slurm task: minutes, [days-]hours:minutes:seconds …
        qos: Of a Slurm job; None leaves it out.
        setup: Shell commands before a Slurm task; None puts this Python's folder on the PATH.
        sbatch: More options of sbatch: name without dashes -> value.
        address: Of a Ray cluster; None takes RAY_ADDRESS, or starts Ray on this machine.
    """

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: int = 1
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    partition: str | None = None
    time: str = "24:00:00"
    qos: str | None = None
    setup: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    address: str | None = None


def check(engine: Engine) -> list[str]:
    """Returns what is wrong with the settings, a line each."""
    wrong = []
    if engine.kind not in ("local", "slurm", "ray"):
        wrong.append(f"engine={engine.kind!r} (local, slurm or ray)")
    for name in ("workers", "cpus_per_task", "mem_per_cpu_gb"):
        if getattr(engine, name) < 1:
            wrong.append(f"{name}={getattr(engine, name)} (at least 1)")
    if engine.kind == "slurm" and not engine.partition:
        wrong.append("engine=slurm without engine.partition (see `sinfo`)")
    if not _TIME.fullmatch(engine.time):
        wrong.append(f"engine.time={engine.time!r} (as for sbatch: 90, 24:00:00, 2-00:00:00)")
    return wrong

"""Progress of long work on standard error: a bar in a terminal; in a log, a plain line now and then, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from glmkit.cli.language import say


@contextmanager
def byte_progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yields a callback (bytes done, all bytes), or None where there is no terminal to draw on."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Yields a callback (steps done, all steps, newest numbers); without a terminal every tenth of the way is a line."""
    if not sys.stderr.isatty():

        def line(done: int, total: int, numbers: dict[str, float]) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                typer.echo(f"  {done:,}/{total:,}  {_describe(numbers)}", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, numbers="")
        yield lambda done, total, numbers: progress.update(
            task, completed=done, total=total, numbers=_describe(numbers)
        )


def _describe(numbers: dict[str, float]) -> str:
    names = {
        "loss": say("loss", "损失"),
        "eval_loss": say("held-out loss", "验证损失"),
        "tokens_per_second": say("tokens/s", "词元/秒"),
    }
    return "  ".join(
        f"{title} {numbers[name]:,.0f}" if numbers[name] > 100 else f"{title} {numbers[name]:.3f}"
        for name, title in names.items()
        if name in numbers
    )

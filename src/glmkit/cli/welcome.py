"""What `glmkit` says when it is called without a verb: three things to try, and where the rest is."""

from __future__ import annotations

import typer

from glmkit import __version__
from glmkit.cli.language import say, speaks_chinese

TRY: tuple[tuple[str, str, str], ...] = (
    ('glmkit fill "床前[MASK]光，疑是地上霜。"', "fill a blank", "填空"),
    ('glmkit poem "春江花月夜" --form 七言绝句', "a poem that keeps its form", "写一首合格律的诗"),
    ("glmkit chat", "talk", "聊天"),
)
TRY_ENGLISH: tuple[tuple[str, str, str], ...] = (
    ('glmkit fill "Paris is the [MASK] of France."', "fill a blank", "填空"),
    *TRY[1:],
)


def welcome() -> None:
    """Greets, with commands that can be copied into the shell."""
    from rich.cells import cell_len

    typer.secho(f"glmkit {__version__}", bold=True, nl=False)
    typer.echo(say(" · General Language Models that fill blanks", " · 会填空的通用语言模型 GLM"))
    typer.echo(say("\nThree things to try:", "\n先试这三样："))
    shown = TRY if speaks_chinese() else TRY_ENGLISH
    width = max(cell_len(command) for command, _, _ in shown)
    for command, english, chinese in shown:
        typer.secho(f"  {command}", fg="cyan", nl=False)
        typer.secho(" " * (width - cell_len(command) + 2) + say(english, chinese), dim=True)
    typer.echo(
        say(
            "\nThe whole tour, a few minutes: glmkit demo      All commands: glmkit --help",
            "\n几分钟看全貌：glmkit demo      全部命令：glmkit --help",
        )
    )

"""The verb `glmkit demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from glmkit.cli.demo.screen import Screen
from glmkit.cli.demo.showcase import run_showcase
from glmkit.cli.language import say
from glmkit.embedded import DEFAULT_MODEL, is_here


def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help=say("Folder of the pretraining run.", "预训练的输出目录。")
        ),
    ] = Path("runs/demo"),
    steps: Annotated[
        int,
        typer.Option(
            min=0,
            help=say(
                "Pretraining steps; 0 shows the applications only.",
                "预训练步数；0 表示只演示应用。",
            ),
        ),
    ] = 400,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="GLMKIT_MODEL",
            help=say("Model that shows the applications.", "演示应用所用的模型。"),
        ),
    ] = DEFAULT_MODEL,
) -> None:
    """Shows every application on the embedded model, then pretrains a GLM in about a minute; offline."""
    screen, started = Screen(), time.monotonic()
    if model == DEFAULT_MODEL and steps and not is_here(model):
        screen.note(
            say(
                f"this checkout has no {model} yet (recipes/glm-mini/train.sh makes it): the applications are left out; "
                "--model shows them on another model",
                f"此代码库尚无 {model}（由 recipes/glm-mini/train.sh 训练）：略过各项应用；可用 --model 指定其他模型来演示",
            )
        )
    else:
        run_showcase(screen, model)
    trained = None
    if steps:
        from glmkit.cli.demo.pipeline import run_pipeline

        screen.heading(
            say(
                "pretrain a GLM of your own, from raw text, in about a minute",
                "从原始文本预训练你自己的 GLM，约一分钟",
            )
        )
        trained = run_pipeline(screen, output, steps)
    minutes = (time.monotonic() - started) / 60
    screen.heading(
        say(f"done in {minutes:.1f} minutes; what next", f"用时 {minutes:.1f} 分钟；接下来")
    )
    for line in _what_next(None if trained is None else str(trained.folder)):
        screen.line(f"    {line}")


def _what_next(run: str | None) -> list[str]:
    lines = [
        'glmkit fill "海上生[MASK]，天涯共此时。"',
        say('glmkit poem "TITLE" --form 七言绝句', 'glmkit poem "题目" --form 七言绝句'),
        say("glmkit chat                          a conversation", "glmkit chat                          连续对话"),
    ]  # fmt: skip
    if run is not None:
        lines += [
            f'glmkit fill "Return the [MASK] of the object." --model {run}/model',
            say(f"{run}/report.html    the run's curves", f"{run}/report.html    训练曲线"),
        ]
    lines.append(
        say(
            "docs/quickstart.md, README.md: your own corpus, fine-tuning, checkpoints of old",
            "docs/quickstart.zh.md、README.zh.md：用自己的语料、微调、读取旧检查点",
        )
    )
    return lines

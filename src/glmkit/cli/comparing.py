"""The verb that compares: bench. The body imports what it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glmkit.cli.language import say, speaks_chinese
from glmkit.cli.progress import step_progress
from glmkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from glmkit.comparison.settings import ObjectivesConfig

BENCHES = ("objectives",)


def bench(
    what: Annotated[str, typer.Argument(help=say("What to compare: objectives.", "比较的内容：objectives（预训练目标）。"))],
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help=say("A recipe (YAML), then settings.", "配方文件（YAML），其后为 key=value 设置。"),
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help=say(
                "A tiny comparison in minutes, to see that it runs; without data, on text that every machine has.",
                "几分钟的微型比较，检验流程；未给数据时用本机自带的文本。",
            ),
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help=say("Folder of the results.", "结果目录。")),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            min=1,
            help=say(
                "Runs at the same time; small models leave a GPU idle between their steps.",
                "同时进行的训练数；小模型单独训练用不满 GPU。",
            ),
        ),
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help=say("Print JSON.", "输出 JSON。"))
    ] = False,
) -> None:  # fmt: skip
    """Compares GLM's objectives with BERT's and GPT's; run again after an interruption, it goes on where it was."""
    if what not in BENCHES:
        raise ConfigError(
            f"there is no bench {what!r}{nearest(what, BENCHES) or '.'} There are {', '.join(BENCHES)}"
        )
    from glmkit.comparison import report as results
    from glmkit.comparison.experiment import compare_objectives

    config = _config(given or [], smoke, output)
    with step_progress(say("pretraining", "预训练")) as progress:
        report = compare_objectives(config, progress=progress, said=_say_done, processes=processes)
    if as_json:
        typer.echo(json.dumps(results.as_json(report), ensure_ascii=False))
        return
    language = "zh" if speaks_chinese() else "en"
    typer.echo(report.table(language))
    for sentence in report.findings(language):
        typer.echo(sentence)
    page = report.folder / ("results.zh.md" if language == "zh" else "results.md")
    typer.echo(say(f"page: {page}", f"结果页：{page}"))


def _config(given: list[str], smoke: bool, output: Path | None) -> ObjectivesConfig:
    """Returns the configuration of a recipe and settings."""
    from glmkit.comparison.experiment import smoke as made_small
    from glmkit.comparison.settings import ObjectivesConfig
    from glmkit.config import load_config

    recipes = [one for one in given if "=" not in one]
    if len(recipes) > 1 or (recipes and given[0] != recipes[0]):
        raise ConfigError(
            f"one recipe comes first, then key=value; given: {' '.join(given)}"
        )  # a second name without = is most often a slip
    settings = [one for one in given if "=" in one]
    has_data = recipes or any(one.startswith("data.folder=") for one in settings)
    if not has_data and not smoke:
        raise ConfigError(
            "which corpus? Give a recipe, or data.folder=DIR (what `glmkit prepare` wrote); --smoke runs on text that "
            "every machine has"
        )
    if not has_data:
        output = output or Path("runs/objectives-smoke")
        settings = [*_own_data(output.with_name(f"{output.name}-data")), *settings]
    if output is not None:
        settings.append(f"output_dir={output}")
    config: Any = load_config(ObjectivesConfig, recipes[0] if recipes else None, settings)
    return made_small(config) if smoke else config


def _own_data(folder: Path) -> list[str]:
    """Prepares text that every machine has; returns settings that name it. Its classes are short and long."""
    from glmkit.cli.demo.corpus import write_corpus
    from glmkit.tokens.prepare import prepare
    from glmkit.tokens.tokenizer import GLMTokenizer
    from glmkit.tokens.train import train_from_files
    from glmkit.whole_files import write_text

    labelled, data = folder / "labelled.jsonl", folder / "prepared"
    if not labelled.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        corpus = folder / "corpus.jsonl"
        write_corpus(corpus)
        lines = corpus.read_text(encoding="utf-8").splitlines()[::20]
        write_text(corpus, "\n".join(lines) + "\n")
        train_from_files([corpus], folder / "vocabulary", 1000)
        tokenizer = GLMTokenizer.from_pretrained(folder / "vocabulary")
        prepare([corpus], data, tokenizer, valid_ratio=0.1, overwrite=True)
        texts = [json.loads(line)["text"] for line in lines]
        records = [
            {"text": text[:100], "label": "long" if len(text) > 300 else "short"} for text in texts
        ]
        write_text(labelled, "".join(json.dumps(one) + "\n" for one in records))
    return [
        f"data.folder={data}",
        f"classification.train=[{labelled}]",
        f"classification.valid=[{labelled}]",
    ]


def _say_done(name: str, numbers: dict[str, float] | None) -> None:
    """Reports a finished part on standard error."""
    shown = (
        say("done before", "已完成，跳过")
        if numbers is None
        else ", ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
    )
    typer.echo(f"  {name}: {shown}", err=True)

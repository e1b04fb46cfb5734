"""Verbs that make what training reads: prepare, train-tokenizer, extend-vocabulary. Bodies import what they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from glmkit.cli.language import say
from glmkit.cli.progress import byte_progress
from glmkit.errors import UserError

SOURCES = typer.Argument(
    help=say(
        "Files, folders, globs, URLs (s3://…) or hf:owner/name: JSONL, JSON, CSV, parquet, text, Wikipedia XML dumps; .gz, .bz2, .xz, .zst too.",
        "文件、目录、通配符、URL（s3://…）或 hf:owner/name：JSONL、JSON、CSV、parquet、文本、维基百科 XML；可为 .gz、.bz2、.xz、.zst。",
    ),
    show_default=False,
)
Sources = Annotated[list[str], SOURCES]
Output = Annotated[Path, typer.Option("--output", "-o", help=say("Folder to write.", "输出目录。"))]
TextField = Annotated[
    str | None,
    typer.Option(
        help=say(
            "Field of the records, or template, e.g. '{title}\\n{lines}'.",
            "记录的字段或模板，如 '{title}\\n{lines}'。",
        )
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help=say("Replace what is there.", "覆盖已有结果。"))
]


def prepare(
    output: Output,
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", "-t", help=say("Folder or hub name.", "词表目录或 Hub 名称。")),
    ],
    sources: Annotated[list[str] | None, SOURCES] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help=say("Recipe (YAML) with data and engine.", "配方文件（data 与 engine）。")
        ),
    ] = None,
    valid_ratio: Annotated[
        float | None, typer.Option(help=say("Share for validation [0.01].", "验证集比例 [0.01]。"))
    ] = None,
    text_field: TextField = None,
    min_chars: Annotated[
        int | None, typer.Option(help=say("Drop shorter documents.", "丢弃更短的文档。"))
    ] = None,
    simplify: Annotated[
        bool | None,
        typer.Option("--simplify", help=say("Traditional to simplified.", "繁体转简体。")),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(help=say("Keep only these (zh, en …).", "只保留这些语言（zh、en …）。")),
    ] = None,
    quality: Annotated[
        bool | None,
        typer.Option("--quality", help=say("Drop what is no text.", "丢弃低质量文本。")),
    ] = None,
    near_duplicates: Annotated[
        bool | None,
        typer.Option("--near-duplicates", help=say("Keep one of alike texts.", "近似去重。")),
    ] = None,
    decontaminate: Annotated[
        list[str] | None,
        typer.Option(help=say("Evaluation texts to keep out.", "需剔除的评测文本。")),
    ] = None,
    mask_personal: Annotated[
        bool | None,
        typer.Option(
            "--mask-personal", help=say("Mask addresses and numbers.", "遮盖邮箱、电话等个人信息。")
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(help=say("Dropped texts to write, by reason.", "每种原因写出的样例数。")),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local, slurm, ray")] = None,
    workers: Annotated[int | None, typer.Option(help=say("Processes [1].", "进程数 [1]。"))] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help=say("More settings: key=value.", "其他设置：key=value（同配方）。")
        ),
    ] = None,
    overwrite: Overwrite = False,
    task: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Labelled data: a task of the catalog, or a YAML file.",
                "标注数据：任务名或 YAML 文件。",
            )
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            help=say("With --task: its field=yours.", "与 --task 同用：任务字段=你的字段。")
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option(help=say("With --task: most tokens.", "与 --task 同用：最长词元数。"))
    ] = 512,
) -> None:
    """Reads, cleans and encodes a corpus, or a task's labelled data, into token stores."""
    if task is not None:
        _prepare_task(task, sources, output, tokenizer, max_length, valid_ratio, rename, overwrite)
        return
    from glmkit.config import load_config
    from glmkit.tokens.prepare import prepare as run
    from glmkit.tokens.prepare_settings import PrepareRecipe
    from glmkit.tokens.tokenizer import GLMTokenizer

    given = {
        "data.sources": sources,
        "data.valid_ratio": valid_ratio,
        "data.text_field": text_field,
        "data.steps.min_chars": min_chars,
        "data.steps.simplify": simplify,
        "data.steps.language.keep": language,
        "data.steps.quality.enabled": quality,
        "data.steps.near_duplicates.enabled": near_duplicates,
        "data.steps.decontamination.against": decontaminate,
        "data.steps.mask_personal": mask_personal,
        "data.steps.examples": examples,
        "engine.kind": engine,
        "engine.workers": workers,
    }
    options = [
        f"{key}={json.dumps(value)}" for key, value in given.items() if value not in (None, [])
    ]
    config = load_config(PrepareRecipe, recipe, [*(settings or []), *options])
    if not config.data.sources:
        raise UserError(
            "nothing to read: name files, folders or globs, or give data.sources in a recipe"
        )
    vocabulary = GLMTokenizer.from_pretrained(tokenizer)
    with byte_progress(say("preparing", "准备语料")) as progress:
        report = run(
            config.data.sources,
            output,
            vocabulary,
            valid_ratio=config.data.valid_ratio,
            text_field=config.data.text_field,
            steps=config.data.steps,
            engine=config.engine,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(report.table())


def _prepare_task(
    task: str,
    sources: list[str] | None,
    output: Path,
    tokenizer: str,
    max_length: int,
    valid_ratio: float | None,
    rename: list[str] | None,
    overwrite: bool,
) -> None:
    from glmkit.tasks.prepare import parse_rename, prepare_task
    from glmkit.tokens.tokenizer import GLMTokenizer

    report = prepare_task(
        task,
        sources or [],
        output,
        GLMTokenizer.from_pretrained(tokenizer),
        max_length=max_length,
        valid_ratio=0.01 if valid_ratio is None else valid_ratio,
        rename=parse_rename(rename or []),
        overwrite=overwrite,
    )
    typer.echo(report.table())


def train_tokenizer(
    sources: Sources,
    output: Output,
    vocab_size: Annotated[int, typer.Option(help=say("Tokens in all.", "词表大小。"))] = 8000,
    kind: Annotated[str, typer.Option(help="unigram, bpe, wordpiece")] = "unigram",
    text_field: TextField = None,
) -> None:
    """Learns a vocabulary with GLM's special tokens in which every text can be written."""
    from glmkit.tokens.train import train_from_files

    report = train_from_files(
        sources,
        output,
        vocab_size,
        kind,  # type: ignore[arg-type]  # checked there
        text_field=text_field,
        progress=True,
    )
    typer.echo(f"{report}\n{say('saved in', '已保存到')} {output}")


def extend_vocabulary(
    model: Annotated[str, typer.Argument(help=say("Folder or hub name.", "模型目录或 Hub 名称。"))],
    output: Output,
    words: Annotated[
        Path | None,
        typer.Option(help=say("File of words, one a line.", "词语文件，每行一个词。")),
    ] = None,
    learn: Annotated[
        int,
        typer.Option(
            help=say("Find so many words in the corpus.", "从语料中自动找出这么多个新词。")
        ),
    ] = 0,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help=say("The corpus, for --learn.", "供 --learn 使用的语料。")),
    ] = None,
    text_field: TextField = None,
    tokenizer: Annotated[
        str | None, typer.Option(help=say("Folder with the vocabulary.", "词表目录。"))
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Adds words to a model's vocabulary; training goes on from the result (`model.from`)."""
    from glmkit.tokens.extend import read_words
    from glmkit.training.extend import extend_vocabulary as run

    report = run(
        model,
        output,
        words=[] if words is None else read_words(words),
        corpus=data or [],
        learn=learn,
        text_field=text_field,
        tokenizer=tokenizer,
        overwrite=overwrite,
    )
    typer.echo(str(report))

"""Verbs that understand texts: sentiment, classify, answer, summarize; and calibrate, which makes their numbers honest."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from glmkit.cli.language import say
from glmkit.cli.media import Audio, Image, Video, for_each_text, given_media
from glmkit.cli.writing import Device, Dtype, Json, Model, Texts, load_model, print_json, read_texts
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import UserError

BatchSize = Annotated[int, typer.Option(help=say("Texts at a time.", "每批文本数。"))]
Language = Annotated[
    str | None,
    typer.Option(
        help=say(
            "Language of the question, zh or en; by default the text's.",
            "提问所用语言，zh 或 en；默认随文本。",
        )
    ),
]
LongTexts = Annotated[
    str,
    typer.Option(
        help=say(
            "A text too long for the model: shorten it, or read it in windows.",
            "文本过长时：shorten 截短，或 windows 分段。",
        )
    ),
]


def sentiment(
    model: Model = DEFAULT_MODEL,
    texts: Texts = None,
    as_json: Json = False,
    language: Language = None,
    long_texts: LongTexts = "shorten",
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Says of each text whether it is positive or negative, with probabilities."""
    lines = read_texts(texts)
    glm = load_model(model, device, dtype)
    results = glm.sentiment(
        lines, language=check_language(language), long_texts=long_texts, batch_size=batch_size
    )
    _print_labels(lines, results, as_json)


def classify(
    model: Model = DEFAULT_MODEL,
    texts: Texts = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Labels to choose from, a,b,c; no training needed.",
                "候选标签，形如 体育,财经；无需训练。",
            )
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help=say(
                "A task of the catalog, or your own YAML file; by default the model's own, or topics.",
                "内置任务名或自己的 YAML 文件；默认为模型自带的任务，或 topics。",
            )
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help=say(
                "With --labels: how to ask, with {text} and [MASK].",
                "配合 --labels：提问模板，含 {text} 与 [MASK]。",
            )
        ),
    ] = None,
    image: Image = None,
    audio: Audio = None,
    video: Video = None,
    as_json: Json = False,
    language: Language = None,
    long_texts: LongTexts = "shorten",
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Says which label each text has, with probabilities."""
    given = given_media(image, audio, video)
    lines = read_texts(texts)
    media = for_each_text(given, len(lines))
    names = (labels or "").replace("，", ",").split(",")
    glm = load_model(model, device, dtype)
    # A fine-tuned model's own task goes before the catalog's.
    usual = None if labels or glm.tasks else "topics"
    results = glm.classify(
        lines,
        task or usual,
        labels=[name.strip() for name in names if name.strip()] or None,
        template=template,
        language=check_language(language),
        long_texts=long_texts,
        batch_size=batch_size,
        **media,
    )
    _print_labels(lines, results, as_json)


def tag(
    model: Model = DEFAULT_MODEL,
    texts: Texts = None,
    as_json: Json = False,
    batch_size: BatchSize = 16,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Finds names, words or other spans in each text; the model is one that was fine-tuned to tag."""
    lines = read_texts(texts)
    results = load_model(model, device, dtype).tag(lines, batch_size=batch_size)
    for result in results:
        if as_json:
            print_json(dataclasses.asdict(result))
        else:
            typer.echo(f"{result}\t{result.text}")


def answer(
    model: Model = DEFAULT_MODEL,
    question: Annotated[
        str, typer.Argument(help=say("The question.", "问题。"), show_default=False)
    ] = "",
    context: Annotated[
        list[str] | None,
        typer.Argument(
            help=say(
                "The text with the answer; without it, all of standard input.",
                "含有答案的文本；不给则读取全部标准输入。",
            )
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help=say(
                "span: words of the text; free: the model's own.",
                "span：原文片段；free：自由作答。",
            )
        ),
    ] = "span",
    no_answer_threshold: Annotated[
        float,
        typer.Option(
            help=say(
                "Below this probability (0 to 1): no answer.", "概率低于此值（0 至 1）视为无答案。"
            )
        ),
    ] = 0.0,
    no_answer: Annotated[
        str,
        typer.Option(
            help=say(
                "What the model writes where there is no answer; by default nothing.",
                "无答案时模型所写的词；默认为空。",
            )
        ),
    ] = "",
    as_json: Json = False,
    language: Language = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Answers a question from a text."""
    if not question.strip():
        raise UserError(say("no question was given", "没有给出问题"))
    text = "\n".join(read_texts(context))
    glm = load_model(model, device, dtype)
    result = glm.answer(
        question,
        text,
        mode=mode,
        no_answer_threshold=no_answer_threshold,
        no_answer=no_answer,
        language=check_language(language),
    )
    if as_json:
        print_json({"question": question, **dataclasses.asdict(result)})
    else:
        typer.echo(result.text or say("(no answer)", "（无答案）"))


def summarize(
    model: Model = DEFAULT_MODEL,
    texts: Texts = None,
    max_characters: Annotated[
        int | None, typer.Option(help=say("Most characters.", "最多字符数。"))
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option(help=say("Fewest characters.", "最少字符数。"))
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help=say(
                "Standard input is one text, not one a line.", "标准输入是一篇文本，而非每行一篇。"
            ),
        ),
    ] = False,
    as_json: Json = False,
    language: Language = None,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Summarises each text in a sentence or a title."""
    lines = read_texts(texts)
    if whole and not texts:
        lines = ["\n".join(lines)]
    glm = load_model(model, device, dtype)
    results = glm.summarize(
        lines,
        max_characters=max_characters,
        min_characters=min_characters,
        language=check_language(language),
        batch_size=batch_size,
    )
    for line, result in zip(lines, results, strict=True):
        if as_json:
            print_json({"text": line, "summary": result})
        else:
            typer.echo(result)


def calibrate(
    model: Annotated[str, typer.Argument(help=say("Folder of the model.", "模型目录。"))],
    data: Annotated[
        list[str],
        typer.Option(
            help=say(
                "Labelled records that the model was not trained on: files, folders, globs.",
                "模型没有训练过的标注数据：文件、目录或通配符。",
            )
        ),
    ],
    task: Annotated[
        str, typer.Option(help=say("Task or YAML file.", "任务名或 YAML 文件。"))
    ] = "sentiment",
    held_out: Annotated[
        float | None,
        typer.Option(
            help=say(
                "Of the training data, only what `prepare --task` held out with this --valid-ratio.",
                "数据为训练集时，只用 `prepare --task` 以此 --valid-ratio 留出的部分。",
            )
        ),
    ] = None,
    bias: Annotated[
        bool,
        typer.Option(
            help=say(
                "A bias for each label, beside the temperature.", "除温度外，另为每个标签拟合偏置。"
            )
        ),
    ] = True,
    rename: Annotated[
        list[str] | None, typer.Option(help=say("FIELD=YOURS", "任务字段=你的字段"))
    ] = None,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Makes a task's probabilities mean what they say: writes calibration.json into the model's folder."""
    from glmkit.applications.calibration import loss
    from glmkit.applications.labels import resolve_task
    from glmkit.tasks.prepare import parse_rename
    from glmkit.tasks.records import drawn_share, read_questions
    from glmkit.tasks.rendering import right_choice

    meant = resolve_task(task, None)
    known_labels = list(meant.labels)
    records: list[Any] = []
    labels: list[str] = []
    for record, where in read_questions(meant, data, parse_rename(rename or [])):
        if held_out is None or drawn_share(meant, record) < held_out:
            records.append(record)
            labels.append(known_labels[right_choice(meant, record, known_labels, where)])
    if not records:
        raise UserError(
            say("no records are left; raise --held-out", "没有剩下的数据；请调大 --held-out")
        )
    glm = load_model(model, device, dtype)
    scores = glm.label_scores(records, meant)
    known = glm.calibrations.get(meant.name)
    found = glm.fit_calibration(records, labels, meant, bias=bias, scores=scores)
    path = glm.save_calibrations(model)
    before = loss(scores, labels, known_labels, known)
    after = loss(scores, labels, known_labels, found)
    report = {
        "task": meant.name,
        "records": len(records),
        "loss_before": before,
        "loss_after": after,
        **dataclasses.asdict(found),
        "file": str(path),
    }
    if as_json:
        print_json(report)
    else:
        typer.echo(
            f"{len(records):,} × {meant.name}: "
            + say("loss", "损失")
            + f" {before:.4f} → {after:.4f}, T = {found.temperature:.3f}  {path}"
        )


def _print_labels(lines: list[str], results: list[Any], as_json: bool) -> None:
    for line, result in zip(lines, results, strict=True):
        if as_json:
            print_json({"text": line, **dataclasses.asdict(result)})
        else:
            short = line if len(line) <= 60 else line[:59] + "…"
            typer.echo(f"{result}\t{short}")


def check_language(given: str | None) -> Any:
    """Returns the language of --language; complains about one that there is not."""
    if given not in (None, "zh", "en"):
        raise UserError(
            say(f"--language {given}: choose zh or en", f"--language {given}：请选 zh 或 en")
        )
    return given

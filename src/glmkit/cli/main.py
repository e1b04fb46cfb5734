"""The entry point: the table of verbs, and errors that a person can read."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable

import typer

from glmkit import __version__
from glmkit.cli import (
    chatting,
    choosing,
    comparing,
    converting,
    demo,
    explaining,
    measuring,
    poems,
    preparing,
    serving,
    tuning,
    understanding,
    writing,
)
from glmkit.cli.language import say, speaks_chinese
from glmkit.cli.welcome import welcome
from glmkit.errors import UserError, needs_torch

VERBS: tuple[tuple[str, Callable[..., None], str, str], ...] = (
    ("fill", writing.fill, "Fill the blanks of a text.", "填空：补全文本中的空白。"),
    ("generate", writing.generate, "Continue a text.", "续写文本。"),
    ("article", chatting.article, "Write an article of a title.", "按标题写文章。"),
    ("chat", chatting.chat, "Talk with the model.", "与模型对话。"),
    ("poem", poems.poem, "Write a poem that keeps its form.", "作诗填词：格律、押韵、藏头。"),
    ("score", writing.score, "Log-probability and perplexity of a text.", "文本的对数概率与困惑度。"),
    ("sentiment", understanding.sentiment, "Is a text positive or negative?", "情感分析：正面还是负面。"),
    ("classify", understanding.classify, "Which label does a text have?", "文本分类：主题或自定标签。"),
    ("tag", understanding.tag, "Names, words and other spans of a text.", "序列标注：人名地名、分词等。"),
    ("answer", understanding.answer, "Answer a question from a text.", "问答：从文本中找出答案。"),
    ("summarize", understanding.summarize, "Summarise texts.", "文本摘要。"),
    ("explain", explaining.explain, "Why was this written, or labelled so?", "解释：为什么这样填空或分类。"),
    ("calibrate", understanding.calibrate, "Make a task's probabilities honest.", "校准任务的概率。"),
    ("choose", choosing.choose, "Which model suits a task, data and a machine.", "按任务、数据与硬件选择模型。"),
    ("prepare", preparing.prepare, "Corpus -> token stores.", "语料 → 词元库。"),
    ("train-tokenizer", preparing.train_tokenizer, "Corpus -> vocabulary.", "语料 → 词表。"),
    ("pretrain", tuning.pretrain, "Token stores -> a GLM.", "词元库 → 预训练 GLM。"),
    ("finetune", tuning.finetune, "A GLM and labelled data -> a GLM for a task.", "用标注数据微调 GLM。"),
    ("extend-vocabulary", preparing.extend_vocabulary, "Add words to a model's vocabulary.", "为模型的词表增加词语。"),
    ("evaluate", measuring.evaluate, "Perplexity on texts, and how well tasks are done.", "评测困惑度与各项任务。"),
    ("bench", comparing.bench, "GLM, BERT and GPT on the same budget.", "相同预算下比较 GLM、BERT 与 GPT 的预训练目标。"),
    ("harness", measuring.harness, "Run EleutherAI's lm-evaluation-harness on a GLM.", "用 lm-evaluation-harness 评测 GLM。"),
    ("convert", converting.convert, "Convert a checkpoint to another format.", "转换检查点格式。"),
    ("serve", serving.serve, "Serve a model to others, as OpenAI's interface does.", "启动服务：兼容 OpenAI 接口。"),
    ("info", converting.info, "What a model folder or this machine is.", "查看模型或本机信息。"),
    ("demo", demo.demo, "Every application, then a pretraining run; minutes, offline.", "几分钟的离线演示：每种应用与一次预训练。"),
)  # fmt: skip


def build_app() -> typer.Typer:
    """Returns the command-line application."""
    app = typer.Typer(
        name="glmkit",
        add_completion=False,
        pretty_exceptions_enable=False,
        # To rich a Chinese sentence is one word, and it cuts words that are wider than a column; plain help breaks them.
        rich_markup_mode=None if speaks_chinese() else "rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help=say(
            "Pretrain, run and evaluate General Language Models (blank infilling).",
            "预训练、运行和评测通用语言模型 GLM（自回归填空）。",
        ),
    )
    for name, body, english, chinese in VERBS:
        guarded = needs_torch(f"glmkit {name}", f"glmkit {name} ")(body)
        app.command(name, help=say(english, chinese))(guarded)

    @app.callback(invoke_without_command=True)
    def _root(
        context: typer.Context,
        version: bool = typer.Option(
            False, "--version", help=say("Print the version.", "显示版本。")
        ),
        verbose: bool = typer.Option(
            False, "--verbose", "-v", help=say("Log more.", "输出更多日志。")
        ),
    ) -> None:
        if version:
            typer.echo(f"glmkit {__version__}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            welcome()
            raise typer.Exit
        logging.basicConfig(
            level=logging.INFO if verbose else logging.WARNING,
            format="%(levelname)s %(message)s",
            stream=sys.stderr,
        )
        if not verbose:
            # transformers imports PEFT, and that bitsandbytes, wherever they are; what it lacks on a CPU concerns QLoRA on a GPU alone.
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    return app


def main() -> None:
    """Runs the command; a mistake of the user ends with its message and status 2, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may write what a terminal (of GBK, say) has no character for.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        build_app()()
    except UserError as error:
        text = say(str(error), error.chinese or str(error))
        typer.secho(f"{say('error', '错误')}: {text}", fg="red", err=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

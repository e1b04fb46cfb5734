"""`glmkit demo`: the whole pipeline in a few minutes, offline, on text that every machine has.

In: this project's own documents and Python's documentation strings. Out: a vocabulary, token stores, a small GLM,
filled blanks of held-out text and a perplexity that fell, all under one folder.
"""

from __future__ import annotations

import ast
import json
import random
import re
import shutil
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from glmkit.cli.language import say
from glmkit.cli.progress import step_progress

VOCAB_SIZE = 4000
ROW_LENGTH = 128
FEWEST_CHARACTERS = 80
BLANKS_SHOWN = 6


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help=say("Folder of the run.", "输出目录。"))
    ] = Path("runs/demo"),
    steps: Annotated[int, typer.Option(help=say("Training steps.", "训练步数。"))] = 800,
) -> None:
    """Runs corpus -> vocabulary -> stores -> GLM -> filled blanks, and says what it did."""
    from rich.console import Console
    from rich.rule import Rule

    from glmkit.config import from_values
    from glmkit.tokens.prepare import prepare
    from glmkit.tokens.tokenizer import GLMTokenizer
    from glmkit.tokens.train import train_from_files
    from glmkit.training.pretrain import PretrainConfig, pretrain

    console, started = Console(highlight=False), time.monotonic()

    def step(title: str) -> None:
        console.print(Rule(f"[bold]{title}[/]", align="left"))

    step(say("1/5 corpus: text that this machine has", "1/5 语料：本机已有的文本"))
    output.mkdir(parents=True, exist_ok=True)
    corpus = output / "corpus.jsonl"
    if corpus.exists():  # an earlier demo's: its text may have changed since
        shutil.rmtree(output / "run", ignore_errors=True)
    count, characters = write_corpus(corpus)
    console.print(
        say(
            f"{count} documents, {characters:,} characters: glmkit's documents (Chinese and English), Python's own "
            "documentation strings",
            f"{count} 篇文档，{characters:,} 个字符：glmkit 的文档（中英文）与 Python 自带的文档字符串",
        )
    )

    step(say("2/5 vocabulary: frequent pieces become tokens", "2/5 词表：高频片段成为词元"))
    vocabulary = train_from_files([corpus], output / "vocabulary", VOCAB_SIZE)
    tokenizer = GLMTokenizer.from_pretrained(output / "vocabulary")
    console.print(str(vocabulary))

    step(say("3/5 token stores: every document as ids", "3/5 词元库：每篇文档变成 id"))
    prepared = prepare([corpus], output / "data", tokenizer, valid_ratio=0.02, overwrite=True)
    console.print(prepared.table())

    step(
        say(
            "4/5 pretraining: hide spans, sentences and endings; learn to write them",
            "4/5 预训练：遮住片段、句子与结尾，学着写出来",
        )
    )
    with step_progress(say("pretraining", "预训练")) as progress:
        report = pretrain(
            from_values(PretrainConfig, _run_settings(output, steps)), progress=progress
        )
    console.print(report.table(), soft_wrap=True)

    step(say("5/5 result: text that the model has never seen", "5/5 结果：模型从未见过的文本"))
    _show_result(console, output, report.model)
    minutes = (time.monotonic() - started) / 60
    console.print(Rule(style="dim"))
    model = report.model
    console.print(
        say(
            f"Done in {minutes:.1f} minutes. A model of this size shows the pipeline, not knowledge. What next:",
            f"用时 {minutes:.1f} 分钟。这样大小的模型只为演示流水线，并无多少知识。接下来可以：",
        )
    )
    for line in (
        f"glmkit fill 'Return the [MASK] of the object.' --model {model}",
        f"glmkit score 'Return a new list.' --model {model}",
        say(
            "your own corpus: README.md, 'From a corpus to your own GLM'",
            "用自己的语料：README.zh.md 的“从语料到你自己的 GLM”",
        ),
        say(
            f"the loss curve: {report.folder / 'loss.png'}",
            f"损失曲线：{report.folder / 'loss.png'}",
        ),
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)


def write_corpus(path: Path) -> tuple[int, int]:
    """Writes the demo's documents as JSON lines; returns their number and their characters."""
    documents = sorted(set(_own_documents()) | set(_documentation_strings()))
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    temporary.rename(path)
    return len(documents), sum(map(len, documents))


def _own_documents() -> Iterator[str]:
    """This project's documents, by paragraph: those of the checkout if there is one, and its docstrings."""
    import glmkit

    package = Path(glmkit.__file__).parent
    checkout = package.parents[1]
    for file in sorted([*checkout.glob("*.md"), *checkout.glob("docs/**/*.md")]):
        for paragraph in re.split(r"\n(?=#)", file.read_text(encoding="utf-8")):
            if len(paragraph) >= FEWEST_CHARACTERS:
                yield paragraph.strip()
    yield from _docstrings_under(package, "**/*.py")


def _documentation_strings() -> Iterator[str]:
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    for pattern in ("*.py", "*/*.py"):
        yield from _docstrings_under(standard_library, pattern)


def _docstrings_under(folder: Path, pattern: str) -> Iterator[str]:
    for file in sorted(folder.glob(pattern)):
        if {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(file.parts):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= FEWEST_CHARACTERS:
                    yield re.sub(r"(?<=\S)\n(?=[A-Za-z])", " ", text)  # one line a paragraph


def _run_settings(output: Path, steps: int) -> dict[str, Any]:
    return {
        "data": {"folder": str(output / "data"), "row_length": ROW_LENGTH, "valid_rows": 32},
        "model": {
            "num_layers": 4,
            "hidden_size": 160,
            "num_attention_heads": 4,
            "max_sequence_length": ROW_LENGTH,
            "embedding_dropout_prob": 0.0,
            "attention_dropout_prob": 0.0,
            "output_dropout_prob": 0.0,
        },
        "objectives": {"token_weight": 0.7, "sentence_weight": 0.1, "document_weight": 0.2},
        "trainer": {
            "output_dir": str(output / "run"),
            "max_steps": steps,
            "per_device_train_batch_size": 16,
            "learning_rate": 2e-3,
            "logging_steps": 10,
            "eval_steps": max(1, steps // 4),
            "save_steps": max(1, steps // 2),
            "save_total_limit": 1,
        },
    }


def _show_result(console: Any, output: Path, model_folder: Path) -> None:
    import torch
    from rich.table import Table

    from glmkit.api import GLM, load
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.tokens.store import TokenStore

    trained = load(model_folder, device="cpu")
    torch.manual_seed(0)
    untrained = GLM(GLMForConditionalGeneration(trained.model.config), trained.tokenizer)
    store = TokenStore.open(output / "data" / "valid")
    held_out: list[str] = [
        cast(str, trained.tokenizer.decode(store.document(index)[1:-1].tolist()))
        for index in range(len(store))
    ]
    measured = held_out[:40]
    table = Table(
        title=say("Perplexity of held-out text", "未见文本的困惑度"), title_justify="left"
    )
    for column in ("", say("per token", "每词元"), say("per character", "每字符")):
        table.add_column(column, justify="right")
    for name, glm in ((say("untrained", "未训练"), untrained), (say("trained", "已训练"), trained)):
        table.add_row(
            name,
            f"{glm.perplexity(measured):,.0f}",
            f"{glm.perplexity(measured, unit='character'):,.2f}",
        )
    console.print(table)

    table = Table(title=say("Blanks, filled", "填空"), title_justify="left", show_lines=True)
    for column in (
        say("text with a blank", "带空白的文本"),
        say("hidden", "被遮住的"),
        say("best guesses", "最可能的填法"),
    ):
        table.add_column(column, overflow="fold")
    for text, hidden in _questions(held_out):
        guesses = trained.fill(
            text, max_new_tokens=8, num_beams=8, num_return_sequences=8, length_penalty=0.0
        ).alternatives[0]
        words = list(dict.fromkeys(guess for guess, _ in guesses if guess))
        table.add_row(text, hidden, " · ".join(words[:3]))
    console.print(table)


def _questions(texts: list[str]) -> list[tuple[str, str]]:
    """Returns held-out sentences with a word replaced by a blank, and the word; Chinese ones first."""
    draw = random.Random(0)
    questions = []
    for text in sorted(texts, key=lambda text: re.search(r"[一-鿿]", text) is None):
        for line in text.splitlines():
            words = list(re.finditer(r"[A-Za-z]{4,}|[一-鿿]{2}", line))
            if 30 <= len(line) <= 120 and len(words) > 3 and not set("`|_") & set(line):
                word = draw.choice(words[1:])
                questions.append(
                    (line[: word.start()].strip() + " [MASK]" + line[word.end() :], word[0])
                )
                break
        if len(questions) == BLANKS_SHOWN:
            break
    return questions

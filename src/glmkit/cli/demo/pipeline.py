"""A GLM pretrained in about a minute: corpus -> vocabulary -> stores -> GLM -> filled blanks.

In: a folder and a number of steps. Out: everything in that folder, and what it showed on the screen.
"""

from __future__ import annotations

import math
import random
import re
import shutil
from pathlib import Path
from typing import Any, cast

from glmkit.cli.demo.corpus import write_corpus
from glmkit.cli.demo.screen import Screen
from glmkit.cli.language import say
from glmkit.cli.progress import step_progress

VOCAB_SIZE = 3000
ROW_LENGTH = 128
BLANKS_SHOWN = 3
TEXTS_MEASURED = 20


def run_pipeline(screen: Screen, output: Path, steps: int) -> Any:
    """Runs the whole pipeline; returns the run's `PretrainReport`."""
    from glmkit.config import from_values
    from glmkit.tokens.prepare import prepare
    from glmkit.tokens.tokenizer import GLMTokenizer
    from glmkit.tokens.train import train_from_files
    from glmkit.training.pretrain import PretrainConfig, pretrain

    output.mkdir(parents=True, exist_ok=True)
    corpus = output / "corpus.jsonl"
    if corpus.exists():  # an earlier demo's: its text may have changed since
        shutil.rmtree(output / "run", ignore_errors=True)
    count, characters = write_corpus(corpus)
    screen.line(
        say(
            f"corpus       {count:,} documents, {characters:,} characters: glmkit's documents, Python's documentation",
            f"语料         {count:,} 篇文档，{characters:,} 个字符：glmkit 的文档与 Python 自带的文档",
        )
    )
    vocabulary = train_from_files([corpus], output / "vocabulary", VOCAB_SIZE)
    screen.line(
        say(
            f"vocabulary   {vocabulary}",
            f"词表         {vocabulary.vocab_size:,} 个词元；每词元 {vocabulary.characters_per_token:.2f} 个字符，"
            f"{vocabulary.byte_token_ratio:.1%} 为字节",
        )
    )
    tokenizer = GLMTokenizer.from_pretrained(output / "vocabulary")
    prepare([corpus], output / "data", tokenizer, valid_ratio=0.02, overwrite=True)
    screen.line(
        say(
            "pretraining  spans, sentences and endings are hidden; the model learns to write them",
            "预训练       遮住片段、句子与结尾，让模型学着写出来",
        )
    )
    with step_progress(say("pretraining", "预训练")) as progress:
        report = pretrain(
            from_values(PretrainConfig, _run_settings(output, steps)), progress=progress
        )
    screen.line(
        say(
            f"             {report.parameters:,} parameters, {report.tokens:,} tokens in {report.seconds:.0f} s",
            f"             {report.parameters:,} 个参数，{report.seconds:.0f} 秒内读了 {report.tokens:,} 个词元",
        )
    )
    _show_result(screen, output, report.model)
    return report


def _run_settings(output: Path, steps: int) -> dict[str, Any]:
    return {
        "data": {"folder": str(output / "data"), "row_length": ROW_LENGTH, "valid_rows": 16},
        "model": {
            "num_layers": 3,
            "hidden_size": 128,
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
            "per_device_train_batch_size": 8,
            "optim": "muon",
            "learning_rate": 3e-3,
            "logging_steps": 10,
            "eval_steps": max(1, steps // 2),
            "save_steps": steps,
            "save_total_limit": 1,
        },
    }


def _show_result(screen: Screen, output: Path, model_folder: Path) -> None:
    import torch

    from glmkit.api import GLM, load
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.native.model import as_config
    from glmkit.tokens.store import TokenStore

    trained = load(model_folder, device="cpu")
    torch.manual_seed(0)
    untrained = GLM(GLMForConditionalGeneration(as_config(trained.model.config)), trained.tokenizer)
    store = TokenStore.open(output / "data" / "valid")
    held_out = [
        cast(str, trained.tokenizer.decode(store.document(index)[1:-1].tolist()))
        for index in range(len(store))
    ]
    measured = held_out[:TEXTS_MEASURED]
    screen.table(
        say("Perplexity of text that it has never seen", "未见文本的困惑度"),
        ("", say("per token", "每词元"), say("per character", "每字符")),
        [
            (
                name,
                f"{glm.perplexity(measured):,.0f}",
                f"{glm.perplexity(measured, unit='character'):,.2f}",
            )
            for name, glm in (
                (say("untrained", "未训练"), untrained),
                (say("trained", "已训练"), trained),
            )
        ],
        right=True,
    )
    asked = questions(held_out, trained.tokenizer)
    if not asked:
        return
    before, after = (_hidden_words(glm, asked) for glm in (untrained, trained))
    screen.table(
        say("Words that were hidden from it", "被遮住的词"),
        (
            say("text with a blank", "带空白的文本"),
            say("hidden", "被遮住的"),
            say("likelier than untrained", "可能性是未训练时的"),
        ),
        [
            (text, word, f"× {math.exp(then - first):,.0f}")
            for (text, word), first, then in zip(asked, before, after, strict=True)
        ],
    )


def _hidden_words(glm: Any, asked: list[tuple[str, str]]) -> list[float]:
    """Returns the log-probability (nats) of each hidden word as the contents of its blank."""
    from glmkit.generation.choices import score_choices

    texts, words = [text for text, _ in asked], [[word] for _, word in asked]
    return [float(one[0]) for one in score_choices(glm.model, glm.vocabulary, texts, words)]


def questions(texts: list[str], tokenizer: Any) -> list[tuple[str, str]]:
    """Returns held-out lines with a word of one token replaced by a blank, and the word; Chinese ones first, none of code or with blanks."""
    draw = random.Random(0)
    found = []
    for text in sorted(texts, key=lambda text: re.search(r"[一-鿿]", text) is None):
        for line in text.splitlines():
            words = [
                word
                for word in re.finditer(r"[A-Za-z]{4,}|[一-鿿]{2}", line)
                if word.start() and len(tokenizer.tokenize(word[0])) == 1
            ]
            if 30 <= len(line) <= 120 and words and not set("`|_[") & set(line):
                word = draw.choice(words)
                found.append((f"{line[: word.start()]}[MASK]{line[word.end() :]}", word[0]))
                break
        if len(found) == BLANKS_SHOWN:
            break
    return found

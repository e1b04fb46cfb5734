"""The corpus of glm-mini, from real data (JSON lines, gzipped): text, labelled records and text for the vocabulary.

In: a folder with poems, wiki_zh, articles_zh, wiki_en, sentiment, topics, qa, summaries, dialogues (`NAME.train.jsonl.gz`).
Out, under a folder: `text.jsonl`, `vocabulary.jsonl`, `poem.jsonl`, `article.jsonl`, `span.jsonl`. The labelled tasks are read as they are.
    python recipes/glm-mini/data.py DATA runs/glm-mini/corpus
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROSE = ("wiki_zh", "articles_zh", "wiki_en", "sentiment", "topics", "summaries", "dialogues")
"""Read as text beside the poems, each once in a pass over `text.jsonl`."""

POEMS_FOR_VOCABULARY = 12
"""One poem of so many shows the vocabulary which characters there are."""

POEMS_AS_TASK = 5
"""One poem of so many is also written from its form and title."""

SPANS_OF_A_PARAGRAPH = 8
"""Questions made from one paragraph, at most."""

FORGOTTEN = 0.15
"""Share of a made question's characters that are left out, so that it is not the text's own sentence."""

ARTICLE_CHARACTERS = {"wiki_zh": 380, "wiki_en": 700}
"""Longest beginnings of articles that are written from their titles."""

REGULAR = {(4, 5): "五言绝句", (4, 7): "七言绝句", (8, 5): "五言律诗", (8, 7): "七言律诗"}
"""(verses, characters of each) -> form."""


def records(data: Path, name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data / f"{name}.train.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def poem_text(record: dict[str, Any]) -> str:
    return "\n".join((record["title"], *record["lines"]))


def poem_form(record: dict[str, Any]) -> tuple[str, str]:
    """Returns (form, title): the form by the number and length of verses, of a 词 the tune's name."""
    title = record["title"].strip()
    if record["kind"] == "曲":
        return "曲", title
    if record["kind"] == "词":
        tune, _, rest = re.sub(r"[・·]", " ", title).partition(" ")
        return tune, rest.strip() or tune
    verses = [verse for verse in re.split(r"[，。？！；、：]", "".join(record["lines"])) if verse]
    lengths = {len(verse) for verse in verses}
    if len(lengths) > 1 or not lengths & {5, 7}:
        return "杂言诗", title
    (length,) = lengths
    free = "五言古诗" if length == 5 else "七言古诗"
    return REGULAR.get((len(verses), length), free), title


def texts(data: Path, name: str) -> Iterator[str]:
    """Yields the texts of one file, as documents to read."""
    for record in records(data, name):
        match name:
            case "poems":
                yield poem_text(record)
            case "summaries":
                yield f"{record['summary']}\n{record['text']}"
            case "dialogues":
                yield "\n".join(record["turns"])
            case "wiki_en":  # [UNK] stands for words that the data's makers removed
                yield re.sub(r" ?\[UNK\]", "", record["text"]).replace(" \n", "\n")
            case _:
                yield record["text"]


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    temporary.rename(path)


def text_rows(data: Path) -> Iterator[dict[str, Any]]:
    for name in ("poems", *PROSE):
        for text in texts(data, name):
            yield {"text": text}


def vocabulary_rows(data: Path) -> Iterator[dict[str, Any]]:
    """Modern text as it is; poems one character a line, so that no token joins two of their characters."""
    for name in PROSE:
        for number, text in enumerate(texts(data, name)):
            if name != "wiki_en" or number % 2 == 0:
                yield {"text": text}
    for record in records(data, "qa"):
        yield {"text": record["question"]}
    for number, record in enumerate(records(data, "poems")):
        if number % POEMS_FOR_VOCABULARY == 0:
            yield {"text": "\n".join("".join(record["lines"]))}


def poem_rows(data: Path) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records(data, "poems")):
        if number % POEMS_AS_TASK:
            continue
        form, title = poem_form(record)
        yield {"title": title, "author": record["author"], "form": form, "lines": record["lines"]}


def article_rows(data: Path) -> Iterator[dict[str, Any]]:
    """Beginnings of encyclopedia articles with their titles, of whole sentences that fit into a row."""
    for name, end in (("wiki_zh", "。"), ("wiki_en", ". ")):
        for record, text in zip(records(data, name), texts(data, name), strict=True):
            if name == "wiki_en":  # "= Title =" first
                text = text.split("\n", 1)[-1].strip()
            text = text[: ARTICLE_CHARACTERS[name]]
            text = text[: text.rfind(end) + 1].strip()
            if text:
                title = re.sub(r" ?\[UNK\]", "", record["title"])
                yield {"title": title, "text": text}


def recurring_spans(text: str) -> list[str]:
    """Returns what a text says more than once and what a question may ask for: names and terms, numbers, titles.

    Source of the idea: Ram et al., "Few-Shot Question Answering by Pretraining Span Selection", arXiv 2101.00438: such
    spans are mostly what a text is about, and finding one again is what an answer from a text is.
    """
    counts: Counter[str] = Counter()
    for run in re.findall(r"[\u4e00-\u9fff·]{2,}", text):
        counts.update({run[i : i + n] for n in range(2, 9) for i in range(len(run) - n + 1)})
    often = {span for span, count in counts.items() if count > 1}
    longest = {
        span
        for span in often
        if not any(span != other and span in other and counts[other] == counts[span] for other in often)
    }  # fmt: skip
    named = set(
        re.findall(r"《[^》]{1,20}》|\d[\d.,]*(?:年(?:\d+月)?(?:\d+日)?|[\u4e00-\u9fff%])?", text)
    )
    return sorted(span for span in longest | named if not set(span) & set("的了是在和与也为有这其"))


def span_rows(data: Path) -> Iterator[dict[str, Any]]:
    """Questions of the form of `qa`, made from paragraphs: a clause around a span, with a question word in its place."""
    draw = random.Random(0)
    for text in texts(data, "wiki_zh"):
        sentences = [part for part in re.split(r"(?<=[。！？；])", text) if 8 <= len(part) <= 90]
        spans = recurring_spans(text)
        draw.shuffle(spans)
        made = 0
        for span in spans:
            around = [sentence for sentence in sentences if sentence.count(span) == 1]
            if not around or made == SPANS_OF_A_PARAGRAPH:
                continue
            made += 1
            before, after = draw.choice(around).rstrip("。！？；").split(span)
            before, after = before[-draw.randint(6, 30) :], after[: draw.randint(6, 30)]
            word = draw.choice(
                ("多少", "哪一年", "什么时候")
                if span[0].isdigit()
                else ("什么", "谁", "哪里", "哪个")
            )
            kept = [
                "".join(c for c in part if draw.random() >= FORGOTTEN) for part in (before, after)
            ]
            yield {"context": text, "question": f"{kept[0]}{word}{kept[1]}？", "answers": [span]}


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write(out / "text.jsonl", text_rows(data))
    write(out / "vocabulary.jsonl", vocabulary_rows(data))
    write(out / "poem.jsonl", poem_rows(data))
    write(out / "article.jsonl", article_rows(data))
    write(out / "span.jsonl", span_rows(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""docs/gallery.md and docs/gallery.zh.md: what glm-mini answers to the questions of gallery.yaml, unedited.

In: the embedded model (or another one). Out: two pages with the same samples. Every answer is the first one with the
seed of gallery.yaml; none is chosen by hand.

    python recipes/glm-mini/gallery.py [MODEL] [--out docs]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from card import weights_file

import glmkit
from glmkit.checkpoint import resolve
from glmkit.embedded import DEFAULT_MODEL

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = {"en": "gallery.md", "zh": "gallery.zh.md"}
GUESSES = 4
TOPICS_SHOWN = 3

TITLES = {
    "fill": ("Filling blanks", "填空"),
    "poems": ("Poems", "诗词"),
    "articles": ("Continuing", "续写"),
    "sentiment": ("Sentiment", "情感分析"),
    "topics": ("Topics", "主题分类"),
    "answers": ("Answers from a paragraph", "阅读问答"),
    "summaries": ("Summaries", "摘要"),
    "chats": ("Conversation", "对话"),
    "weak": ("Where it is weak", "它的弱项"),
}

INTRODUCTION = {
    "en": """# Gallery

[中文](gallery.zh.md)

What [glm-mini](../src/glmkit/assets/README.md) (weights {weights}) answers, unedited: each is the first answer with seed {seed}, good or bad.
`recipes/glm-mini/gallery.py` makes this page from the questions in `recipes/glm-mini/gallery.yaml`, which were written before
the model was asked. It has {parameters:.1f} million parameters and has read little: short phrases come out, sense and facts seldom do.
""",
    "zh": """# 样例

[English](gallery.md)

[glm-mini](../src/glmkit/assets/README.md)（权重 {weights}）的回答，未经修改：都是种子为 {seed} 时的第一个结果，好坏照登。
本页由 `recipes/glm-mini/gallery.py` 根据 `recipes/glm-mini/gallery.yaml` 中的问题生成，问题在提问之前就已写定。
模型有 {parameters:.0f} 万参数，读得不多：短语句写得出，意思和事实很少对。
""",
}

NOTES = {
    "fill": ("Guesses with their probabilities; of several blanks, the most likely filling together.", "候选及其概率；有多个空白时为整体最可能的填法。"),
    "poems": ("Length, rhyme and tones are kept by constraint; the wording is the model's.", "字数、押韵与平仄由约束保证；词句由模型写出。"),
    "articles": ("About 200 characters, drawn with the application's own settings.", "约 200 字，按应用的默认设置采样。"),
    "answers": ("The answer is a span of the paragraph; its score is a probability.", "答案取自段落原文，分数是概率。"),
    "chats": ("The last line of each is the model's.", "每段最后一句由模型写出。"),
    "weak": ("Facts, sums, reasons, English: what so small a model has not learnt.", "事实、算术、因果与英文：这样小的模型没有学会。"),
}  # fmt: skip


def fill(glm: glmkit.GLM, texts: list[str], seed: int) -> list[str]:
    lines = []
    for asked in texts:
        lines.append(f"- `{asked}`  ")
        for candidate in glm.fill(asked, n=GUESSES, max_new_tokens=24).candidates:
            contents = "".join(f"「{' '.join(blank.split())}」" for blank in candidate.blanks)
            lines.append(f"  {candidate.probability:.1%} {contents}  ")
    return lines


def poems(glm: glmkit.GLM, wishes: list[dict[str, Any]], seed: int) -> list[str]:
    lines = []
    for wish in wishes:
        given = {name: value for name, value in wish.items() if name != "title"}
        poem = glm.poem(wish["title"], **given, seed=seed)
        more = [
            f"{name}: {value if isinstance(value, str) else '、'.join(value)}"
            for name, value in given.items()
            if name != "form"
        ]
        lines += [f"**{poem.title}** ({', '.join([poem.form, *more])})", ""]
        lines += [f"> {line}  " for line in poem.lines] + [""]
    return lines


def articles(glm: glmkit.GLM, starts: list[str], seed: int) -> list[str]:
    lines = []
    for start in starts:
        text = glm.article(start, max_characters=200, seed=seed)
        lines += [f"`{start}`", "", *(f"> {line}  " for line in text.splitlines()), ""]
    return lines


def sentiment(glm: glmkit.GLM, texts: list[str], seed: int) -> list[str]:
    return [
        f"- {text} → **{result.label}** {result.probabilities[result.label]:.1%}"
        for text, result in zip(texts, glm.sentiment(texts), strict=True)
    ]


def topics(glm: glmkit.GLM, texts: list[str], seed: int) -> list[str]:
    lines = []
    for text, result in zip(texts, glm.classify(texts, task="topics"), strict=True):
        ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])[:TOPICS_SHOWN]
        lines.append(f"- {text} → " + ", ".join(f"{name} {value:.1%}" for name, value in ranked))
    return lines


def answers(glm: glmkit.GLM, paragraphs: list[dict[str, Any]], seed: int) -> list[str]:
    lines = []
    for paragraph in paragraphs:
        lines += [f"> {paragraph['context']}", ""]
        for question in paragraph["questions"]:
            answer = glm.answer(question, paragraph["context"])
            lines.append(f"- {question} → **{answer.text or '–'}** {answer.score:.1%}")
        lines.append("")
    return lines


def summaries(glm: glmkit.GLM, texts: list[str], seed: int) -> list[str]:
    lines = []
    for text in texts:
        lines += [f"> {text}", "", f"→ **{glm.summarize(text) or '–'}**", ""]
    return lines


def chats(glm: glmkit.GLM, conversations: list[list[str]], seed: int) -> list[str]:
    lines = []
    for turns in conversations:
        messages = [
            {"role": ("user", "assistant")[number % 2], "content": turn}
            for number, turn in enumerate(turns)
        ]
        lines += [f"> {turn}  " for turn in turns]
        lines += [f"> **{glm.chat(messages, seed=seed) or '–'}**", ""]
    return lines


SECTIONS: dict[str, Callable[[glmkit.GLM, Any, int], list[str]]] = {
    "fill": fill,
    "poems": poems,
    "articles": articles,
    "sentiment": sentiment,
    "topics": topics,
    "answers": answers,
    "summaries": summaries,
    "chats": chats,
    "weak": fill,
}


def make_pages(glm: glmkit.GLM, questions: dict[str, Any], weights: str) -> dict[str, str]:
    """Returns the page in each language; the model is asked once.

    Args:
        glm: The model.
        questions: As gallery.yaml has them.
        weights: What tells which model answered.
    """
    seed = questions["seed"]
    bodies = {name: section(glm, questions[name], seed) for name, section in SECTIONS.items()}
    parameters = {"en": glm.model.num_parameters() / 1e6, "zh": glm.model.num_parameters() / 1e4}
    pages = {}
    for place, language in enumerate(PAGES):
        lines = [INTRODUCTION[language].format(seed=seed, parameters=parameters[language], weights=weights)]  # fmt: skip
        for name, body in bodies.items():
            note = [NOTES[name][place], ""] if name in NOTES else []
            text = "\n".join(body).rstrip()
            lines += [f"## {TITLES[name][place]}", "", *note, text, ""]
        pages[language] = "\n".join(lines).rstrip() + "\n"
    return pages


def main(
    model: Annotated[str, typer.Argument(help="Name or folder.")] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option(help="Folder of the pages.")] = ROOT / "docs",
) -> None:
    """Writes the gallery in both languages."""
    questions = yaml.safe_load((HERE / "gallery.yaml").read_text(encoding="utf-8"))
    weights = weights_file(resolve(model)).read_bytes()
    fingerprint = hashlib.sha256(weights).hexdigest()[:12]
    pages = make_pages(glmkit.load(model, device="cpu"), questions, fingerprint)
    for language, name in PAGES.items():
        (out / name).write_text(pages[language], encoding="utf-8")
        typer.echo(out / name)


if __name__ == "__main__":
    typer.run(main)

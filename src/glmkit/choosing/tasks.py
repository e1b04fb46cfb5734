"""What people want of a model, as far as the choice depends on it: a short table, and the user's own task files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from glmkit.choosing.words import Text
from glmkit.errors import ConfigError, nearest
from glmkit.special_tokens import GMASK, SMASK
from glmkit.tasks.task import Task, load_task


@dataclass(frozen=True)
class Need:
    """A kind of work.

    Attributes:
        name: In tables and on the command line.
        words: What it is.
        kind: `labels`: nothing is written, labels are compared; `blanks`; `text`: an answer of some sentences or less, from
            what is given; `open`: a longer text or a talk; `other`: not what GLM is for.
        objective: The pretraining that it is nearest to: token ([MASK]), sentence ([sMASK]), document ([gMASK]).
        input_tokens: Typical, about the ninth decile of `shared/data` where that has the task.
        output_tokens: Likewise, with the end marker; of labels, the tokens of one.
        task: Its file for fine-tuning, in the catalog; "" where the user writes one.
        verb: The command that does it.
        aliases: Other names for it.
    """

    name: str
    words: Text
    kind: Literal["labels", "blanks", "text", "open", "other"]
    objective: Literal["token", "sentence", "document"]
    input_tokens: int
    output_tokens: int
    task: str = ""
    verb: str = "generate"
    aliases: tuple[str, ...] = ()


NEEDS: tuple[Need, ...] = (
    Need("sentiment", Text("sentiment of texts", "情感分析"), "labels", "token", 48, 2, "sentiment", "sentiment", ("情感", "情感分析")),
    Need("topics", Text("topics of texts", "主题分类"), "labels", "token", 48, 2, "topics", "classify", ("topic", "主题", "主题分类")),
    Need("classify", Text("classification with labels of your own", "自定标签的文本分类"), "labels", "token", 128, 2, "", "classify", ("classification", "label", "分类", "文本分类")),
    Need("answer", Text("answers from a text", "阅读理解问答"), "text", "token", 350, 16, "qa", "answer", ("qa", "question-answering", "问答", "阅读理解")),
    Need("summarize", Text("summaries", "摘要"), "text", "sentence", 300, 32, "summary", "summarize", ("summary", "summarise", "summarization", "title", "摘要", "总结")),
    Need("fill", Text("filling blanks", "填空"), "blanks", "token", 128, 8, "fill_word", "fill", ("cloze", "fill_word", "fill_line", "fill_character", "infill", "填空", "完形填空")),
    Need("generate", Text("going on with a text", "续写"), "open", "document", 64, 128, "text", "generate", ("text", "continue", "写作", "续写")),
    Need("article", Text("articles from titles", "按标题写文章"), "open", "document", 24, 512, "article", "article", ("文章",)),
    Need("poem", Text("Chinese poems", "诗词"), "open", "document", 24, 72, "poem", "poem", ("poems", "poetry", "诗", "诗词", "作诗")),
    Need("chat", Text("dialogue", "对话"), "open", "document", 256, 48, "dialogue", "chat", ("dialogue", "dialog", "conversation", "对话", "聊天")),
    Need("translate", Text("translation", "翻译"), "other", "sentence", 64, 64, "", "generate", ("translation", "翻译")),
    Need("embed", Text("vectors for search", "检索向量"), "other", "token", 128, 1, "", "classify", ("embedding", "retrieval", "search", "检索", "向量")),
)  # fmt: skip


def find_need(name: str) -> Need:
    """Returns what a name of the table, of the catalog or of a task file means.

    Raises:
        ConfigError: There is no such work, or the task file is wrong.
    """
    wanted = name.strip()
    for need in NEEDS:
        if wanted.lower() in (need.name, *need.aliases):
            return need
    if Path(wanted).suffix in (".yaml", ".yml"):
        return _of_task(load_task(wanted), wanted)
    try:
        return _of_task(load_task(wanted), wanted)
    except ConfigError as error:
        names = [need.name for need in NEEDS]
        raise ConfigError(
            f"task {name!r}: there are {', '.join(names)}, the names in the catalog, and your own YAML files"
            f"{nearest(wanted.lower(), [*names, *(alias for need in NEEDS for alias in need.aliases)])}"
        ) from error


def _of_task(task: Task, source: str) -> Need:
    """Returns the need of a task file: its kind, and the mask of its patterns."""
    by_kind = {"classification": "classify", "multiple_choice": "classify", "filling": "fill", "text": "generate"}  # fmt: skip
    need = {one.name: one for one in NEEDS}[by_kind.get(task.kind, "answer")]
    if task.kind == "generation":
        patterns = " ".join(pattern for _, pattern in task.all_patterns())
        objective: Literal["token", "sentence", "document"] = "token"
        if GMASK in patterns:
            objective = "document"
        elif SMASK in patterns:
            objective = "sentence"
        need = replace(need, objective=objective, output_tokens=64)
    return replace(need, name=task.name, words=Text(task.name, task.name), task=source, aliases=())

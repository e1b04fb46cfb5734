"""Every application on the embedded model, each with the call that makes it.

In: a loaded GLM and a screen. Out: what it answers, unedited. The texts are written for the demo; none is of the training data
but the verses in which words are hidden, which every reader knows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from glmkit.cli.demo.screen import Screen
from glmkit.cli.language import say
from glmkit.embedded import ASSETS, DEFAULT_MODEL, VISION_MODEL, is_here
from glmkit.tasks.task import load_task

LABELS = {"positive": ("positive", "好评"), "negative": ("negative", "差评")}
TOPICS_SHOWN = 3

CONTEXT = (
    "都江堰位于四川省成都市都江堰市城西，坐落在成都平原西部的岷江上，由秦国蜀郡太守李冰父子于公元前256年左右主持修建，"
    "是一座以无坝引水为特征的水利工程。工程由鱼嘴、飞沙堰、宝瓶口等部分组成，两千多年来一直发挥着防洪和灌溉的作用。"
)
QUESTION = "都江堰由谁主持修建？"

ABSTRACT = (
    "针对山区公路边坡在强降雨条件下容易失稳的问题，以某高速公路边坡为例，采用有限元强度折减法分析了降雨强度和持续时间对"
    "边坡稳定性的影响。结果表明：边坡安全系数随降雨持续时间的增加而减小；设置截水沟和排水孔后，安全系数明显提高。"
)


def filling(glm: Any, screen: Screen) -> None:
    """Two texts, the second with two blanks; guesses with their probabilities."""
    text = "今天天气很[MASK]。"
    with screen.call(f'glm.fill("{text}", n=4)'):
        result = glm.fill(text, n=4, max_new_tokens=4)
        screen.line(f"    {result.text}", "bold")
    screen.bars(
        [(" ".join(one.blanks[0].split()) or "–", one.probability) for one in result.candidates]
    )
    text = "两岸猿声[MASK]，轻舟已过[MASK]。"
    with screen.call(f'glm.fill("{text}")'):
        result = glm.fill(text, max_new_tokens=6)
        screen.line(f"    {result.text}", "bold")


def poetry(glm: Any, screen: Screen) -> None:
    """A regulated quatrain on a title, and an acrostic."""
    with screen.call('glm.poem("秋夜江上", form="七言绝句", seed=1)'):
        screen.line(_indented(str(glm.poem("秋夜江上", form="七言绝句", seed=1))), "bold")
    with screen.call('glm.poem("春", form="五言绝句", acrostic="山高水长", seed=1)'):
        poem = glm.poem("春", form="五言绝句", acrostic="山高水长", seed=1)
        screen.line(_indented(str(poem)), "bold")
    screen.note(
        say(
            "length, rhyme and tones are kept by constraint: every poem obeys its form",
            "字数、押韵与平仄由约束保证：每一首都合乎格律",
        )
    )


def sentiment(glm: Any, screen: Screen) -> None:
    """Two reviews, one of each kind."""
    reviews = [
        "房间干净，服务员很热情，早餐也丰富，下次还住这里。",
        "等了一个半小时才送到，饭都凉了，再也不点了。",
    ]
    with screen.call("glm.sentiment(reviews)"):
        results = glm.sentiment(reviews)
    for review, result in zip(reviews, results, strict=True):
        screen.line(f"    {review}")
        screen.bars(_ranked(result.probabilities, lambda label: say(*LABELS[label])))


def topics(glm: Any, screen: Screen) -> None:
    """A headline."""
    headline = "国足热身赛两球取胜 新帅赛后称赞年轻队员"
    with screen.call(f'glm.classify("{headline}", task="topics")'):
        result = glm.classify(headline, task="topics")
    words = load_task("topics").labels
    ranked = _ranked(result.probabilities, lambda label: say(label, words[label]["zh"]))
    screen.bars(ranked[:TOPICS_SHOWN])


def answering(glm: Any, screen: Screen) -> None:
    """A question on a paragraph; the answer is shown where it stands."""
    with screen.call(f'glm.answer("{QUESTION}", context)'):
        answer = glm.answer(QUESTION, CONTEXT)
        screen.line(f"    {answer.text or say('(no answer)', '（无答案）')}", "bold")
    if answer.text:
        screen.marked(CONTEXT, answer.start, answer.end)


def summary(glm: Any, screen: Screen) -> None:
    """An abstract becomes a title."""
    screen.line(ABSTRACT)
    with screen.call("glm.summarize(abstract)"):
        screen.line(f"    {glm.summarize(ABSTRACT)}", "bold")


def chatting(glm: Any, screen: Screen) -> None:
    """One turn, as it is written."""
    question = "你看过周星驰的电影吗？"
    with screen.call(f'glm.chat([{{"role": "user", "content": "{question}"}}], stream=True)'):
        screen.pieces(glm.chat([{"role": "user", "content": question}], stream=True))


def seeing(screen: Screen) -> None:
    """A picture, described by the adapter that sees; a word of where it comes from where it cannot be loaded."""
    missing = [name for name in ("peft", "PIL") if find_spec(name) is None]
    if missing or not is_here(VISION_MODEL):
        screen.note(
            say(
                'left out: it needs glmkit[multimodal,peft] (pip install "glmkit[multimodal,peft]")',
                '略过：需要 glmkit[multimodal,peft]（pip install "glmkit[multimodal,peft]"）',
            )
        )
        return
    from glmkit.api import load

    picture = ASSETS / VISION_MODEL / "example.png"
    screen.picture(picture)
    with screen.call(f'eyes = glmkit.load("{VISION_MODEL}")'):
        eyes = load(VISION_MODEL, device="cpu")
    for question in ("图里有什么？", "What is in the picture?", "一共几个图形？"):
        parts = [{"type": "image", "image": str(picture)}, {"type": "text", "text": question}]
        asked = f'[picture, {{"type": "text", "text": "{question}"}}]'
        with screen.call(f'eyes.chat([{{"role": "user", "content": {asked}}}])'):
            screen.line(f"    {eyes.chat([{'role': 'user', 'content': parts}])}", "bold")


ACTS: tuple[tuple[str, str, Callable[[Any, Screen], None]], ...] = (
    ("fill blanks", "填空", filling),
    ("write a poem that keeps its form", "按格律写诗", poetry),
    ("judge sentiment", "情感分析", sentiment),
    ("name a topic", "主题分类", topics),
    ("answer from a paragraph", "阅读问答", answering),
    ("summarise", "摘要", summary),
    ("chat", "对话", chatting),
)


def run_showcase(screen: Screen, model: str) -> None:
    """Loads a model and shows what it does.

    Raises:
        CheckpointError: There is no such model.
    """
    screen.heading(say("applications", "应用"))
    with screen.call("import glmkit; glm = glmkit.load()"):
        from glmkit.api import load

        glm = load(model, device="cpu")
    count = glm.model.num_parameters() / 1e6
    screen.note(
        say(
            f"{count:.1f} million parameters, pretrained by this project on poems and a little modern Chinese. It knows\n"
            "forms and phrases, few facts; what follows is unedited.",
            f"{count * 100:,.0f} 万参数，由本项目用诗词和少量现代汉语预训练。它懂体裁与语句，所知事实很少；以下输出未经修改。",
        )
    )
    for english, chinese, act in ACTS:
        screen.heading(say(english, chinese))
        act(glm, screen)
    if model == DEFAULT_MODEL:
        screen.heading(say("see", "看图"))
        seeing(screen)


def _ranked(probabilities: dict[str, float], name: Callable[[str], str]) -> list[tuple[str, float]]:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return [(name(label), probability) for label, probability in ranked]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

"""What the page says: both languages are complete, mistakes are told in the page's own, results are escaped."""

from __future__ import annotations

import base64
import re
from string import Formatter
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("av")

from PIL import Image

import glmkit
from conftest import golden_folder
from glmkit.errors import missing_dependency
from glmkit.generation.control import Control
from glmkit.generation.prompts import build_prompt
from glmkit.playground import showing
from glmkit.playground.mistakes import CHINESE, Mistake, message_of
from glmkit.playground.words import WORDS, Speaker, prefers_chinese
from glmkit.serving.asking import Asking
from glmkit.serving.failures import DeadlineExceeded, Failure, QueueFull
from glmkit.serving.schemas import ChatRequest, CompletionRequest, FillRequest
from glmkit.serving.settings import ServingSettings
from media_samples import image_bytes, media_glm, tone, wav_bytes

ZH, EN = Speaker(True), Speaker(False)


@pytest.fixture(scope="module")
def glm() -> glmkit.GLM:
    return glmkit.load(device="cpu")


def test_both_languages_say_the_same_things():
    for key, text in WORDS.items():
        fields = [{name for _, name, *_ in Formatter().parse(one) if name} for one in text]
        assert fields[0] == fields[1], key
        assert text.en, key
        assert text.zh, key


@pytest.mark.parametrize(
    ("header", "chinese"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", True), ("en-GB,en;q=0.9,zh;q=0.8", False), ("zh-TW", True), ("", False), ("fr-FR", False),
        ("fr,zh;q=0.3", True), ("en,zh", False), ("zh,en", True), ("zh;q=0,en;q=0.1", False), ("zh;q=x,en", False),
    ],
)  # fmt: skip
def test_the_browsers_language_is_followed(header: str, chinese: bool):
    assert prefers_chinese(header) is chinese


def test_every_chinese_message_is_of_a_message_that_is_raised(glm: glmkit.GLM):
    """Each pattern is found in what the library really says; so a message that changes there is noticed here."""
    asking = Asking(glm.model, glm.tokenizer, ServingSettings(max_characters=3000))
    poem: dict[str, Any] = {"form": "五言绝句", "candidates": 1}
    system = [{"role": "system", "content": "长" * 900}, {"role": "user", "content": "好"}]
    causes: list[Any] = [
        lambda: asking.prompt("长" * 400),
        lambda: asking.fill(FillRequest(texts="今天", max_tokens=5000)),
        lambda: asking.texts("长" * 4000),
        lambda: asking.completion(CompletionRequest(prompt="[MASK]和[MASK]", model="x")),
        lambda: glm.fill("今天", n=3, repetition_penalty=2.0),
        lambda: glm.poem(acrostic="春夏秋", **poem),
        lambda: glm.poem(first_line="春眠", **poem),
        lambda: glm.poem(first_line="春眠不觉晓", acrostic="夏眠秋冬", **poem),
        lambda: glm.poem(first_line="春眠不觉晓，处处闻啼鸟", **poem),
        lambda: glm.classify("今天", labels=["体育", "体育"]),
        lambda: glm.article("今天[sMASK]", outline=["春天"]),
        lambda: glm.chat(system),
        lambda: glm.answer("长" * 900, "今天天气好。"),
        lambda: glm.summarize("今天天气好", min_characters=9, max_characters=3),
        lambda: Control(regex="(").constraint(glm.tokenizer),
        lambda: glmkit.choose("sentiment", latency="soon"),
        lambda: glmkit.choose("sentiment", gpu="a toaster"),
        lambda: _raise(missing_dependency("captum", "attribution of the context", "explain")),
        lambda: glmkit.load(golden_folder("tiny-gpt2").path, device="cpu").poem(**poem),
        *_causes_with_media(),
    ]
    said = []
    for cause in causes:
        with pytest.raises((ValueError, Failure)) as error:
            cause()
        message, details = message_of(error.value, ZH, "1")
        assert not details, f"no Chinese for: {details}"
        assert re.search("[一-鿿]", message)
        assert message_of(error.value, EN, "1") == (str(error.value), "")
        said.append(str(error.value))
    unsaid = [pattern for pattern, _ in CHINESE if not any(re.search(pattern, one) for one in said)]
    assert not unsaid


def _causes_with_media() -> list[Any]:
    glm, picture = media_glm(), _url(image_bytes())
    limits = ServingSettings(max_media=2, max_media_bytes=40_000)
    asking = Asking(glm.model, glm.tokenizer, limits, glm.media)
    content = [{"type": "image_url", "image_url": picture}, {"type": "text", "text": "长" * 200}]
    large = Image.new("1", (9000, 9000))
    given: list[dict[str, Any]] = [
        {"images": [picture] * 3},
        {"images": "A" * 60_000},
        {"texts": "长" * 200, "images": picture},
        {"texts": "<|image|><|image|>", "images": picture},
        {"images": _url(wav_bytes())},
        {"images": _url(image_bytes(large))},
        {"audios": _url(wav_bytes(tone(seconds=0.005)))},
        {"audios": picture[:100]},
    ]
    chat = {"model": "x", "messages": [{"role": "user", "content": content}]}
    causes = [
        lambda one=one: asking.fill(FillRequest.model_validate({"texts": "看[MASK]", **one}))
        for one in given
    ]
    return [*causes, lambda: asking.chat(ChatRequest.model_validate(chat))]


def _url(data: bytes) -> str:
    return f"data:a/b;base64,{base64.b64encode(data).decode()}"


def _raise(error: Exception) -> None:
    raise error


def test_what_is_nobodys_own_is_not_told():
    for error, told in (
        (QueueFull(3.2), "约 4 秒"),
        (DeadlineExceeded(), "超过了服务器允许的时间"),
        (RuntimeError("secret: /home/someone"), "请求编号为 77"),
        (Mistake("请先写一段文本。"), "请先写一段文本。"),
        (glmkit.DataError("a mistake without Chinese"), "请检查输入内容"),
    ):
        message, details = message_of(error, ZH, "77")
        assert told in message
        assert "secret" not in message + details
        assert details == ("a mistake without Chinese" if "检查" in message else "")


def test_results_are_escaped_and_texts_kept(glm: glmkit.GLM):
    text = "<b>一</b> [MASK] & [MASK]。"
    prompt = build_prompt(glm.tokenizer, text, 320)
    for blanks in ([" <i>x</i>", ""], ["\n二\n", " 三"], ["", ""]):
        shown = showing.filled(EN, text, prompt, blanks, True)
        assert "<i>" not in shown
        assert "<b>" not in shown
        inside = re.search(r'<div class="text filled"[^>]*>(.*)</div></div>', shown, re.DOTALL)
        assert inside
        plain = re.sub("<[^>]*>", "", inside[1]).replace(EN("nothing"), "")
        assert plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == prompt.assemble(blanks)  # fmt: skip


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100.0%"), (0.987, "98.7%"), (0.001, "0.1%"), (0.00056, "0.056%"), (3.7e-5, "0.0037%"), (1e-9, "<0.000001%"), (0.0, "0.0%")],
)  # fmt: skip
def test_probabilities_are_readable(share: float, text: str):
    assert showing.percent(share) == text


def test_contents_too_improbable_for_a_float_are_shown():
    """The likeliest content of a long blank may have probability 0 as a float, and bars were divided by it."""
    shown = showing.alternatives(EN, 0, [("a long story", 0.0), ("another one", 0.0)])
    assert "a long story" in shown
    assert "width:0.0%" in shown

"""The page as a person uses it: each tab, both languages, mistakes, the keyboard; a real server, a real browser, glm-mini."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import glmkit
from browser_samples import Person, programs, served
from glmkit.tasks.task import load_task

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
]  # the first test waits for server, page and browser

KEY = "a-key-for-a-person"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ("--device", "cpu", "--requests-per-minute", "150")
    with served(log, "glm-mini", *options, GLMKIT_API_KEYS=KEY) as found:
        yield found
    text = log.read_text()
    assert "Traceback" not in text
    assert "ERROR" not in text, text


@pytest.fixture(scope="module")
def person(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody who reads Chinese and has logged in."""
    one = Person(tmp_path_factory.mktemp("browser"), "zh-CN")
    try:
        one.driver.get(address)
        one.one("#key").send_keys("not it\n")
        assert "密钥不正确" in one.one("[role=alert]").text
        one.one("#key").send_keys(KEY + "\n")
        one.one("#fill-run")
        assert one.driver.current_url == f"{address}/zh/"
        yield one
    finally:
        one.driver.quit()


@pytest.fixture(scope="module")
def glm() -> glmkit.GLM:
    return glmkit.load(device="cpu")


def test_blanks_are_filled_in_place_and_others_can_be_put_in(person: Person, glm: glmkit.GLM):
    person.tab("fill")
    person.all("#fill-examples button")[1].click()
    text = "白日依山尽，黄河入海[MASK]。"
    person.wait(lambda: text == person.one("#fill-text textarea").get_property("value"))
    filled = glm.fill(text, max_new_tokens=16)
    assert _plain(person.run("fill")) == _plain(filled.text)
    person.one("#fill-result .blank").click()
    likeliest = glm.fill(text, n=5, max_new_tokens=16).alternatives[0]
    rows = person.wait(lambda: person.all("#fill-likeliest .choice"))
    assert [row.get_attribute("data-content") for row in rows] == [text for text, _ in likeliest]
    assert re.fullmatch(r"\d+\.\d+%", person.all("#fill-likeliest .share")[0].text)
    rows[1].click()
    assert person.one("#fill-result .blank").text == likeliest[1][0]


@pytest.mark.slow
def test_blanks_obey(person: Person):
    person.tab("fill")
    person.type("fill-text", "今天天气很[MASK]。")
    person.one("#fill-control button").click()
    person.type("fill-choices", "热、冷，不错")
    assert person.run("fill") in ("今天天气很热。", "今天天气很冷。", "今天天气很不错。")
    person.one("#fill-result .blank").click()
    rows = person.wait(lambda: person.all("#fill-likeliest .choice"))
    assert {row.get_attribute("data-content") for row in rows} == {"热", "冷", "不错"}
    person.type("fill-choices", "")
    person.one("#fill-control button").click()


@pytest.mark.slow
def test_the_keyboard_is_enough(person: Person):
    """A mask where the cursor is, settings with Tab and Enter, Ctrl + Enter runs."""
    from selenium.webdriver.common.keys import Keys

    person.tab("fill")
    box = person.type("fill-text", "春眠觉晓")
    box.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    mask = person.all("#tab-fill .masks button")[0]
    mask.send_keys(Keys.ENTER)
    person.wait(lambda: box.get_property("value") == "春眠[MASK]觉晓", "a mask at the cursor")
    person.forget("fill")
    box.send_keys(Keys.CONTROL, Keys.ENTER)
    assert person.shown("fill").startswith("春眠")
    blank = person.one("#fill-result .blank")
    assert blank.get_attribute("aria-label").startswith("空白 1")
    box.send_keys(Keys.TAB)
    assert person.driver.switch_to.active_element.text == "插入 [MASK]"
    for field in person.all("#tab-fill textarea, #tab-fill input"):
        assert field.get_attribute("aria-label") or field.find_elements("xpath", "ancestor::label")


def test_mistakes_are_told_in_place_and_nothing_is_lost(person: Person):
    person.tab("fill")
    person.type("fill-text", "")
    assert "请先写一段文本" in person.run("fill")
    person.type("fill-text", "今天[MASK]")
    person.one("#fill-settings button").click()
    person.type("fill-temperature", "11")
    shown = person.run("fill")
    assert "temperature：11 太大，最多为 10" in shown
    assert person.one("#fill-result [role=alert]")
    assert person.one("#fill-text textarea").get_property("value") == "今天[MASK]"
    person.type("fill-temperature", "")
    person.one("#fill-settings button").click()
    assert person.run("fill").startswith("今天")


@pytest.mark.slow
def test_poems_keep_their_form(person: Person):
    person.tab("write", "poem")
    person.type("poem-acrostic", "春夏秋")
    assert "藏头“春夏秋”的字数不对" in person.run("poem")
    person.type("poem-acrostic", "春夏秋冬")
    lines = [line for line in person.run("poem").splitlines() if "，" in line]
    verses = re.split("[，。]", "".join(lines))[:4]
    assert [verse[0] for verse in verses] == list("春夏秋冬")
    assert {len(verse) for verse in verses} == {7}


@pytest.mark.slow
def test_articles_grow_and_can_be_stopped(person: Person):
    person.tab("write", "article")
    person.type("article-text", "人工智能与教育")
    assert person.run("article").startswith("人工智能与教育")
    person.wait(lambda: not person.all("#article-result .caret"))
    person.one("#article-settings button").click()
    person.type("article-most", "90000")
    person.type("article-least", "90000")
    person.run("article")
    person.wait(lambda: len(person.shown("article")) > 150, "an article that grows")
    person.one("#article-stop").click()
    person.wait(lambda: _still(person, "#article-result"), "an article that stands still")
    assert len(person.shown("article")) < 90_000


def _still(person: Person, selector: str) -> bool:
    import time

    before = person.one(selector).text
    time.sleep(0.7)
    return person.one(selector).text == before


def test_a_chat_remembers_and_is_cleared(person: Person, glm: glmkit.GLM):
    from selenium.webdriver.common.keys import Keys

    person.tab("chat")
    said = ["你好，今天过得怎么样？", "周末去哪里玩？"]
    replies = [glm.chat(said[0])]
    turns = [("user", said[0]), ("assistant", replies[0]), ("user", said[1])]
    replies.append(glm.chat([{"role": role, "content": text} for role, text in turns]))
    for number, text in enumerate(said):
        person.type("chat-said", text).send_keys(Keys.ENTER)
        person.wait(lambda n=number: replies[n] in person.one("#chat-log").text, replies[number])
    assert person.one("#chat-said textarea, #chat-said input").get_property("value") == ""
    person.one("#chat-run").click()
    assert "请先写一句话" in person.shown("chat")
    person.one("#chat-clear").click()
    person.wait(lambda: said[0] not in person.one("#chat-log").text, "an empty conversation")


@pytest.mark.slow
def test_texts_are_understood(person: Person, glm: glmkit.GLM):
    text = "房间很干净，服务也热情，下次还会再来。"
    person.tab("understand", "sentiment")
    person.type("sentiment-text", text)
    shown = person.run("sentiment")
    share = glm.sentiment(text).probabilities["positive"]
    assert shown.startswith("正面" if share > 0.5 else "负面")
    assert f"{100 * share:.1f}%" in shown
    assert "校准" in shown
    person.tab("topics")
    text = "主队加时险胜，球迷彻夜狂欢"
    person.type("topics-text", text)
    label = load_task("topics").labels[glm.classify(text, "topics").label]["zh"]
    assert person.run("topics").startswith(label)
    person.type("topics-labels", "科技、体育，财经")
    own = person.run("topics")
    assert all(label in own for label in ("科技", "体育", "财经"))
    assert "未校准" in own
    person.tab("summary")
    person.all("#summary-examples button")[0].click()
    assert person.run("summary")


@pytest.mark.slow
def test_an_answer_is_marked_in_its_text(person: Person, glm: glmkit.GLM):
    person.tab("understand", "answer")
    context = person.all("#answer-examples button")
    context[1].click()
    question = person.one("#answer-question textarea, #answer-question input")
    person.wait(lambda: question.get_property("value") == "李白被称为什么？")
    shown = person.run("answer")
    text = person.one("#answer-context textarea").get_property("value")
    expected = glm.answer("李白被称为什么？", text)
    if expected.text:
        assert shown.splitlines()[0] == expected.text == text[expected.start : expected.end]
        assert person.one("#answer-result mark").text == expected.text
    else:
        assert shown == "材料中没有答案。"


def test_evidence_is_shown_in_the_pages_language(person: Person, glm: glmkit.GLM):
    person.tab("explain")
    person.type("explain-text", "床前[MASK]光，疑是地上霜。")
    person.one("#explain-run").click()
    frame = person.one("#explain-result iframe")
    person.driver.switch_to.frame(frame)
    try:
        body = person.one("body").text
        assert "影响最大的部分" in body
        filled = glm.fill("床前[MASK]光，疑是地上霜。", max_new_tokens=8)
        assert _plain(filled.text) in _plain(body)
        assert str(Path(glmkit.__file__).parent) not in person.driver.page_source
    finally:
        person.driver.switch_to.default_content()


@pytest.mark.slow
def test_settings_are_compared_and_models_recommended(person: Person, glm: glmkit.GLM):
    person.tab("compare")
    person.type("compare-text", "春天来了，")
    person.one("#compare-run").click()
    sides = [
        glm.generate("春天来了，", max_new_tokens=64),
        glm.generate("春天来了，", max_new_tokens=64, do_sample=True, temperature=0.8, top_p=0.9, seed=1),
    ]  # fmt: skip
    for name, expected in zip(("side_a", "side_b"), sides, strict=True):
        person.wait(lambda n=name, e=expected: _plain(person.shown(f"compare-{n}")) == _plain(e), expected)  # fmt: skip
    person.tab("choose")
    person.type("choose-gpu", "1x24GB")
    person.type("choose-examples", "2000")
    shown = person.run("choose")
    assert "首选" in shown
    assert "glmkit finetune" in shown
    person.type("choose-gpu", "a toaster")
    assert "设备“a toaster”无法识别" in person.run("choose")


def _plain(text: str) -> str:
    return "".join(text.split())


def test_the_other_language_and_the_pages_own_server_alone(person: Person, address: str):
    """Last: all that the browser asked for was this server's, from the first page on."""
    person.one("#other-language").click()
    person.one("#fill-run")
    assert person.driver.current_url == f"{address}/en/"
    person.type("fill-text", "")
    assert "Write a text first" in person.run("fill")
    person.type("fill-text", "The river flows into the [MASK].")
    assert person.run("fill").startswith("The river flows into the")
    person.tab("understand", "answer")
    person.all("#answer-examples button")[0].click()
    assert re.search("probability|does not answer", person.run("answer"))
    person.driver.get(f"{address}/docs")
    person.one(".opblock-tag")
    assert person.hosts() == {urlsplit(address).netloc}
    errors = [one["message"] for one in person.driver.get_log("browser") if one["level"] == "SEVERE"]  # fmt: skip
    assert [
        one for one in errors if "/login" not in one
    ] == []  # the wrong key was answered with 401


@pytest.mark.slow
def test_limits_and_a_login_that_ended_are_told(person: Person, address: str):
    person.driver.get(f"{address}/zh/")
    person.one("#fill-run")
    person.type("fill-text", "今天[MASK]")
    person.driver.execute_async_script(
        """const done = arguments[arguments.length - 1];
        const spend = n => Promise.all([...Array(n).keys()].map(() => glmFetch('/zh/gradio_api/reset', {method: 'POST'})));
        spend(60).then(() => spend(60)).then(() => spend(60)).then(() => {
          window.spending = setInterval(() => spend(3), 200); done();
        });"""
    )
    person.wait(lambda: person.one("#fill-run").click() or person.all("#glm-told"), "too many")
    assert re.search(r"请 \d+ 秒后再试", person.one("#glm-told").text)
    person.driver.execute_script("clearInterval(window.spending)")
    person.driver.delete_cookie("glmkit_login")
    person.one("#fill-run").click()
    person.one("#key").send_keys(KEY + "\n")
    person.wait(lambda: person.all("#fill-run") or person.driver.refresh(), "the page again")


def test_a_phone_needs_no_sideways_scrolling(person: Person, address: str):
    person.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 375, "height": 740, "deviceScaleFactor": 1, "mobile": True})  # fmt: skip
    try:
        person.driver.get(f"{address}/zh/")
        person.one("#fill-run")
        width = "return document.documentElement.scrollWidth"
        assert person.driver.execute_script(width) <= 375
        person.all("#fill-examples button")[1].click()
        person.wait(lambda: person.one("#fill-text textarea").get_property("value"))
        person.run("fill")
        assert person.driver.execute_script(width) <= 375
    finally:
        person.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

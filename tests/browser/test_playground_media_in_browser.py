"""A picture and a clip on the page, as a person sends them: chosen, shown, asked about, explained; a tiny model that reads all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import glmkit
from browser_samples import Person, programs, served
from media_samples import clip_bytes, image_bytes, picture, write_media_model

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def choose(person: Person, place: str, path: Path, count: int) -> None:
    """Chooses a file in the browser's dialogue; waits until it is shown."""
    person.driver.find_element("css selector", f"#{place}-media input").send_keys(str(path))
    person.wait(lambda: len(person.all(f"#{place}-media .picked li")) == count, f"{count} chosen")


def test_a_picture_is_sent_shown_remembered_and_explained(tmp_path: Path):
    programs()
    pytest.importorskip("av")
    model = write_media_model(tmp_path / "model")
    image, clip, torn = (tmp_path / name for name in ("红.png", "a.mp4", "torn.png"))
    image.write_bytes(image_bytes(picture(size=(40, 30))))
    clip.write_bytes(clip_bytes())
    torn.write_bytes(image_bytes()[:50])
    glm = glmkit.load(model, device="cpu")
    with served(tmp_path / "log.txt", str(model), "--device", "cpu") as address:
        person = Person(tmp_path / "browser", "zh-CN")
        try:
            person.driver.get(address)
            person.tab("fill")
            assert "添加图片、声音、视频" in person.one("#fill-media").text
            choose(person, "fill", image, 1)
            person.type("fill-text", "看[MASK]")
            [blank] = glm.fill("看[MASK]", images=image, max_new_tokens=16).blanks
            assert _plain(blank) in _plain(person.run("fill"))
            person.driver.find_element("css selector", "#fill-media input").send_keys(str(tmp_path / "log.txt"))  # fmt: skip
            assert "此模型读不了“log.txt”这类文件" in person.one("#glm-told").text
            _chat(person, glm, image, clip, torn)
            person.tab("explain")
            choose(person, "explain", image, 1)
            person.type("explain-text", "看[MASK]")
            person.one("#explain-run").click()
            person.one("#explain-result iframe")
            assert len(person.all("#explain-result .heat .cells i")) == 3 * 4  # methods, rows
            assert person.hosts() == {address.removeprefix("http://")}
        finally:
            person.driver.quit()
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def _chat(person: Person, glm: glmkit.GLM, image: Path, clip: Path, torn: Path) -> None:
    person.tab("chat")
    choose(person, "chat", torn, 1)
    person.type("chat-said", "看")
    person.one("#chat-run").click()
    assert "文件无法解码、已损坏" in person.shown("chat")
    person.one("#chat-media .picked button").click()
    choose(person, "chat", image, 1)
    person.one("#chat-run").click()
    asked: list[Any] = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "看"}]}]  # fmt: skip
    reply = _streamed(glm, asked)
    person.wait(lambda: _plain(reply) in _plain(person.one("#chat-log").text), reply)
    assert len(person.all("#chat-log .medium img")) == 1
    person.wait(lambda: not person.all("#chat-media .picked li"), "nothing left to send")
    choose(person, "chat", clip, 1)
    person.type("chat-said", "再看")
    person.one("#chat-run").click()
    parts = [{"type": "video", "video": clip}, {"type": "text", "text": "再看"}]
    asked += [{"role": "assistant", "content": reply}, {"role": "user", "content": parts}]
    later = _streamed(glm, asked)
    person.wait(lambda: _plain(person.one("#chat-log").text).endswith(_plain(later)), later)
    assert len(person.all("#chat-log .medium")) == 2
    person.one("#chat-clear").click()
    person.wait(lambda: not person.all("#chat-log .medium"), "an empty conversation")
    assert not person.all("#chat-media .picked li")


def _streamed(glm: glmkit.GLM, messages: list[Any]) -> str:
    # A model that knows nothing writes lone bytes, which a stream shows otherwise than a whole text.
    return "".join(glm.chat(messages, stream=True)).strip()


def _plain(text: str) -> str:
    return "".join(text.split())

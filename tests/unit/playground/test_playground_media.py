"""Images, sounds and clips on the page: what the browser sends becomes the API's requests, and evidence becomes pictures."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from media_samples import PHOTOS, clip_bytes, image_bytes, media_glm, picture, wav_bytes

pytest.importorskip("gradio")
pytest.importorskip("av")

from glmkit.playground import chatting, explaining, filling  # noqa: E402
from glmkit.playground.controls import CONTROL, WRITING, Controls  # noqa: E402
from glmkit.playground.desk import Desk  # noqa: E402
from glmkit.playground.heat import heat_maps  # noqa: E402
from glmkit.playground.media import fields, picker, read_items, sending  # noqa: E402
from glmkit.playground.mistakes import Mistake  # noqa: E402
from glmkit.playground.running import Running  # noqa: E402
from glmkit.playground.words import Speaker  # noqa: E402
from glmkit.serving.server import Server  # noqa: E402
from glmkit.serving.settings import ServingSettings  # noqa: E402
from glmkit.tasks.task import load_task  # noqa: E402

URLS = {
    kind: f"data:{kind}/any;base64,{base64.b64encode(data).decode()}"
    for kind, data in (("image", image_bytes()), ("audio", wav_bytes()), ("video", clip_bytes()))
}
BLUE = f"data:image/png;base64,{base64.b64encode(image_bytes(picture((0, 0, 255)))).decode()}"


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    server = Server(media_glm(), ServingSettings(name="tiny", grace=0.0))
    yield Desk(server, Speaker(True), Running())
    server.close()


def sent(*urls: str, name: str = "a", thumb: str | None = None) -> str:
    kinds = [url[5:].split("/")[0] for url in urls]
    return json.dumps([{"kind": kind, "url": url, "name": name, "thumb": thumb} for kind, url in zip(kinds, urls, strict=True)])  # fmt: skip


def outputs(pieces: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [piece async for piece in pieces]

    return asyncio.run(collect())


def test_what_the_browser_sends_is_checked():
    items = read_items(sent(BLUE, URLS["audio"], URLS["image"]))
    assert fields(items) == {"images": [BLUE, URLS["image"]], "audios": [URLS["audio"]]}
    assert read_items("") == []
    chip = read_items(sent(BLUE, name='<b a="'))[0].chip()
    assert "<b" not in chip
    assert 'a="' not in chip
    for wrong in (
        sent("/etc/passwd/a"),
        sent(BLUE, thumb='data:image/png;base64,AA" onerror="alert(1)'),
        sent(BLUE, thumb="http://somewhere/a.png"),
        '[{"kind": "file", "url": "data:a"}]',
        "{",
    ):
        with pytest.raises(ValidationError):
            read_items(wrong)


def test_a_conversation_keeps_its_pictures(desk: Desk):
    """The reply is `glm.chat`'s; what is shown comes back, and the next turn is about the same picture and another."""
    controls = Controls(desk, "chat", WRITING)
    values = ["6", *[""] * (len(WRITING) - 1)]
    reply = outputs(chatting._reply(desk, controls, "看", [], "", *values, sent(BLUE)))
    asked: list[Any] = [
        {"role": "user", "content": [{"type": "image", "image": BLUE}, {"type": "text", "text": "看"}]}
    ]  # fmt: skip
    first = desk.glm.chat(asked, max_new_tokens=6)
    assert reply[-1][0][-1] == {"role": "assistant", "content": first}
    shown = reply[0][0][0]["content"]
    assert "medium" in shown[0].value
    # As the browser has it: a component, and a text.
    log = [
        {"role": "user", "content": [{"type": "component", "component": "html"}, {"type": "text", "text": "看"}]},
        {"role": "assistant", "content": [{"type": "text", "text": first}]},
    ]  # fmt: skip
    both = sent(BLUE, URLS["video"])
    reply = outputs(chatting._reply(desk, controls, "再看", log, "", *values, both))
    parts = [{"type": "video", "video": URLS["video"]}, {"type": "text", "text": "再看"}]
    asked += [{"role": "assistant", "content": first}, {"role": "user", "content": parts}]
    assert reply[-1][0][-1]["content"] == desk.glm.chat(asked, max_new_tokens=6)
    with pytest.raises(ValueError, match="damaged"):
        outputs(chatting._reply(desk, controls, "看", [], "", *values, sent(BLUE[:70])))


def test_blanks_are_filled_with_a_picture_in_view(desk: Desk):
    controls, limits = Controls(desk, "fill", WRITING), Controls(desk, "fill", CONTROL)
    values = ["4", *[""] * (len(WRITING) + len(CONTROL) - 1)]
    [(html, _)] = outputs(filling._fill(desk, controls, limits, "看[MASK]", *values, sent(BLUE)))
    [blank] = desk.glm.fill("看[MASK]", images=BLUE, max_new_tokens=4).blanks
    assert blank.strip() in re.sub("<[^|].*?>", "", html)


def test_where_nothing_is_read_nothing_is_offered(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    assert len(picker(desk, "fill")) == 1
    monkeypatch.setattr(desk.glm, "media", None)
    assert picker(desk, "fill") == []
    assert sending([], "fill") is None


def test_a_picture_is_shown_under_its_evidence(desk: Desk):
    pytest.importorskip("captum")
    glm, text = desk.glm, "看<|image|>听<|audio|>看<|video|>[MASK]"
    found = glm.explain(text, images=BLUE, audios=URLS["audio"], videos=URLS["video"], blanks=["大"], methods=["ablation", "attention_rollout"])  # fmt: skip
    html = heat_maps(Speaker(True), found, [BLUE])
    assert html.count("<figure") == 6
    assert html.count("background-image:url(data:image/webp") == 2
    cells = re.search(r"repeat\(2,1fr\).*?</div>", html)
    assert cells is not None
    values = found.evidence[0].media("ablation")["image 1"]
    assert re.findall('title="(.*?)"', cells[0]) == [f"{value:+.3f}" for value in values]
    assert "空白 1: 大" in html
    assert heat_maps(Speaker(True), glm.explain("看[MASK]", blanks=["大"], methods=["ablation"]), []) == ""  # fmt: skip


def explained(desk: Desk, text: str, what: str, stands: str, *urls: str) -> list[Any]:
    """Returns what the tab is to explain (a prompt or record) and the library's options, and checks that the tab shows it."""
    controls = Controls(desk, "explain", ("max_tokens",), {"max_tokens": 8})
    methods = ["attention_rollout"]
    [shown] = outputs(explaining._explain(desk, controls, text, what, stands, methods, "3", sent(*urls)))  # fmt: skip
    assert "<iframe" in shown
    assert shown.count('<figure class="heat">') == len(urls) * max(1, text.count("[MASK]"))
    task = explaining._own_tasks(desk).get(what)
    return [shown, *explaining._asked(desk, text, what, task, stands, {"max_tokens": 3}, read_items(sent(*urls)))]  # fmt: skip


def test_a_reply_about_a_picture_is_explained(desk: Desk):
    """A question without a blank, asked as in a chat; the answer is the reply that the chat would give, or one that is given."""
    asked: list[Any] = [{"role": "user", "content": [{"type": "image", "image": BLUE}, {"type": "text", "text": "看"}]}]  # fmt: skip
    shown, prompt, options = explained(desk, "看", "reply", "", BLUE)
    assert [run.kind for run in prompt.media] == ["image"]
    [evidence] = desk.glm.explain([prompt], methods=["attention_rollout"], **options)[0].evidence
    assert evidence.content.strip() == desk.glm.chat(asked, max_new_tokens=3)
    shown, prompt, options = explained(desk, "看", "reply", " 大 好 ", BLUE, URLS["audio"])
    assert options == {"blanks": [["大 好"]]}
    assert "空白 1: 大 好" in shown
    # A question alone, and blanks whose contents are given line by line.
    assert explained(desk, "看", "reply", "大")[2] == {"blanks": [["大"]]}
    assert explained(desk, "看[MASK]好[MASK]", "blanks", "大\n快", BLUE)[2] == {"blanks": [["大", "快"]]}  # fmt: skip
    with pytest.raises(Mistake, match="需要 2 行"):
        explained(desk, "看[MASK]好[MASK]", "blanks", "大", BLUE)


def test_the_label_of_a_picture_is_explained(desk: Desk, monkeypatch: Any, tmp_path: Path):
    """By a task that the model was fine-tuned for; its records are pictures, so that there need be no text."""
    (tmp_path / "photos.yaml").write_text(PHOTOS, encoding="utf-8")
    task = load_task(tmp_path / "photos.yaml")
    monkeypatch.setattr(desk.glm, "tasks", {"photos": task, "sentiment": load_task("sentiment")})
    assert [*explaining._own_tasks(desk)] == ["photos"]
    shown, record, options = explained(desk, "", "photos", "", BLUE)
    found = desk.glm.explain([record], methods=["attention_rollout"], **options)[0]
    expected = desk.glm.classify({"photo": BLUE}, task)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert f"<h3>{expected.label}: " in shown
    with pytest.raises(Mistake, match="情感与主题"):
        explained(desk, "看", "sentiment", "", BLUE)
    with pytest.raises(Mistake, match="文本"):
        explained(desk, "", "blanks", "", BLUE)

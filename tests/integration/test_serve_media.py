"""Images, sounds and clips over HTTP: a real server, the official client, a tiny model that reads all three."""

from __future__ import annotations

import base64
import concurrent.futures
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from glmkit.tasks.task import load_task
from media_samples import clip_bytes, image_bytes, media_glm, picture, wav_bytes
from serving_samples import Running, running
from understanding_samples import random_glm

openai = pytest.importorskip("openai")

PICTURE, SOUND = image_bytes(), wav_bytes()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{packed(data)}"


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    pytest.importorskip("av")
    limits = {"max_body_bytes": 20_000, "max_characters": 4_000, "max_media_bytes": 100_000}
    with running(media_glm(), max_media=4, log_text=True, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def http(one: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=one.address, timeout=30) as client:
        yield client


def test_the_official_client_sends_an_image_and_a_sound(
    one: Running, caplog: pytest.LogCaptureFixture
):
    """Whole and as a stream the reply is that of `glm.chat`; the log has sizes and no media."""
    client = openai.OpenAI(base_url=f"{one.address}/v1", api_key="none", max_retries=0)
    assert client.models.list().data[0].input_modalities == ["text", "image", "audio", "video"]
    parts = [
        {"type": "text", "text": "天气"},
        {"type": "image_url", "image_url": {"url": url(PICTURE), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": packed(SOUND), "format": "wav"}},
        {"type": "text", "text": "是什么？"},
    ]
    messages: list[Any] = [{"role": "user", "content": parts}]
    asked: Any = {"model": "tiny", "messages": messages, "max_tokens": 8, "extra_body": {"min_tokens": 8}}  # fmt: skip
    expected = one.glm.chat(messages, max_new_tokens=8, min_new_tokens=8)
    with caplog.at_level(logging.INFO, "glmkit.serving"):
        whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == expected
    assert whole.usage.prompt_tokens > len(one.glm.tokenizer("天气是什么？")["input_ids"]) + 4
    assert "bytes" in caplog.text
    assert packed(SOUND)[:200] not in caplog.text
    streamed = client.chat.completions.create(stream=True, **asked)
    assert "".join(piece.choices[0].delta.content or "" for piece in streamed) == expected
    without = [{"role": "user", "content": "".join(part.get("text", "") for part in parts)}]
    assert one.glm.chat(without, max_new_tokens=8, min_new_tokens=8) != expected
    later = [*messages, {"role": "assistant", "content": "红"}, {"role": "user", "content": [
        {"type": "video_url", "video_url": url(clip_bytes(), "video/mp4")}, {"type": "text", "text": "呢？"}]}]  # fmt: skip
    again = client.chat.completions.create(**{**asked, "messages": later})
    assert again.choices[0].message.content == one.glm.chat(later, max_new_tokens=8, min_new_tokens=8)  # fmt: skip


def test_own_routes_give_what_the_methods_give(one: Running, http: httpx.Client):
    texts = ["你好[MASK]", "先<|video|>后<|image|>[MASK]"]
    images, videos = [PICTURE, image_bytes(picture((0, 0, 255)))], [None, clip_bytes()]
    sent = {"images": [url(images[0]), packed(images[1])], "videos": [None, [packed(clip_bytes())]]}
    glm, most = one.glm, {"max_new_tokens": 5}
    for n in (None, 2):
        body = {"texts": texts, "max_tokens": 5, "n": n, **sent}
        data = http.post("/v1/fill", json=body).json()["data"]
        found = glm.fill(texts, images=images, videos=videos, n=n, **most)
        assert [each["text"] for each in data] == [each.text for each in found]
        assert [each["scores"] for each in data] == [pytest.approx(each.scores) for each in found]
    body = {"model": "tiny", "prompt": "你好", "audios": packed(SOUND), "max_tokens": 5}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == glm.generate("你好", audios=SOUND, **most)
    pytest.importorskip("captum")
    body = {
        "texts": "你好[MASK]",
        "blanks": ["大"],
        "images": packed(PICTURE),
        "methods": ["ablation"],
    }
    evidence = http.post("/v1/explain", json=body).json()["data"][0]["evidence"][0]
    expected = glm.explain("你好[MASK]", blanks=["大"], images=PICTURE, methods=["ablation"])
    assert [unit["index"] for unit in evidence["units"] if unit["source"] == "image 1"] == [0, 1, 2, 3]  # fmt: skip
    values = expected.evidence[0].attributions["ablation"].values.tolist()
    assert evidence["attributions"]["ablation"]["values"] == pytest.approx(values)


def test_no_file_of_the_server_and_no_address_is_opened(
    one: Running, http: httpx.Client, tmp_path: Path
):
    """A picture lies there, and its path (also one that is base64 by chance) is refused."""
    paths = [tmp_path / name for name in ("picture.png", "abcd")]
    for path in paths:
        path.write_bytes(PICTURE)
    while len(str(paths[1])) % 4:
        paths[1] = paths[1].rename(f"{paths[1]}a")
    given = [
        *map(str, paths),
        paths[0].as_uri(),
        f"{one.address}/healthz",
        "http://127.0.0.1/a.png",
    ]
    for source in given:
        answers = [
            http.post("/v1/fill", json={"texts": "[MASK]", "images": source}),
            http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "images": [source]}),
            http.post("/v1/explain", json={"texts": "[MASK]", "videos": source}),
        ]
        for kind in ("image_url", "audio_url", "video_url"):
            content = [{"type": kind, kind: {"url": source}}]
            body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
            answers.append(http.post("/v1/chat/completions", json=body))
        for answer in answers:
            assert answer.status_code == 400, answer.text
            message = answer.json()["error"]["message"]
            assert "opens no files" in message or "bytes is no" in message or "cannot be decoded" in message, message  # fmt: skip
    assert "opens no files" in http.post("/v1/fill", json={"texts": "a", "images": given[0]}).text


def test_a_text_is_never_the_path_of_a_tasks_picture(one: Running, http: httpx.Client, tmp_path: Path, monkeypatch: Any):  # fmt: skip
    """A model may be fine-tuned for a task whose only field is a picture."""
    (tmp_path / "animals.yaml").write_text(ANIMALS, encoding="utf-8")
    (tmp_path / "a.png").write_bytes(PICTURE)
    monkeypatch.setattr(one.glm, "tasks", {"animals": load_task(tmp_path / "animals.yaml")})
    path = str(tmp_path / "a.png")
    assert one.glm.classify([{"photo": path}])[0].label in ("cat", "dog")
    for route, body in (("classify", {}), ("classify", {"task": "animals"}), ("explain", {"task": "animals"})):  # fmt: skip
        answer = http.post(f"/v1/{route}", json={"texts": [path], **body})
        assert answer.status_code == 400
        assert "takes records with photo" in answer.json()["error"]["message"]


ANIMALS = """name: animals
kind: classification
metric: accuracy
media: {photo: image}
fields: {photo: a picture, kind: the label}
label: kind
labels: {cat: {zh: 猫}, dog: {zh: 狗}}
patterns: {zh: ["{media}是[MASK]。"]}
"""

BAD: list[tuple[str, int, dict[str, Any]]] = [
    ("is no image", 400, {"images": packed(SOUND)}),
    ("cannot be decoded", 400, {"audios": packed(PICTURE[:60])}),
    ("base64 is damaged", 400, {"images": "data:image/png;base64,@@@"}),
    ("not base64", 400, {"images": "data:image/png,abc"}),
    ("at least 1 character", 400, {"images": ""}),
    ("'a'", 400, {"images": [packed(PICTURE), "a"]}),
    ("valid string", 400, {"images": [[3]]}),
    ("more than 4 images", 400, {"images": [packed(PICTURE)] * 5}),
    ("for 1 of 2 texts", 400, {"texts": ["a", "b"], "images": [packed(PICTURE)]}),
    ("names other media", 400, {"texts": "<|image|><|image|>", "images": packed(PICTURE)}),
    ("the model reads 128", 400, {"texts": "天" * 130, "images": packed(PICTURE)}),
    ("go with blanks", 400, {"images": packed(PICTURE), "labels": ["a", "b"]}),
    ("more than 100,000 bytes", 413, {"images": "A" * 140_000}),
    ("larger than", 413, {"images": "A" * 400_000}),
    ("beside its images", 413, {"texts": "天" * 8_000, "images": packed(PICTURE)}),
]


@pytest.mark.parametrize(("words", "status", "fields"), BAD, ids=range(len(BAD)))
def test_mistakes_are_the_clients(http: httpx.Client, words: str, status: int, fields: Any):
    path = "/v1/explain" if "labels" in fields else "/v1/fill"
    answer = http.post(path, json={"texts": "你好[MASK]", **fields})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_parts_are_checked_one_by_one(http: httpx.Client):
    def refused(role: str, *parts: Any) -> str:
        messages = [{"role": role, "content": list(parts)}, {"role": "user", "content": "a"}]
        answer = http.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})
        assert answer.status_code == 400
        return str(answer.json()["error"]["message"])

    image = {"type": "image_url", "image_url": {"url": url(PICTURE)}}
    assert "only what the user says may have any" in refused("system", image)
    assert "'text', 'image_url', 'input_audio'" in refused("user", {"type": "image"})
    wrong = {"type": "image_url", "image_url": {"url": 3}}
    assert "messages.0.content.1.image_url.url" in refused("user", image, wrong)


def test_texts_do_not_wait_for_media(one: Running, http: httpx.Client, monkeypatch: Any):
    go, inside, rows = threading.Event(), threading.Event(), one.glm.media.rows

    def slow(media: Any) -> Any:
        inside.set()
        assert go.wait(20)
        return rows(media)

    monkeypatch.setattr(one.glm.media, "rows", slow)
    body = {"texts": "你好[MASK]", "max_tokens": 4}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, "/v1/fill", json={**body, "images": packed(PICTURE)})
        try:
            assert inside.wait(20)
            assert http.post("/v1/fill", json=body).status_code == 200
            assert not waiting.done()
        finally:
            go.set()
        assert waiting.result().status_code == 200


def test_a_model_that_reads_none_says_so():
    with running(random_glm(), max_body_bytes=20_000) as server:
        client = httpx.Client(base_url=server.address)
        assert client.get("/v1/models").json()["data"][0]["input_modalities"] == ["text"]
        answer = client.post("/v1/fill", json={"texts": "[MASK]", "images": packed(PICTURE)})
        assert answer.status_code == 400
        assert "a model that reads no media" in answer.json()["error"]["message"]
        large = client.post("/v1/fill", json={"texts": "[MASK]", "images": "A" * 30_000})
        assert large.status_code == 413  # nothing is larger than texts are

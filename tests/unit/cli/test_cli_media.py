"""Images, sounds and clips on the command line: fill, generate, chat, explain and info, with a tiny model that reads all three."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.cli import chatting
from glmkit.cli.main import build_app
from glmkit.errors import MediaError
from media_samples import PHOTOS, clip_bytes, image_bytes, picture, wav_bytes, write_media_model

pytest.importorskip("av")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media_model(tmp_path_factory.mktemp("media") / "model")


@pytest.fixture(scope="module")
def glm(model: Path) -> glmkit.GLM:
    return glmkit.load(model, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    data = {"红.png": image_bytes(), "blue.png": image_bytes(picture((0, 0, 255))), "a.wav": wav_bytes(), "a.mp4": clip_bytes()}  # fmt: skip
    for name, some in data.items():
        (folder / name).write_bytes(some)
    return {Path(name).stem + Path(name).suffix: str(folder / name) for name in data}


@pytest.fixture
def run(model: Path, glm: glmkit.GLM, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("glmkit.api.load", lambda *_, **__: glm)
    monkeypatch.setenv("GLMKIT_LANG", "en")

    def invoke(*arguments: str, text: str | None = None) -> Result:
        given = [*arguments, "-m", str(model)] if arguments[0] != "info" else list(arguments)
        return CliRunner().invoke(build_app(), given, input=text)

    return invoke


def lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def test_texts_have_their_media(run: Any, glm: glmkit.GLM, files: dict[str, str]):
    """One text has all of them; of several texts each has its own, or all the same."""
    image, sound, clip = files["红.png"], files["a.wav"], files["a.mp4"]
    short = ("--max-new-tokens", "4", "--json")
    text = "先<|audio|>后<|image|>再<|video|>[MASK]"
    options = ("--image", image, "--audio", sound, "--video", clip)
    [found] = lines(run("fill", text, *options, *short))
    expected = glm.fill(text, images=image, audios=sound, videos=clip, max_new_tokens=4)
    assert found["text"] == expected.text
    texts, images = ["甲[MASK]", "乙[MASK]"], [image, files["blue.png"]]
    own = lines(run("fill", *short, "--image", images[0], "--image", images[1], text="\n".join(texts)))  # fmt: skip
    found = glm.fill(texts, images=images, max_new_tokens=4)
    assert [one["scores"] for one in own] == [pytest.approx(one.scores) for one in found]
    same = lines(run("generate", *texts, "--image", image, *short))
    assert [one["text"] for one in same] == glm.generate(texts, images=[image] * 2, max_new_tokens=4)  # fmt: skip
    streamed = run("generate", texts[0], "--image", image, "--max-new-tokens", "4").output
    assert streamed.strip() == same[0]["text"].strip()


def test_a_conversation_is_about_a_picture(run: Any, glm: glmkit.GLM, files: dict[str, str]):
    image, clip = files["红.png"], files["a.mp4"]
    short = ("--max-new-tokens", "5", "--json")
    replies = lines(run("chat", "这是什么？", "还有呢？", "--image", image, *short))
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "这是什么？"}]}
    ]  # fmt: skip
    for said, reply in zip(("这是什么？", "还有呢？"), replies, strict=True):
        assert reply["user"] == said
        assert reply["reply"] == glm.chat(messages, max_new_tokens=5)
        messages += [{"role": "assistant", "content": reply["reply"]}, {"role": "user", "content": "还有呢？"}]  # fmt: skip
    assert replies[0]["images"] == [image]
    assert "images" not in replies[1]
    typed = f"你好\n/reset\n/image '{image}'\n/video {clip}\n看\n/quit\n不说\n"
    _, seen = lines(run("chat", *short, text=typed))
    assert (seen["images"], seen["videos"]) == ([image], [clip])
    parts = [{"type": "image", "image": image}, {"type": "video", "video": clip}, {"type": "text", "text": "看"}]  # fmt: skip
    assert seen["reply"] == glm.chat([{"role": "user", "content": parts}], max_new_tokens=5)


def test_a_mistake_ends_no_conversation_at_a_terminal(run: Any, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # fmt: skip
    torn = tmp_path / "torn.png"
    torn.write_bytes(image_bytes()[:40])
    typed = iter(
        ["/image nothing.png", f"/image {torn}", "看", f"/image {files['红.png']}", "再看"]
    )

    def type_one(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(chatting, "sys", type("sys", (), {"stdin": Terminal(), "stdout": sys.stdout}))  # fmt: skip
    monkeypatch.setattr("builtins.input", type_one)
    result = run("chat", "--max-new-tokens", "4")
    assert result.exit_code == 0, result.output
    assert "/image /audio /video PATH goes with what you say next" in result.output
    assert "'nothing.png' cannot be read: No such file" in result.output
    assert "torn.png" in result.output
    assert result.output.count("GLM  ") >= 1


def test_evidence_names_the_rows(run: Any, files: dict[str, str], tmp_path: Path):
    pytest.importorskip("captum")
    [data] = lines(run("explain", "看[MASK]", "--image", files["红.png"], "--method", "ablation", "--blank", "大", "--json"))  # fmt: skip
    units = data["evidence"][0]["units"]
    assert [one["index"] for one in units if one["source"] == "image 1"] == [0, 1, 2, 3]
    (tmp_path / "photos.yaml").write_text(PHOTOS, encoding="utf-8")
    task = ("--task", str(tmp_path / "photos.yaml"), "--image", files["红.png"])
    [found] = lines(run("classify", "", *task, "--json"))
    [data] = lines(run("explain", "", *task, "--method", "ablation", "--json"))
    assert data["probabilities"] == pytest.approx(found["probabilities"], abs=1e-5)
    assert [one["index"] for one in data["evidence"][0]["units"]] == [0, 1, 2, 3]
    several = lines(run("classify", *task, "--image", files["blue.png"], "--json", text="\n\n"))
    assert several[0]["probabilities"] == pytest.approx(found["probabilities"], abs=1e-5)
    assert several[1]["probabilities"] != several[0]["probabilities"]


def test_info_says_what_a_model_reads(run: Any, model: Path):
    assert run("info", str(model), "--json").exit_code == 0
    assert lines(run("info", str(model), "--json"))[0]["reads"] == "text, image, audio, video"
    plain = lines(run("info", str(golden_folder("tiny-chinese").path), "--json"))[0]
    assert plain["reads"] == "text"


def test_mistakes_are_said(run: Any, glm: glmkit.GLM, files: dict[str, str], monkeypatch: Any):
    image = files["红.png"]
    for words, *arguments in (
        ("--image: the image 'x.png' cannot be read: No such", "fill", "a", "--image", "x.png"),
        ("is an address in the network", "chat", "a", "--image", "http://127.0.0.1/a.png"),
        ("3 texts and --audio was given 2 times", "fill", "a", "b", "c", *["--audio", files["a.wav"]] * 2),
        ("is no image", "generate", "a", "--image", files["a.wav"]),
        ("names other media", "fill", "<|image|><|image|>a", "--image", image),
        ("has no field for image", "explain", "a", "--labels", "a,b", "--image", image),
    ):  # fmt: skip
        result = run(*arguments)
        assert isinstance(result.exception, MediaError), result.output
        assert words in str(result.exception)
    result = run("fill", "a", *["--image", image] * 40)
    assert "the model reads 128" in str(result.exception)
    monkeypatch.setattr(glm, "media", None)
    assert "reads no media" in str(run("fill", "a", "--image", image).exception)

"""`recipes/multimodal`: what encoders and the first lesson are taught is what the media contain."""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

import glmkit
from glmkit import GLMForConditionalGeneration
from glmkit.multimodal.building import build_media
from glmkit.multimodal.modeling import GLMForMultimodalGeneration

pytest.importorskip("PIL")
RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "multimodal"


@pytest.fixture(scope="module")
def recipe() -> Iterator[SimpleNamespace]:
    """The scripts, imported as they import each other."""
    sys.path.insert(0, str(RECIPE))
    names = (
        "scenes",
        "sounds",
        "describe",
        "pretrain_encoders",
        "make_data",
        "small_glm",
        "lessons",
        "decoded",
    )
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(RECIPE))


def item(colour: str, shape: str, size: str, x: float, y: float) -> dict:
    return {"colour": colour, "shape": shape, "size": size, "x": x, "y": y}


SCENE = {"shapes": [item("red", "ring", "big", 40, 20), item("cyan", "star", "small", 10, 50), item("red", "star", "big", 55, 60)]}  # fmt: skip
BEEPS = {"type": "beeps", "pitch": "low", "timbre": "square", "count": 2, "sequence": "rising", "tempo": "slow", "notes": [350.0, 700.0], "start": 0.5, "interval": 0.4, "length": 0.2}  # fmt: skip
DIGIT = {"type": "digit", "digit": 7, "spoken_language": "zh"}


def test_descriptions_say_everything(recipe):
    answers = {
        (one["kind"], one["language"]): one["answer"]
        for kind, scene in (("image", SCENE), ("audio", BEEPS))
        for one in recipe.describe.dense(kind, {"scene": scene})
    }
    assert answers == {
        ("image.list", "zh"): "青色小星形左下，红色大环形中上，红色大星形右下",
        ("image.list", "en"): "cyan small star bottom left, red big ring top middle, red big star bottom right",
        ("image.count", "zh"): "三个，青色一个，红色两个，环形一个，星形两个",
        ("image.count", "en"): "three, cyan one, red two, ring one, star two",
        ("image.relations", "zh"): "青色星形在红色环形下，红色环形在红色星形上，红色星形在青色星形右",
        ("image.relations", "en"): "cyan star below red ring, red ring above red star, red star right cyan star",
        ("audio.list", "zh"): "低音，方波，慢，上升，两声",
        ("audio.list", "en"): "low, square, slow, rising, two",
        ("audio.count", "zh"): "一声，两声上升",
        ("audio.count", "en"): "one, two rising",
    }  # fmt: skip
    way = [[10 + 4 * step, 20] for step in range(12)]
    mover = {"colour": "pink", "shape": "cross", "direction": "right", "speed": "fast", "way": way}
    [chinese, english] = recipe.describe.dense("video", {"scene": {"shapes": [mover]}})
    assert chinese["answer"] == "粉色十字左上中上右上向右快"
    assert english["answer"] == "pink cross top left top middle top right right fast"
    [said] = [one["answer"] for one in recipe.describe.dense("audio", {"scene": DIGIT})][1:]
    assert said == "Chinese, seven"


def test_each_cell_and_frame_has_what_is_there(recipe):
    found = recipe.pretrain_encoders.cells(SCENE, 4)
    colours, shapes = list(recipe.scenes.COLOURS), recipe.scenes.SHAPES
    there = {1 * 4 + 2: ("red", "ring"), 3 * 4 + 0: ("cyan", "star"), 3 * 4 + 3: ("red", "star")}
    assert set(np.flatnonzero(found["there"])) == set(there)
    for cell, (colour, shape) in there.items():
        assert found["colour"][cell] == colours.index(colour)
        assert found["shape"][cell] == shapes.index(shape)
    assert found["place"][6].tolist() == [0.0, -0.25]
    assert np.isnan(found["place"][0]).all()

    found = recipe.pretrain_encoders.frames(BEEPS, 20, 2.0)  # 0.1 s each
    assert found["number"].tolist() == [-1] * 5 + [0, 0, -1, -1, 1, 1] + [-1] * 9
    assert set(found["timbre"][found["there"] == 1]) == {recipe.sounds.TIMBRES.index("square")}
    assert found["tempo"].tolist() == [-1] * 9 + [2, 2] + [-1] * 9
    assert found["place"][9, 0] - found["place"][5, 0] == pytest.approx(1.0)  # an octave
    assert found["place"][9, 1] == pytest.approx(np.log2(0.4 / 0.3))
    assert np.isnan(found["place"][5, 1])  # of a single beep nobody knows the tempo
    found = recipe.pretrain_encoders.frames(DIGIT, 20, 2.0)
    assert found["digit"].tolist() == [7]
    assert (found["there"] == -1).all()


def test_a_mirrored_picture_has_mirrored_targets(recipe):
    scenes = recipe.pretrain_encoders
    mirror = {"shapes": [one | {"x": 64 - one["x"]} for one in SCENE["shapes"]]}
    values = torch.arange(2 * 64).view(1, 1, 1, 128).repeat(2, 3, 2, 1)[..., :64].float()
    targets = {name: torch.from_numpy(np.stack([one] * 2)) for name, one in scenes.cells(SCENE, 4).items()}  # fmt: skip
    flipped = values[0].flip(-1)
    scenes.mirrored(values, targets)
    assert torch.equal(values[0], flipped)
    assert torch.equal(values[1].flip(-1), flipped)
    for name, expected in scenes.cells(mirror, 4).items():
        assert np.array_equal(targets[name][0].numpy(), expected, equal_nan=True)
        assert np.array_equal(
            targets[name][1].numpy(), scenes.cells(SCENE, 4)[name], equal_nan=True
        )


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_an_encoder_learns_and_is_read_as_a_checkpoint(recipe, kind, tmp_path):
    from glmkit.multimodal.encoders import published_encoder

    lessons = recipe.pretrain_encoders
    torch.manual_seed(0)
    learner = lessons.Learner(kind)
    if kind == "image":
        image = recipe.scenes.draw(recipe.scenes.sample(np.random.default_rng(0)), np.random.default_rng(0))  # fmt: skip
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        truth = lessons.cells(SCENE, 4)
    else:
        values, truth = torch.randn(1, 64, 200), lessons.frames(BEEPS, 100, 2.0)
    targets = {name: torch.from_numpy(one)[None] for name, one in truth.items()}
    optimizer = torch.optim.AdamW(learner.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        losses.append(learner.loss(values, targets))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    lessons.save_encoder(learner.media, kind, tmp_path / kind)
    _, encoder, prepared = published_encoder(str(tmp_path / kind), kind)
    assert prepared
    for name, one in learner.encoder.model.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], one)


@pytest.fixture(scope="module")
def taught(recipe, tmp_path_factory) -> Path:
    """A folder with data, encoders, a small GLM and what it learnt in a few steps."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("taught")
    counts = ("--images", 8, "--sounds", 8, "--clips", 4, "--valid", 4, "--heldout", 3)
    runner = CliRunner()
    runner.invoke(recipe.make_data.app, [str(folder / "data"), *map(str, counts)])
    for script, arguments in (
        ("describe", ["data"]),
        ("small_glm", ["data", "small", "64", "1"]),
        ("pretrain_encoders", ["data", "encoders", "image"]),
        ("pretrain_encoders", ["data", "encoders", "audio"]),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [script, *arguments])
            patch.setattr(recipe.pretrain_encoders, "BATCH", 4)
            patch.setattr(recipe.pretrain_encoders, "EPOCHS", {"image": 1, "audio": 1})
            getattr(recipe, script).main()
    return folder


def teach(recipe, folder: Path, out: str, *options: object, model: str = "small") -> str:
    names = [str(folder / name) for name in (model, "data", "encoders", out)]
    result = CliRunner().invoke(recipe.lessons.app, [*names, *map(str, options)], catch_exceptions=False)  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.output


def test_a_lesson_teaches_what_the_model_then_answers(recipe, taught, monkeypatch):
    monkeypatch.setattr(recipe.lessons, "WARMUP_STEPS", 5)
    said = teach(recipe, taught, "model", "--steps", 80, "--rows", 24, "--learning-rate", 5e-3)
    assert "weights learn" in said
    # What was counted as right, token by token, is what the model writes.
    glm = glmkit.load(taught / "model", device="cpu")
    assert glm.media.kinds == ("image", "audio", "video")
    data = taught / "data"
    lessons = recipe.lessons
    paths = lessons.paths_of(data, "video", "train")
    read = lessons.read(data / "video.train.jsonl", paths, glm.tokenizer, glm.media.model.rows("video"), 1)  # fmt: skip
    decoded = lessons.decode(glm.media.model, "video", paths)
    model = GLMForMultimodalGeneration.from_pretrained(taught / "model")
    features = {"video.train": lessons.encoded(model.media, "video", decoded, torch.device("cpu"))}
    learner = lessons.Learner(model, features, torch.optim.AdamW(model.parameters()), torch.device("cpu"))  # fmt: skip
    counted = learner.right("video", "train", read)
    lines = [json.loads(line) for line in (data / "video.train.jsonl").read_text().splitlines()]
    written = defaultdict(list)
    for line in lines:
        for one in line["questions"]:
            asks, answers = ("甲：", "乙：") if one["language"] == "zh" else ("A: ", "B: ")
            text = f"<|video|>{asks}{one['question']}\n{answers}[sMASK]"
            answer = glm.generate(text, videos=str(data / line["video"]), max_new_tokens=48)
            written[one["kind"]].append(str(answer) == one["answer"])
    assert {kind: round(float(np.mean(some)), 3) for kind, some in written.items()} == counted
    assert max(counted.values()) > 0.2


def test_kinds_in_passes_of_their_own_are_a_step_of_all_together(recipe, taught):
    lessons, kinds, cpu = recipe.lessons, ("image", "video"), torch.device("cpu")
    glm = GLMForConditionalGeneration.from_pretrained(taught / "small", dtype="float32")
    media = build_media(lessons.settings_of(kinds, taught / "encoders"), kinds, glm)
    tokenizer = glmkit.GLMTokenizer.from_pretrained(taught / "small")
    features, questions = {}, {}
    for kind in kinds:
        paths = lessons.paths_of(taught / "data", kind, "train")
        features[f"{kind}.train"] = lessons.encoded(
            media, kind, lessons.decode(media, kind, paths), cpu
        )
        questions[kind] = lessons.read(taught / "data" / f"{kind}.train.jsonl", paths, tokenizer, media.rows(kind), 1)  # fmt: skip
    model = GLMForMultimodalGeneration.of(glm, media)
    media.train_parts(("projector",))
    weights = [one for one in model.parameters() if one.requires_grad]
    learner = lessons.Learner(model, features, torch.optim.SGD(weights, lr=0.0), cpu)
    lesson = lessons.Lesson(learner, questions, dict.fromkeys(kinds, 5))
    lesson.step()
    apart = [one.grad.clone() for one in weights]

    whole = {
        kind: ("train", {name: one[lesson.chosen[kind]] for name, one in questions[kind].tensors.items()})
        for kind in kinds
    }  # fmt: skip
    learner.optimizer.zero_grad()
    logits, targets = learner.logits(whole)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    assert lesson.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for ours, one in zip(apart, weights, strict=True):
        torch.testing.assert_close(ours, one.grad, rtol=1e-4, atol=1e-6)


def test_a_pass_over_the_questions_takes_each_once_and_is_as_long_as_its_longest_row(recipe):
    lessons, length = recipe.lessons, torch.randint(5, 60, (96,))
    shapes = {"input_ids": (96, 64), "position_ids": (96, 2, 64), "length": ()}
    tensors = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}
    questions = lessons.Questions({**tensors, "length": length}, np.full(96, "colour"))
    learner = SimpleNamespace(device=torch.device("cpu"))
    lesson = lessons.Lesson(learner, {"image": questions}, {"image": 8})
    passes = [[next(lesson.orders["image"]) for _ in range(12)] for _ in range(2)]
    for parts in passes:
        assert sorted(torch.cat(parts).tolist()) == list(range(96))
    first, second = (torch.cat(parts).tolist() for parts in passes)
    assert first != second
    padded = sum(8 * int(length[part].max()) for part in passes[0])
    assert length.sum() <= padded < 8 * sum(int(one.max()) for one in length.split(8))
    for part in passes[0]:
        lesson.chosen["image"].copy_(part)
        _, some = lesson._parts()["image"]
        assert some["input_ids"].shape == (8, length[part].max())
        assert some["position_ids"].shape == (8, 2, length[part].max())


def test_questions_of_a_step_are_shared_or_said_for_each_kind(recipe):
    kinds = ["image", "audio", "video"]
    assert recipe.lessons.shares_of("384", kinds) == dict.fromkeys(kinds, 128)
    assert recipe.lessons.shares_of("40,72,48", kinds) == {"image": 40, "audio": 72, "video": 48}
    for wrong in ("2", "40,72", "40,0,8", "40,x,8", "many", "-3", ""):
        with pytest.raises(typer.BadParameter, match="or 3 with commas, for image, audio, video"):
            recipe.lessons.shares_of(wrong, kinds)


def test_a_lesson_of_an_adapter_changes_nothing_else(recipe, taught):
    teach(recipe, taught, "adapter", "--steps", 3, "--rows", 4, "--only", "image", "--lora", 2)
    names = {path.name for path in (taught / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "media"} <= names
    assert "model.safetensors" not in names
    assert glmkit.load(taught / "adapter", device="cpu").media.kinds == ("image",)
    before = load_file(taught / "adapter" / "adapter_model.safetensors")
    projector = load_file(taught / "adapter" / "media" / "model.safetensors")
    taught_on = ("--steps", 2, "--rows", 4, "--only", "image", "--learning-rate", 0)
    assert "weights learn" in teach(recipe, taught, "again", *taught_on, model="adapter")
    after = load_file(taught / "again" / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], one) for name, one in before.items())
    again = load_file(taught / "again" / "media" / "model.safetensors")
    assert all(torch.equal(again[name], one) for name, one in projector.items())


def test_the_rate_of_a_lesson_goes_up_and_down(recipe):
    rate = recipe.lessons.rate_of
    assert rate(0, 0.0, 3.0) == pytest.approx(0.01)
    assert rate(5000, 0.5, 3.0) == 3.0
    assert rate(5000, 0.85, 3.0) == pytest.approx(1.5)
    assert rate(9000, 1.0, 3.0) == 0.0

"""Fine-tuning on pictures, sounds and clips, end to end on a tiny model: it learns to see, in stages, and goes on to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_samples import base_model, kill_at, make_config, write_jsonl
from pretrain_samples import curve

import glmkit
from glmkit.errors import ConfigError, MediaError
from glmkit.evaluation.tasks import evaluate_task
from glmkit.multimodal.modeling import GLMForMultimodalGeneration, load_media
from glmkit.tasks.records import read_questions
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_trainer import read_weights
from media_samples import TINY, image_bytes, picture, write_sound_and_clip

RED, BLUE = "好吃", "很脏"

MEDIA = {kind: dict(fields) for kind, fields in TINY.items()}


def pictures(folder: Path, count: int, seed: int, name: str) -> Path:
    """Writes pictures that are more or less red or blue, and what is said about them."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        color = np.array(((220, 30, 30), (30, 30, 220))[number % 2]) + rng.integers(-25, 25, 3)
        path = f"{name}{number}.png"
        (folder / path).write_bytes(image_bytes(picture(tuple(color.tolist()), (16, 18))))
        records.append({"image": path, "question": "味道？", "answer": (RED, BLUE)[number % 2]})
    return write_jsonl(folder / f"{name}.jsonl", records)


base = base_model(initializer_range=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    pictures(folder, 48, 0, "train")
    pictures(folder, 24, 1, "valid")
    write_sound_and_clip(folder)
    more = [
        {"audio": "a.wav", "text": "很快"},
        {"video": "a.mp4", "image": "train0.png", "question": "今天？", "answer": "喜欢"},
        {"question": "我们？", "answer": "干净"},
        {"image": ["train0.png", "train1.png"], "question": "<|image|>，<|image|>？", "answer": "太慢"},
    ]  # fmt: skip
    write_jsonl(folder / "mixed.jsonl", more * 3)
    return folder


def config_of(model: Path, run: Path, data: Path, *, train=("train",), sections=None, **trainer):
    task = {
        "train": [str(data / f"{name}.jsonl") for name in train],
        "valid": [str(data / "valid.jsonl")],
    }
    return make_config(model, run, {"multimodal": task}, sections, **trainer)


def accuracy(glm, data: Path) -> float:
    task = load_task("multimodal")
    records = list(read_questions(task, data / "valid.jsonl"))
    result, _ = evaluate_task(glm, task, records)
    return result.metrics["exact_match"].value


@pytest.fixture(scope="module")
def learnt(base, data, tmp_path_factory):
    """A run in which everything is trained."""
    run = tmp_path_factory.mktemp("learnt") / "run"
    sections = {"media": {"image": MEDIA["image"]}}
    return finetune(config_of(base, run, data, sections=sections, max_steps=80, eval_steps=80, learning_rate=5e-3))  # fmt: skip


def test_it_learns_to_see(learnt, data):
    """And `evaluate` measures what training measured: the loss by token, and what is written."""
    assert learnt.after["multimodal"]["loss"] < 0.1
    glm = glmkit.load(learnt.model, device="cpu")
    assert glm.media.kinds == ("image",)
    assert accuracy(glm, data) > 0.95
    task = load_task("multimodal")
    records = list(read_questions(task, data / "valid.jsonl"))
    result, examples = evaluate_task(glm, task, records)
    measured = np.log(result.metrics["perplexity"].value)
    assert measured == pytest.approx(learnt.after["multimodal"]["loss"], abs=1e-3)
    assert len(examples) == 24
    # Blind it is at chance: another picture for each question.
    turned = [({**one, "image": other["image"]}, where) for (one, where), (other, _) in zip(records, records[1:] + records[:1], strict=True)]  # fmt: skip
    blind, _ = evaluate_task(glm, task, turned)
    assert blind.metrics["exact_match"].value < 0.1
    # And asked as a user asks: one conversation, the picture in it.
    for file, expected in (("valid0.png", RED), ("valid1.png", BLUE)):
        content = [{"type": "image", "image": str(data / file)}, {"type": "text", "text": "味道？"}]
        assert glm.chat([{"role": "user", "content": content}], max_new_tokens=6) == expected


@pytest.mark.slow
def test_two_stages(base, data, learnt, tmp_path):
    """The projector alone, the GLM frozen; then LoRA on it, the encoder frozen; then merged."""
    pytest.importorskip("peft")
    first = finetune(
        config_of(base, tmp_path / "one", data, sections={"media": {"image": MEDIA["image"], "train": ["projector"], "freeze_language": True}}, max_steps=4)
    )  # fmt: skip
    assert first.method == "written answers, the media's weights"
    before, after = read_weights(base), read_weights(first.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    seen = load_media(first.model)
    assert first.trained_parameters == sum(one.numel() for one in seen.towers["image"].projector.parameters())  # fmt: skip
    sections = {"lora": {"rank": 4}, "media": {"train": ["projector"]}}
    second = finetune(config_of(first.model, tmp_path / "two", data, sections=sections, max_steps=4))  # fmt: skip
    assert not (second.model / "model.safetensors").exists()
    own, old = load_media(second.model).state_dict(), seen.state_dict()
    for name in old:
        assert torch.equal(own[name], old[name]) == (".encoder." in name), name
    sections["lora"]["merge"] = True
    merged = finetune(config_of(first.model, tmp_path / "merged", data, sections=sections, max_steps=4))  # fmt: skip
    one = GLMForMultimodalGeneration.from_pretrained(merged.model).state_dict()
    other = GLMForMultimodalGeneration.from_pretrained(second.model).state_dict()
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=name)


@pytest.mark.parametrize("lora", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted(base, data, tmp_path, monkeypatch, lora):
    """To the bit, with pictures, sounds and clips and none in the batches, dropout, and an adapter."""
    sections = {
        "lora": {"rank": lora},
        "media": MEDIA,
        "model": {"from": str(base), "output_dropout_prob": 0.1},
    }
    trainer = {"max_steps": 5, "eval_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 2}  # fmt: skip
    names = ("train", "mixed")
    whole = finetune(config_of(base, tmp_path / "one", data, train=names, sections=sections, **trainer))  # fmt: skip
    kill_at(
        3,
        config_of(base, tmp_path / "two", data, train=names, sections=sections, **trainer),
        monkeypatch,
    )
    resumed = finetune(config_of(base, tmp_path / "two", data, train=names, sections=sections, **trainer))  # fmt: skip
    assert resumed.resumed_from == 2
    assert curve(tmp_path / "one") == curve(tmp_path / "two")
    assert resumed.after == whole.after
    one, two = read_weights(whole.model), read_weights(resumed.model)
    assert one.keys() == two.keys()
    assert any(name.startswith("media.") for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_kind_is_added_to_what_is_read(learnt, data, tmp_path):
    """A model that sees learns to hear; what it saw with is where it begins."""
    sections = {"media": {"audio": MEDIA["audio"], "train": []}}
    write_jsonl(data / "sound.jsonl", [{"audio": "a.wav", "text": "很快"}])
    report = finetune(config_of(learnt.model, tmp_path / "run", data, train=("train", "sound"), sections=sections, max_steps=1))  # fmt: skip
    own, old = load_media(report.model), load_media(learnt.model)
    assert own.config.kinds == ("image", "audio")
    for name, value in old.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name


def test_what_cannot_be_trained_is_said_before_anything_is_read(base, data, tmp_path):
    def refusal(**sections) -> str:
        with pytest.raises(ConfigError) as found:
            finetune(config_of(base, tmp_path / "run", data, sections=sections))
        return str(found.value)

    assert "lora.rank must be 0" in refusal(media={"freeze_language": True}, lora={"rank": 2})
    assert "media.train name something" in refusal(media={"freeze_language": True, "train": []})
    assert "merge=0 must be at least 1" in refusal(media={"image": {"merge": 0}})
    assert "no encoder of the model_type 'vgg'" in refusal(media={"image": {"encoder": {"model_type": "vgg"}}})  # fmt: skip
    text = {"text": {"train": [str(data / "train.jsonl")], "task": "summary"}}
    with pytest.raises(ConfigError, match="media: none of the tasks has any"):
        finetune(make_config(base, tmp_path / "run", text, {"media": {"image": MEDIA["image"]}}))
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_ends_the_run_by_its_name(base, data, tmp_path):
    (tmp_path / "bad.png").write_bytes(image_bytes()[:60])
    lines = [{"image": "bad.png", "question": "味道？", "answer": "好吃"}] * 8
    write_jsonl(tmp_path / "bad.jsonl", lines)
    task = {"train": [str(tmp_path / "bad.jsonl")], "valid": [str(data / "valid.jsonl")]}
    sections = {"media": {"image": MEDIA["image"]}}
    config = make_config(base, tmp_path / "run", {"multimodal": task}, sections, max_steps=2)
    with pytest.raises(MediaError, match=r"bad.jsonl:\d: the image 'bad.png' is damaged"):
        finetune(config)
    (tmp_path / "bad.png").unlink()
    with pytest.raises(
        MediaError, match=r"bad.jsonl:1: the image 'bad.png' cannot be read: No such"
    ):
        finetune(config)


def test_the_report_is_json(learnt):
    found = json.loads((learnt.folder / "report.json").read_text("utf-8"))
    assert found["after"]["multimodal"]["loss"] == pytest.approx(learnt.after["multimodal"]["loss"])

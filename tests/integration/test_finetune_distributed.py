"""Two processes fine-tune what one does: with pictures, sounds and clips in some processes' batches and none in others', and virtual tokens."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from finetune_samples import base_model, make_config, reviews, write_jsonl
from pretrain_samples import curve
from process_samples import Runs, launch

from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.checkpoints import checkpoints
from glmkit.training.finetune import read_media, read_tasks
from glmkit.training.finetune_settings import check
from glmkit.training.finetune_stream import FinetuneStream
from glmkit.training.finetune_trainer import read_weights
from media_samples import TINY, image_bytes, picture, write_sound_and_clip

pytest.importorskip("av")

STEPS = 7
ALL = {name: dict(fields) for name, fields in TINY.items()}
RESNET = {"encoder": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "image_size": 16}}  # fmt: skip
KINDS = {
    "everything": {"media": ALL},
    "projectors": {"media": {**ALL, "train": ["projector"], "freeze_language": True}},
    "lora": {"media": {**ALL, "train": ["projector"]}, "lora": {"rank": 4}},
    "batch norm": {"media": {**ALL, "image": RESNET}},
    "prefix": {"virtual": {"kind": "prefix", "tokens": 4}},
    "ptuning": {"virtual": {"kind": "ptuning", "tokens": 4}},
}
"""Name -> sections of the recipe."""


base = base_model(initializer_range=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Records of which half have no medium, and one a sound."""
    folder = tmp_path_factory.mktemp("data")
    write_sound_and_clip(folder)
    records: list[dict] = [
        {"audio": "a.wav", "text": "很快"},
        {"video": "a.mp4", "image": "0.png", "question": "今天？", "answer": "喜欢"},
        {"video": "a.mp4", "question": "味道？", "answer": "太慢"},
    ]
    for number in range(11):
        (folder / f"{number}.png").write_bytes(image_bytes(picture(size=(16, 16), seed=number)))
        records.append({"image": f"{number}.png", "question": "味道？", "answer": ("好吃", "很脏")[number % 2]})  # fmt: skip
    # Batches are of like samples: where 14 with media end, one process has the last two and the other texts.
    records += [
        {"question": ("我们？", "今天？")[number % 2], "answer": "干净"} for number in range(14)
    ]
    write_jsonl(folder / "media.jsonl", records)
    write_jsonl(
        folder / "valid.jsonl",
        [{**one, "question": "房间？", "answer": "干净"} for one in records[1:6]],
    )
    write_jsonl(folder / "reviews.jsonl", reviews(24))
    write_jsonl(folder / "valid_reviews.jsonl", reviews(8, seed=1))
    return folder


def config_of(base: Path, data: Path, run: Path, kind: str, processes: int, **trainer):
    sections = KINDS[kind]
    name, files = ("multimodal", ("media", "valid")) if "media" in sections else ("sentiment", ("reviews", "valid_reviews"))  # fmt: skip
    train, valid = ([str(data / f"{one}.jsonl")] for one in files)
    values = {
        "max_steps": STEPS,
        "eval_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 4 // processes,
        "gradient_accumulation_steps": 2 if kind == "everything" else 1,
        **trainer,
    }
    return make_config(base, run, {name: {"train": train, "valid": valid}}, sections, **values)


@pytest.fixture(scope="module")
def runs(base, data, tmp_path_factory) -> Runs:
    """Uninterrupted runs: (kind, processes) -> its folder."""
    folder = tmp_path_factory.mktemp("runs")

    def make(key) -> Path:
        kind, processes = key
        run = folder / f"{kind} {processes}"
        codes = launch(
            processes, config_of(base, data, run, kind, processes), run.with_suffix(".log")
        )
        assert set(codes) == {0}, "\n".join(one.read_text() for one in folder.glob(f"{run.name}.*"))
        return run

    return Runs(make)


def assert_same(run: Path, expected: Path) -> None:
    """The same lines with numbers within 1e-4, and the same weights."""
    for line, other in zip(curve(run), curve(expected), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
    reports = [json.loads((one / "report.json").read_text("utf-8")) for one in (run, expected)]
    for task, values in reports[1]["after"].items():
        assert reports[0]["after"][task] == pytest.approx(values, rel=1e-4)
    one, two = (read_weights(path / "model") for path in (run, expected))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_process_has_a_batch_without_media(base, data, tmp_path):
    """What the runs below are about: in one step a process sees a picture and the other none, in others neither, and most hear no sound."""
    config = check(config_of(base, data, tmp_path / "run", "projectors", 2))
    tokenizer = GLMTokenizer.from_pretrained(base)
    [task] = read_tasks(config, tokenizer, read_media(config))
    seen: list[list[set[str]]] = []
    for rank in range(2):
        stream = FinetuneStream([task], tokenizer.special_ids, rows=2, seed=config.trainer["seed"], rank=rank, world_size=2)  # fmt: skip
        own = [batch[2 * rank : 2 * rank + 2] for batch in stream._order(0, 0)[:STEPS]]
        seen.append([{one.kind for index in some for one in task.train[index].media} for some in own])  # fmt: skip
    blind = [(not one, not other) for one, other in zip(*seen, strict=True)]
    assert {(False, False), (False, True), (True, True)} == set(blind)
    assert sum("audio" in one | other for one, other in zip(*seen, strict=True)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [one for one in KINDS if one != "batch norm"])
def test_two_processes_train_what_one_does(runs, kind):
    assert_same(runs[kind, 2], runs[kind, 1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["everything", "lora", "batch norm"])
def test_killed_it_goes_on(runs, base, data, tmp_path, kind):
    """Process 0 dies in step 4; the same command then trains what was trained without that."""
    run = tmp_path / "run"
    config = config_of(base, data, run, kind, 2)
    codes = launch(2, config, tmp_path / "killed", {"when": "step", "at": 3})
    assert codes[0] == -signal.SIGKILL
    assert checkpoints(run)[-1].name == "checkpoint-2"
    assert launch(2, config, tmp_path / "resumed") == [0, 0]
    assert curve(run) == curve(runs[kind, 2])
    one, two = (read_weights(path / "model") for path in (run, runs[kind, 2]))
    assert all(torch.equal(one[name], two[name]) for name in one | two)

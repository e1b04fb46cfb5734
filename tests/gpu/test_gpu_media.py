"""Pictures and sounds on a GPU: what is made of them is the CPU's, and what reads them learns there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_samples import make_config, write_jsonl, write_model

import glmkit
from glmkit.multimodal.modeling import load_media
from glmkit.training.finetune import finetune
from media_samples import TINY, image_bytes, picture, tone, write_media_model

pytestmark = pytest.mark.gpu

PICTURES = [image_bytes(picture(seed=seed)) for seed in range(3)]
SOUND = (tone(300), 16_000)
TEXTS = ["<|image|>，很快[MASK]。", "好[MASK]吃，<|image|>和<|image|>[MASK]", "量大[MASK]"]
IMAGES = [PICTURES[:1], PICTURES[1:], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_media_model(tmp_path_factory.mktemp("model"))


def test_what_is_written_of_pictures_and_sounds_is_the_cpus(folder, device):
    glm, cpu = (
        glmkit.load(folder, device=name, dtype="float32", backend="torch")
        for name in (device.type, "cpu")
    )
    asked = [(TEXTS, {"images": IMAGES}), ("很快<|audio|>，[MASK]", {"audios": SOUND})]
    for texts, media in asked:
        found, expected = (one.fill(texts, **media, max_new_tokens=8) for one in (glm, cpu))
        for one, other in zip(*((some if isinstance(some, list) else [some]) for some in (found, expected)), strict=True):  # fmt: skip
            assert one.text == other.text
            assert one.scores == pytest.approx(other.scores, abs=1e-3, rel=1e-3)
    # The pictures are seen: others change how probable the same blanks are.
    blind = glm.fill(TEXTS[0], images=[PICTURES[2]], max_new_tokens=8)
    seen = glm.fill(TEXTS[0], images=[PICTURES[0]], max_new_tokens=8)
    assert blind.scores != pytest.approx(seen.scores, abs=1e-3) or blind.text != seen.text


@pytest.mark.parametrize("bf16", [False, "auto"])
def test_it_learns_to_see(device, tmp_path, bf16):
    """Red or blue: encoder, projector and GLM are trained together."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(24):
        color = np.array(((220, 30, 30), (30, 30, 220))[number % 2]) + rng.integers(-25, 25, 3)
        (tmp_path / f"{number}.png").write_bytes(image_bytes(picture(tuple(color.tolist()), (16, 18))))  # fmt: skip
        answer = ("好吃", "很脏")[number % 2]
        records.append({"image": f"{number}.png", "question": "味道？", "answer": answer})
    train = write_jsonl(tmp_path / "train.jsonl", records[:16])
    valid = write_jsonl(tmp_path / "valid.jsonl", records[16:])
    task = {"train": [str(train)], "valid": [str(valid)]}
    base = write_model(tmp_path / "base", initializer_range=0.2)
    sections = {"media": {"image": TINY["image"]}, "best": {"metric": "loss"}}
    trainer = {
        "use_cpu": device.type == "cpu",
        "max_steps": 10,
        "eval_steps": 10,
        "learning_rate": 5e-3,
        "bf16": bf16,
    }
    report = finetune(
        make_config(base, tmp_path / "run", {"multimodal": task}, sections, **trainer)
    )
    after, before = report.after["multimodal"]["loss"], report.before["multimodal"]["loss"]
    assert after < before - 0.5
    weights = load_media(report.model).state_dict()
    assert all(torch.isfinite(one).all() for one in weights.values())

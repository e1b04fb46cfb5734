"""`recipes/glm-mini/ship.py`: a run becomes an asset with checksums and cards, or nothing changes."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pretrain_samples import make_config, write_prepared
from typer.testing import CliRunner

import glmkit
from glmkit import GLMForConditionalGeneration
from glmkit.embedded import ASSETS, VISION_MODEL
from glmkit.errors import UserError
from glmkit.evaluation.suite import evaluate_tasks, parse_runs
from glmkit.training.pretrain import pretrain

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "glm-mini"


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    """The script, imported as its folder's scripts import each other."""
    sys.path.insert(0, str(RECIPE))
    yield importlib.import_module("ship")
    sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def ship(module: ModuleType) -> Callable[..., str]:
    """Runs a command of the script and returns what it says; raises what it raises."""

    def run(*arguments: object) -> str:
        return (
            CliRunner().invoke(module.app, list(map(str, arguments)), catch_exceptions=False).output
        )

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an average of its weights."""
    folder = tmp_path_factory.mktemp("run")
    data = write_prepared(folder / "data")
    pretrain(make_config(data, folder / "run", {"average": {"decay": 0.5}}, max_steps=4))
    return folder / "run"


@pytest.fixture(scope="module")
def asset(ship: Callable[..., str], run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets") / "glm-mini"
    (run / "model-average" / "calibration.json").write_text("{}")
    said = ship("weights", run / "model-average", "--hardware", "a test bench", "--target", folder)
    assert "loads and fills" in said
    return folder


def test_the_asset_is_the_model_in_int8(run: Path, asset: Path):
    shipped = GLMForConditionalGeneration.from_pretrained(asset)
    trained = GLMForConditionalGeneration.from_pretrained(run / "model-average")
    assert shipped.config.use_cache
    for name, weight in trained.state_dict().items():
        step = float(weight.abs().max()) / 127 if weight.ndim == 2 else 0.0
        torch.testing.assert_close(shipped.state_dict()[name], weight, rtol=0, atol=step)
    assert "| stored as | int8, " in (asset / "MODEL_CARD.md").read_text("utf-8")
    assert glmkit.load(asset, device="cpu").fill("海[MASK]", max_new_tokens=2).blanks
    assert (asset / "calibration.json").is_file()


def test_another_number_type_is_stored_as_asked(ship, run: Path, tmp_path: Path):
    target = tmp_path / "glm-mini"
    ship("weights", run / "model-average", "--dtype", "bfloat16", "--target", target)
    shipped = GLMForConditionalGeneration.from_pretrained(target)
    trained = GLMForConditionalGeneration.from_pretrained(run / "model-average")
    assert shipped.dtype == torch.bfloat16
    for name, weight in trained.state_dict().items():
        assert torch.equal(shipped.state_dict()[name], weight.to(torch.bfloat16))
    assert "| stored as | bfloat16, " in (target / "MODEL_CARD.md").read_text("utf-8")


def test_cards_tell_the_run_in_both_languages(asset: Path):
    english, chinese = (
        (asset / name).read_text("utf-8") for name in ("MODEL_CARD.md", "MODEL_CARD.zh.md")
    )
    for card in (english, chinese):
        assert "a test bench" in card
        assert "| 2 × 16, 2 |" in card or "| 2 × 16，2 |" in card
        assert "$" not in card
    assert "| optimizer steps | 4 |" in english
    assert "| 优化步数 | 4 |" in chinese


def test_the_card_has_what_evaluation_wrote(ship, asset: Path, tmp_path: Path):
    data = tmp_path / "poems.jsonl"
    data.write_text(
        json.dumps({"text": "春江潮水。明月花林。"}, ensure_ascii=False) + "\n", "utf-8"
    )
    glm = glmkit.load(asset, device="cpu")
    evaluate_tasks(glm, parse_runs(["text"], [f"text={data}"]), tmp_path, model_name="glm-mini")
    ship("card", "--results", tmp_path / "results.json", "--target", asset)
    for name, header in (
        ("MODEL_CARD.md", "| task | data |"),
        ("MODEL_CARD.zh.md", "| 任务 | 数据 |"),
    ):
        card = (asset / name).read_text("utf-8")
        assert header in card
        assert "| text | poems | 1 | bits_per_character |" in card
    values = json.loads((tmp_path / "results.json").read_text("utf-8"))
    line = {
        "task": "topics", "data": "topics.valid", "examples": 1042, "metric": "accuracy", "model": 0.88, "low": 0.86,
        "high": 0.9, "baseline": 0.855, "method": "TF-IDF", "goal": 0.87, "met": True,
    }  # fmt: skip
    beside = {**{name: values[name] for name in ("weights_fingerprint", "seed")}, "lines": [line]}
    (tmp_path / "beside.json").write_text(json.dumps(beside), "utf-8")
    ship("card", "--results", tmp_path / "beside.json", "--target", asset)
    row = "| topics | topics.valid | 1,042 | accuracy | 0.880 (0.860–0.900) | 0.855 (TF-IDF) | ≥ 0.870 | ✓ |"
    assert row in (asset / "MODEL_CARD.zh.md").read_text("utf-8")
    (tmp_path / "other.json").write_text(
        json.dumps({**beside, "weights_fingerprint": "0"}), "utf-8"
    )
    with pytest.raises(UserError, match="other weights"):
        ship("card", "--results", tmp_path / "other.json", "--target", asset)


def test_checksums_are_those_of_the_program_and_a_change_is_noticed(ship, asset: Path):
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=asset, check=False).returncode == 0
    assert "MODEL_CARD.zh.md" in ship("card", "--target", asset)
    config = (asset / "config.json").read_text("utf-8")
    (asset / "config.json").write_text(config + " ")
    with pytest.raises(UserError, match=r"config\.json differ"):
        ship("card", "--target", asset)
    (asset / "config.json").write_text(config)


def test_what_cannot_be_shipped_leaves_the_old_asset(
    ship, module, run: Path, asset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = (asset / "SHA256SUMS").read_text()
    with pytest.raises(UserError, match=r"no log\.jsonl"):
        ship("weights", run / "model-average", "--run", tmp_path, "--target", asset)
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="1,000 are allowed"):
        ship("weights", run / "model-average", "--target", asset)
    assert (asset / "SHA256SUMS").read_text() == before
    assert [path.name for path in asset.parent.iterdir()] == ["glm-mini"]


def test_an_adapter_that_sees_is_shipped_in_half_precision(
    module: ModuleType, ship: Callable[..., str], tmp_path: Path
):
    """The embedded one, shipped again from itself, is what it was."""
    pytest.importorskip("peft")
    embedded = ASSETS / VISION_MODEL
    results = tmp_path / "results.json"
    sides = {"valid": {"seen": 0.5, "blind": 0.25, "questions": 1200}, "heldout": {"seen": 0.4}}
    results.write_text(json.dumps({"accuracy": {"image": {"all but captions": sides}}}))
    given = ("--example", embedded / "example.png", "--results", results, "--target", tmp_path / "a")  # fmt: skip
    assert "it says" in ship("vision", embedded, *given)
    module.verify(tmp_path / "a")
    card = (tmp_path / "a" / "MODEL_CARD.zh.md").read_text(encoding="utf-8")
    assert "| 全部（不含描述） | 50% | 25% | 40% |" in card
    assert "1,200" in card
    for name in ("adapter_model.safetensors", "media/model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (embedded / name).read_bytes()
    other = tmp_path / "other"
    shutil.copytree(embedded, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "x"}))  # fmt: skip
    with pytest.raises(UserError, match="only glm-mini's"):
        ship("vision", other, *given)

"""Pretraining end to end on a tiny corpus: what comes out, exact resume, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretrain_samples import KillAt, Killed, curve, make_config, write_prepared

from glmkit.config import from_values, load_config, save_config, to_values
from glmkit.errors import ConfigError
from glmkit.model import GLMForConditionalGeneration
from glmkit.tokens.store import TokenStoreWriter
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training import pretrain as module
from glmkit.training.checkpoints import checkpoints
from glmkit.training.pretrain import build_trainer, pretrain
from glmkit.training.settings import PretrainConfig, check
from glmkit.training.trainer import NonFiniteLossError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(make_config(data, run))
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return GLMForConditionalGeneration.from_pretrained(run / "model").state_dict()


def assert_same_run(run: Path, expected: Path) -> None:
    assert curve(run) == curve(expected)
    left, right = weights(run), weights(expected)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_leaves_a_model_a_report_and_curves(finished, data):
    report = json.loads((finished / "report.json").read_text())
    assert report["steps"] == 12
    assert report["loss_after"]["loss"] < report["loss_before"]["loss"]
    assert set(report["loss_after"]) >= {"loss", "token_loss", "document_loss"}
    assert 0 < report["padding_ratio"] < 0.5
    assert (finished / "loss.png").read_bytes()[:4] == b"\x89PNG"
    # transformers' Trainer leaves it off: the saved model would generate without a cache
    assert json.loads((finished / "model" / "config.json").read_text())["use_cache"]
    assert list((finished / "tensorboard").iterdir())
    assert "held-out loss" in (finished / "report.txt").read_text()
    assert [path.name for path in checkpoints(finished)] == ["checkpoint-8", "checkpoint-12"]
    tokenizer = GLMTokenizer.from_pretrained(finished / "model")
    model = GLMForConditionalGeneration.from_pretrained(finished / "model")
    assert tokenizer.fingerprint() == GLMTokenizer.from_pretrained(data / "tokenizer").fingerprint()
    assert model.config.vocab_size % 64 == 0
    assert model.config.num_tokens == len(tokenizer) <= model.config.vocab_size
    assert model.config.gmask_token_id == tokenizer.gmask_token_id
    assert model.config.hidden_act == "gelu_new"
    assert report["parameters"] == model.num_parameters()


def test_the_curve_has_training_and_held_out_losses_by_objective(finished):
    lines = curve(finished)
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 4, 8, 12]
    assert any("loss_token" in line for line in lines)
    assert all(line["epoch"] > 0 for line in lines if line["step"])


def test_a_finished_run_is_not_run_again(finished, data, monkeypatch):
    monkeypatch.setattr(module, "build_trainer", None)
    assert pretrain(make_config(data, finished)).steps == 12


@pytest.mark.parametrize(
    "step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (2, 5)), 11]
)
def test_resumed_run_is_identical(finished, data, tmp_path, monkeypatch, step):
    config = make_config(data, tmp_path / "run")

    def build(*args):
        trainer = build_trainer(*args)
        trainer.add_callback(KillAt(step))
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", build)
        with pytest.raises(Killed):
            pretrain(config)
    assert not (tmp_path / "run" / "model").exists()
    torch.manual_seed(99)
    report = pretrain(config)
    assert report.resumed_from == (step // 4 * 4 or None)
    [resume] = (tmp_path / "run" / "resumes.jsonl").read_text().splitlines()
    assert json.loads(resume)["step"] == step // 4 * 4
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"step {step // 4 * 4}" in page
    assert "trainer.learning_rate" in page
    assert_same_run(tmp_path / "run", finished)


def test_interrupted_before_the_report(finished, data, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    config = make_config(data, tmp_path / "run")
    save_config(check(config), tmp_path / "run" / "config.yaml")
    pretrain(config)
    assert_same_run(tmp_path / "run", finished)
    found, expected = (
        json.loads((p / "report.json").read_text()) for p in (tmp_path / "run", finished)
    )
    assert found["tokens"] == expected["tokens"]
    assert found["loss_after"] == expected["loss_after"]


@pytest.mark.slow
def test_kill_9_at_any_moment(finished, data, tmp_path):
    """Kills the process at its first and its second checkpoint, then lets it end."""
    run = tmp_path / "run"
    script = Path(__file__).with_name("pretrain_samples.py")
    command = [sys.executable, str(script), str(data), str(run), "{}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (run / ".partial").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "report.json").exists()
    pretrain(make_config(data, run))
    assert_same_run(run, finished)
    assert not list(run.glob(".*"))


def test_a_half_written_checkpoint_is_never_picked_up(data, tmp_path, monkeypatch):
    config = make_config(data, tmp_path / "run")
    monkeypatch.setattr(module.checkpoints, "publish", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        pretrain(config)
    assert checkpoints(tmp_path / "run") == []
    assert list((tmp_path / "run" / ".partial").iterdir())


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(data, tmp_path):
    trainer = build_trainer(check(make_config(data, tmp_path / "run")))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with torch.no_grad():
        trainer.model.glm.transformer.final_layernorm.weight[0] = float("nan")
    trainer.args.eval_on_start = False
    with pytest.raises(
        NonFiniteLossError, match=r"loss of step 1 is not finite.*documents.*\[\[\["
    ):
        trainer.train()
    after = trainer.model.state_dict()
    name = "glm.word_embeddings.weight"
    assert torch.equal(before[name], after[name])


def test_accumulated_batches_equal_one_big_batch(data, tmp_path):
    """The loss is a mean over the predicted tokens of the global batch."""
    losses = []
    for rows, parts in ((4, 1), (1, 4)):
        settings = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": parts}
        config = make_config(data, tmp_path / f"{rows}", max_steps=3, logging_steps=1, **settings)
        config.model.update(
            embedding_dropout_prob=0, attention_dropout_prob=0, output_dropout_prob=0
        )
        pretrain(config)
        losses.append([line["loss"] for line in curve(tmp_path / f"{rows}") if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_all_contradictions_are_in_one_message(data, tmp_path):
    config = make_config(data, tmp_path / "run", lerning_rate=1, max_steps=0, seed="x")
    config.model.update(max_sequence_length=8, hiden_size=3)
    with pytest.raises(ConfigError) as error:
        pretrain(config)
    for said in (
        "'trainer.lerning_rate'; did you mean 'learning_rate'?",
        "trainer.max_steps = 0 must be at least 1",
        "trainer.seed = 'x' is not allowed; allowed: a whole number",
        "'model.hiden_size'; did you mean 'hidden_size'?",
        "data.row_length = 32 is longer than the model's 8 positions",
    ):
        assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_stores_of_another_tokenizer_and_empty_ones_are_refused(data, tmp_path):
    shutil.copytree(data / "tokenizer", tmp_path / "data" / "tokenizer")
    for name, documents in (("train", [[1, 2, 3]]), ("valid", [])):
        fingerprint = "other"
        if name == "valid":
            fingerprint = GLMTokenizer.from_pretrained(data / "tokenizer").fingerprint()
        with TokenStoreWriter(tmp_path / "data" / name, fingerprint, 400) as writer:
            for ids in documents:
                writer.add(ids)
    with pytest.raises(ConfigError) as error:
        check(make_config(tmp_path / "data", tmp_path / "run"))
    assert "made with another tokenizer" in str(error.value)
    assert "valid is empty" in str(error.value)
    with pytest.raises(
        ConfigError, match="absent' holds no prepared corpus; write one: glmkit prep"
    ):
        check(make_config(tmp_path / "absent", tmp_path / "run"))


def test_another_run_in_the_folder_is_kept(finished, data, tmp_path):
    with pytest.raises(ConfigError, match=r"other settings \(different: trainer.learning_rate\)"):
        pretrain(make_config(data, finished, learning_rate=1.0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        pretrain(make_config(data, tmp_path / "full"))
    config = make_config(data, tmp_path / "run")
    config.model["vocab_size"] = 64
    with pytest.raises(ConfigError, match="too small for the tokenizer"):
        pretrain(config)


@pytest.mark.slow
def test_the_end_of_a_stable_run_is_decided_late(data, tmp_path, monkeypatch):
    """A run that was to decay from step 12 on, killed at 9, decays from 10 on: as if that had been planned."""

    def planned(folder: str, end: int, decay: int) -> PretrainConfig:
        return make_config(
            data,
            tmp_path / folder,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": decay},
            warmup_steps=2,
            max_steps=end,
        )

    def build(*args):
        trainer = build_trainer(*args)
        trainer.add_callback(KillAt(9))
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", build)
        with pytest.raises(Killed):
            pretrain(planned("run", 16, 4))
    with pytest.raises(ConfigError, match="different: trainer.max_steps, trainer.lr_scheduler"):
        pretrain(planned("run", 12, 5))  # would have begun before the checkpoint of step 8
    pretrain(planned("run", 14, 4))
    pretrain(planned("whole", 14, 4))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_the_resolved_configuration_reads_back(finished):
    config = load_config(PretrainConfig, finished / "config.yaml")
    assert config.trainer["adam_beta2"] == 0.98
    assert from_values(PretrainConfig, to_values(config)) == config

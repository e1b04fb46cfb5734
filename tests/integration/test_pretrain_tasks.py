"""Multi-task pretraining end to end: tasks from a file to losses by task, workers, resume, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretrain_samples import curve, make_config, write_prepared
from transformers import TrainerCallback

from glmkit.errors import ConfigError
from glmkit.tasks.prepare import prepare_task
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import train_tokenizer
from glmkit.training import pretrain as module
from glmkit.training.pretrain import pretrain
from glmkit.training.settings import check


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def task(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    lines = [{"text": f"明月{n}", "label": n % 2} for n in range(60)]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    tokenizer = GLMTokenizer.from_pretrained(data / "tokenizer")
    prepare_task(
        "sentiment",
        folder / "data.jsonl",
        folder / "out",
        tokenizer,
        max_length=32,
        valid_ratio=0.2,
    )
    return folder / "out"


def config(data, run, task, sections=None, **trainer):
    tasks = {"folders": {"moods": str(task)}, "max_share": 0.3}
    return make_config(data, run, {"tasks": tasks, **(sections or {})}, **trainer)


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 6:
            raise KeyboardInterrupt


def test_losses_by_task_workers_and_resume(data, task, tmp_path, monkeypatch):
    pretrain(config(data, tmp_path / "one", task))
    lines = curve(tmp_path / "one")
    assert any(line.get("loss_moods", 0) > 0 for line in lines)
    assert [line["eval_moods_loss"] for line in lines if "eval_loss" in line]
    # The same with workers, interrupted and gone on with.
    log = module.RunLog

    def stopping(*args):
        stop, real = Stop(), log(*args)
        real.on_step_end = stop.on_step_end
        return real

    monkeypatch.setattr(module, "RunLog", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(data, tmp_path / "two", task, dataloader_num_workers=2))
    monkeypatch.setattr(module, "RunLog", log)
    pretrain(config(data, tmp_path / "two", task, dataloader_num_workers=1))
    assert curve(tmp_path / "two") == lines


def test_what_is_refused(data, task, tmp_path):
    other = train_tokenizer(["明月" * 9, "春江。"] * 20, 330, "bpe")
    (tmp_path / "d.jsonl").write_text('{"text": "明月", "label": 1}\n', encoding="utf-8")
    prepare_task("sentiment", tmp_path / "d.jsonl", tmp_path / "other", other, valid_ratio=0)
    for folder, row_length, message in (
        (tmp_path / "other", 32, "tasks.folders.moods: .* was made with another tokenizer"),
        (data, 32, "tasks.folders.moods: .* holds texts, not the samples of a task"),
        (task, 16, "does not fit into rows of 16; prepare the task again with --max-length 16"),
        (tmp_path / "none", 32, "tasks.folders.moods: .* is no token store"),
    ):
        sections = {"data": {"folder": str(data), "row_length": row_length, "valid_rows": 8}}
        with pytest.raises(ConfigError, match=message):
            check(config(data, tmp_path / "run", folder, sections))


def test_objectives_and_model_must_agree(data, task, tmp_path):
    objectives = {"block_positions": False, "random_positions_below": 64}
    with pytest.raises(ConfigError) as caught:
        check(config(data, tmp_path / "run", task, {"objectives": objectives}))
    assert "model.block_position_encoding = false too" in str(caught.value)
    assert "random_positions_below = 64 is more than the model's 32 positions" in str(caught.value)
    sections = {"objectives": {"sentinel_tokens": True}}
    with pytest.raises(ConfigError, match=r"needs distinct mask tokens.*\[MASK0\]"):
        pretrain(config(data, tmp_path / "sentinels", task, sections))

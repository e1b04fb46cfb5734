"""What a recipe can switch on: number types, schedules, checkpointing, compilation, averages, skipped spikes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_samples import KillAt, Killed, curve, make_config, write_prepared
from process_samples import config_for, launch
from safetensors.torch import load_file
from transformers import AttentionInterface, TrainerCallback

from glmkit.config import load_config
from glmkit.errors import ConfigError
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.modeling import eager_attention
from glmkit.runtime import has_fast_bfloat16
from glmkit.training import pretrain as module
from glmkit.training.average import AverageSettings
from glmkit.training.pretrain import build_trainer, pretrain
from glmkit.training.settings import PretrainConfig, check
from glmkit.training.spikes import SpikeSettings

NO_DROPOUT = {f"{name}_dropout_prob": 0.0 for name in ("embedding", "attention", "output")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in curve(run) if "loss" in line]


def killed_and_resumed(config, step: int, monkeypatch, prepare=lambda trainer: None) -> None:
    """Runs, is killed before step + 1, and runs again; `prepare` changes both trainers."""

    def build(*args, kill=False):
        trainer = build_trainer(*args)
        prepare(trainer)
        if kill:
            trainer.add_callback(KillAt(step))
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", lambda *args: build(*args, kill=True))
        with pytest.raises(Killed):
            pretrain(config)
    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", build)
        pretrain(config)


# -- number types, optimizer, schedules


@pytest.mark.slow
def test_bfloat16_trains_and_float32_weights_are_kept(data, tmp_path):
    pretrain(make_config(data, tmp_path / "wide", max_steps=4, logging_steps=1))
    pretrain(make_config(data, tmp_path / "half", max_steps=4, logging_steps=1, bf16=True))
    wide, half = losses(tmp_path / "wide"), losses(tmp_path / "half")
    assert half == pytest.approx(wide, rel=0.02)
    assert half != wide
    weights = load_file(tmp_path / "half" / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


HALF = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "max_sequence_length": 32,
    "dtype": "bfloat16",
}


@pytest.mark.slow
def test_bfloat16_weights_learn_as_float32_ones_do_and_resume_exactly(data, tmp_path, monkeypatch):
    sections = {"model": {**HALF, **NO_DROPOUT}}
    wide = {"model": {**sections["model"], "dtype": "float32"}}
    pretrain(make_config(data, tmp_path / "wide", wide, logging_steps=1))
    pretrain(make_config(data, tmp_path / "half", sections, logging_steps=1))
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "wide"), rel=0.02)
    weights = load_file(tmp_path / "half" / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}

    killed_and_resumed(
        make_config(data, tmp_path / "killed", sections, logging_steps=1), 6, monkeypatch
    )
    assert curve(tmp_path / "killed") == curve(tmp_path / "half")
    resumed = load_file(tmp_path / "killed" / "model" / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


@pytest.mark.parametrize(
    ("trainer", "problem"),
    [
        ({"bf16": True}, "leave those out"),
        ({"optim": "adafactor"}, "has none"),
    ],
)
def test_what_forbids_bfloat16_weights(data, tmp_path, monkeypatch, trainer, problem):
    with pytest.raises(ConfigError, match=rf"model.dtype = 'bfloat16'.*{problem}"):
        check(make_config(data, tmp_path / "run", {"model": HALF}, **trainer))
    with monkeypatch.context() as patched:
        patched.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="for one process"):
            check(make_config(data, tmp_path / "run", {"model": HALF}))
    with pytest.raises(ConfigError, match="model.dtype = 'float8'; there are float32, bfloat16"):
        check(make_config(data, tmp_path / "run", {"model": {**HALF, "dtype": "float8"}}))


def test_bf16_auto_is_what_the_machine_is_fast_in(data, tmp_path, caplog):
    fast = has_fast_bfloat16(torch.device("cpu"))
    assert check(make_config(data, tmp_path / "run", bf16="auto")).trainer["bf16"] is fast
    assert not caplog.records
    check(make_config(data, tmp_path / "run", bf16=True))
    assert ("no bfloat16 instructions" in caplog.text) is not fast


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can train in float16")
def test_float16_is_refused_on_a_cpu(data, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.fp16 needs a CUDA GPU.*bf16=true"):
        check(make_config(data, tmp_path / "run", fp16=True))
    with pytest.raises(ConfigError, match="fp16 and trainer.bf16 are both true"):
        check(make_config(data, tmp_path / "run", fp16=True, bf16=True))


def test_the_optimizer_is_fused_adamw_unless_said_otherwise(data, tmp_path):
    trainer = build_trainer(check(make_config(data, tmp_path / "run")))
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)
    trainer = build_trainer(check(make_config(data, tmp_path / "run", optim="adafactor")))
    assert type(trainer.create_optimizer()).__name__ == "Adafactor"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 1.0, 0.1]),  # cosine to a tenth
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            [0.5, 1.0, 1.0 - math.sqrt(0.5), 0.0],
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 50, "decay_type": "linear"},
            },
            [0.5, 1.0, 0.8, 0.0],
        ),
    ],
    ids=["cosine", "wsd", "wsd by hand"],
)
def test_schedules(data, tmp_path, settings, expected):
    """Rates in the middle and at the end of the warm-up, in the middle of the default decay, at the end."""
    config = check(
        make_config(
            data, tmp_path / "run", max_steps=100, warmup_steps=10, learning_rate=1.0, **settings
        )
    )
    trainer = build_trainer(config)
    trainer.create_optimizer_and_scheduler(100)
    rates = []
    for _ in range(101):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    places = (
        (5, 10, 100)
        if len(expected) == 3
        else (5, 10, 90 if not settings.get("lr_scheduler_kwargs") else 60, 100)
    )
    assert [rates[place] for place in places] == pytest.approx(expected, abs=1e-6)


def test_settings_that_a_schedule_does_not_have(data, tmp_path):
    config = make_config(
        data,
        tmp_path / "run",
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_step": 5},
    )
    with pytest.raises(ConfigError, match="did you mean 'num_decay_steps'"):
        check(config)
    config = make_config(data, tmp_path / "run", lr_scheduler_kwargs={"min_lr": 1e-5})
    assert check(config).trainer["lr_scheduler_kwargs"] == {"min_lr": 1e-5}


# -- activation checkpointing, compilation


def gradients(data, run, **settings):
    config = make_config(data, run, **settings)
    trainer = build_trainer(check(config))
    captured = {}

    class Capture(TrainerCallback):
        def on_pre_optimizer_step(self, *args, model=None, **kwargs):
            captured.update((n, p.grad.clone()) for n, p in model.named_parameters())

    trainer.add_callback(Capture())
    trainer.args.max_steps, trainer.args.eval_on_start = 1, False
    trainer.args.save_strategy = "no"
    trainer.train()
    return captured


def test_activation_checkpointing_changes_no_gradient(data, tmp_path):
    """Dropout is on: the recomputed pass draws the same masks."""
    plain = gradients(data, tmp_path / "plain")
    again = gradients(data, tmp_path / "again", activation_checkpointing=True)
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        assert value.abs().sum() > 0
        torch.testing.assert_close(value, again[name], rtol=0, atol=0)


@pytest.mark.slow
def test_a_compiled_model_trains_as_the_plain_one(data, tmp_path):
    """Losses by objective too: they come with the model's output."""
    model = {
        "model": {
            **NO_DROPOUT,
            "hidden_size": 16,
            "num_layers": 2,
            "num_attention_heads": 2,
            "max_sequence_length": 32,
        }
    }
    for name, compiled in (("plain", False), ("compiled", True)):
        config = make_config(
            data, tmp_path / name, model, torch_compile=compiled, logging_steps=1, max_steps=4
        )
        pretrain(config)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    lines = [line for line in curve(tmp_path / "compiled") if "loss" in line]
    assert any("loss_token" in line for line in lines)
    for name in ("model", "checkpoint-4"):
        GLMForConditionalGeneration.from_pretrained(tmp_path / "compiled" / name)


def test_an_attention_of_ones_own_trains_once_it_is_registered(data, tmp_path, monkeypatch):
    """Only glmkit's own names were accepted."""
    model = {"hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "max_sequence_length": 32}  # fmt: skip

    def config_with(name: str) -> PretrainConfig:
        return make_config(data, tmp_path / name, {"model": {**model, "attn_implementation": name}})

    with pytest.raises(ConfigError, match=r"model\.attn_implementation = 'mine' is unknown\. There are .*registered first"):  # fmt: skip
        check(config_with("mine"))
    asked = []

    def mine(*arguments, **options):
        asked.append(arguments[1].shape)
        return eager_attention(*arguments, **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "mine", mine)
    trainer = build_trainer(check(config_with("mine")))
    trainer.args.max_steps, trainer.args.eval_on_start, trainer.args.save_strategy = 1, False, "no"
    trainer.train()
    assert asked


# -- averages


@pytest.mark.parametrize("export", [pytest.param("beside", marks=pytest.mark.slow), "instead"])
def test_the_average_resumes_exactly_and_is_exported(data, tmp_path, monkeypatch, export):
    sections = {"average": {"decay": 0.8, "from_step": 2, "export": export}}
    pretrain(make_config(data, tmp_path / "whole", sections))
    if export == "beside":
        killed_and_resumed(make_config(data, tmp_path / "run", sections), 6, monkeypatch)
        for folder in ("model", "model-average"):
            left, right = (
                load_file(tmp_path / run / folder / "model.safetensors") for run in ("whole", "run")
            )
            assert all(torch.equal(left[name], right[name]) for name in left)
    average = "model-average" if export == "beside" else "model"
    found = load_file(tmp_path / "whole" / average / "model.safetensors")
    expected = load_file(tmp_path / "whole" / "checkpoint-12" / "average.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in found)
    last = load_file(tmp_path / "whole" / "checkpoint-12" / "model.safetensors")
    assert any(not torch.equal(found[name], last[name]) for name in found)
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["loss_average"]["loss"] != report["loss_after"]["loss"] or export == "instead"
    assert (tmp_path / "whole" / "model-average").exists() == (export == "beside")


# -- spikes


@pytest.mark.slow
def test_a_spike_is_skipped_counted_and_resumed_exactly(data, tmp_path, monkeypatch):
    """The seventh step's gradient is a hundred times too large."""
    sections = {"spikes": {"grad_norm_factor": 20.0, "window": 3}}
    before_and_after = []

    class Spoil(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 6:
                before_and_after.append(model.glm.word_embeddings.weight.detach().clone())
                hook = model.glm.transformer.final_layernorm.register_full_backward_pre_hook(
                    lambda module, grads: tuple(100 * grad for grad in grads)
                )
                hooks.append(hook)
            elif state.global_step == 7:
                before_and_after.append(model.glm.word_embeddings.weight.detach().clone())
                hooks.pop().remove()

    hooks: list = []

    def spoil(trainer):
        trainer.add_callback(Spoil())

    def build(*args):
        trainer = build_trainer(*args)
        spoil(trainer)
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", build)
        pretrain(make_config(data, tmp_path / "whole", sections))
    assert torch.equal(*before_and_after)
    assert [line["skipped_steps"] for line in curve(tmp_path / "whole") if "loss" in line] == [0, 0, 1, 1]  # fmt: skip
    for step in (5, 9):
        config = make_config(data, tmp_path / f"run-{step}", sections)
        killed_and_resumed(config, step, monkeypatch, spoil)
        assert curve(tmp_path / f"run-{step}") == curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 0], ids=["ddp", "fsdp"])
def test_two_processes_average_and_skip_as_one_does(data, tmp_path, shards):
    """And what they are killed over, one process goes on with."""
    sections = {
        "average": AverageSettings(decay=0.8, from_step=2),
        "spikes": SpikeSettings(grad_norm_factor=1.05, window=3, patience=2),
    }

    def run(name: str, processes: int, kill: dict | None = None) -> None:
        config = config_for(
            data, tmp_path / name, processes, shards if processes > 1 else 1, learning_rate=0.02
        )
        log = tmp_path / f"{name}.log"
        codes = launch(processes, replace(config, **sections), log, kill)
        assert kill or set(codes) == {0}, [one.read_text() for one in tmp_path.glob("*.log.*")]

    run("one", 1)
    run("two", 2, {"when": "step", "at": 9})
    run("two", 1)
    left, right = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert left[-1]["step"] == 12
    assert [line["skipped_steps"] for line in left if "loss" in line][-1] > 0
    for line, other in zip(left, right, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    for name in ("model/model.safetensors", "model-average/model.safetensors", "checkpoint-12/average.safetensors"):  # fmt: skip
        found, expected = (load_file(tmp_path / run / name) for run in ("two", "one"))
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=2e-5)


def test_averages_and_spikes_are_checked_with_the_rest(data, tmp_path):
    sections = {"average": {"decay": 2.0}, "spikes": {"loss_factor": 0.5}}
    with pytest.raises(ConfigError) as error:
        check(make_config(data, tmp_path / "run", sections, max_steps=0))
    for said in ("average.decay = 2.0", "spikes.loss_factor = 0.5", "trainer.max_steps = 0"):
        assert said in str(error.value)


# -- recipes


def test_the_debug_recipe_trains(data, tmp_path):
    recipe = Path(__file__).parents[2] / "recipes" / "pretrain-debug.yaml"
    overrides = [f"data.folder={data}", f"trainer.output_dir={tmp_path / 'run'}"]
    report = pretrain(load_config(PretrainConfig, recipe, overrides))
    assert report.steps == 20
    assert report.loss_after["loss"] < report.loss_before["loss"]

"""Every recipe reads strictly, names a model and a trainer that exist, and has the published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glmkit.comparison.settings import OBJECTIVES, ObjectivesConfig, check_comparison
from glmkit.config import load_config
from glmkit.corpus.engine_settings import check as check_engine
from glmkit.corpus.steps.settings import check as check_steps
from glmkit.model.configuration import GLMConfig
from glmkit.tokens.prepare_settings import PrepareRecipe
from glmkit.training import finetune_settings
from glmkit.training.building import choose_attention
from glmkit.training.settings import PretrainConfig, check

FOLDER = Path(__file__).parents[2] / "recipes"
PREPARING = sorted(FOLDER.glob("prepare-*.yaml"))
FINETUNING = sorted(FOLDER.glob("finetune-*.yaml"))
PAPER = sorted(FOLDER.glob("paper/*.yaml"))
MULTIMODAL = sorted(FOLDER.glob("multimodal/*.yaml"))
COMPARING = sorted(FOLDER.glob("bench-*.yaml"))
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(PREPARING) - set(FINETUNING) - set(COMPARING))

# layers, width, heads, positions, parameters with the published vocabulary (GLM paper and the table of THUDM/GLM)
PUBLISHED = {
    "pretrain-base": (12, 768, 12, 512, 110e6),
    "pretrain-large": (24, 1024, 16, 512, 335e6),
    "pretrain-2b": (36, 2048, 32, 1024, 1.92e9),
    "pretrain-10b": (48, 4096, 64, 1024, 9.88e9),
}

# peak rate, weight decay, beta2, epsilon, warm-up steps, steps, rows of a step
HYPERPARAMETERS = {
    "pretrain-base": (4e-4, 0.1, 0.98, 1e-6, 6000, 120_000, 1024),
    "pretrain-large": (2e-4, 0.1, 0.98, 1e-6, 8000, 200_000, 1024),
    "pretrain-2b": (1e-4, 0.1, 0.95, 1e-8, 0.04, 250_000, 1024),
    "pretrain-10b": (1e-4, 0.1, 0.95, 1e-8, 0.04, 250_000, 1024),
}


@pytest.fixture(autouse=True)
def without_a_corpus(monkeypatch):
    """Neither a prepared corpus nor a published checkpoint is here."""
    monkeypatch.setattr("glmkit.training.settings._check_folder", lambda *_: None)
    monkeypatch.setattr("glmkit.training.settings._check_source", lambda *_: 1024)


def read(name: str) -> PretrainConfig:
    [path] = [path for path in RECIPES if path.stem == name]
    return check(load_config(PretrainConfig, path))


def test_there_are_recipes():
    names = {path.stem for path in RECIPES}
    assert names >= {*PUBLISHED, "pretrain-debug", "pretrain-mini", "continue-large-chinese"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_reads_strictly(path):
    config = check(load_config(PretrainConfig, path))
    assert ("preset" in config.model) != ("from" in config.model)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert f"glmkit pretrain recipes/{path.name}" in "\n".join(
        line for line in lines if line.startswith("#")
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_the_published_ones(name):
    values = {key: value for key, value in read(name).model.items() if key != "preset"}
    config = GLMConfig.preset(read(name).model["preset"], **values)
    *shape, parameters = PUBLISHED[name]
    found = [config.num_layers, config.hidden_size, config.num_attention_heads]
    assert [*found, config.max_sequence_length] == shape
    assert config.num_parameters == pytest.approx(parameters, rel=0.01)
    large = name in ("pretrain-2b", "pretrain-10b")
    attention = choose_attention(config, torch.device("cuda"), read(name).data.row_length)
    assert attention == ("flex_attention" if large else "sdpa")


@pytest.mark.parametrize(
    ("device", "length", "dropout", "bf16", "expected"),
    [
        ("cuda", 512, 0.0, True, "flex_attention"),
        ("cuda", 320, 0.0, True, "sdpa"),  # short rows: measured
        ("cuda", 512, 0.1, True, "sdpa"),
        ("cuda", 128, 0.0, True, "sdpa"),
        ("cpu", 512, 0.0, False, "sdpa"),
        ("cpu", 512, 0.0, True, "sdpa"),
        ("cpu", 128, 0.0, False, "sdpa"),
        ("cpu", 128, 0.1, True, "eager"),  # short rows: measured
    ],
)
def test_attention_of_a_device_and_its_rows(device, length, dropout, bf16, expected):
    config = GLMConfig(attention_dropout_prob=dropout)
    assert choose_attention(config, torch.device(device), length, bf16) == expected
    for asked in ("eager", "sdpa"):
        assert choose_attention(config, torch.device(device), length, bf16, asked) == asked


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_hyperparameters_are_the_published_ones(name):
    config = read(name)
    trainer = config.trainer
    names = ("learning_rate", "weight_decay", "adam_beta2", "adam_epsilon", "warmup_steps")
    found = (*(trainer[one] for one in names), trainer["max_steps"], config.data.rows_per_step)
    assert found == HYPERPARAMETERS[name]
    rows = trainer["gradient_accumulation_steps"] * trainer["per_device_train_batch_size"]
    assert rows == 1024


def test_the_published_chinese_model_goes_on():
    config = read("continue-large-chinese")
    assert config.model == {"from": "THUDM/glm-large-chinese"}
    assert config.average.is_on
    assert config.spikes.is_on


@pytest.mark.parametrize("path", PREPARING, ids=lambda path: path.stem)
def test_recipes_for_corpora_read_strictly(path):
    config = load_config(PrepareRecipe, path)
    assert check_steps(config.data.steps) == check_engine(config.engine) == []
    assert f"--recipe recipes/{path.name}" in path.read_text(encoding="utf-8")


def test_the_recipe_for_comparing_reads_strictly():
    [path] = COMPARING
    config = check_comparison(load_config(ObjectivesConfig, path))
    assert len(config.seeds) == 3
    assert config.objectives == tuple(OBJECTIVES)
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert f"glmkit bench objectives recipes/{path.name}" in text


@pytest.mark.parametrize("path", [*FINETUNING, *PAPER, *MULTIMODAL], ids=lambda path: path.stem)
def test_recipes_for_tasks_read_strictly(path, monkeypatch):
    monkeypatch.setattr(finetune_settings, "_check_source", lambda *_: None)  # no model is here
    config = finetune_settings.check(load_config(finetune_settings.FinetuneConfig, path))
    assert config.loaded_tasks().keys() == config.tasks.keys()
    assert config.output_dir.parent.name == "runs"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert f"glmkit finetune --recipe recipes/{path.relative_to(FOLDER)}" in text


def test_there_is_a_recipe_for_each_way_to_fine_tune():
    configs = [load_config(finetune_settings.FinetuneConfig, path) for path in FINETUNING]
    kinds = {task.kind for config in configs for task in config.loaded_tasks().values()}
    assert kinds >= {"classification", "generation", "text"}
    assert {config.method for config in configs} == {"cloze", "head"}
    assert any(config.lora.rank for config in configs)
    assert any(len(config.tasks) > 1 for config in configs)


# epochs, rows of a step, peak rate, warm-up, tokens of a sample; the headers say where they are from
FINETUNED = {
    "superglue-boolq": (20, 16, 1e-5, 0.1, 256),
    "superglue-cb": (50, 16, 1e-5, 0.1, 256),
    "superglue-copa": (50, 16, 1e-5, 0.1, 256),
    "superglue-multirc": (15, 64, 1e-5, 0.1, 512),
    "superglue-record": (5, 64, 1e-5, 0.1, 512),
    "superglue-rte": (50, 16, 1e-5, 0.1, 256),
    "superglue-wic": (30, 16, 1e-5, 0.1, 256),
    "superglue-wsc": (50, 16, 1e-5, 0.1, 128),
    "clue-afqmc": (10, 16, 1e-5, 0.1, 256),
    "clue-tnews": (10, 16, 1e-5, 0.1, 256),
    "clue-cluewsc": (10, 16, 1e-5, 0.1, 256),
    "clue-cmrc": (10, 8, 2e-5, 0.06, 464 + 48),
    "gigaword": (4, 16, 3e-5, 0.06, 192 + 32),
    "squad-questions": (4, 16, 3e-5, 0.06, 464 + 48),
    "cnn-dm": (10, 4, 1e-5, 0.06, 608 + 160),
    "xsum": (6, 4, 1e-5, 0.06, 608 + 60),
}


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_tables_have_the_papers_numbers(path, monkeypatch):
    monkeypatch.setattr(finetune_settings, "_check_source", lambda *_: None)
    config = finetune_settings.check(load_config(finetune_settings.FinetuneConfig, path))
    trainer = config.trainer
    rows = trainer["per_device_train_batch_size"] * trainer.get("gradient_accumulation_steps", 1)
    found = (trainer["num_train_epochs"], rows, trainer["learning_rate"], trainer["warmup_steps"])
    assert (*found, config.max_length) == FINETUNED[path.stem]
    assert (trainer["weight_decay"], trainer["lr_scheduler_type"]) == (0.1, "linear")
    [task] = config.loaded_tasks().values()
    assert config.label_smoothing == (0.1 if task.kind == "generation" else 0)
    [data] = config.tasks.values()
    assert (data.patterns == [0]) == (
        not path.stem.startswith(("gigaword", "squad", "cnn", "xsum"))
    )
    assert {path.stem for path in PAPER} == set(FINETUNED)

from __future__ import annotations

import sys

import pytest
import torch
from model_samples import EOP, PAD, tiny_config, tiny_model
from transformers import GenerationConfig

from glmkit.checkpoint import read_checkpoint
from glmkit.errors import CheckpointError
from glmkit.model import (
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMModel,
)

IDS = torch.arange(1, 9)[None]


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_a_loaded_model_knows(folder):
    model = GLMForConditionalGeneration.from_pretrained(folder)
    assert model.name_or_path == model.config.name_or_path == str(folder)
    assert not model.training
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (
        EOP,
        PAD,
    )


def test_saved_generation_settings_are_loaded(folder):
    """They were left unread."""
    GenerationConfig(temperature=0.7, do_sample=True, eos_token_id=5).save_pretrained(folder)
    settings = GLMForConditionalGeneration.from_pretrained(folder).generation_config
    assert (settings.temperature, settings.do_sample, settings.eos_token_id) == (0.7, True, 5)


def test_trust_remote_code_is_accepted_and_ignored(folder, caplog):
    GLMModel.from_pretrained(folder, trust_remote_code=False)
    assert not caplog.records
    GLMModel.from_pretrained(folder, trust_remote_code=True)
    assert "trust_remote_code is ignored" in caplog.text


@pytest.mark.parametrize(
    "model_class", [GLMModel, GLMForMultipleChoice, GLMForConditionalGeneration]
)
@pytest.mark.parametrize(
    "saved_class", [GLMModel, GLMForConditionalGeneration, GLMForSequenceClassification]
)
def test_every_class_reads_every_backbone(tmp_path, model_class, saved_class, caplog):
    """A classification head in the file was an error to the other heads; now it is left aside."""
    saved = tiny_model(saved_class)
    saved.save_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path)
    backbones = [getattr(m, "glm", m) for m in (saved, model)]
    hidden = [m(input_ids=IDS).last_hidden_state for m in backbones]
    assert torch.equal(*hidden)
    assert not caplog.records


def test_a_new_head_is_announced(folder, caplog):
    model = GLMForSequenceClassification.from_pretrained(folder, num_labels=4)
    assert model.out_proj.weight.shape == (4, 32)
    assert "dense, out_proj not in the checkpoint and newly initialised" in caplog.text
    model.save_pretrained(folder)
    caplog.clear()
    again = GLMForSequenceClassification.from_pretrained(folder)
    assert torch.equal(again.out_proj.weight, model.out_proj.weight)
    assert not caplog.records


def test_a_head_beside_a_prefixed_backbone(folder, tmp_path):
    """Fine-tuned weights of the original: `glm.…` and the head's names in one file."""
    head = tiny_model(GLMForSequenceClassification)
    state = {f"glm.{name}": t for name, t in read_checkpoint(folder).state_dict.items()}
    state |= {name: t for name, t in head.state_dict().items() if not name.startswith("glm.")}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    model = GLMForSequenceClassification.from_pretrained(folder)
    assert torch.equal(model(input_ids=IDS).logits, head(input_ids=IDS).logits)


def test_weights_that_do_not_fit(folder):
    with pytest.raises(
        CheckpointError, match=r"wrong shape: .*word_embeddings.weight is \(96, 32\)"
    ):
        GLMModel.from_pretrained(folder, vocab_size=128)
    with pytest.raises(CheckpointError, match=r"missing: transformer.layers.2"):
        GLMModel.from_pretrained(folder, num_layers=3)
    with pytest.raises(CheckpointError, match=r"unexpected: glm.transformer.layers.1|unexpected"):
        GLMForConditionalGeneration.from_pretrained(folder, num_layers=1)
    with pytest.raises(CheckpointError, match="nowhere"):
        GLMModel.from_pretrained(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        GLMModel.from_pretrained(folder)


def test_a_given_configuration_is_not_changed(folder):
    config = tiny_config(attention_dropout_prob=0.3)
    model = GLMModel.from_pretrained(folder, config=config)
    assert model.config.attention_dropout_prob == 0.3
    assert not config.name_or_path


def test_fields_can_be_overridden(folder):
    model = GLMModel.from_pretrained(folder, hidden_act="relu", output_dropout_prob=0.0)
    assert (model.config.hidden_act, model.config.output_dropout_prob) == ("relu", 0.0)


@pytest.mark.parametrize("dtype", ["auto", None, "float32", torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_dtypes(tmp_path, dtype, stored):
    tiny_model().to(stored).save_pretrained(tmp_path)
    given = {} if dtype is None else {"dtype": dtype}
    wanted = {"auto": stored, None: stored, "float32": torch.float32}.get(dtype, torch.bfloat16)
    assert GLMModel.from_pretrained(tmp_path, **given).dtype == wanted


@pytest.mark.parametrize(("terminal", "large"), [(False, True), (True, True), (True, False)])
def test_progress_bars_of_large_models_go_to_terminals_only(
    folder, capsys, monkeypatch, terminal, large
):
    """transformers draws them wherever standard error goes, and for work of milliseconds."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    if large:
        monkeypatch.setattr("glmkit.model.loading.BYTES_WORTH_A_BAR", 1)
    GLMModel.from_pretrained(folder).save_pretrained(folder)
    printed = capsys.readouterr()
    shown = terminal and large
    assert ("Loading weights" in printed.err) == shown
    assert bool(printed.err) == shown
    assert printed.out == ""


def test_progress_bars_are_as_they_were(folder):
    from transformers.utils import logging

    GLMModel.from_pretrained(folder)
    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        GLMModel.from_pretrained(folder)
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()

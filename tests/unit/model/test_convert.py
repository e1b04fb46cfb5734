from __future__ import annotations

import json

import pytest
import torch
from transformers import GenerationConfig

import glmkit.model.convert as convert_module
from glmkit.checkpoint import read_checkpoint, write_files
from glmkit.errors import CheckpointError
from glmkit.model import GLMConfig, GLMForConditionalGeneration, GLMForSequenceClassification
from glmkit.model.convert import convert

FORMATS = ["glmkit", "hub", "megatron"]


def save_model(folder, model_class=GLMForConditionalGeneration, **changes):
    """Saves a tiny model as transformers does, its weights far enough from zero to show in logits."""
    torch.manual_seed(0)
    fields = {
        "vocab_size": 96,
        "hidden_size": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "max_sequence_length": 24,
        "initializer_range": 0.3,
        **changes,
    }
    model_class(GLMConfig(**fields)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    return folder


@pytest.fixture
def source(tmp_path):
    return save_model(tmp_path / "source")


def same_weights(left, right) -> bool:
    left, right = read_checkpoint(left).state_dict, read_checkpoint(right).state_dict
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("to", FORMATS)
def test_there_and_back(source, tmp_path, to):
    shards = 2 if to == "megatron" else 1
    report = convert(source, tmp_path / "there", to, shards=shards)
    assert report.max_abs_difference <= report.tolerance
    assert report.tolerance < 1e-3
    assert report.rounding_difference == 0
    assert report.tokenizer_files == ("vocab.txt",)
    assert read_checkpoint(tmp_path / "there").format == report.target_format == to
    convert(tmp_path / "there", tmp_path / "back")
    assert same_weights(source, tmp_path / "back")
    original, back = (GLMConfig.from_pretrained(p) for p in (source, tmp_path / "back"))
    assert (back.hidden_act, back.num_attention_heads) == (original.hidden_act, 2)
    assert (tmp_path / "back" / "vocab.txt").read_text() == "[PAD]\n"


@pytest.mark.parametrize(
    ("to", "act", "warns"),
    [
        ("hub", "gelu", False),
        ("hub", "gelu_new", True),
        ("megatron", "gelu_new", False),
        ("megatron", "gelu", True),
        ("hub", "relu", True),
        ("glmkit", "relu", False),
    ],
)
def test_the_originals_other_activation_is_measured(tmp_path, to, act, warns):
    source = save_model(tmp_path / "source", hidden_act=act)
    report = convert(source, tmp_path / "target", to)
    assert report.hidden_act == act
    assert (report.original_code_difference > 1e-5) == warns
    assert any("always computes with" in text for text in report.warnings) == warns
    assert read_checkpoint(tmp_path / "target").config["hidden_act"] == act


def test_rounding_is_reported_apart(source, tmp_path):
    report = convert(source, tmp_path / "target", "hub", dtype="bfloat16")
    assert report.dtype == "bfloat16"
    assert report.max_abs_difference <= report.tolerance
    assert report.rounding_difference > report.tolerance
    assert read_checkpoint(tmp_path / "target").source_dtype is torch.bfloat16


@pytest.mark.parametrize("to", FORMATS)
def test_heads_come_along(tmp_path, to):
    source = save_model(tmp_path / "source", GLMForSequenceClassification, num_labels=3)
    convert(source, tmp_path / "target", to)
    assert same_weights(source, tmp_path / "target")
    loaded = GLMForSequenceClassification.from_pretrained(tmp_path / "target")
    assert loaded.config.num_labels == 3
    assert torch.equal(
        loaded.out_proj.weight,
        GLMForSequenceClassification.from_pretrained(source).out_proj.weight,
    )


@pytest.mark.parametrize("to", FORMATS)
def test_settings_of_generation_come_along(source, tmp_path, to):
    """They were left behind, so that the copy wrote in another way than its source."""
    GenerationConfig(num_beams=3, eos_token_id=5, max_new_tokens=7).save_pretrained(source)
    convert(source, tmp_path / "target", to)
    loaded = GLMForConditionalGeneration.from_pretrained(tmp_path / "target").generation_config
    assert (loaded.num_beams, loaded.eos_token_id, loaded.max_new_tokens) == (3, 5, 7)


def test_vocabulary_from_elsewhere(source, tmp_path):
    (source / "vocab.txt").rename(tmp_path / "vocab.txt")
    report = convert(source, tmp_path / "without")
    assert report.tokenizer_files == ()
    assert "no vocabulary files" in report.warnings[0]
    report = convert(source, tmp_path / "with", tokenizer=tmp_path)
    assert report.tokenizer_files == ("vocab.txt",)
    assert report.warnings == ()


def test_the_report_reads_well(source, tmp_path):
    text = str(convert(source, tmp_path / "target", "hub"))
    assert "(glmkit) -> " in text
    assert "weights in float32, gelu_new" in text
    assert "warning: " in text


def test_values_that_do_not_fit_leave_nothing_behind(tmp_path):
    source = save_model(tmp_path / "source")
    state = read_checkpoint(source).state_dict
    state["transformer.final_layernorm.bias"] = torch.full((16,), 1e6)
    write_files(source, "glmkit", read_checkpoint(source).config, state)
    with pytest.raises(
        CheckpointError, match="final_layernorm.bias .* not finite in torch.float16"
    ):
        convert(source, tmp_path / "target", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    with pytest.raises(CheckpointError, match="Unknown dtype 'float17'; .*did you mean 'float16'"):
        convert(source, tmp_path / "target", dtype="float17")


def damage_weights(folder, to, config, state, **options):
    write_files(
        folder, to, config, {name: 1.01 * tensor for name, tensor in state.items()}, **options
    )


def damage_config(folder, to, config, state, **options):
    write_files(folder, to, config, state, **options)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "num_attention_heads": 4}))


@pytest.mark.parametrize(
    ("writer", "message"),
    [(damage_weights, "not written as it was read"), (damage_config, "logits differ by")],
)
def test_a_faulty_writer_is_caught(source, tmp_path, monkeypatch, writer, message):
    monkeypatch.setattr(convert_module, "write_files", writer)
    with pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "target", "hub")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

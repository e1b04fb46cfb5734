"""Adapters: added to a GLM, saved with their head alone, found again with their base, refused where they do not fit."""

from __future__ import annotations

import json

import pytest
import torch
from model_samples import tiny_config, tiny_model

from glmkit.checkpoint.adapters import is_adapter
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import GLMForConditionalGeneration, GLMForSequenceClassification
from glmkit.model.adapters import add_lora, load_merged, save_adapter

pytest.importorskip("peft")

IDS = torch.arange(12).view(2, 6)


def adapted(folder, model_class=GLMForSequenceClassification, **settings):
    """Returns a model with a trained-looking adapter, whose base is saved in `folder/base`."""
    base = tiny_model(GLMForConditionalGeneration)
    base.save_pretrained(folder / "base")
    model = model_class.from_pretrained(folder / "base", num_labels=3, pool_token="mean")
    model.name_or_path = str(folder / "base")
    wrapped = add_lora(model, rank=2, **settings)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return wrapped.eval()


@pytest.mark.parametrize("model_class", [GLMForSequenceClassification, GLMForConditionalGeneration])
def test_what_is_saved_is_the_model_again(tmp_path, model_class):
    model = adapted(tmp_path, model_class)
    save_adapter(model, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(tmp_path / "base")
    merged = load_merged(model_class, tmp_path / "adapter").eval()
    assert type(merged) is model_class
    with torch.no_grad():
        torch.testing.assert_close(
            merged(IDS).logits, model(input_ids=IDS).logits, atol=2e-4, rtol=1e-4
        )
        plain = load_merged(model_class, tmp_path / "base").eval()(IDS).logits
    if model_class is GLMForConditionalGeneration:
        assert not torch.allclose(plain, merged(IDS).logits, atol=1e-2)
    assert not (tmp_path / "adapter" / "README.md").exists()


def test_all_that_is_trained_is_in_the_layers_and_the_head(tmp_path):
    model = adapted(tmp_path, target_modules=["query_key_value"])
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    heads = {name for name in trained if "dense" in name or "out_proj" in name}
    assert {name.split(".")[-2:][0] for name in heads} == {"dense", "out_proj"}
    assert all(".layers." in name and "query_key_value.lora_" in name for name in trained - heads)


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(ConfigError, match="a layer has no keyz; there are query_key_value, dense"):
        add_lora(tiny_model(), rank=2, target_modules=["keyz"])
    save_adapter(adapted(tmp_path), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "base_model_name_or_path": str(tmp_path / "moved")}))
    with pytest.raises(
        CheckpointError, match="(?s)is an adapter for .*moved.*write its place into"
    ):
        load_merged(GLMForSequenceClassification, tmp_path / "adapter")
    path.write_text(json.dumps({**values, "base_model_name_or_path": ""}))
    with pytest.raises(CheckpointError, match="does not name its base model"):
        load_merged(GLMForSequenceClassification, tmp_path / "adapter")
    other = GLMForSequenceClassification(tiny_config(hidden_size=16, num_labels=3))
    other.save_pretrained(tmp_path / "other")
    path.write_text(json.dumps({**values, "base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(CheckpointError, match="(?s)does not fit GLMForSequenceClassification"):
        load_merged(GLMForSequenceClassification, tmp_path / "adapter")

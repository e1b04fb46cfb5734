"""`Architecture` and transformers' configuration of the same model say the same."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest

from glmkit.checkpoint.architecture import PRESETS, Architecture
from glmkit.embedded import ASSETS
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import GLMConfig

HUB = {
    "model_type": "glm",
    "num_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "architectures": ["GLMForSequenceClassification"],
    "num_labels": 5,
    "parallel_output": True,
}
OWN = {
    "model_type": "glm_infilling",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "classifier_dropout": 0.25,
    "dtype": "float16",
    "id2label": {"0": "no", "1": "yes", "2": "both"},
    "label2id": {"no": 0, "yes": 1, "both": 2},
    "transformers_version": "5.24.0",
    "something_of_others": [1, {"a": None}],
}


def test_every_field_stands_in_one_place():
    names = {field.name for field in dataclasses.fields(Architecture)}
    assert names <= {field.name for field in dataclasses.fields(GLMConfig)}
    assert not names & set(GLMConfig.__dict__.get("__annotations__", {}))
    assert "extra" not in vars(GLMConfig())


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    architecture, config = Architecture.preset(name), GLMConfig.preset(name)
    assert GLMConfig.from_architecture(architecture) == config
    assert architecture.num_parameters == config.num_parameters
    assert architecture.output_initializer_range == config.output_initializer_range


@pytest.mark.parametrize("raw", [HUB, OWN], ids=["hub", "own"])
def test_a_folder_loses_nothing(tmp_path, raw):
    (tmp_path / "config.json").write_text(json.dumps(raw))
    architecture = Architecture.from_folder(tmp_path)
    expected = GLMConfig.from_pretrained(tmp_path)
    for one in (architecture, copy.deepcopy(architecture), pickle.loads(pickle.dumps(architecture))):  # fmt: skip
        made = GLMConfig.from_architecture(one)
        assert made == expected
        assert made.to_dict() == expected.to_dict()
    assert GLMConfig(**architecture.to_dict()) == expected
    assert architecture.num_layers == expected.num_layers
    assert "num_layers" not in architecture.extra


def test_the_embedded_model():
    folder = ASSETS / "glm-mini"
    expected = GLMConfig.from_pretrained(folder)
    assert GLMConfig.from_architecture(Architecture.from_folder(folder)) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "768", "num_layers": 0},
        {"hidden_size": 64, "num_attention_heads": 5},
        {"hidden_act": "gelo", "tie_word_embeddings": False, "layernorm_epsilon": 0.0},
    ],
)
def test_both_complain_alike(wrong):
    messages = []
    for made in (Architecture, lambda **fields: Architecture.of(fields), GLMConfig):
        with pytest.raises(ConfigError, match="this GLM configuration cannot be built: ") as caught:
            made(**wrong)
        messages.append(str(caught.value))
    assert len(set(messages)) == 1


def test_folders_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"Cannot read .*config\.json: No such file"):
        Architecture.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm", "num_layers": 4}))
    with pytest.raises(CheckpointError, match="ChatGLM"):
        Architecture.from_folder(tmp_path)


def test_a_misspelt_field_is_refused():
    with pytest.raises(TypeError, match="num_layer"):
        Architecture(num_layer=3)


def test_fields_go_by_other_models_names_too():
    found = Architecture(num_layers=3, max_sequence_length=99)
    assert (found.num_hidden_layers, found.max_position_embeddings) == (3, 99)
    assert not hasattr(found, "num_experts")
    assert copy.copy(found) == found

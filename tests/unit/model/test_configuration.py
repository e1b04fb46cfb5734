from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from model_samples import tiny_config

from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import PRESETS, GLMConfig, GLMForConditionalGeneration

PUBLISHED_SIZES = {
    "base": 110e6,
    "large": 335e6,
    "roberta-large": 335e6,
    "large-chinese": 335e6,
    "515m": 515e6,
    "2b": 2e9,
    "10b": 10e9,
    "10b-chinese": 10e9,
}
"""As the names say; "335M" counts without the larger vocabularies' rows."""

EXACT = {
    "base": 109_338_624,
    "large": 334_688_256,
    "roberta-large": 354_873_344,
    "large-chinese": 355_659_776,
    "515m": 514_632_960,
    "2b": 1_920_122_880,
    "10b": 9_880_682_496,
    "10b-chinese": 9_879_633_920,
}


def test_every_preset_has_a_published_size():
    assert set(PUBLISHED_SIZES) == set(EXACT) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters(name):
    config = GLMConfig.preset(name)
    assert config.num_parameters == EXACT[name]
    assert config.num_parameters == pytest.approx(PUBLISHED_SIZES[name], rel=0.07)
    with torch.device("meta"):
        model = GLMForConditionalGeneration(config)
    assert model.num_parameters() == EXACT[name]


def test_preset_with_changes():
    config = GLMConfig.preset("large", vocab_size=50048, block_position_encoding=False)
    assert (config.num_layers, config.vocab_size) == (24, 50048)
    with torch.device("meta"):
        assert GLMForConditionalGeneration(config).num_parameters() == config.num_parameters


def test_unknown_preset():
    with pytest.raises(ConfigError, match=r"no preset 'lareg'; there are base, .* mean 'large'"):
        GLMConfig.preset("lareg")


def test_all_problems_in_one_message():
    with pytest.raises(ConfigError) as caught:
        GLMConfig(
            hidden_size="768",
            num_layers=0,
            num_attention_heads=0,
            intermediate_size=-1,
            max_sequence_length=None,
            hidden_act="gelo",
            pool_token="first",
            embedding_dropout_prob=1,
            output_dropout_prob="no",
            classifier_dropout=-0.1,
            layernorm_epsilon=0.0,
            initializer_range=-0.02,
            tie_word_embeddings=False,
        )
    text = str(caught.value)
    for clause in (
        "hidden_size='768' must be",
        "num_layers=0 must be",
        "num_attention_heads=0 must be",
        "intermediate_size=-1 must be",
        "max_sequence_length=None must be",
        "hidden_act='gelo'; allowed: gelu, gelu_new, relu",
        "pool_token='first'; allowed: cls, mean, last",
        "embedding_dropout_prob=1 must be",
        "output_dropout_prob='no' must be",
        "classifier_dropout=-0.1 must be",
        "layernorm_epsilon=0.0 must be",
        "initializer_range=-0.02 must be",
        "tie_word_embeddings=False",
    ):
        assert clause in text


def test_heads_divide_the_hidden_size():
    with pytest.raises(
        ConfigError, match="hidden_size=64 is not a multiple of num_attention_h.*=5"
    ):
        GLMConfig(hidden_size=64, num_attention_heads=5)


def test_hub_config():
    raw = {"model_type": "glm", "hidden_size": 64, "num_layers": 3, "num_attention_heads": 4}
    raw |= {"block_position_encoding": True, "output_predict": False, "parallel_output": True}
    config = GLMConfig.from_dict(raw)
    assert (config.hidden_size, config.num_layers, config.hidden_act) == (64, 3, "gelu")
    # What the folder does not say is what the published configuration class assumes.
    assert (config.vocab_size, config.max_sequence_length) == (30592, 512)
    assert not hasattr(config, "output_predict")


def test_old_hub_config_without_a_model_type():
    config = GLMConfig.from_dict({"block_position_encoding": True, "hidden_size": 64})
    assert (config.hidden_size, config.num_layers, config.num_attention_heads) == (64, 24, 16)


def test_reading_a_hub_folders_config(tmp_path, caplog):
    """transformers warned that a "glm" configuration is no "glm_infilling"; to us they are the same."""
    raw = {"model_type": "glm", "num_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = GLMConfig.from_pretrained(tmp_path)
    assert (config.num_layers, config.hidden_act) == (2, "gelu")
    assert not caplog.records


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "glm", "num_hidden_layers": 4, "hidden_size": 64}, "GLM-4"),
        ({"model_type": "chatglm", "num_layers": 4}, "ChatGLM"),
        ({"model_type": "bert", "hidden_size": 64}, "a model of type 'bert'"),
        ({"model_type": "glm", "num_layers": 4, "relative_encoding": True}, "relative positions"),
    ],
)
def test_other_models_are_refused(raw, message):
    with pytest.raises(CheckpointError, match=message):
        GLMConfig.from_dict(raw)


def test_saved_and_copied(tmp_path):
    config = tiny_config(num_labels=3, classifier_dropout=0.2, hidden_act="relu")
    config.save_pretrained(tmp_path)
    loaded = GLMConfig.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "glm_infilling"
    for other in (loaded, copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        for name in (
            "num_labels",
            "classifier_dropout",
            "hidden_act",
            "eop_token_id",
            "num_tokens",
        ):
            assert getattr(other, name) == getattr(config, name)


def test_names_that_other_code_asks_for():
    config = GLMConfig(num_hidden_layers=3)
    assert config.num_layers == config.num_hidden_layers == 3
    assert config.max_position_embeddings == config.max_sequence_length

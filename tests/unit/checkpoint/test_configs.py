from __future__ import annotations

import pytest
from checkpoint_samples import CONFIG, shapes

from glmkit.checkpoint import normalize_config
from glmkit.checkpoint.configs import hub_config, infer_config, is_hub_config
from glmkit.errors import CheckpointError

CHINESE_10B = {
    "_name_or_path": "THUDM/glm-10b-chinese",
    "architectures": ["GLMModel"],
    "auto_map": {"AutoConfig": "configuration_glm.GLMConfig"},
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "block_position_encoding": True,
    "checkpoint_activations": False,
    "checkpoint_num_layers": 1,
    "embedding_dropout_prob": 0.1,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "max_sequence_length": 1024,
    "model_type": "glm",
    "num_attention_heads": 64,
    "num_layers": 48,
    "output_dropout_prob": 0.1,
    "output_predict": True,
    "parallel_output": True,
    "pool_token": "cls",
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
    "torch_dtype": "float16",
    "vocab_size": 50048,
}


def test_ten_billion_parameters_in_chinese():
    config = normalize_config(CHINESE_10B)
    assert (config["num_layers"], config["hidden_size"], config["vocab_size"]) == (48, 4096, 50048)
    assert config["hidden_act"] == "gelu"
    assert "parallel_output" not in config
    assert "output_predict" not in config


def test_fields_missing_from_old_folders_are_those_of_glm_large():
    config = normalize_config({"model_type": "glm", "num_layers": 24})
    assert (config["hidden_size"], config["num_attention_heads"]) == (1024, 16)
    assert (config["vocab_size"], config["max_sequence_length"]) == (30592, 512)
    assert config["layernorm_epsilon"] == 1e-5


def test_labels_are_kept():
    config = normalize_config({**CHINESE_10B, "num_labels": 3, "id2label": {"0": "a"}})
    assert config["num_labels"] == 3
    assert config["id2label"] == {"0": "a"}


def test_a_glmkit_configuration_keeps_all_its_fields():
    raw = {**CONFIG, "model_type": "glm_infilling", "num_tokens": 40, "transformers_version": "5"}
    assert normalize_config(raw) == {**CONFIG, "num_tokens": 40}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "glm", "num_hidden_layers": 40, "num_key_value_heads": 2}, "GLM-4"),
        ({"model_type": "chatglm", "num_layers": 28}, "ChatGLM.*transformers"),
        ({"architectures": ["ChatGLMModel"], "num_layers": 28}, "ChatGLM"),
        ({"model_type": "glm4"}, "type 'glm4'"),
        ({"model_type": "bert", "hidden_size": 768}, "type 'bert'"),
        ({"some": 1}, "none of the fields"),
        ({"num_layers": 2, "relative_encoding": True}, "relative positions"),
        ({"num_layers": 2, "spell_length": 4}, "spelling"),
    ],
)
def test_other_models_are_recognised(raw, message):
    with pytest.raises(CheckpointError, match=message):
        normalize_config(raw)


def test_which_dicts_need_translation():
    assert is_hub_config(CHINESE_10B)
    assert is_hub_config({"num_layers": 3, "block_position_encoding": True})
    assert not is_hub_config({"model_type": "glm_infilling"})
    assert not is_hub_config({"hidden_size": 8})


def test_hub_configuration_round_trip():
    for change in ({}, {"hidden_act": "gelu_new"}, {"layernorm_epsilon": 1e-6}, {"num_labels": 3}):
        config = {**CONFIG, **change}
        raw = hub_config(config, "float16", "GLMForConditionalGeneration")
        assert normalize_config(raw) == config
        assert ("hidden_act" in raw) == ("hidden_act" in change)


def test_a_training_folder_tells_everything_but_heads_and_dropout():
    config = normalize_config(infer_config(shapes(), {}, num_attention_heads=2))
    told = ("vocab_size", "hidden_size", "num_layers", "max_sequence_length", "num_attention_heads")
    assert {name: config[name] for name in told} == {name: CONFIG[name] for name in told}
    assert config["hidden_act"] == "gelu_new"


def test_heads_of_a_training_folder():
    stored = {"num_attention_heads": 4, "attention_scale": 8.0}
    assert infer_config(shapes(), stored)["num_attention_heads"] == 4
    assert infer_config(shapes(), stored)["attention_scale"] == 8.0
    large = {**CONFIG, "hidden_size": 1024}
    assert infer_config(shapes(large), {})["num_attention_heads"] == 16
    with pytest.raises(CheckpointError, match="hidden size 8 is not a published one"):
        infer_config(shapes(), {})
    with pytest.raises(
        CheckpointError, match="num_attention_heads=2 was given, but the folder says 4"
    ):
        infer_config(shapes(), stored, num_attention_heads=2)


def test_one_dimensional_positions():
    named = shapes()
    del named["transformer.block_position_embeddings.weight"]
    config = infer_config(named, {}, num_attention_heads=2)
    assert config["block_position_encoding"] is False
    assert config["max_sequence_length"] == CONFIG["max_sequence_length"] + 1


def test_weights_without_embeddings_have_no_configuration():
    with pytest.raises(CheckpointError, match="no matrix 'word_embeddings.weight'"):
        infer_config({}, {})

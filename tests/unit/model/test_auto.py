"""transformers' Auto classes know GLM before its classes are imported, and make the same models afterwards."""

from __future__ import annotations

import copy
import pickle

import pytest
from transformers import MODEL_MAPPING, AutoConfig, AutoModelForTokenClassification

import glmkit.model
from glmkit.model import GLMConfig, GLMModel, modeling
from glmkit.model.auto import AUTO_CLASSES, StandIn, register

TINY = {"vocab_size": 32, "hidden_size": 8, "num_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def stand_ins():
    """The tables as they are until `modeling` is imported."""
    register(StandIn)
    yield
    register(vars(modeling).__getitem__)


def test_the_imported_classes_are_in_the_tables():
    assert MODEL_MAPPING[GLMConfig] is GLMModel
    assert AutoConfig.for_model("glm_infilling", **TINY).hidden_size == 8


@pytest.mark.parametrize("auto_class", AUTO_CLASSES, ids=lambda one: one.__name__)
def test_an_auto_class_makes_the_model_behind_a_stand_in(stand_ins, auto_class):
    model = auto_class.from_config(GLMConfig(**TINY))
    assert type(model) is getattr(glmkit.model, AUTO_CLASSES[auto_class])


def test_an_auto_class_reads_a_folder_through_a_stand_in(stand_ins, tmp_path):
    saved = glmkit.model.GLMForTokenClassification(GLMConfig(**TINY, num_labels=3))
    saved.save_pretrained(tmp_path)
    read = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(read) is type(saved)
    assert read.tag_proj.weight.equal(saved.tag_proj.weight)


def test_a_stand_in_is_copied_and_pickled_as_a_name():
    one = StandIn("GLMModel")
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other.__name__ == "GLMModel"
        assert other.config_class is GLMConfig
    with pytest.raises(AttributeError, match="nothing"):
        _ = one.nothing


def test_names_that_the_package_does_not_have_are_refused():
    assert "GLMModel" in dir(glmkit.model)
    with pytest.raises(AttributeError, match="'glmkit.model' has no attribute 'GLMNothing'"):
        _ = glmkit.model.GLMNothing

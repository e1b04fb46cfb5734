"""Fine-tuning by virtual tokens, on a base of 4 bits, and of tags: it learns, goes on exactly, and inference does what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from finetune_samples import kill_at, make_config, reviews, write_jsonl, write_model
from pretrain_samples import curve
from typer.testing import CliRunner

import glmkit
from glmkit.cli.main import build_app
from glmkit.cli.tuning import _method_settings
from glmkit.errors import CheckpointError, ConfigError, UserError
from glmkit.evaluation.tasks import evaluate_task
from glmkit.model import GLMForConditionalGeneration
from glmkit.native.quantizing import quantize
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_trainer import read_weights

pytest.importorskip("peft")

NAMES = {"PER": ["老板", "我们"], "LOC": ["房间", "早餐店"], "ORG": ["位置"]}


def tagged(count: int, seed: int = 0) -> list[dict]:
    """Records whose spans are told by their words."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        text, spans = "", []
        for label in rng.choice([*NAMES], 2):
            text += rng.choice(["今天", "味道好，", "送餐"])
            name = str(rng.choice(NAMES[label]))
            spans.append([len(text), len(text) + len(name), str(label)])
            text += name
        records.append({"text": text + "。", "spans": spans})
    return records


@pytest.fixture(scope="module")
def base(tmp_path_factory, data):
    """A model that has seen the words: random weights that stay as they are have little to adapt."""
    folder = tmp_path_factory.mktemp("base")
    model = write_model(folder / "model")
    return finetune(make_config(model, folder / "run", {"sentiment": data}, max_steps=16)).model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    train = write_jsonl(folder / "train.jsonl", reviews(80))
    valid = write_jsonl(folder / "valid.jsonl", reviews(30, seed=1))
    return {"train": [str(train)], "valid": [str(valid)]}


@pytest.fixture(scope="module")
def runs(base, data, tmp_path_factory) -> dict:
    """A run of some steps of each kind of adapter."""
    folder = tmp_path_factory.mktemp("runs")
    ways = {
        "lora": {"lora": {"rank": 4}},
        "prefix": {"virtual": {"tokens": 6}},
        "head-prompt": {"method": "head", "virtual": {"tokens": 4, "kind": "prompt"}},
    }
    found = {}
    for name, sections in ways.items():
        sections["best"] = {"metric": "loss"}
        config = make_config(base, folder / name, {"sentiment": data}, sections, max_steps=24, eval_steps=8, learning_rate=3e-2)  # fmt: skip
        found[name] = finetune(config)
    return found


TEXTS = [record["text"] for record in reviews(6, seed=5)]


@pytest.mark.parametrize("way", ["lora", "prefix", "head-prompt"])
def test_it_learns_and_inference_does_what_was_measured(runs, way):
    report = runs[way]
    before, after = report.before["sentiment"], report.after["sentiment"]
    assert after["loss"] < before["loss"]
    assert report.trained_parameters < report.parameters / 10
    glm = glmkit.load(report.model, device="cpu")
    lines = (report.folder / "predictions" / "sentiment.jsonl").read_text("utf-8").splitlines()
    texts = [record["text"] for record in reviews(30, seed=1)]
    for found, line in zip(glm.classify(texts, "sentiment"), map(json.loads, lines), strict=True):
        assert found.probabilities == pytest.approx(line["probabilities"], abs=1e-4)


def test_several_adapters_share_a_base(runs, base):
    """Each gives what it gives alone, in whatever order they are put to work; without one the base is what it was."""
    glm = glmkit.load(base, device="cpu")
    plain = glm.classify(TEXTS, "sentiment")
    names = {way: glm.load_adapter(report.model) for way, report in runs.items()}
    assert glm.adapters == sorted(names)
    for way in ("prefix", "lora", None, "head-prompt", "lora"):
        glm.set_adapter(way)
        alone = plain
        if way is not None:
            alone = glmkit.load(runs[way].model, device="cpu").classify(TEXTS, "sentiment")
        for one, other in zip(glm.classify(TEXTS, "sentiment"), alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert (glm.head is not None) == (way == "head-prompt")
    with pytest.raises(ConfigError, match="no adapter 'loras'; did you mean 'lora'"):
        glm.set_adapter("loras")
    with pytest.raises(ConfigError, match="an adapter 'lora' already"):
        glm.load_adapter(runs["lora"].model)
    with pytest.raises(CheckpointError, match="is no adapter"):
        glm.load_adapter(base)


def test_an_adapter_of_an_adapter_finds_the_base(runs, data, tmp_path):
    config = make_config(runs["prefix"].model, tmp_path / "run", {"sentiment": data}, {"lora": {"rank": 2}}, max_steps=2)  # fmt: skip
    report = finetune(config)
    assert report.before["sentiment"] == pytest.approx(runs["prefix"].after["sentiment"], rel=1e-3)
    assert glmkit.load(report.model, device="cpu").model.glm.virtual_tokens is not None


def test_virtual_tokens_cannot_be_quantized(runs, tmp_path):
    with pytest.raises(ConfigError, match="adapter of virtual tokens, which torch alone reads"):
        quantize(runs["prefix"].model, tmp_path / "q", "int8")


def test_resumed_is_uninterrupted(base, data, tmp_path, monkeypatch):
    """Also where what is saved for inference is not what is trained: the small network behind P-tuning's tokens."""
    sections = {"virtual": {"tokens": 4, "kind": "ptuning", "encoder_size": 16}}
    sections["model"] = {"from": str(base), "output_dropout_prob": 0.1}
    trainer = {"max_steps": 6, "eval_steps": 2, "learning_rate": 1e-2}
    tasks = {"sentiment": data}
    whole = finetune(make_config(base, tmp_path / "one", tasks, sections, **trainer))
    kill_at(3, make_config(base, tmp_path / "two", tasks, sections, **trainer), monkeypatch)
    resumed = finetune(make_config(base, tmp_path / "two", tasks, sections, **trainer))
    assert resumed.resumed_from == 2
    assert curve(tmp_path / "one") == curve(tmp_path / "two")
    one, two = read_weights(whole.model), read_weights(resumed.model)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_adapters_are_trained_on_a_base_of_4_bits(base, data, tmp_path):
    """The base's Linears are of 4 bits while it is trained; the merged model has the weights as they were, and the change."""
    pytest.importorskip("bitsandbytes")
    sections = {"lora": {"rank": 4, "quantize": "nf4", "merge": True}}
    config = make_config(base, tmp_path / "run", {"sentiment": data}, sections, max_steps=32, eval_steps=16, learning_rate=1e-2)  # fmt: skip
    report = finetune(config)
    assert report.method == "cloze, QLoRA of rank 4"
    assert report.after["sentiment"]["loss"] < report.before["sentiment"]["loss"] - 0.02
    merged = GLMForConditionalGeneration.from_pretrained(report.model).state_dict()
    before = GLMForConditionalGeneration.from_pretrained(base).state_dict()
    name = "glm.transformer.layers.0.attention.query_key_value."
    assert torch.equal(merged[name + "bias"], before[name + "bias"])
    change = merged[name + "weight"] - before[name + "weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 4  # nothing of the 4 bits is left in it


def test_tags_are_learnt_found_and_counted(base, tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", tagged(160))
    valid = write_jsonl(tmp_path / "valid.jsonl", tagged(40, seed=1))
    tasks = {"ner": {"train": [str(train)], "valid": [str(valid)]}}
    report = finetune(make_config(base, tmp_path / "run", tasks, num_train_epochs=5))
    assert report.before["ner"]["entity_f1"] < 0.3
    assert report.after["ner"]["entity_f1"] > 0.9
    lines = (report.folder / "predictions" / "ner.jsonl").read_text("utf-8").splitlines()
    texts = tagged(40, seed=1)
    assert len(lines) == len({record["text"] for record in texts}) or len(lines) == 40
    glm = glmkit.load(report.model, device="cpu")
    result, _ = evaluate_task(glm, load_task("ner"), [(one, "x") for one in texts])
    assert result.metrics["entity_f1"].value == pytest.approx(report.after["ner"]["entity_f1"])
    found = glm.tag("今天老板味道好，房间。")
    assert [(one.text, one.label) for one in found.spans] == [("老板", "PER"), ("房间", "LOC")]
    assert str(found) == "老板/PER 房间/LOC"
    # Longer than the model reads: windows.
    many = glm.tag(["送餐房间。" * 40, ""])
    assert sum(one.text == "房间" for one in many[0].spans) == 40
    assert many[1].spans == []
    with pytest.raises(ConfigError, match="not fine-tuned to tag"):
        glmkit.load(base, device="cpu").tag("今天")
    done = CliRunner().invoke(build_app(), ["tag", "--model", str(report.model), "送餐老板。"])
    assert done.stdout == "老板/PER\t送餐老板。\n"


def test_what_the_words_behind_method_mean():
    assert _method_settings(["head", "qlora"], None) == {"method": "head", "lora.rank": 16, "lora.quantize": "nf4"}  # fmt: skip
    assert _method_settings(["prefix"], None)["virtual.tokens"] == 16
    assert _method_settings(["lora"], 4)["lora.rank"] == 4
    for words, rank, message in (
        (["prefx"], None, "there is cloze, head, full.*did you mean 'prefix'"),
        (["lora", "prefix"], None, "choose one of them"),
        (["prefix"], 8, "--lora 8 is the rank of lora and qlora"),
    ):
        with pytest.raises(UserError, match=message):
            _method_settings(words, rank)


def test_settings_that_contradict_each_other_are_named(base, data, tmp_path):
    def refused(message: str, sections: dict, tasks: dict | None = None) -> None:
        with pytest.raises(UserError, match=message):
            finetune(make_config(base, tmp_path / "run", tasks or {"sentiment": data}, sections))

    refused("virtual.tokens and lora.rank: choose one", {"lora": {"rank": 2}, "virtual": {"tokens": 2}})  # fmt: skip
    refused("lora.quantize = 'nf4' needs lora.rank above 0", {"lora": {"quantize": "nf4"}})
    refused("virtual.encoder_size = 8 is the width", {"virtual": {"tokens": 2, "encoder_size": 8}})
    refused("trained alone", {}, {"ner": data, "sentiment": data})
    empty = write_jsonl(tmp_path / "none.jsonl", [{"text": f"今天{n}", "spans": []} for n in range(9)])  # fmt: skip
    refused("none of .* records has a span", {}, {"ner": {"train": [str(empty)], "valid_ratio": 0.3}})  # fmt: skip

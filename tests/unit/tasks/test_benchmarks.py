"""The benchmarks of the catalog on a few records each: asked as published, prepared, trained on, measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark_samples import QUESTIONS, RECORDS, other
from glmkit.api import GLM
from glmkit.evaluation.metrics import FAMILIES
from glmkit.evaluation.suite import evaluate_tasks, parse_runs
from glmkit.evaluation.tasks import evaluate_task
from glmkit.generation.settings import DecodingSettings
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.special_tokens import GMASK, MASK, SMASK
from glmkit.tasks.prepare import prepare_task
from glmkit.tasks.rendering import expand, question
from glmkit.tasks.task import catalog, load_task
from glmkit.tokens.train import train_tokenizer
from glmkit.training.building import special_fields
from glmkit.training.finetune_data import read_task
from glmkit.training.finetune_losses import batch_loss
from glmkit.training.finetune_settings import TaskData
from glmkit.training.finetune_stream import FinetuneStream

NAMES = sorted(RECORDS)


@pytest.fixture(scope="module")
def glm() -> GLM:
    texts = [text for asked in QUESTIONS.values() for pair in asked for text in pair]
    for mask in (MASK, SMASK, GMASK):
        texts = [text.replace(mask, " ") for text in texts]
    tokenizer = train_tokenizer(texts * 3, 700, "unigram")
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        max_sequence_length=256,
        initializer_range=0.2,
        output_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        embedding_dropout_prob=0.0,
        **special_fields(tokenizer),
    )
    return GLM(GLMForConditionalGeneration(config), tokenizer)


def write(path, records):
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def asked(name: str, pattern: int = 0):
    task = load_task(name)
    records = [one for record in RECORDS[name] for one in expand(task, record, "x:1")]
    return [question(task, one, "x:1", pattern=pattern) for one in records]


def test_the_tests_know_all_benchmarks():
    assert set(RECORDS) == set(QUESTIONS) == {name for name in catalog() if "/" in name}


@pytest.mark.parametrize("name", NAMES)
def test_records_are_asked_as_the_paper_asks(name):
    found = asked(name)
    assert [(one.before + one.mask + one.after, one.answer) for one in found] == QUESTIONS[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_asks_the_same_in_the_benchmarks_language(name):
    task, language = load_task(name), "zh" if name.startswith("clue/") else "en"
    assert task.name == name
    assert list(task.patterns) == [language]
    for pattern in range(len(task.patterns[language])):
        found = asked(name, pattern)
        assert [one.answer for one in found] == [answer for _, answer in QUESTIONS[name]]
        assert {one.language for one in found} == {language}
        assert not any("{" in one.before + one.after for one in found)
    text = "".join(task.patterns[language])
    assert any("\u4e00" <= c <= "\u9fff" for c in text) == (
        language == "zh" and name != "clue/chid"
    )
    DecodingSettings.from_arguments(**task.decoding)


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_the_answers_likelier(name, glm, tmp_path):
    data = TaskData(
        train=[str(write(tmp_path / "train.jsonl", RECORDS[name]))],
        valid=[str(write(tmp_path / "valid.jsonl", other(RECORDS[name])))],
    )
    samples = read_task("t", load_task(name), data, glm.tokenizer, 256, 0)
    assert len(samples.train) == len(samples.valid) == len(QUESTIONS[name])
    assert not samples.counts["dropped"]
    model = GLMForConditionalGeneration(glm.model.config)
    model.load_state_dict(glm.model.state_dict())
    stream = FinetuneStream([samples], glm.tokenizer.special_ids, rows=4, seed=0)
    batch = next(stream)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        loss, count = batch_loss(model, batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
        losses.append((loss / count).item())
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_measured(name, glm, tmp_path):
    write(tmp_path / "data.jsonl", RECORDS[name])
    [run] = parse_runs([], [f"{name}={tmp_path / 'data.jsonl'}"])
    if "max_new_tokens" in run.task.decoding:  # as published, but shorter
        decoding = {**run.task.decoding, "max_new_tokens": 12, "min_new_tokens": 6}
        run = replace(run, task=replace(run.task, decoding=decoding))
    report = evaluate_tasks(glm, [run], tmp_path / "out")
    result = report.runs[run.name]
    assert result["examples"] == len(QUESTIONS[name])
    assert result["skipped"] == 0
    metric = run.task.metric
    for one in FAMILIES.get(metric, (metric,)):
        assert math.isfinite(result["metrics"][one]["value"])
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(QUESTIONS[name])
    if run.task.kind in ("classification", "multiple_choice"):
        shares = [sum(json.loads(line)["probabilities"].values()) for line in lines]
        assert shares == pytest.approx([1] * len(lines), abs=1e-3)


def test_samples_for_a_mixture_are_prepared(glm, tmp_path):
    for name in ("superglue/multirc", "clue/cmrc"):
        source = write(tmp_path / "data.jsonl", RECORDS[name])
        out = tmp_path / name.replace("/", "-")
        report = prepare_task(name, source, out, glm.tokenizer, valid_ratio=0)
        assert report.train == len(QUESTIONS[name])


def test_any_of_several_right_names_counts_and_the_first_competes_with_wrong_ones(glm):
    task = load_task("superglue/record")
    result, predictions = evaluate_task(glm, task, [(one, "x:1") for one in RECORDS[task.name]])
    assert predictions[1]["references"] == ["Ann", "Bob"]
    assert set(predictions[1]["probabilities"]) == {"Ann", "Bob", "Paris"}
    right = [one["prediction"] in one["references"] for one in predictions]
    assert result.metrics["exact_match"].value == np.mean(right)


def test_the_last_word_is_right_if_it_is_what_the_model_would_write(glm):
    """Teacher forcing agrees with greedy writing, where writing is as long as the word."""
    records = [(one, "x:1") for one in RECORDS["lm/lambada"]]
    for name in ("lm/lambada", "lm/lambada_uni"):
        found, predictions = evaluate_task(glm, load_task(name), records)
        hits = [one["prediction"] == one["references"][0] for one in predictions]
        assert found.metrics["greedy_match"].value == np.mean(hits)
    length = len(glm.tokenizer(" door", add_special_tokens=False)["input_ids"])
    text = asked("lm/lambada")[0].before + GMASK
    written = glm.fill(text, max_new_tokens=length, min_new_tokens=length)
    _, [first, _] = evaluate_task(glm, load_task("lm/lambada"), records)
    assert (written.blanks[0] == "door") == (first["prediction"] == "door")


def test_both_ways_to_read_what_stands_before(glm):
    """Where all fits at once they are the same; where it does not, each token is still measured once."""
    [record] = RECORDS["lm/wikitext"]
    values = {}
    for times in (1, 12):
        long = [({"text": record["text"] * times}, "x:1")]
        for name in ("lm/wikitext", "lm/wikitext_uni"):
            result, [prediction] = evaluate_task(glm, load_task(name), long)
            nats, words = prediction["word_perplexity_sums"]
            assert words == times * len(record["text"].split())
            assert result.metrics["word_perplexity"].value == pytest.approx(math.exp(nats / words))
            values[name, times] = nats, prediction["perplexity_sums"][1]
    assert values["lm/wikitext", 1] == values["lm/wikitext_uni", 1]
    assert values["lm/wikitext", 12][1] == values["lm/wikitext_uni", 12][1] > 256
    assert values["lm/wikitext", 12][0] != pytest.approx(values["lm/wikitext_uni", 12][0], abs=0.1)

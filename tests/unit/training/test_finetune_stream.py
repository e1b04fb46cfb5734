"""Batches of labelled samples: every sample once an epoch, tasks by their shares, a place to go on from; and their losses."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from glmkit.blanks.layout import Piece, lay_out
from glmkit.errors import ConfigError
from glmkit.model import GLMForSequenceClassification
from glmkit.tasks.choices import Choices
from glmkit.tasks.task import load_task
from glmkit.training.finetune_data import Sample, TaskSamples
from glmkit.training.finetune_losses import batch_loss, choice_losses, choice_scores
from glmkit.training.finetune_measuring import macro_f1, summarise
from glmkit.training.finetune_settings import BestSettings
from glmkit.training.finetune_stream import FinetuneStream, make_batch
from glmkit.training.finetune_trainer import FinetuneTrainer
from unit.model.model_samples import CLS, EOP, EOS, GMASK, MASK, PAD, SMASK, SOP, tiny_model

SPECIALS = SimpleNamespace(pad=PAD, sop=SOP, eop=EOP, masks=(MASK, SMASK, GMASK))


def part_a(rng, length):
    ids = rng.integers(0, 80, length)
    return np.array([CLS, *ids, MASK, EOS])


def classes(count: int, seed: int = 0, choices: int = 2) -> TaskSamples:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        contents = [rng.integers(0, 80, 1 + n % 2) for n in range(choices)]
        variants = tuple(Choices(part_a(rng, 3 + number % 9), contents, number % choices) for _ in range(2))  # fmt: skip
        samples.append(Sample(f"c:{number}", variants, 1.0 + number % 2))
    return TaskSamples("c", load_task("sentiment"), samples, samples)


def written(count: int, seed: int = 1) -> TaskSamples:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        context = part_a(rng, 4 + number % 5)
        piece = Piece(len(context) - 2, rng.integers(0, 80, 1 + number % 4), EOP)
        samples.append(Sample(f"w:{number}", (lay_out(context, [piece], SOP),)))
    return TaskSamples("w", load_task("summary"), samples, samples)


def stream(*tasks, rows=4, **options) -> FinetuneStream:
    return FinetuneStream(tasks, SPECIALS, rows=rows, seed=5, **options)


@pytest.mark.parametrize("count", [3, 8, 37])
def test_an_epoch_has_every_sample_and_fills_its_last_batch(count):
    batches = stream(classes(count))
    seen = [one for _ in range(batches.batches_per_epoch) for one in next(batches)["where"]]
    assert set(seen) == {f"c:{n}" for n in range(count)}
    assert len(seen) == batches.batches_per_epoch * 4
    assert batches.epochs == 1
    again = [one for _ in range(batches.batches_per_epoch) for one in next(batches)["where"]]
    assert set(again) == set(seen)
    assert again != seen or count < 4


def test_a_sample_is_asked_by_another_pattern_each_time():
    task = classes(8)
    batches = stream(task, rows=8)
    first, second = next(batches), next(batches)
    for batch, epoch in ((first, 0), (second, 1)):
        for row, where in enumerate(batch["where"]):
            number = int(where.split(":")[1])
            wanted = task.train[number].variants[(number + epoch) % 2].part_a
            ids = batch["inputs"]["input_ids"][row].numpy()
            start = int(np.flatnonzero(ids == CLS)[0])
            assert (ids[start : start + len(wanted)] == wanted).all()


@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 3 / 4), ({"weights": [1.0, 3.0]}, 1 / 2), ({"temperature": 1e9}, 1 / 2)],
)
def test_tasks_take_turns_by_their_shares(options, share):
    batches = stream(classes(24), written(8), **options)
    turns = Counter(next(batches)["task"] for _ in range(80))
    assert turns[0] / 80 == pytest.approx(share, abs=0.02)


def test_a_stream_goes_on_from_its_place_and_refuses_other_records():
    batches = stream(classes(11), written(7))
    for _ in range(5):
        next(batches)
    state = batches.state_dict()
    expected = [next(batches)["where"] for _ in range(9)]
    other = stream(classes(11), written(7))
    other.load_state_dict(state)
    assert [next(other)["where"] for _ in range(9)] == expected
    with pytest.raises(ConfigError, match="records to train on are not those"):
        stream(classes(11), written(7, seed=2)).load_state_dict(state)


def test_processes_divide_a_batch():
    alone = stream(classes(20), rows=4)
    parts = [stream(classes(20), rows=2, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(12):
        wheres = [next(part)["where"] for part in parts]
        assert wheres[0] + wheres[1] == next(alone)["where"]


def test_scores_are_log_probabilities_with_the_end_and_fewer_choices_are_no_choices():
    model = tiny_model()
    two, three = classes(2, choices=2).train, classes(2, choices=3).train
    variants = [two[0].variants[0], three[1].variants[0]]
    scores = choice_scores(model, make_batch(variants, SPECIALS, head=False))
    assert scores.shape == (2, 3)
    assert scores[0, 2] == -torch.inf
    for row, one in enumerate(variants):
        alone = choice_scores(model, make_batch([one], SPECIALS, head=False))[0]
        torch.testing.assert_close(alone, scores[row, : len(alone)], atol=1e-4, rtol=0)
    losses = choice_losses(scores, torch.tensor([1, 2]), smoothing=0.2)
    expected = F.cross_entropy(scores[:1, :2], torch.tensor([1]), label_smoothing=0.2)
    assert losses[0].item() == pytest.approx(expected.item(), abs=1e-5)
    losses.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_smoothed_tokens_are_cross_entropy_with_smoothing():
    model = tiny_model()
    batch = make_batch([one.variants[0] for one in written(5).train], SPECIALS, head=False)
    plain, count = batch_loss(model, batch)
    assert count == batch["tokens"]
    labels = batch["inputs"]["labels"]
    logits = model(**{k: v for k, v in batch["inputs"].items() if k != "labels"}).logits
    for smoothing in (0.0, 0.3):
        expected = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing
        )
        found, _ = batch_loss(model, batch, smoothing)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert plain.item() > 0


def test_weights_count_and_a_head_reads_part_a_alone():
    task = classes(6)
    batch = next(stream(task, rows=6, head=True))
    model = tiny_model(GLMForSequenceClassification, num_labels=2)
    total, weights = batch_loss(model, batch)
    assert weights == sum(one.weight for one in task.train)
    expected = 0.0
    for where in batch["where"]:
        number = int(where.split(":")[1])
        one = task.train[number]
        ids = torch.from_numpy(one.variants[number % 2].part_a)[None]
        loss = model(input_ids=ids, labels=torch.tensor([one.right])).loss
        expected += one.weight * loss.item()
    assert total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_a_step_is_one_mean_over_its_batches(tmp_path, accumulated):
    """Not a mean of the batches' means: a batch of short answers counts less."""
    tasks = [written(24), classes(16)]
    args = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to=[])
    model = tiny_model()
    batches = stream(*tasks)
    trainer = FinetuneTrainer(model, args, batches, tasks, None, best=BestSettings())
    found, _ = trainer.get_batch_samples(iter(batches), accumulated, args.device)
    loss = sum(trainer.compute_loss(model, batch).item() for batch in found)
    expected = 0.0
    for number in {batch["task"] for batch in found}:
        own = [batch for batch in found if batch["task"] == number]
        sums = [batch_loss(model, batch) for batch in own]
        mean = sum(total.item() for total, _ in sums) / sum(count.item() for _, count in sums)
        expected += mean * len(own) / len(found)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_metrics_by_hand():
    assert macro_f1([0, 0, 1, 2], [0, 1, 1, 1]) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert macro_f1([0, 1], [0, 1]) == 1
    found = {"a": {"loss": 1.0, "accuracy": 0.5}, "b": {"loss": 3.0, "perplexity": 20.0}}
    assert summarise(found) == {
        "eval_loss": 2.0,
        "eval_a_loss": 1.0,
        "eval_a_accuracy": 0.5,
        "eval_b_loss": 3.0,
        "eval_b_perplexity": 20.0,
    }

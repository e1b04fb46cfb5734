from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_samples import PAD, VOCAB, batch, example, tiny_config, tiny_model
from torch import nn
from transformers import AttentionInterface

from glmkit.blanks.layout import collate_packed
from glmkit.errors import ConfigError, UserError
from glmkit.model import (
    GLMConfig,
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMModel,
)
from glmkit.model.modeling import eager_attention
from glmkit.model.prompting import CACHE


def examples(seed=0):
    rng = np.random.default_rng(seed)
    return [example(rng, length, blank) for length, blank in [(9, 4), (5, 2), (14, 6), (4, 1)]]


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


# What GLM's attention promises


def test_part_a_never_sees_part_b_and_part_b_never_its_future():
    model = tiny_model(GLMModel)
    one = examples()[2]
    inputs = batch([one])
    labels = inputs.pop("labels")
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    at = one.prefix_length + 3
    changed["input_ids"][:, at:] = 3
    before, after = (model(**fields).last_hidden_state for fields in (inputs, changed))
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.allclose(before[:, at:], after[:, at:])
    assert labels[:, : one.prefix_length].eq(-100).all()
    # A change of part A reaches everyone: it is read in both directions.
    changed["input_ids"] = inputs["input_ids"].clone()
    changed["input_ids"][:, one.prefix_length - 1] = 3
    after = model(**changed).last_hidden_state
    assert (before - after).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_answer(implementation, side):
    model = tiny_model(implementation=implementation)
    rows = model(**batch(examples(), side)).logits
    for row, one, mask in zip(
        rows, examples(), batch(examples(), side)["attention_mask"], strict=True
    ):
        close(row[mask > 0], model(**batch([one])).logits[0])


def test_packed_samples_do_not_see_each_other():
    model = tiny_model()
    packed = collate_packed([examples()], PAD, 60)
    row = model(**{name: torch.from_numpy(array) for name, array in packed.items()}).logits[0]
    for number, one in enumerate(examples(), start=1):
        here = torch.from_numpy(packed["segment_ids"][0] == number)
        close(row[here], model(**batch([one])).logits[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_rows_that_see_nothing_are_finite(dtype, implementation):
    model = tiny_model(implementation=implementation).to(dtype)
    inputs = batch(examples(), "left")
    dense = torch.zeros(4, 1, *[inputs["input_ids"].shape[1]] * 2)
    packed = torch.zeros_like(inputs["input_ids"])
    ids = {name: inputs[name] for name in ("input_ids", "position_ids", "labels")}
    for fields in (inputs, {**ids, "attention_mask": dense}, {**ids, "segment_ids": packed}):
        output = model(**fields)
        assert output.logits.dtype == dtype
        assert torch.isfinite(output.logits).all()
        assert output.loss.dtype == torch.float32
        assert torch.isfinite(output.loss)


def test_gradients_of_padded_rows_are_finite():
    model = tiny_model().train()
    model(**batch(examples(), "left")).loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


# Losses


def quiet_model(**changes):
    return tiny_model(
        embedding_dropout_prob=0, attention_dropout_prob=0, output_dropout_prob=0, **changes
    )


def test_the_loss_is_the_mean_over_predicted_tokens():
    model, inputs = quiet_model(), batch(examples())
    output = model(**inputs)
    expected = F.cross_entropy(output.logits.flatten(0, 1), inputs["labels"].flatten())
    close(output.loss, expected)
    predicted = int((inputs["labels"] != -100).sum())
    for items in (2 * predicted, torch.tensor(2 * predicted)):
        close(model(**inputs, num_items_in_batch=items).loss, expected / 2)


def test_training_leaves_logits_out():
    model, inputs = quiet_model().train(), batch(examples())
    short = model(**inputs)
    assert short.logits is None
    full = model(**inputs, return_logits=True)
    assert full.logits.shape == (*inputs["input_ids"].shape, VOCAB)
    close(short.loss, full.loss)
    assert model.eval()(**inputs, return_logits=False).logits is None


def test_the_loss_of_predicted_tokens_has_the_gradients_of_full_logits():
    model, inputs = quiet_model().train(), batch(examples())
    model(**inputs).loss.backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    for name, weight in model.named_parameters():
        close(ours[name], weight.grad)


def test_a_batch_without_a_predicted_token_has_loss_zero():
    model, inputs = quiet_model().train(), batch(examples())
    inputs["labels"][:] = -100
    loss = model(**inputs).loss
    loss.backward()
    assert loss.item() == 0


def test_logits_of_some_positions():
    model, inputs = tiny_model(), batch(examples())
    full = model(**inputs).logits
    close(model(**inputs, logits_to_keep=2).logits, full[:, -2:])
    places = torch.tensor([0, 3])
    close(model(**inputs, logits_to_keep=places).logits, full[:, places])


# The parts


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
        (
            "gelu_new",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        ("relu", lambda x: x.clamp(min=0)),
    ],
)
def test_activations(name, function):
    mlp = tiny_model(GLMModel, hidden_act=name).transformer.layers[0].mlp
    hidden = torch.randn(1, 3, 32)
    inner = function(mlp.dense_h_to_4h(hidden))
    close(mlp(hidden), mlp.dense_4h_to_h(inner))


def test_initial_weights():
    """Output projections were drawn as wide as the rest: transformers initialises a weight only once."""
    torch.manual_seed(0)
    model = GLMForConditionalGeneration(tiny_config(hidden_size=128, initializer_range=0.02))
    layer = model.glm.transformer.layers[0]
    for weight, deviation in [
        (model.glm.word_embeddings.weight, 0.02),
        (model.glm.transformer.block_position_embeddings.weight, 0.02),
        (layer.attention.query_key_value.weight, 0.02),
        (layer.mlp.dense_h_to_4h.weight, 0.02),
        (layer.attention.dense.weight, 0.02 / math.sqrt(4)),
        (layer.mlp.dense_4h_to_h.weight, 0.02 / math.sqrt(4)),
    ]:
        assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()


def test_one_dimensional_positions():
    model, inputs = tiny_model(GLMModel, block_position_encoding=False), batch(examples()[:1])
    assert not hasattr(model.transformer, "block_position_embeddings")
    labels = inputs.pop("labels")
    before = model(**inputs).last_hidden_state
    inputs["position_ids"][:, 1] = inputs["position_ids"][:, 1].clamp(max=1)
    close(model(**inputs).last_hidden_state, before)
    assert labels.shape == before.shape[:2]


def test_default_positions_continue_a_cache():
    model = tiny_model(GLMModel)
    ids = torch.arange(8)[None]
    full = model(input_ids=ids).last_hidden_state
    first = model(input_ids=ids[:, :5], use_cache=True)
    second = model(input_ids=ids[:, 5:], past_key_values=first[CACHE])
    close(second.last_hidden_state, full[:, 5:])
    assert CACHE not in model(input_ids=ids, use_cache=False)


def test_attention_maps():
    model, inputs = tiny_model(implementation="eager"), batch(examples())
    output = model(**inputs, output_attentions=True)
    assert len(output.attentions) == model.config.num_layers
    length = inputs["input_ids"].shape[1]
    assert output.attentions[0].shape == (4, 4, length, length)
    close(output.attentions[0].sum(-1), torch.ones(4, 4, length))
    assert output.attentions[0][0, :, :9, 9:].max() == 0
    with pytest.raises(ConfigError, match="this model uses 'sdpa'; load it with .*\"eager\""):
        tiny_model()(**inputs, output_attentions=True)


def test_mistakes():
    model, ids = tiny_model(GLMModel), torch.arange(6)[None]
    embeddings = model.word_embeddings(ids)
    close(model(inputs_embeds=embeddings).last_hidden_state, model(input_ids=ids).last_hidden_state)
    for both in ({}, {"input_ids": ids, "inputs_embeds": embeddings}):
        with pytest.raises(UserError, match="either input_ids or inputs_embeds"):
            model(**both)
    with pytest.raises(UserError, match=r"shape \[1, 6\]; needed is \[1, 2, 6\]"):
        model(input_ids=ids, position_ids=ids)
    with pytest.raises(UserError, match="position 65; this model's tables end at 64"):
        model(input_ids=torch.zeros(1, 66, dtype=torch.long))


# Heads


def test_choices_of_different_numbers():
    model = tiny_model(GLMForMultipleChoice)
    ids = torch.arange(10)[None].repeat(2, 1)
    one, two = torch.tensor([4, 5]), torch.tensor([7])
    output = model(
        input_ids=ids,
        position_ids=torch.zeros(2, 2, 10, dtype=torch.long),
        attention_mask=torch.ones(2, 1, 10, 10),
        choice_ids=[[one, two], [two]],
        choice_indices=[[torch.tensor([6, 7]), torch.tensor([8])], [torch.tensor([8])]],
        labels=torch.tensor([1, 0]),
    )
    assert output.logits[1, 1] == -torch.inf
    logprobs = F.log_softmax(
        F.linear(
            model.glm(
                input_ids=ids,
                position_ids=torch.zeros(2, 2, 10, dtype=torch.long),
                attention_mask=torch.ones(2, 1, 10, 10),
            ).last_hidden_state,
            model.glm.word_embeddings.weight,
        ),
        dim=-1,
    )
    close(output.logits[0, 0], logprobs[0, 6, 4] + logprobs[0, 7, 5])
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("pool", ["cls", "mean", "last"])
def test_pooling_does_not_see_padding(pool):
    model = tiny_model(GLMForSequenceClassification, pool_token=pool, num_labels=3)
    text = torch.tensor([[9, 4, 5, 6]])
    alone = model(input_ids=text).logits
    close(model(input_ids=text, attention_mask=torch.ones(1, 4)).logits, alone)
    positions = torch.stack((torch.arange(4), torch.zeros(4, dtype=torch.long)))[None]
    for padding in ((0, 3), (3, 0)):
        padded = {
            "input_ids": F.pad(text, padding, value=PAD),
            "attention_mask": F.pad(torch.ones(1, 4), padding),
            "position_ids": F.pad(positions, padding),
        }
        close(model(**padded).logits, alone)
    close(model(inputs_embeds=model.glm.word_embeddings(text)).logits, alone)
    dense = torch.ones(1, 1, 4, 4)
    close(model(input_ids=text, attention_mask=dense).logits, alone)


@pytest.mark.parametrize(
    ("labels", "count", "loss"),
    [
        (torch.tensor([0, 2]), 3, F.cross_entropy),
        (torch.tensor([0.5, 2.0]), 1, lambda logits, y: F.mse_loss(logits[:, 0], y)),
        (torch.tensor([[0.0, 1], [1, 1]]), 2, F.binary_cross_entropy_with_logits),
    ],
)
def test_classification_losses(labels, count, loss):
    model = tiny_model(GLMForSequenceClassification, num_labels=count)
    output = model(input_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]), labels=labels)
    close(output.loss, loss(output.logits, labels))


def test_the_heads_dropout_has_its_own_setting():
    for setting, expected in [(None, 0.1), (0.4, 0.4), (0.0, 0.0)]:
        model = GLMForSequenceClassification(tiny_config(classifier_dropout=setting))
        assert model.dropout.p == expected


def test_nothing_is_drawn_outside_of_torch():
    """Two seeded training steps with dropout agree: the seed covers every random draw."""
    losses = []
    for _ in range(2):
        model = GLMForConditionalGeneration(GLMConfig(**tiny_config().to_dict()))
        torch.manual_seed(3)
        model.load_state_dict(tiny_model().state_dict())
        torch.manual_seed(4)
        losses.append(model.train()(**batch(examples())).loss.item())
    assert losses[0] == losses[1]


def test_losses_of_single_tokens_add_up_to_the_loss():
    model = quiet_model().train()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    labels = torch.tensor([[-100, 3, -100, 5], [7, -100, -100, -100]])
    outputs = model(input_ids=ids, labels=labels, num_items_in_batch=6)
    assert outputs.token_losses.shape == (3,)
    assert not outputs.token_losses.requires_grad
    assert outputs.logits is None
    logits = model(input_ids=ids).logits
    expected = F.cross_entropy(logits[labels != -100], labels[labels != -100], reduction="none")
    torch.testing.assert_close(outputs.token_losses, expected)
    torch.testing.assert_close(outputs.loss, expected.sum() / 6)


def own_attention(change):
    """A back end of somebody else's: the eager one, whose answer is changed."""

    def attend(*arguments, **options):
        return change(*eager_attention(*arguments, **options))

    return attend


def test_a_registered_attention_is_used(monkeypatch):
    monkeypatch.setitem(
        AttentionInterface._global_mapping, "mine", own_attention(lambda *both: both)
    )
    made = batch(examples())
    model = tiny_model()
    wanted = model(**made).logits
    model.set_attn_implementation("mine")
    close(model(**made).logits, wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda context, weights: context, "'mine' returned Tensor; it must return"),
        (lambda context, weights: (context.transpose(1, 2), None), r"context \[B, S, N, D\] = "),
        (lambda context, weights: (None, None), r"returned \['NoneType'\]"),
    ],
)
def test_an_attention_that_answers_otherwise_is_told_how(monkeypatch, change, said: str):
    """Heads and tokens the other way round gave other logits and no error."""
    monkeypatch.setitem(AttentionInterface._global_mapping, "mine", own_attention(change))
    model = tiny_model()
    model.set_attn_implementation("mine")
    with pytest.raises(ConfigError, match=said):
        model(**batch(examples()))


def test_an_attention_that_there_is_not_names_those_that_there_are(monkeypatch, tmp_path):
    monkeypatch.setitem(AttentionInterface._global_mapping, "mine", eager_attention)
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match="'sdpaa'; did you mean 'sdpa'.*eager,.* mine\\. .*registered"
    ):
        GLMForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="sdpaa")
    model = GLMForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="mine")
    assert model.config._attn_implementation == "mine"

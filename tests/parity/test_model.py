"""The model against the numbers recorded from the originals, array by array, over all golden folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache

from conftest import golden_folder
from glmkit.model import (
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMModel,
)
from glmkit.model.prompting import CACHE

RELATIVE = 1e-5
"""Of an array's largest value: logits, hidden states, losses (golden/README.md, Tolerances)."""

_models: dict = {}


def load(golden, model_class=GLMForConditionalGeneration, implementation="sdpa"):
    key = (golden.path, model_class, implementation)
    if key not in _models:
        _models[key] = model_class.from_pretrained(
            golden.path, dtype=torch.float32, attn_implementation=implementation
        )
    return _models[key]


def tensors(golden, prefix, *names):
    """The recorded arrays under `prefix` with these names, those that are there."""
    arrays = {name: golden.npz.get(f"{prefix}/{name}") for name in names}
    return {name: torch.from_numpy(a) for name, a in arrays.items() if a is not None}


def assert_close(actual, expected, relative=RELATIVE):
    actual = torch.as_tensor(actual).detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= relative * np.abs(expected).max()


def assert_logits(golden, prefix, logits):
    expected = golden.npz
    assert_close(logits[..., expected["cols"]], expected[f"{prefix}/logits_cols"])
    assert_close(logits.logsumexp(-1), expected[f"{prefix}/logsumexp"])
    # Where the two best logits are closer than rounding, either may win.
    sure = expected[f"{prefix}/top2_margin"] > 1e-4 if f"{prefix}/top2_margin" in expected else True
    argmax = logits.argmax(-1).numpy()
    assert np.all((argmax == expected[f"{prefix}/argmax"]) | ~np.asarray(sure))
    if f"{prefix}/logits_full" in expected:
        rows, places = expected[f"{prefix}/full_positions"].T
        assert_close(logits[rows, places], expected[f"{prefix}/logits_full"])


FIELDS = ("input_ids", "position_ids", "attention_mask")

IMPLEMENTATIONS = ["sdpa", "eager"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_and_losses_of_padded_batches(golden, implementation, side):
    model = load(golden, implementation=implementation)
    key = f"batch_{side}_target"
    inputs = tensors(golden, f"gen_inputs/{key}", *FIELDS, "labels")
    with torch.no_grad():
        output = model(**inputs)
    assert_logits(golden, f"forward/batch_{side}", output.logits)
    recorded = golden.json["loss"][key]
    assert output.loss.item() == pytest.approx(recorded["loss_unshifted"], rel=RELATIVE)
    nll = F.cross_entropy(output.logits.transpose(1, 2), inputs["labels"], reduction="none")
    assert_close(nll, golden.npz[f"loss/{key}/token_nll"])
    predicted = (inputs["labels"] != -100).sum(1)
    assert predicted.sum() == recorded["n_targets"]
    np.testing.assert_allclose(nll.sum(1) / predicted, recorded["per_sample_mean"], rtol=RELATIVE)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_layers_hidden_states(golden, implementation):
    model = load(golden, implementation=implementation)
    inputs = tensors(golden, "forward/one", *FIELDS, "labels")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        last = model.glm(**tensors(golden, "forward/one", *FIELDS)).last_hidden_state
    assert_logits(golden, "forward/one", output.logits)
    expected = golden.npz["forward/one/hidden_states"]
    assert len(output.hidden_states) == len(expected)
    for ours, theirs in zip(output.hidden_states, expected, strict=True):
        assert_close(ours[0], theirs)
    assert_close(last[0], golden.npz["forward/one/last_hidden_state"])
    recorded = golden.json["loss"]["one"]
    assert output.loss.item() == pytest.approx(recorded["loss_unshifted"], rel=RELATIVE)


def test_prefix_lengths_are_the_dense_mask(golden):
    """glmkit's own field for one sample gives the numbers of the original's 4-D mask."""
    inputs = tensors(golden, "forward/one", "input_ids", "position_ids")
    prefix = (inputs["position_ids"][:, 1] == 0).sum(1)
    with torch.no_grad():
        logits = load(golden)(**inputs, prefix_lengths=prefix).logits
    assert_logits(golden, "forward/one", logits)


@pytest.mark.slow
def test_flex_attention_on_cpu():
    golden = golden_folder("tiny-bert")
    model = load(golden, implementation="flex_attention")
    inputs = tensors(golden, "forward/one", "input_ids", "position_ids")
    prefix = (inputs["position_ids"][:, 1] == 0).sum(1)
    with torch.no_grad():
        logits = model(**inputs, prefix_lengths=prefix).logits
    assert_logits(golden, "forward/one", logits)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients(golden, implementation):
    model = load(golden, implementation=implementation)
    model.zero_grad()
    inputs = tensors(golden, "gen_inputs/batch_right_target", *FIELDS, "labels")
    model(**inputs).loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    recorded = golden.json["loss"]["batch_right_target"]
    assert set(gradients) == set(recorded["grad_norm_unshifted"])
    # In float64: torch's float32 norm of 800,000 numbers is itself 1e-4 off.
    norms = {name: gradient.double().norm() for name, gradient in gradients.items()}
    for name, norm in recorded["grad_norm_unshifted"].items():
        assert norms[name].item() == pytest.approx(norm, rel=1e-5), name
    total = torch.stack(list(norms.values())).norm()
    assert total.item() == pytest.approx(recorded["grad_global_norm_unshifted"], rel=1e-4)

    arrays = golden.npz
    words = gradients["glm.word_embeddings.weight"][arrays["grad/word_embeddings_rows"]]
    assert_close(words, arrays["grad/word_embeddings_row_values"], 1e-4)
    for table in ("position_embeddings", "block_position_embeddings"):
        head = gradients[f"glm.transformer.{table}.weight"][:16]
        assert_close(head, arrays[f"grad/{table}_head"], 1e-4)
    vectors = [name for name in arrays if name.startswith("grad/glm.")]
    assert len(vectors) == 8 * model.config.num_layers + 2
    for name in vectors:
        assert_close(gradients[name.removeprefix("grad/")], arrays[name], 1e-4)
    model.zero_grad()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_multiple_choice(golden, implementation):
    model = load(golden, GLMForMultipleChoice, implementation)
    for case in golden.json["multiple_choice"]:
        choices = {
            name: [[torch.tensor(choice) for choice in row] for row in case[name]]
            for name in ("choice_ids", "choice_indices")
        }
        inputs = tensors(golden, f"multiple_choice/{case['key']}", *FIELDS)
        with torch.no_grad():
            output = model(**inputs, **choices, labels=torch.tensor(case["labels"]))
        assert_close(output.logits, golden.npz[f"multiple_choice/{case['key']}/logits"])
        assert output.loss.item() == pytest.approx(case["loss"], rel=RELATIVE, abs=RELATIVE)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_sequence_classification(golden, implementation, caplog):
    """The head's file lies beside the backbone; without a mask the original is causal (separator 0)."""
    recorded = golden.json["sequence_classification"]
    model = GLMForSequenceClassification.from_pretrained(
        golden.path,
        num_labels=recorded["num_labels"],
        dtype=torch.float32,
        attn_implementation=implementation,
    )
    assert "newly initialised" in caplog.text
    head = torch.load(golden.path / recorded["head_file"], weights_only=True)
    incompatible = model.load_state_dict(head, strict=False)
    assert not incompatible.unexpected_keys
    ids = tensors(golden, "seqcls", "input_ids")
    mask = tensors(golden, "seqcls", "attention_mask")
    positions = tensors(golden, "seqcls", "position_ids")
    length = torch.from_numpy(golden.npz["seqcls/attention_mask"]).sum(1)
    inputs = {
        "mask2d": {**ids, **mask},
        "mask2d_pos": {**ids, **mask, **positions},
        "no_mask": {**ids, "attention_mask": torch.zeros(1)},
        "sep_full": {**ids, "attention_mask": length},
    }
    assert {case["key"] for case in recorded["cases"]} == set(inputs)
    for case in recorded["cases"]:
        with torch.no_grad():
            output = model(**inputs[case["key"]], labels=torch.tensor(recorded["labels"]))
        assert_close(output.logits, golden.npz[f"seqcls/{case['key']}/logits"])
        assert output.loss.item() == pytest.approx(case["loss"], rel=RELATIVE)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_form_of_the_mask(golden, implementation):
    model = load(golden, implementation=implementation)
    cases = golden.json["mask_forms"]["cases"]
    assert len(cases) >= 13
    for case in cases:
        prefix = f"mask_forms/{case['key']}"
        with torch.no_grad():
            logits = model(**tensors(golden, prefix, *FIELDS)).logits
        assert_logits(golden, prefix, logits)


def test_token_by_token_with_a_cache(golden):
    model = load(golden)
    fields = tensors(golden, "forward/one", *FIELDS)
    length = fields["input_ids"].shape[1]
    prefill = golden.json["mems"]["prefill"]
    bounds = [0, *range(prefill, length + 1)]
    cache, parts = DynamicCache(config=model.config), []
    with torch.no_grad():
        for start, stop in zip(bounds, bounds[1:], strict=False):
            output = model(
                input_ids=fields["input_ids"][:, start:stop],
                position_ids=fields["position_ids"][:, :, start:stop],
                attention_mask=fields["attention_mask"][:, :, start:stop, :stop],
                cache=cache,
                use_cache=True,
            )
            parts.append(output.logits)
        assert output[CACHE] is cache
        assert cache.get_seq_length() == length
        logits = torch.cat(parts, dim=1)
        assert_logits(golden, "mems/incremental", logits)
        full = model(**fields).logits
    assert_close(logits, full.numpy())


def test_a_separator_with_a_cache_sees_all_of_it(golden):
    model = load(golden)
    fields = tensors(golden, "forward/one", *FIELDS)
    prefill = golden.json["mems"]["prefill"]
    with torch.no_grad():
        cache = model(
            input_ids=fields["input_ids"][:, :prefill],
            position_ids=fields["position_ids"][:, :, :prefill],
            attention_mask=fields["attention_mask"][:, :, :prefill, :prefill],
            use_cache=True,
        )[CACHE]
        logits = model(
            input_ids=fields["input_ids"][:, prefill:],
            position_ids=fields["position_ids"][:, :, prefill:],
            attention_mask=torch.tensor(0),
            cache=cache,
        ).logits
    assert_logits(golden, "mems/sep_with_memory", logits)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shards", ["mp1", "mp2"])
def test_training_folder(shards, implementation):
    golden = golden_folder("tiny-megatron")
    model = GLMForConditionalGeneration.from_pretrained(
        golden.path / shards,
        num_attention_heads=4,
        dtype=torch.float32,
        attn_implementation=implementation,
    )
    assert model.config.hidden_act == "gelu_new"
    for case in golden.json["cases"]:
        with torch.no_grad():
            logits = model(**tensors(golden, case["key"], *FIELDS)).logits
        assert_logits(golden, case["key"], logits)


def test_the_bare_model_has_the_same_hidden_states(golden):
    with torch.no_grad():
        hidden = load(golden, GLMModel)(**tensors(golden, "forward/one", *FIELDS))
    assert_close(hidden.last_hidden_state[0], golden.npz["forward/one/last_hidden_state"])

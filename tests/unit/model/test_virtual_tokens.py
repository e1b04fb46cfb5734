"""Virtual tokens: what a GLM computes with them is what one computes by hand; trained, saved, found again, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import PAD, example, prompt, tiny_model
from transformers.cache_utils import DynamicCache

from glmkit.blanks.layout import collate, dense_mask
from glmkit.errors import CheckpointError, ConfigError
from glmkit.generation.runner import Feed
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMForConditionalGeneration, GLMForSequenceClassification
from glmkit.model.adapters import load_merged, save_adapter, set_adapter_weights
from glmkit.model.virtual_tokens import KINDS, add_virtual_tokens

pytest.importorskip("peft")

COUNT = 5


def batch() -> dict[str, torch.Tensor]:
    """Two rows of different lengths, a blank each."""
    rng = np.random.default_rng(0)
    arrays = collate([example(rng, 12, 4), example(rng, 9, 3)], PAD)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def adapted(kind: str, model_class=GLMForConditionalGeneration, **options):
    """A tiny model with virtual tokens that have learnt something."""
    wrapped = add_virtual_tokens(tiny_model(model_class, **options), kind, COUNT)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.prompt_encoder.parameters():
            parameter.normal_(std=0.5)
    return wrapped.eval()


def visible(fields: dict[str, torch.Tensor], virtual_rows: bool) -> torch.Tensor:
    """Who sees whom, written out: everyone the virtual tokens, they each other alone, the text as without them."""
    mask = torch.from_numpy(dense_mask({n: v.numpy() for n, v in fields.items()}).copy())
    rows, length, _ = mask.shape
    seen = torch.cat((torch.ones(rows, length, COUNT, dtype=torch.bool), mask), 2)
    if virtual_rows:
        own = torch.cat((torch.ones(COUNT, COUNT), torch.zeros(COUNT, length)), 1).bool()
        seen = torch.cat((own.expand(rows, -1, -1), seen), 1)
    return seen[:, None].float()


def test_a_prefix_is_a_cache_that_was_there_before_the_text():
    """By hand: the base reads the text behind M cached keys and values, with its own positions and a mask of all pairs."""
    wrapped, fields = adapted("prefix"), batch()
    found = wrapped(**fields).logits
    flat = wrapped.prompt_encoder["default"].embedding.weight  # [M, layers * 2 * H]
    base = wrapped.get_base_model()
    base.glm.virtual_tokens = None
    heads = base.config.num_attention_heads
    parts = flat.view(COUNT, base.config.num_layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    cache = DynamicCache([(key.expand(2, -1, -1, -1), value.expand(2, -1, -1, -1)) for key, value in parts])  # fmt: skip
    expected = base(
        input_ids=fields["input_ids"],
        position_ids=fields["position_ids"],
        attention_mask=visible(fields, virtual_rows=False),
        cache=cache,
    ).logits
    real = fields["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[real], base(**fields).logits[real], atol=0.1)


@pytest.mark.parametrize("kind", ["prompt", "ptuning"])
def test_a_prompt_is_embeddings_in_front_that_do_not_read_the_text(kind):
    """By hand: the base reads vectors and text as one row; the vectors stand for embedding and position together."""
    wrapped, fields = adapted(kind), batch()
    found = wrapped(**fields).logits
    base, vectors = wrapped.get_base_model(), wrapped.get_prompt(2)
    base.glm.virtual_tokens = None
    transformer = base.glm.transformer
    added = transformer.position_embeddings.weight[0] + transformer.block_position_embeddings.weight[0]  # fmt: skip
    embeddings = torch.cat((vectors - added, base.glm.word_embeddings(fields["input_ids"])), 1)
    positions = torch.nn.functional.pad(fields["position_ids"], (COUNT, 0))
    mask = visible(fields, virtual_rows=True)
    expected = base(inputs_embeds=embeddings, position_ids=positions, attention_mask=mask).logits
    real = fields["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[:, COUNT:][real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "implementation", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)]
)
def test_every_attention_sees_them(implementation):
    fields, found = batch(), []
    for chosen in ("sdpa", implementation):
        wrapped = adapted("prefix", implementation=chosen)
        with torch.no_grad():
            found.append(wrapped(**fields).logits[fields["attention_mask"].bool()])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_maps_are_of_the_tokens_that_are_there():
    wrapped, fields = adapted("prefix", implementation="eager"), batch()
    maps = wrapped.get_base_model().glm(
        **{n: v for n, v in fields.items() if n != "labels"}, output_attentions=True
    )
    length = fields["input_ids"].shape[1]
    assert {one.shape[-1] for one in maps.attentions} == {length}
    assert float(maps.attentions[0].detach().sum(-1).max()) < 1  # the virtual tokens have the rest


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_the_model_again(tmp_path, kind):
    base = tiny_model()
    base.save_pretrained(tmp_path / "base")
    wrapped = adapted(kind)
    wrapped.get_base_model().name_or_path = str(tmp_path / "base")
    save_adapter(wrapped, tmp_path / "adapter")
    loaded = load_merged(GLMForConditionalGeneration, tmp_path / "adapter")
    fields = batch()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**fields).logits, wrapped(**fields).logits)
    # Writing goes on where reading ended: cached steps are the whole row.
    rng = np.random.default_rng(3)
    ids = torch.tensor([prompt(rng, 11)])
    written = loaded.generate(ids, max_new_tokens=6, min_new_tokens=6)
    again = loaded.generate(ids, max_new_tokens=6, min_new_tokens=6, use_cache=False)
    assert torch.equal(written, again)
    with pytest.raises(CheckpointError, match="virtual tokens.*would be lost"):
        loaded.save_pretrained(tmp_path / "lost")
    # Training goes on from the weights that make the tokens, not from what they made.
    other = add_virtual_tokens(tiny_model(), kind, COUNT)
    from glmkit.training.finetune_trainer import read_weights

    set_adapter_weights(other, read_weights(tmp_path / "adapter"))
    for one, two in zip(other.prompt_encoder.parameters(), wrapped.prompt_encoder.parameters(), strict=True):  # fmt: skip
        assert torch.equal(one, two)


def test_the_engines_runner_reads_with_them():
    wrapped = adapted("prefix")
    model, rng = wrapped.get_base_model(), np.random.default_rng(0)
    one = example(rng, 10, 3)
    runner = TorchRunner(model)
    handle, (positions, blocks), n = runner.open(), one.position_ids.tolist(), one.prefix_length
    ids = one.input_ids.tolist()
    first = runner.forward([Feed(handle, ids[:n], positions[:n], blocks[:n], n)])
    steps = [
        runner.forward([Feed(handle, [ids[i]], [positions[i]], [blocks[i]])])[0]
        for i in range(n, len(ids))
    ]
    fields = {name: torch.from_numpy(array) for name, array in collate([one], PAD).items()}
    with torch.no_grad():
        expected = model(**fields).logits[0, n - 1 :]
    np.testing.assert_allclose(np.concatenate((*first, *steps)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_they_alone_learn_also_under_checkpointing(kind):
    fields, losses = batch(), []
    for checkpointing in (False, True):
        model = tiny_model()
        wrapped = add_virtual_tokens(model, kind, COUNT, like=[1, 2, 3])
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        wrapped.train()
        trained = [one for one in wrapped.parameters() if one.requires_grad]
        assert {id(one) for one in trained} == {id(one) for one in wrapped.prompt_encoder.parameters()}  # fmt: skip
        optimizer = torch.optim.Adam(trained, lr=0.1 if kind != "ptuning" else 0.01)
        curve = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = wrapped(**fields).loss
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        losses.append(curve)
    assert losses[0][-1] < losses[0][0] / 1.5
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_head_learns_beside_them():
    wrapped = adapted("prefix", GLMForSequenceClassification, num_labels=3)
    ids = batch()["input_ids"]
    with_tokens = wrapped(input_ids=ids).logits
    wrapped.get_base_model().glm.virtual_tokens = None
    assert not torch.allclose(with_tokens, wrapped(input_ids=ids).logits, atol=1e-2)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="'prefixes'; there are prefix, prompt, ptuning; did you"):
        add_virtual_tokens(tiny_model(), "prefixes", 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="virtual.tokens = 0 must be at least 1"):
        add_virtual_tokens(tiny_model(), "prefix", 0)

"""Muon: matrices become orthogonal steps of AdamW's size, everything else is AdamW's own, resume is exact."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.training import muon
from glmkit.training.muon import Muon, orthogonalized, parameter_groups


def model() -> GLMForConditionalGeneration:
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=64, num_layers=2, hidden_size=16, num_attention_heads=2, max_sequence_length=16
    )
    return GLMForConditionalGeneration(config)


def optimizer(owner: nn.Module) -> Muon:
    names = [name for name, _ in owner.named_parameters() if name.endswith("weight")]
    return Muon(parameter_groups(owner, names, 0.1), lr=1e-2)


def give_gradients(owner: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in owner.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
def test_singular_values_become_alike_and_vectors_stay(shape: tuple[int, int]):
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, *shape, generator=generator)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    turned = u.mT @ orthogonalized(matrices).float() @ v.mT
    values = turned.diagonal(dim1=1, dim2=2)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    assert float((turned - torch.diag_embed(values)).abs().max()) < 0.05


def test_matrices_do_not_know_which_others_move_with_them(monkeypatch: pytest.MonkeyPatch):
    together, alone = model(), model()
    give_gradients(together, 0)
    give_gradients(alone, 0)
    with monkeypatch.context() as patch:
        patch.setattr(muon, "_elements_together", lambda _: muon.ELEMENTS_TOGETHER)
        optimizer(together).step()
    optimizer(alone).step()
    for left, right in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_matrices_of_layers_are_muons_and_the_rest_is_adamws():
    owner = model()
    groups = parameter_groups(owner, [], 0.1)
    names = {id(parameter): name for name, parameter in owner.named_parameters()}
    found = {
        names[id(parameter)]: group["matrices"] for group in groups for parameter in group["params"]
    }
    assert len(found) == len(names)
    assert {name: n for name, n in found.items() if n} == {
        f"glm.transformer.layers.{layer}.{name}.weight": n
        for layer in range(2)
        for name, n in (
            ("attention.query_key_value", 3),
            ("attention.dense", 1),
            ("mlp.dense_h_to_4h", 1),
            ("mlp.dense_4h_to_h", 1),
        )
    }


def test_queries_keys_and_values_are_matrices_of_their_own():
    owner = model()
    weight = owner.glm.transformer.layers[0].attention.query_key_value.weight
    before = weight.detach().clone()
    give_gradients(owner, 0)
    weight.grad[:16] *= 1000  # the queries' gradient drowns the others
    optim = optimizer(owner)
    optim.step()
    moved = (weight.detach() - before * (1 - 1e-2 * 0.1)).split(16)
    for part in moved:  # 0.2 · lr · sqrt(n) · an orthogonal matrix: every part moves equally
        assert float(part.square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.2)


def test_other_parameters_move_as_adamw_moves_them():
    owner, reference = model(), model()
    optim = optimizer(owner)
    plain = [
        {
            "params": [p for n, p in reference.named_parameters() if p.ndim == 1],
            "weight_decay": 0.1,
        },
        {"params": [reference.glm.word_embeddings.weight], "weight_decay": 0.1},
    ]
    exact = torch.optim.AdamW(plain, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
    for group in exact.param_groups[:1]:
        group["params"] = [
            p for n, p in reference.named_parameters() if p.ndim == 1 and n.endswith("weight")
        ]
    for seed in range(3):
        give_gradients(owner, seed)
        give_gradients(reference, seed)
        optim.step()
        exact.step()
    torch.testing.assert_close(
        owner.glm.word_embeddings.weight, reference.glm.word_embeddings.weight
    )
    torch.testing.assert_close(
        owner.glm.transformer.final_layernorm.weight,
        reference.glm.transformer.final_layernorm.weight,
    )


def test_a_parameter_without_gradient_stays():
    owner = model()
    before = {name: value.clone() for name, value in owner.state_dict().items()}
    optimizer(owner).step()
    assert all(torch.equal(before[name], value) for name, value in owner.state_dict().items())


def test_resume_is_exact():
    owner = model()
    optim = optimizer(owner)
    give_gradients(owner, 0)
    optim.step()
    stored = io.BytesIO()
    torch.save({"model": owner.state_dict(), "optimizer": optim.state_dict()}, stored)
    other = model()
    other_optim = optimizer(other)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    other.load_state_dict(state["model"])
    other_optim.load_state_dict(state["optimizer"])
    for one, its in ((owner, optim), (other, other_optim)):
        give_gradients(one, 1)
        its.step()
    for left, right in zip(owner.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)

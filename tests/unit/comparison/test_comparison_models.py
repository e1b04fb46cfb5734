"""BERT and GPT-2 read GLM's batches, and are transformers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, GPT2LMHeadModel

from glmkit import GLMConfig, GLMForConditionalGeneration
from glmkit.blanks.layout import IGNORE_INDEX, collate_packed
from glmkit.comparison.layouts import Question, layout_of, peer_layout, reading
from glmkit.comparison.measuring import infilling, nats_per_token
from glmkit.comparison.models import build_peer, logits, states
from glmkit.comparison.tuning import collated
from glmkit.special_tokens import SpecialTokenIds

SPECIALS = SpecialTokenIds(cls=1, eos=2, pad=0, sop=3, eop=4, mask=5, smask=6, gmask=7)
FAMILIES = ("glm", "bert", "gpt")
THEIRS = {"bert": BertForMaskedLM, "gpt": GPT2LMHeadModel}


def config(**sizes) -> GLMConfig:
    values = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "max_sequence_length": 32,
        "embedding_dropout_prob": 0.0,
        "attention_dropout_prob": 0.0,
        "output_dropout_prob": 0.0,
    }
    return GLMConfig(**{**values, **sizes})


def model(family: str, **sizes):
    torch.manual_seed(0)
    fields = config(**sizes)
    made = GLMForConditionalGeneration(fields) if family == "glm" else build_peer(family, fields)
    for weight in made.parameters():  # larger than at the start, so that differences show
        torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


def random_ids(length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(([1], rng.integers(10, 64, length - 1)))


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_samples_of_a_row_do_not_see_each_other(family):
    net, texts = model(family), [random_ids(7, 1), random_ids(9, 2), random_ids(5, 3)]
    examples = [reading(text) for text in texts]
    packed = collate_packed([examples[:2], examples[2:]], SPECIALS.pad, 18)
    with torch.no_grad():
        together = states(net, {name: torch.from_numpy(one) for name, one in packed.items()})
        alone = [states(net, collated([one], SPECIALS.pad))[0] for one in examples]
    assert torch.isfinite(together).all()  # padding too
    found = [together[0, :7], together[0, 7:16], together[1, :5]]
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_loss_is_that_of_bert_for_masked_lm():
    net, ids = model("bert"), random_ids(20, 1)
    example = peer_layout("bert", SPECIALS, 64).pretraining(ids, np.random.default_rng(0))
    batch = collated([example], SPECIALS.pad)
    theirs = BertForMaskedLM.forward(
        _plain(net), batch["input_ids"], labels=batch["labels"]
    )  # no mask: one sample, no padding
    ours = net(**batch)
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert len(ours.token_losses) == (example.labels != IGNORE_INDEX).sum()


def test_the_loss_is_that_of_gpt2_lm_head_model():
    net, ids = model("gpt"), random_ids(20, 1)
    example = peer_layout("gpt", SPECIALS, 64).pretraining(ids, np.random.default_rng(0))
    tensor = torch.from_numpy(ids)[None]
    theirs = GPT2LMHeadModel.forward(_plain(net), tensor, labels=tensor)  # it shifts the labels
    torch.testing.assert_close(net(**collated([example], SPECIALS.pad)).loss, theirs.loss)


def _plain(net):
    """The same weights in transformers' own class."""
    plain = THEIRS["bert" if net.config.model_type == "bert" else "gpt"](net.config).eval()
    plain.load_state_dict(net.state_dict())
    return plain


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_a_saved_folder_is_transformers_own(family, tmp_path):
    net = model(family)
    net.save_pretrained(tmp_path)
    loaded = THEIRS[family].from_pretrained(tmp_path)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_all_families_have_about_as_many_weights():
    sizes = {"vocab_size": 8000, "hidden_size": 256, "num_layers": 4, "num_attention_heads": 4}
    glm, *peers = (
        sum(one.numel() for one in made.parameters())
        for made in (
            GLMForConditionalGeneration(config(**sizes, max_sequence_length=256)),
            *(build_peer(one, config(**sizes, max_sequence_length=256)) for one in THEIRS),
        )
    )
    assert peers == pytest.approx([glm, glm], rel=0.02)


@pytest.mark.parametrize("family", ["glm", "gpt", "bert"])
def test_steps_and_scores_agree(family):
    """What is predicted token by token, given the right ones, is what the answer's score is made of."""
    net, layout = model(family), layout_of(family, SPECIALS, 64)
    inside = Question(random_ids(5, 1), random_ids(4, 2)[1:], random_ids(6, 3)[1:])
    at_the_end = Question(random_ids(5, 1), random_ids(4, 2)[1:])
    for question in (at_the_end,) if family == "bert" else (inside, at_the_end):
        total = 0.0
        for place, token in enumerate(question.answer.tolist()):
            batch = collated([layout.next_token(question, question.answer[:place])], SPECIALS.pad)
            predicted = batch.pop("labels") != IGNORE_INDEX
            with torch.no_grad():
                scores = logits(net, states(net, batch)[predicted])
            total -= scores.log_softmax(1)[0, token].item()
        expected = nats_per_token(net, layout, [question], SPECIALS.pad) * len(question.answer)
        assert total == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_measures_as_one_by_one(family):
    net, layout = model(family), layout_of(family, SPECIALS, 64)
    asked = [
        Question(random_ids(4 + n, n), random_ids(3 + n % 3, 9 + n)[1:], random_ids(6, 20 + n)[1:])
        for n in range(4)
    ]
    measured = [infilling(net, layout, [one], 0, SPECIALS.eop, 64, 4) for one in asked]
    together = infilling(net, layout, asked, 0, SPECIALS.eop, 64, 4)
    assert together.keys() == measured[0].keys()
    for name in together.keys() - {"nats"}:  # those are of tokens, not of blanks
        assert together[name] == pytest.approx(np.mean([one[name] for one in measured]))


def test_an_end_that_is_ruled_out_gives_its_share_to_the_other_tokens():
    net, layout = model("glm"), layout_of("glm", SPECIALS, 64)
    question = Question(random_ids(5, 1), np.array([20]), random_ids(6, 3)[1:])
    batch = collated(layout.scoring(question), SPECIALS.pad)
    predicted = batch.pop("labels") != IGNORE_INDEX
    with torch.no_grad():
        chances = logits(net, states(net, batch)[predicted]).softmax(1)[0].double()
    expected = -torch.log(chances[20] / (1 - chances[SPECIALS.eop])).item()
    found = nats_per_token(net, layout, [question], SPECIALS.pad, SPECIALS.eop)
    assert found == pytest.approx(expected, rel=1e-4)

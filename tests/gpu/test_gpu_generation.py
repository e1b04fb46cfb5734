"""glm-mini on a GPU writes, in float32, what it writes on the CPU, and judges alike."""

from __future__ import annotations

import pytest
import torch

import glmkit
from glmkit.generation.constraints import Choices, Length

pytestmark = pytest.mark.gpu

TEXTS = [
    "凯旋门位于意大利米兰市古城堡旁。1807年为纪念[MASK]而建，门高25米，[MASK]。",
    "北京是[MASK]",
    "今天天气[MASK]，我们[sMASK]晚上[gMASK]",
    "I have two [MASK] and three [MASK] at home.",
    "The museum opened in 1890 and [gMASK]",
]
"""One blank and several, short and long, in one batch."""

REVIEWS = ["味道很好，服务也很周到，下次还来。", "太慢了，菜都凉了！", "The room was clean and quiet.", "Never again."]  # fmt: skip


@pytest.fixture(scope="module")
def cpu():
    return glmkit.load(device="cpu", dtype="float32", backend="torch")


@pytest.fixture(scope="module")
def glm(device):
    """As a user of a GPU gets it, but in float32; on a CPU the native decoder would round activations to 8 bits."""
    backend = None if device.type == "cuda" else "torch"
    return glmkit.load(device=device.type, dtype="float32", backend=backend)


def check_filled(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        assert one.blanks == other.blanks
        assert one.scores == pytest.approx(other.scores, abs=1e-3, rel=1e-3)


def texts_of(alternatives) -> list[list[str]]:
    """Returns each blank's texts, without their scores."""
    return [[text for text, _ in some] for some in alternatives]


@pytest.mark.parametrize("batch_size", [8, 2])
def test_greedy(glm, cpu, batch_size):
    found = glm.fill(TEXTS, max_new_tokens=24, batch_size=batch_size)
    check_filled(found, cpu.fill(TEXTS, max_new_tokens=24))
    assert sum(len(one.blanks) for one in found) == 9
    assert glm.generate(TEXTS[1], max_new_tokens=16) == cpu.generate(TEXTS[1], max_new_tokens=16)


def test_beams_draws_and_guesses(glm, cpu):
    for settings in (
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "seed": 7, "top_p": 0.9},
        {"repetition_penalty": 1.3, "prompt_lookup_num_tokens": 3},
    ):
        found, expected = (one.fill(TEXTS, max_new_tokens=12, **settings) for one in (glm, cpu))
        check_filled(found, expected)
        for one, other in zip(found, expected, strict=True):
            assert texts_of(one.alternatives) == texts_of(other.alternatives)


def test_constraints(glm, cpu):
    """What a blank may hold is decided on the CPU, of logits that were computed on the GPU."""
    cities = ["首都", "一座城市", "省会"]
    found = {}
    for name, one in (("gpu", glm), ("cpu", cpu)):
        limits = [Choices.of_texts(one.tokenizer, cities), Length(one.tokenizer, minimum=4, maximum=6)]  # fmt: skip
        texts = ["北京是中国的[MASK]。", "我喜欢[MASK]。"]
        found[name] = one.fill(texts, constraints=limits, max_new_tokens=12)
    check_filled(found["gpu"], found["cpu"])
    assert found["gpu"][0].blanks[0] in cities
    assert 4 <= len(found["gpu"][1].blanks[0]) <= 6


def test_judgements(glm, cpu):
    """Probabilities of labels within 1e-4; log-probabilities and embeddings too."""
    for one, other in zip(glm.sentiment(REVIEWS), cpu.sentiment(REVIEWS), strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    labels = ["体育", "经济", "美食"]
    for one, other in zip(glm.classify(REVIEWS, labels=labels), cpu.classify(REVIEWS, labels=labels), strict=True):  # fmt: skip
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    assert glm.perplexity(REVIEWS) == pytest.approx(cpu.perplexity(REVIEWS), rel=1e-4)
    for one, other in zip(glm.embed(REVIEWS), cpu.embed(REVIEWS), strict=True):
        assert float(one @ other) == pytest.approx(1.0, abs=1e-5)


def test_what_is_chosen_where_nothing_is_said(device, cpu, record_property):
    """On this kind of GPU that is CUDA, in bfloat16: texts are about as probable, and blanks are filled."""
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("it would be the GPU")
    glm = glmkit.load()
    weight = next(glm.model.parameters(), None) if isinstance(glm.model, torch.nn.Module) else None
    if device.type == "cuda":
        assert weight is not None
        assert (weight.device.type, weight.dtype) == ("cuda", torch.bfloat16)
    ratio = glm.perplexity(REVIEWS) / cpu.perplexity(REVIEWS)
    record_property("perplexity, as a share of float32's", f"{ratio:.4f}")
    assert ratio == pytest.approx(1.0, abs=0.03)
    filled = glm.fill(TEXTS, max_new_tokens=12)
    assert all(any(one.blanks) for one in filled)
    for one, other in zip(glm.sentiment(REVIEWS), cpu.sentiment(REVIEWS), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.05)

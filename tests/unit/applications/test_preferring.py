"""Texts chosen among draws by the labels that they shall have; the embedded model draws and judges."""

from __future__ import annotations

import pytest

import glmkit
from glmkit.errors import ConfigError, GenerationError
from glmkit.generation.results import Filled

DRAWING = {"max_new_tokens": 12, "top_p": 0.95, "do_sample": True}


@pytest.fixture(scope="module")
def mini() -> glmkit.GLM:
    return glmkit.load()


def test_the_one_kept_has_the_label_most_probably(mini: glmkit.GLM):
    texts = ["这家酒店[gMASK]", "[MASK]，菜[MASK]。"]
    found = {
        label: mini.fill(texts, prefer={"sentiment": label}, candidates=4, seed=3, **DRAWING)
        for label in ("positive", "negative")
    }
    drawn = [mini.fill(texts, seed=seed, **DRAWING) for seed in range(3, 7)]
    for place in range(2):
        expected = {one[place].text for one in drawn}
        for label, results in found.items():
            result: Filled = results[place]
            ranked = result.candidates
            assert {one.text for one in ranked} == expected
            judged = mini.sentiment([one.text for one in ranked])
            shares = [one.probabilities[label] for one in judged]
            assert [one.preference for one in ranked] == pytest.approx(shares, rel=1e-3)
            assert shares == sorted(shares, reverse=True)
            assert (result.text, result.blanks) == (ranked[0].text, ranked[0].blanks)
            assert ranked[0].score == pytest.approx(sum(result.scores))
        first, last = found["positive"][place], found["negative"][place]
        assert first.text != last.text
        assert last.candidates[-1].text == first.text


def test_one_text_several_labels_and_a_continuation(mini: glmkit.GLM):
    wishes = {"sentiment": "negative", "topics": "sports"}
    found = mini.fill("昨晚的比赛[gMASK]", prefer=wishes, candidates=3, seed=1, max_new_tokens=8)
    for one in found.candidates:
        mood = mini.sentiment(one.text).probabilities["negative"]
        topic = mini.classify(one.text, "topics").probabilities["sports"]
        assert one.preference == pytest.approx(mood * topic, rel=1e-3)
    written = mini.generate("昨晚的比赛", prefer=wishes, candidates=3, seed=1, max_new_tokens=8)
    assert written == found.blanks[0]
    assert mini.fill([], prefer=wishes) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefer": {"sentiment": "happy"}}, "no label 'happy'; there are positive, negative"),
        ({"prefer": {"sentimant": "positive"}}, "sentimant"),
        ({"prefer": {"qa": "positive"}}, "no label 'positive'"),
        ({"prefer": {}}, "prefer is empty"),
        ({"prefer": {"sentiment": "positive"}, "do_sample": False}, "do_sample=True"),
        ({"prefer": {"sentiment": "positive"}, "candidates": 0}, "candidates=0"),
        ({"prefer": {"sentiment": "positive"}, "n": 2}, "give one of them"),
        ({"prefer": {"sentiment": "positive"}, "num_beams": 2}, "num_beams"),
    ],
)
def test_wishes_that_cannot_be_kept(mini: glmkit.GLM, options, words: str):
    with pytest.raises((GenerationError, ConfigError), match=words):
        mini.fill("x", **options)


def test_what_is_chosen_at_the_end_is_no_stream(mini: glmkit.GLM):
    with pytest.raises(GenerationError, match="no prefer"):
        mini.generate("x", stream=True, prefer={"sentiment": "positive"})

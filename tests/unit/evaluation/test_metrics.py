"""Every metric: perfect, worst, one case counted by hand; and agreement with the reference libraries."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmkit.errors import ConfigError
from glmkit.evaluation.metrics import (
    FAMILIES,
    METRICS,
    Measured,
    Metric,
    Outcome,
    calibration_error,
    distinct_n,
    macro_f1,
    measure,
)
from glmkit.evaluation.overlap import exact_match, f1, is_chinese, rouge_scorer, units
from glmkit.evaluation.resampling import bootstrap_interval


def outcomes(*pairs: tuple[str, list[str]]) -> list[Outcome]:
    return [Outcome(prediction, references) for prediction, references in pairs]


LABELS = ["好", "差", "好", "good"]
SENTENCES = [
    "春江潮水连海平",
    "海上明月共潮生",
    "The quick brown fox jumps over it",
    "千山万山如火发",
]


@pytest.mark.parametrize("name", METRICS)
def test_perfect_and_worst(name: str):
    texts = LABELS if METRICS[name].compute.__name__ in ("_accuracy", "_macro_f1") else SENTENCES
    perfect = [Outcome(text, [text], {text: 1.0}) for text in texts]
    worst = [Outcome("零", [text], {"零": 1.0, text: 0.0}) for text in texts]
    if name.startswith("distinct"):
        worst = outcomes(*[("", ["x"])] * 4)
        perfect = outcomes(("一二三四", ["x"]), ("五六七八", ["x"]))
    if name == "binary_f1":  # of yes-or-no questions
        perfect = outcomes(("1", ["1"]), ("0", ["0"]))
        worst = outcomes(("0", ["1"]), ("1", ["0"]))
    assert measure(name, perfect).value == pytest.approx(METRICS[name].perfect)
    assert measure(name, worst).value == pytest.approx(METRICS[name].worst, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_examples_average_to_the_value(name: str):
    mixed = [
        Outcome("春江潮水", ["春江花月夜", "春江潮水连海平"], {"春江潮水": 0.7}),
        Outcome("the brown fox", ["a brown fox jumps"], {"the brown fox": 0.2}),
        Outcome("", ["月"], {"": 0.5}),
    ]
    measured = measure(name, mixed)
    assert 0 <= measured.value <= 100
    if measured.examples:
        assert len(measured.examples) == 3
        assert measured.value == pytest.approx(np.mean(measured.examples))


def test_accuracy_and_macro_f1_by_hand():
    mixed = outcomes(("a", ["a"]), ("a", ["b"]), ("b", ["b"]), ("c", ["b"]))
    assert measure("accuracy", mixed).value == 0.5
    # a: precision 1/2, recall 1 -> 2/3; b: 1, 1/3 -> 1/2; c: 0.
    assert measure("macro_f1", mixed).value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_binary_f1_and_group_match_by_hand():
    answers = [("1", "1", "a"), ("0", "0", "a"), ("1", "1", "b"), ("1", "0", "b"), ("0", "1", "c")]
    found = [Outcome(said, [right], group=group) for said, right, group in answers]
    # Two of three said to be right are, and two of three that are right were said to be.
    assert measure("binary_f1", found).value == pytest.approx(2 * 2 / (3 + 3))
    assert measure("group_match", found).value == pytest.approx(1 / 3)
    assert measure("binary_f1", [Outcome("0", ["0"])]).value == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("the Great Wall", "Wall, Great!", 1),
        ("Great Wall of China", "the Great Wall", 2 * 2 / (4 + 2)),
        ("wall wall", "wall", 2 / 3),
        ("上海北京", "北京上海", 1),
        ("The", "an", 1),
        ("", "x", 0),
    ],
)
def test_token_f1_by_hand(prediction: str, reference: str, expected: float):
    assert measure("token_f1", outcomes((prediction, [reference]))).value == pytest.approx(expected)


def test_macro_f1_agrees_with_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(0)
    labels, predictions = ([rng.choice("abcd") for _ in range(200)] for _ in range(2))
    expected = sklearn_metrics.f1_score(labels, predictions, average="macro")
    assert macro_f1(predictions, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "em", "expected"),
    [
        ("1990年", "1990年。", 1, 1),
        ("在1990年", "1990年", 0, 2 * 2 / (3 + 2)),  # units: 在 1990 年
        ("上海北京", "北京上海", 0, 2 * 2 / 8),  # the run counts, not the bag
        ("北 京", "《北京》", 1, 1),
        ("the Great Wall", "The great wall!", 1, 1),
        ("great wall of China", "the Great Wall", 0, 2 * 2 / (4 + 3)),
        ("New York", "NewYork", 0, 0),
        ("iPhone手机", "iphone 手机", 1, 1),
        ("", "北京", 0, 0),
        ("。", "！", 1, 1),
        ("３", "3", 0, 0),
    ],
)
def test_cmrc_rules(prediction: str, reference: str, em: float, expected: float):
    assert exact_match(prediction, reference) == em
    assert f1(prediction, reference) == pytest.approx(expected)


def test_the_best_reference_counts():
    mixed = outcomes(("北京市", ["上海", "北京市", "北京"]))
    assert measure("exact_match", mixed).value == 1
    assert measure("f1", outcomes(("北京市", ["上海", "北京"]))).value == pytest.approx(0.8)


def test_top_10_looks_at_ten_answers():
    answers = [str(number) for number in range(12)]
    first = Outcome("0", ["9"], alternatives=answers)
    late = Outcome("0", ["10"], alternatives=answers)
    assert measure("top_10", [first, late]).examples == [1, 0]
    assert measure("top_10", [Outcome("月", ["月"])]).value == 1


def test_rouge_by_hand_in_chinese():
    # 5 of 6 and 5 of 5 characters; pairs 甲乙 乙丙 丙丁 of 5 and 4; longest common subsequence 4.
    prediction, reference = "甲乙丙丁戊子", "甲乙丙丁，己戊"
    assert rouge_scorer("rouge1")(prediction, reference) == pytest.approx(2 * 5 / 12)
    assert rouge_scorer("rouge2")(prediction, reference) == pytest.approx(2 * 3 / 10)
    assert rouge_scorer("rougeL")(prediction, reference) == pytest.approx(2 * 5 / 12)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_agrees_with_rouge_score_on_english(kind: str):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=True)
    rng = random.Random(1)
    words = [
        "the",
        "running",
        "foxes",
        "jumped",
        "over",
        "lazy",
        "dogs",
        "and",
        "cats'",
        "3.5",
        "U.S.",
        "prices",
    ]
    for _ in range(50):
        one, other = (" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(2))
        expected = scorer.score(other, one)[kind].fmeasure
        assert rouge_scorer(kind)(one, other) == pytest.approx(expected, abs=1e-6)


def test_bleu_and_chrf_are_sacrebleus():
    import sacrebleu

    predictions, references = (
        ["今天天气很好。", "他去了北京"],
        [["今天天气真好。"], ["他到北京去了"]],
    )
    mixed = outcomes(*zip(predictions, references, strict=True))
    columns = [[one[0] for one in references]]
    expected = sacrebleu.corpus_bleu(predictions, columns, tokenize="zh").score
    assert measure("bleu", mixed).value == pytest.approx(expected)
    assert measure("chrf", mixed).value == pytest.approx(
        sacrebleu.corpus_chrf(predictions, columns).score
    )
    english = outcomes(
        ("the cat sat on the mat today", ["a cat sat on the mat today .", "the cat"])
    )
    assert 0 < measure("bleu", english).value < 100
    # references may be unevenly many
    assert measure("bleu", english + outcomes(("hello", ["hello"]))).value > 0


def test_distinct_by_hand():
    assert distinct_n(["花开花", "花开"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["花开花", "花开"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["to be or not to be"], 2) == pytest.approx(4 / 5)
    assert distinct_n(["", "花"], 2) == 0


def test_calibration_error_by_hand():
    # bin (0.5, 0.6]: confidence 0.6 twice, one right: gap 0.1; bin (0.9, 1]: 1.0 once, right: gap 0.
    assert calibration_error([0.6, 0.6, 1.0], [True, False, True]) == pytest.approx(0.2 / 3)
    assert calibration_error([0.0, 1.0], [False, True]) == 0


def test_units_and_languages():
    assert units("GLM是2022年的模型，don’t panic！") == [
        "glm",
        "是",
        "2022",
        "年",
        "的",
        "模",
        "型",
        "don’t",
        "panic",
    ]
    assert is_chinese("用PyTorch训练")
    assert not is_chinese("the word 花 means flower in Chinese")
    assert not is_chinese("")


MIXED = st.text("春江潮ab 3。, é\n", max_size=30)


@given(MIXED, MIXED)
def test_f1_is_bounded_symmetric_and_perfect_on_equals(one: str, other: str):
    assert 0 <= f1(one, other) <= 1
    assert f1(one, other) == f1(other, one)
    assert f1(one, one) == exact_match(one, one) == 1


def test_intervals_hold_the_value_and_narrow_with_examples():
    rng = np.random.default_rng(0)
    small, large = rng.random(30), rng.random(3000)
    for values in (small, large):
        low, high = bootstrap_interval(values)
        assert low < values.mean() < high
    widths = [np.subtract(*reversed(bootstrap_interval(values))) for values in (small, large)]
    assert widths[1] < widths[0] / 5
    # the textbook interval of a mean of many
    assert widths[1] == pytest.approx(2 * 1.96 * large.std() / math.sqrt(3000), rel=0.1)
    assert bootstrap_interval(large) == bootstrap_interval(large)


def test_an_interval_of_a_ratio_weighs_examples():
    low, high = bootstrap_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert low == high == 2


def test_unknown_metrics_and_no_examples_are_errors():
    with pytest.raises(ConfigError, match="no metric 'accuracies'; did you mean 'accuracy'"):
        measure("accuracies", outcomes(("a", ["a"])))
    with pytest.raises(ConfigError, match="at least one example"):
        measure("f1", [])
    with pytest.raises(ConfigError, match="probabilities"):
        measure("calibration_error", outcomes(("a", ["a"])))
    assert {name for names in FAMILIES.values() for name in names} <= set(METRICS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.5, r"returned 0\.5; it must return Measured\(value\)"),
        (Measured(1, [1.0]), "returned 1 values of examples for 2 outcomes; return one for each"),
    ],
)
def test_what_a_metric_must_return(monkeypatch, answer, said: str):
    monkeypatch.setitem(METRICS, "mine", Metric("mine", "higher", 0, 1, lambda outcomes: answer))
    with pytest.raises(ConfigError, match=f"the metric mine {said}"):
        measure("mine", outcomes(("a", ["a"]), ("b", ["b"])))

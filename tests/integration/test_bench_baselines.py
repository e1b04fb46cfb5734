"""The baselines and the comparison with a model: the n-gram model against its definition, and both programs end to end."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
pytest.importorskip("sklearn")

import baselines  # noqa: E402
import evaluate_mini  # noqa: E402
from kneser_ney import BEGIN, UNSEEN, UNSEEN_CHARACTERS, KneserNey  # noqa: E402

TEXTS = ["国破山河在城春草木深", "感时花溅泪恨别鸟惊心", "山河在山河草木深山河", "国破山河"] * 3 + [
    "春山在"
]


def slow_probability(texts: list[str], history: str, character: str, order: int) -> float:
    """Interpolated Kneser-Ney from its definition, with dictionaries; discounts as `kneser_ney` has for little text."""
    padded = ["\0" * (order - 1) + text for text in texts]

    def counts(n: int) -> dict[str, int]:
        grams: dict[str, int] = {}
        if n == order:
            for text in padded:
                for end in range(order, len(text) + 1):
                    grams[text[end - n : end]] = grams.get(text[end - n : end], 0) + 1
            return grams
        before: dict[str, set[str]] = {}
        for text in padded:
            for end in range(n + 1, len(text) + 1):
                if text[end - 1] != "\0":
                    before.setdefault(text[end - n : end], set()).add(text[end - n - 1])
        return {gram: len(left) for gram, left in before.items()}

    def discounts(values: list[int]) -> list[float]:
        n1, n2, n3, n4 = (values.count(number) for number in (1, 2, 3, 4))
        if not min(n1, n2, n3):
            return [0, 0.5, 0.75, 0.75]
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return [0, *(min(max(one, 0), top) for one, top in zip(found, (0.99, 1.99, 2.99), strict=True))]  # fmt: skip

    alphabet = {one for text in texts for one in text}
    probability = 1 / (len(alphabet) + UNSEEN_CHARACTERS)
    for n in range(1, order + 1):
        grams = counts(n)
        discount = discounts(list(grams.values()))
        context = (("\0" * order) + history)[-(n - 1) :] if n > 1 else ""
        here = {gram: count for gram, count in grams.items() if gram[:-1] == context}
        if not here:
            continue
        total = sum(here.values())
        count = here.get(context + character, 0)
        left = sum(discount[min(one, 3)] for one in here.values()) / total
        probability = (count - discount[min(count, 3)]) / total + left * probability
    return probability


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_are_those_of_the_definition(order: int):
    model = KneserNey.fit(TEXTS, order)
    for text in ("国破山河草", "春城", "泪河x在"):
        (logs,) = model.log_probabilities([text])
        for place, character in enumerate(text):
            expected = slow_probability(TEXTS, text[:place], character, order)
            assert math.exp(logs[place]) == pytest.approx(expected, rel=1e-5), (text, place)


def test_probabilities_sum_to_one():
    model = KneserNey.fit(TEXTS)
    everything = np.arange(1, model.size)
    for context in ("国破山河", "鸟鸟鸟鸟", "山河在山"):
        found = model.next_probabilities(model.encode(context)[None], everything)[0]
        assert found.sum() + found[0] * (UNSEEN_CHARACTERS - 1) == pytest.approx(1, abs=1e-5)
    start = model.next_probabilities(np.full((1, 4), BEGIN), everything)
    rows = np.concatenate((np.full((len(everything), 4), BEGIN), everything[:, None]), 1)
    assert start[0] == pytest.approx(model.probabilities(rows)[:, -1])
    assert everything[0] == UNSEEN


def test_a_batch_of_texts_equals_single_ones():
    model = KneserNey.fit(TEXTS)
    some = ["春山", "", "国破山河在", "x"]
    together = model.log_probabilities(some)
    for text, logs in zip(some, together, strict=True):
        assert logs == pytest.approx(model.log_probabilities([text])[0])
        assert len(logs) == len(text)


def test_gaps_are_judged_from_both_sides():
    model = KneserNey.fit(TEXTS)
    assert model.fill("国破山", "在城春", 1)[0] == "河"
    assert model.fill("感时花", "恨别鸟", 2)[0] == "溅泪"
    found = model.fill("国破山", "在城春", 1, num=30)
    whole = {one: sum(model.log_probabilities([f"国破山{one}在城春"])[0]) for one in found}
    assert found == sorted(whole, key=lambda one: -whole[one])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A few records in every file."""
    folder = tmp_path_factory.mktemp("data")
    poem = {
        "title": "春望",
        "lines": [f"{text[:5]}，{text[5:]}。" for text in TEXTS[:2]],
        "kind": "诗",
    }
    prose = {"text": "长江长6300公里，是第一长河。The Yangtze is long." * 2}
    records = {
        "poems": [poem, {**poem, "title": "望春"}],
        "wiki_zh": [prose] * 2,
        "articles_zh": [prose] * 2,
        "wiki_en": [{"text": "The Nile is a long river in Africa."}] * 2,
        "sentiment": [
            {"text": f"{'好吃' if n % 2 else '难吃'}{n}", "label": n % 2, "domain": "waimai" if n % 3 else "hotel"}
            for n in range(20)
        ],
        "topics": [{"text": f"{'股票' if n % 2 else '比赛'}{n}", "label": "stocks" if n % 2 else "sports"} for n in range(20)],
        "qa": [{"context": "长江长6300公里。黄河短。", "question": "长江多长？", "answers": ["6300公里"]}],
        "summaries": [{"text": "本文研究长江的长度，方法是测量。", "summary": "长江长度"}],
        "dialogues": [{"turns": ["你好", "你好，聊什么？", "聊长江。"]}, {"turns": ["在吗", "在的。"]}],
    }  # fmt: skip
    for name, some in records.items():
        for split in ("train", "valid"):
            with gzip.open(folder / f"{name}.{split}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in some)
    return folder


def test_baselines_and_the_comparison_run(data: Path, tmp_path: Path, capsys, monkeypatch):
    """Every part of the baselines gives rows; a model's lines find theirs; the pages are written."""
    from glmkit.model import GLMConfig, GLMForConditionalGeneration
    from glmkit.tokens.train import train_tokenizer

    monkeypatch.setattr("results_page.write_table_page.__defaults__", ("cpu", tmp_path))
    monkeypatch.setattr(evaluate_mini, "RESULTS", tmp_path)
    baselines.main(["--data", str(data), "--smoke", "--save"])
    shown = capsys.readouterr().out.splitlines()
    rows = json.loads(shown[-1])["rows"]
    assert {row["task"] for row in rows} == {"text", "poem_character", "poem_word", "poem_line", "sentiment", "topics", "qa", "summary", "dialogue"}  # fmt: skip
    perfect = {
        row["task"]: row["metrics"] for row in rows if row["method"].startswith("5-gram, both")
    }
    assert perfect["poem_character"]["exact_match"] == 1  # the poems were in train
    tokenizer = train_tokenizer(TEXTS * 3, 330, "unigram")
    tokenizer.save_pretrained(tmp_path / "model")
    config = GLMConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_attention_heads=2, max_sequence_length=128
    )  # fmt: skip
    GLMForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    arguments = ["--data", str(data), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--smoke", "--save"]  # fmt: skip
    evaluate_mini.main(arguments)
    lines = json.loads(capsys.readouterr().out.splitlines()[-1])["lines"]
    compared = [line for line in lines if line["baseline"] is not None]
    assert len(lines) == len(evaluate_mini.TABLE)
    assert len(compared) == sum(bool(one.method) for one in evaluate_mini.TABLE)
    goals = {line["metric"]: line for line in lines if line["task"] == "poem_character"}
    assert goals["exact_match"]["goal"] == 0.30
    assert goals["exact_match"]["met"] == (goals["exact_match"]["model"] >= 0.30)
    pages = {path.name.split("_")[0]: path for path in tmp_path.glob("*_cpu_*.md")}
    assert set(pages) == {"baselines", "glm-mini"}
    assert "| poem_character | poems.valid | 2 | exact_match |" in pages["glm-mini"].read_text(
        "utf-8"
    )

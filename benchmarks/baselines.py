"""What simple methods reach on the tasks on which glm-mini is measured: trained on `train`, counted on `valid`.

    python benchmarks/baselines.py --data ../shared/data [--limit 1000] [--save] [--only text,qa] [--smoke]

Prints a table, then one JSON line. `--save` also writes `docs/results/baselines_<hardware>_<yyyy-mm>.md` and `.json`,
with which `evaluate_mini.py` compares a model. Blanks, templates and metrics are those of `glmkit evaluate`.

    text        5-gram model of characters (interpolated modified Kneser-Ney), bits per character
    filling     the same model asked from both sides, told the number of characters; the most frequent character
    sentiment,  TF-IDF of character n-grams + logistic regression
    topics
    qa          the sentence of the context that shares most character pairs with the question
    summary     the first characters of the text, as many as a summary of `train` has on average
    dialogue    the reply to the most similar turn of `train`; bits per character by a 5-gram model
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from kneser_ney import KneserNey
from results_page import environment, metrics_table, write_table_page

from glmkit.corpus.records import record_text
from glmkit.evaluation.metrics import Outcome, measure
from glmkit.evaluation.overlap import units
from glmkit.tasks.rendering import expand, question
from glmkit.tasks.task import load_task

TEXTS = ("poems", "wiki_zh", "articles_zh", "wiki_en")
FILLING = {"poem_character": 1000, "poem_word": 1000, "poem_line": 200}
"""Task -> the first so many poems of `valid`."""

Row = dict[str, Any]


def records(data: Path, name: str, limit: int | None = None) -> list[Row]:
    """Returns the records of one file of the corpora."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line, _ in zip(lines, range(limit or 10**9), strict=False)]
    return found


def texts(data: Path, name: str, limit: int | None = None) -> list[str]:
    """Returns texts as `glmkit evaluate` reads them: of a poem the title and the lines."""
    return [record_text(record, None, name) for record in records(data, name, limit)]


@lru_cache(maxsize=1)
def poem_model(data: Path, limit: int | None) -> KneserNey:
    """Returns the 5-gram model of the poems."""
    return KneserNey.fit(texts(data, "poems.train", limit))


def text(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """Bits per character of all held-out texts; the 5-gram model sees the text of its kind, or all."""
    models: dict[str, Callable[[], KneserNey]] = {
        "poems": lambda: poem_model(data, train),
        "prose": lambda: KneserNey.fit(
            [one for name in TEXTS[1:] for one in texts(data, f"{name}.train", train)]
        ),
        "all texts": lambda: KneserNey.fit(
            [one for name in TEXTS for one in texts(data, f"{name}.train", train)]
        ),
    }
    for trained_on, make in models.items():
        model = make()
        for name in TEXTS:
            held_out = texts(data, f"{name}.valid", limit)
            yield row("text", f"{name}.valid", f"5-gram of {trained_on}", len(held_out), bits_per_character=model.bits_per_character(held_out))  # fmt: skip


def filling(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """Exact match and top 10 of blanks in held-out poems."""
    model = poem_model(data, train)
    for name, count in FILLING.items():
        task = load_task(name)
        asked = [
            one
            for record in records(data, "poems.valid", min(count, limit or count))
            if (one := question(task, record, name)).answer
        ]
        answers = [
            model.fill(
                one.before,
                one.after,
                len(one.answer),
                pool=1500 if len(one.answer) > 2 else 4000,
                beam=20 if len(one.answer) > 2 else 50,
            )
            for one in asked
        ]
        results = [
            Outcome(found[0], [one.answer], alternatives=found)
            for found, one in zip(answers, asked, strict=True)
        ]
        yield scored(name, "poems.valid", "5-gram, both sides", results, "exact_match", "top_10")
        if name == "poem_character":
            frequent = [model.characters[n] for n in model._letters[:10]]
            results = [Outcome(frequent[0], [one.answer], alternatives=frequent) for one in asked]
            yield scored(name, "poems.valid", "most frequent", results, "exact_match", "top_10")


def classification(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """Sentiment, by domain too, and topics; the longest n-gram and C are chosen on a fifth of `train`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def fit(longest: int, C: float, part: list[Row]) -> Any:
        grams = {"analyzer": "char", "ngram_range": (1, longest), "min_df": 2 if longest > 2 else 1}
        vectors = TfidfVectorizer(sublinear_tf=True, **grams)
        model = make_pipeline(vectors, LogisticRegression(C=C, max_iter=300))
        return model.fit([one["text"] for one in part], [str(one["label"]) for one in part])

    def grade(setting: tuple[int, float], held: list[Row], rest: list[Row]) -> float:
        model = fit(*setting, rest)
        return model.score([one["text"] for one in held], [str(one["label"]) for one in held])

    for name in ("sentiment", "topics"):
        known = records(data, f"{name}.train")
        order = np.random.default_rng(0).permutation(len(known))[:train]
        known = [known[n] for n in order]
        held, rest = known[: len(known) // 5], known[len(known) // 5 :]
        settings = [(longest, C) for longest in (2, 4) for C in (10.0, 30.0)]
        longest, C = max(settings, key=lambda one: grade(one, held, rest))
        model = fit(longest, C, known)
        valid = records(data, f"{name}.valid", limit)
        probabilities = model.predict_proba([one["text"] for one in valid])
        results = [
            Outcome(
                str(model.classes_[chances.argmax()]),
                [str(one["label"])],
                dict(zip(map(str, model.classes_), map(float, chances), strict=True)),
            )
            for one, chances in zip(valid, probabilities, strict=True)
        ]
        method, names = f"TF-IDF (1 to {longest}) + logistic regression, C={C:g}", ("accuracy", "macro_f1", "calibration_error")  # fmt: skip
        yield scored(name, f"{name}.valid", method, results, *names)
        domains = sorted({one["domain"] for one in valid if "domain" in one})
        for domain in domains:
            part = [result for result, one in zip(results, valid, strict=True) if one["domain"] == domain]  # fmt: skip
            yield scored(name, f"{name}.valid, {domain}", method, part, *names)


def qa(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """The best sentence as the answer."""

    def pairs(text: str) -> set[str]:
        found = units(text)
        return {a + b for a, b in zip(found, found[1:], strict=False)} | set(found)

    results = []
    for one in records(data, "qa.valid", limit):
        asked = pairs(one["question"])
        sentences = [s for s in re.split(r"(?<=[。！？；])", one["context"]) if s.strip()]
        results.append(Outcome(max(sentences, key=lambda s: len(asked & pairs(s))), one["answers"]))
    yield scored("qa", "qa.valid", "best-overlapping sentence", results, "exact_match", "f1")


def summary(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """The text's beginning, and its first sentence."""
    known = records(data, "summaries.train", train)
    length = round(float(np.mean([len(one["summary"]) for one in known])))
    valid = records(data, "summaries.valid", limit)
    for method, shorten in (
        (f"lead {length} characters", lambda text: text[:length]),
        ("first sentence", lambda text: re.split(r"(?<=[。！？.])", text)[0]),
    ):
        results = [Outcome(shorten(one["text"]), [one["summary"]]) for one in valid]
        yield scored("summary", "summaries.valid", method, results, "rouge1", "rouge2", "rougeL")


def dialogue(data: Path, limit: int | None, train: int | None) -> Iterator[Row]:
    """Retrieval by the last turn, the most frequent reply, and a 5-gram model of the replies."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    task = load_task("dialogue")

    def asked(name: str, most: int | None) -> list[list[Any]]:
        return [
            [question(task, one, name) for one in expand(task, record, name)]
            for record in records(data, name, most)
        ]

    def last_turn(one: Any) -> str:
        return one.before.split("\n")[-2][2:]

    conversations = asked("dialogues.train", train)
    known = [one for some in conversations for one in some]
    valid = [one for some in asked("dialogues.valid", limit) for one in some]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    index = vectors.fit_transform(map(last_turn, known))
    nearest = (vectors.transform(map(last_turn, valid)) @ index.T).toarray().argmax(1)
    names = ("bleu", "chrf", "distinct_2", "distinct_3")
    results = [
        Outcome(known[n].answer, [one.answer]) for n, one in zip(nearest, valid, strict=True)
    ]
    yield scored("dialogue", "dialogues.valid", "reply to the nearest turn", results, *names)
    replies = [one.answer for one in known]
    frequent = max(sorted(set(replies)), key=replies.count)
    results = [Outcome(frequent, [one.answer]) for one in valid]
    yield scored("dialogue", "dialogues.valid", "most frequent reply", results, *names)
    model = KneserNey.fit([some[-1].before + some[-1].answer for some in conversations])
    whole = model.log_probabilities([one.before + one.answer for one in valid])
    nats = sum(float(s[-len(one.answer) :].sum()) for s, one in zip(whole, valid, strict=True))
    bits = -nats / np.log(2) / sum(len(one.answer) for one in valid)
    yield row("dialogue", "dialogues.valid", "5-gram of dialogues", len(valid), bits_per_character=bits)  # fmt: skip


def row(task: str, data: str, method: str, examples: int, **metrics: float) -> Row:
    """Returns one row of the table."""
    values = {name: round(float(value), 4) for name, value in metrics.items()}
    return {"task": task, "data": data, "method": method, "examples": examples, "metrics": values}


def scored(task: str, data: str, method: str, results: list[Outcome], *names: str) -> Row:
    """Returns one row with metrics counted."""
    values = {name: measure(name, results).value for name in names}
    return row(task, data, method, len(results), **values)


PARTS = {"text": text, "filling": filling, "classification": classification, "qa": qa, "summary": summary, "dialogue": dialogue}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, help="records of each valid file")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--save", action="store_true", help="write the page in docs/results")
    parser.add_argument("--smoke", action="store_true", help="20 records of each file")
    chosen = parser.parse_args(arguments)
    limit, train = (20, 200) if chosen.smoke else (chosen.limit, None)
    started, rows = time.monotonic(), []
    for name in chosen.only.split(","):
        for one in PARTS[name](chosen.data, limit, train):
            rows.append(one)
            numbers = "  ".join(f"{key} {value:.4f}" for key, value in one["metrics"].items())
            print(f"{one['task']:<15} {one['data']:<25} {one['method']:<40} n={one['examples']:<5} {numbers}", flush=True)  # fmt: skip
    seconds = time.monotonic() - started
    values = {"rows": rows, "seconds": round(seconds), "environment": environment()}
    if chosen.save:
        table = metrics_table(("task", "data", "method", "examples"), rows)
        command = f"python benchmarks/baselines.py --data {chosen.data} --save"
        write_table_page("baselines", PAGE_TITLE, PAGE_INTRODUCTION, table, values, command)
    print(json.dumps(values, ensure_ascii=False))


PAGE_TITLE = "Baselines: what simple methods reach"
PAGE_INTRODUCTION = """
Trained on the `train` files of `shared/data`, counted on the `valid` files. Blanks, templates and metrics are those of
`glmkit evaluate`, so that a model's numbers stand beside these. Bits per character count line ends and no end of text. The
5-gram model fills a gap knowing how many characters it has, and judges it from both sides: one character among all, several
after a beam of 50 (a line: 20) from the left, so not exhaustively.
"""


if __name__ == "__main__":
    sys.exit(main())

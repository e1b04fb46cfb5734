"""How surely texts have the sentiment wanted: by the prompt alone, by guidance, by choosing among draws, by both.

    python benchmarks/bench_steering.py --data FOLDER [--model glm-mini] [--seeds 4] [--train 20000] [--smoke] [--save]

FOLDER has `sentiment.train.jsonl.gz` and `sentiment.valid.jsonl.gz`. Reviews of hotels, books, food … are begun (`STEMS`) and written
on, half of them to be positive, half negative. Who judges them is not the model: a logistic regression on character n-grams, whose own
accuracy on `valid` is printed. Prints a table, then one JSON line:

    positive, negative    share of the texts that the judge finds so where they should be so
    distinct-2            different pairs of characters among all
    bits a character      of what was written, by the model without any control: the lower, the more like its usual texts
    time                  of a text, beside one without control
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from baselines import records
from results_page import environment, write_table_page

import glmkit
from glmkit.evaluation.metrics import distinct_n

STEMS = (
    "这家酒店", "房间", "服务员", "早餐", "这本书", "作者", "这款手机", "电脑屏幕",
    "送餐", "味道", "这部电影", "洗发水", "水果", "老板", "总的来说", "快递",
)  # fmt: skip
VERDICTS = {"positive": "好评。", "negative": "差评。"}
CANDIDATES = 8
SHOWN = 8
"""Texts of each kind that the JSON file keeps."""
DRAWING = {"do_sample": True, "top_p": 0.9, "max_new_tokens": 30}

WAYS: dict[str, dict[str, Any]] = {
    "no control": {},
    "prompt": {"prompt": True},
    "prompt, guidance 1.5": {"prompt": True, "scale": 1.5},
    "prompt, guidance 3": {"prompt": True, "scale": 3.0},
    f"best of {CANDIDATES}": {"prefer": True},
    f"prompt, best of {CANDIDATES}": {"prompt": True, "prefer": True},
    f"prompt, guidance 1.5, best of {CANDIDATES}": {"prompt": True, "scale": 1.5, "prefer": True},
}
"""Name -> whether the prompt begins with the verdict, how far the other verdict's prompt leads away, whether draws are chosen from."""


def judge(data: Path, train: int | None) -> tuple[Any, float]:
    """Returns a classifier of texts (1 is positive) and its accuracy on `valid`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(vectors, LogisticRegression(C=10.0, max_iter=300))
    known, valid = records(data, "sentiment.train"), records(data, "sentiment.valid")
    # The file has one label after the other.
    known = [known[row] for row in sorted(np.random.default_rng(0).permutation(len(known))[:train])]
    model.fit([one["text"] for one in known], [one["label"] for one in known])
    return model, model.score([one["text"] for one in valid], [one["label"] for one in valid])


def write(glm: glmkit.GLM, label: str, seeds: int, *, prompt: bool = False, scale: float | None = None, prefer: bool = False) -> list[str]:  # fmt: skip
    """Returns the reviews, without the verdict before them."""
    own, other = VERDICTS[label], next(one for name, one in VERDICTS.items() if name != label)
    options: dict[str, Any] = dict(DRAWING)
    if scale is not None:
        options |= {"negative_prompt": [other + stem for stem in STEMS], "guidance_scale": scale}
    if prefer:
        options |= {"prefer": {"sentiment": label}, "candidates": CANDIDATES}
    texts = []
    for seed in range(seeds):
        asked = [(own if prompt else "") + stem for stem in STEMS]
        written = glm.generate(asked, seed=1000 * seed, **options)
        texts += [stem + one for stem, one in zip(STEMS, written, strict=True)]
    return texts


def measure(glm: glmkit.GLM, model: Any, seeds: int) -> list[dict[str, Any]]:
    """Returns a row for each way."""
    rows = []
    for name, options in WAYS.items():
        row: dict[str, Any] = {"way": name}
        texts: list[str] = []
        start = time.perf_counter()
        for label in VERDICTS:
            row[f"{label}_texts"] = write(glm, label, seeds, **options)
            texts += row[f"{label}_texts"]
        row["seconds"] = (time.perf_counter() - start) / len(texts)
        for label, wanted in (("positive", 1), ("negative", 0)):
            row[label] = float(np.mean(model.predict(row[f"{label}_texts"]) == wanted))
            row[f"{label}_texts"] = row[f"{label}_texts"][:SHOWN]
        row |= {"distinct_2": distinct_n(texts, 2), "bits": glm.bits_per_character(texts)}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--train", type=int, default=20_000, help="labelled reviews for the judge")
    parser.add_argument("--smoke", action="store_true", help="one draw of each, a judge of 200")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.seeds, arguments.train = 1, 200
    begun = time.perf_counter()
    model, accuracy = judge(arguments.data, arguments.train)
    rows = measure(glmkit.load(arguments.model), model, arguments.seeds)
    table = "\n".join(
        [
            "| control | positive | negative | distinct-2 | bits a character | time |",
            "|---|---:|---:|---:|---:|---:|",
            *(
                f"| {row['way']} | {row['positive']:.0%} | {row['negative']:.0%} | {row['distinct_2']:.2f} | {row['bits']:.2f} "
                f"| {row['seconds'] / rows[0]['seconds']:.1f} |"
                for row in rows
            ),
        ]
    )
    count = arguments.seeds * len(STEMS)
    print(f"judge: {accuracy:.3f} on valid\n\n{table}")
    values = {
        "judge_accuracy": accuracy,
        "texts": count,
        "rows": rows,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.save:
        introduction = (
            f"Shares of texts that have the sentiment wanted; {count} texts for each of positive and negative and each way, "
            f"begun by {arguments.model} from {len(STEMS)} stems, drawn with top_p 0.9. The judge is a logistic regression on character "
            f"n-grams of {arguments.train} labelled reviews ({accuracy:.1%} right on valid), not the model. Without control the two "
            "columns are the shares of the same texts. *prompt*: the text begins with 好评 or 差评; *guidance*: and is led away from the "
            f"other one; *best of {CANDIDATES}*: the model's own cloze chooses among draws. Bits a character are the model's without "
            f"control; time is that of a text beside the first row. One text is {100 / count:.0f} points of a share, and 95 % intervals are up to "
            f"±{98 / count**0.5:.0f} points wide, so that neighbouring rows are not told apart."
        )
        command = f"python benchmarks/bench_steering.py --data FOLDER --seeds {arguments.seeds} --train {arguments.train} --save"
        title = "Steering the sentiment of what is written"
        write_table_page("steering", title, introduction, table, values, command)
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())

"""The real lm-evaluation-harness on local tasks, beside glmkit's own scores of the same questions: they must agree.

Two tasks in each language, made of held-out texts: the last word of a sentence (of Chinese, its last character before the
punctuation), as LAMBADA asks, and which of four endings belongs to a sentence.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from results_page import environment, write_table_page

import glmkit
from glmkit.generation.choices import score_choices
from glmkit.harness import HarnessModel, evaluate

HEAD = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
"""
LAST = """output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: "{{target}}"
metric_list: [{metric: perplexity}, {metric: acc}]
"""
CHOICE = """output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""


def sentences(path: Path, chinese: bool) -> Iterator[str]:
    """Yields plain sentences of 20 to 200 characters."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            parts = (
                re.split(r"(?<=[。！？])|\n", text) if chinese else re.split(r"(?<=\.) |\n", text)
            )
            for part in map(str.strip, parts):
                whole = r"[一-鿿][^\[\]=]*[一-鿿]。" if chinese else r"[A-Z][^\[\]=@<>]*[a-z]\."
                if 20 <= len(part) <= 200 and re.fullmatch(whole, part):
                    yield part


def make_tasks(data: Path, folder: Path, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Writes four tasks with their data; returns name -> records."""
    made: dict[str, list[dict[str, Any]]] = {}
    for language in ("zh", "en"):
        chinese = language == "zh"
        rng = random.Random(0)
        found = list(sentences(data / f"wiki_{language}.valid.jsonl.gz", chinese))
        chosen = rng.sample(found, min(limit, len(found)))
        last = [one[:-1].rsplit(" ", 1) if not chinese else [one[:-2], one[-2]] for one in chosen]
        made[f"last_word_{language}"] = [{"context": a, "target": b if chinese else f" {b}"} for a, b in last]  # fmt: skip
        halves = [_halves(one, chinese) for one in chosen]
        records = []
        for index, (context, ending) in enumerate(halves):
            others = rng.sample([e for i, (_, e) in enumerate(halves) if i != index], 3)
            choices = rng.sample([ending, *others], 4)
            records.append({"context": context, "choices": choices, "answer": choices.index(ending)})  # fmt: skip
        made[f"ending_{language}"] = records
    for name, records in made.items():
        lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in records)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        body = HEAD.format(name=name, data=folder / f"{name}.jsonl")
        body += LAST if name.startswith("last") else CHOICE
        (folder / f"{name}.yaml").write_text(body, encoding="utf-8")
    return made


def _halves(sentence: str, chinese: bool) -> tuple[str, str]:
    """Cuts a sentence in the middle, between words."""
    middle = len(sentence) // 2
    if not chinese:
        middle = sentence.find(" ", middle) if " " in sentence[middle:] else sentence.rfind(" ")
    return sentence[:middle], sentence[middle:]


def own_scores(glm: Any, record: dict[str, Any]) -> np.ndarray:
    """Returns what glmkit itself says of a record's continuations, their ends counted."""
    choices = record.get("choices") or [record["target"]]
    # A space at the beginning stands before the blank in a text that shows it.
    spaced = choices[0].startswith(" ")
    text = record["context"] + (" " if spaced else "") + "[gMASK]"
    return score_choices(glm.model, glm.tokenizer, [text], [[one.strip() for one in choices]])[0]


def measure(glm: Any, data: Path, folder: Path, limit: int) -> list[dict[str, Any]]:
    """Returns one row for each task."""
    made = make_tasks(data, folder, limit)
    model = HarnessModel(glm, end=True)
    found = evaluate(model, [str(folder / f"{name}.yaml") for name in made])
    rows = []
    for name, records in made.items():
        numbers = found["results"][name]
        ours = [own_scores(glm, record) for record in records]
        theirs = {
            one["doc_id"]: [float(score) for score, _ in one["filtered_resps"]]
            if name.startswith("ending")
            else [float(one["filtered_resps"][0][0])]
            for one in found["samples"][name]
        }
        gap = max(float(np.abs(own - theirs[n]).max()) for n, own in enumerate(ours))
        if name.startswith("ending"):
            own = float(np.mean([one.argmax() == record["answer"] for one, record in zip(ours, records, strict=True)]))  # fmt: skip
        else:
            own = math.exp(-float(np.mean([one[0] for one in ours])))
        key = "acc,none" if name.startswith("ending") else "perplexity,none"
        rows.append(
            {
                "task": name,
                "questions": len(records),
                "metric": key.partition(",")[0],
                "harness": numbers[key],
                "glmkit": own,
                "largest_gap_nats": gap,
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--limit", type=int, default=200, help="questions of each task")
    parser.add_argument("--save", action="store_true", help="write the page in docs/results")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        glm = glmkit.load(chosen.model)
        rows = measure(glm, chosen.data, Path(folder), chosen.limit)
    head = "| task | questions | metric | harness | glmkit | largest difference of a score (nats) |"
    lines = [head, "|" + "---|" * 6]
    lines += [
        f"| {one['task']} | {one['questions']:,} | {one['metric']} | {one['harness']:.4f} | {one['glmkit']:.4f} | {one['largest_gap_nats']:.1e} |"
        for one in rows
    ]
    print(table := "\n".join(lines))
    values = {
        "rows": rows,
        "parameters": sum(one.numel() for one in glm.model.parameters()),
        "seconds": round(time.monotonic() - started),
        "environment": environment(),
    }
    if chosen.save:
        write_table_page("harness", "lm-evaluation-harness runs a GLM", INTRODUCTION.format(**values), table, values, f"python benchmarks/bench_harness.py --data {chosen.data} --model {chosen.model} --limit {chosen.limit} --save")  # fmt: skip
    print(json.dumps(values, ensure_ascii=False))


INTRODUCTION = """
The harness asks, glmkit's adapter answers; beside it what `generation.choices.score_choices` says of the same texts. The model has {parameters:,}
parameters and is an early checkpoint: the point is that the numbers agree, not how good they are. Perplexity is of the whole last word and its end.
"""


if __name__ == "__main__":
    main()

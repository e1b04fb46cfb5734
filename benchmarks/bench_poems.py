"""Poems of every form by a model: do they keep the form, are they copies, how varied are they, how long do they take?

    python benchmarks/bench_poems.py --model glm-mini --data DATA [--poems 1000] [--rhyme pingshui] [--smoke]

DATA has poems.train.jsonl.gz and poems.valid.jsonl.gz (`title`, `lines`): titles are those of held-out poems, copies are
looked for among the training poems. Prints a table, then one JSON line:

    obey        share that the independent checker finds nothing wrong with
    poets       the same share of the held-out poems of that shape (of that tune), as a measure of the checker
    shared      longest run of characters (punctuation left out) that a poem shares with a training poem: median, 99 %, most
    distinct-n  distinct n-grams of characters / n-grams, over the poems of a form
    s/poem      seconds for one poem, candidates included
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

import glmkit
from glmkit.applications.poetry.alphabet import is_han
from glmkit.applications.poetry.forms import forms

SHORTEST = 4
"""Shorter shared runs are not counted."""


def records(path: Path) -> Iterator[dict]:
    """Yields the poems of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def characters(lines: Iterable[str]) -> str:
    """Returns a poem's characters without punctuation."""
    return "".join(filter(is_han, "".join(lines)))


def poets(valid: Iterable[dict], rhyme: str, fewest: int) -> dict[str, float]:
    """Returns form -> share of real poems of its shape, if there are enough, that the checker finds nothing wrong with."""
    kept: dict[str, list[bool]] = {name: [] for name in forms()}
    for record in valid:
        verses = [
            verse for verse in re.split(r"[，。？！；、：]", "".join(record["lines"])) if verse
        ]
        lengths = [len(verse) for verse in verses]
        for name, form in forms().items():
            named = {name, *form.aliases} & set(re.split(r"[・·\s]", record["title"]))
            if [len(v) for v in form.verses] == lengths and (named or not form.tune):
                kept[name].append(not glmkit.check_poem(record["lines"], name, rhyme=rhyme))
    return {name: float(np.mean(found)) for name, found in kept.items() if len(found) >= fewest}


def longest_shared(texts: Sequence[str], training: Sequence[str]) -> list[int]:
    """Returns for each text the length of the longest run that some training text has too (0 below `SHORTEST`).

    Runs grow by one character a pass, and only in texts that shared the last length.
    """
    longest = [0] * len(texts)
    alive, length = list(range(len(texts))), SHORTEST
    while alive:
        owners: dict[str, list[int]] = {}
        for index in alive:
            for gram in grams(texts[index], length):
                owners.setdefault(gram, []).append(index)
        found: set[int] = set()
        sharing = []
        for text in training:
            hits = [gram for gram in grams(text, length) if gram in owners]
            if hits:
                sharing.append(text)
                found.update(index for gram in hits for index in owners[gram])
        for index in found:
            longest[index] = length
        training, alive, length = sharing, sorted(found), length + 1
    return longest


def grams(text: str, length: int) -> list[str]:
    """Returns the n-grams of a text."""
    return [text[start : start + length] for start in range(len(text) - length + 1)]


def distinct(texts: Sequence[str], length: int) -> float:
    """Returns distinct n-grams / n-grams."""
    all_grams = [gram for text in texts for gram in grams(text, length)]
    return len(set(all_grams)) / max(1, len(all_grams))


def write(glm: glmkit.GLM, titles: Sequence[str], arguments: argparse.Namespace) -> dict[str, dict]:
    """Writes the poems; returns form -> poems, seconds, violations."""
    written = {}
    names = list(forms())
    for number, name in enumerate(names):
        mine = titles[number :: len(names)]
        start = time.perf_counter()
        poems = glm.poem(
            mine, name, rhyme=arguments.rhyme, candidates=arguments.candidates, seed=arguments.seed
        )
        seconds = time.perf_counter() - start
        wrong = [glmkit.check_poem(poem, rhyme=arguments.rhyme) for poem in poems]
        written[name] = {"poems": poems, "seconds": seconds, "wrong": wrong}
        print(poems[0], "", sep="\n", flush=True)
    return written


def summary(texts: Sequence[str], shared: Sequence[int], wrong: Sequence[list], seconds: float):
    """Returns the numbers of some poems."""
    return {
        "poems": len(texts),
        "obey": float(np.mean([not one for one in wrong])),
        "shared_median": float(np.median(shared)),
        "shared_99": float(np.quantile(shared, 0.99, method="inverted_cdf")),
        "shared_max": max(shared),
        "shared_under_12": float(np.mean([length < 12 for length in shared])),
        "distinct_2": distinct(texts, 2),
        "distinct_3": distinct(texts, 3),
        "seconds_a_poem": seconds / len(texts),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poems", type=int, default=1000)
    parser.add_argument("--rhyme", default="modern", choices=("modern", "pingshui"))
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument(
        "--out", type=Path, help="also write the poems there, one JSON object a line"
    )
    parser.add_argument("--smoke", action="store_true", help="one poem of each form, one candidate")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.poems, arguments.candidates = len(forms()), 1
    valid = list(records(arguments.data / "poems.valid.jsonl.gz"))
    titles = [valid[number % len(valid)]["title"] for number in range(arguments.poems)]
    glm = glmkit.load(arguments.model, device=arguments.device)
    written = write(glm, titles, arguments)
    training = [
        characters(one["lines"]) for one in records(arguments.data / "poems.train.jsonl.gz")
    ]
    texts = {name: [characters(p.lines) for p in one["poems"]] for name, one in written.items()}
    flat = [text for some in texts.values() for text in some]
    shared = longest_shared(flat, training)
    real = poets(valid, arguments.rhyme, 1 if arguments.smoke else 20)
    rows, start = {}, 0
    for name, one in written.items():
        part = shared[start : start + len(texts[name])]
        rows[name] = summary(texts[name], part, one["wrong"], one["seconds"])
        rows[name]["poets"] = real.get(name)
        start += len(part)
    wrong = [w for one in written.values() for w in one["wrong"]]
    rows["all"] = summary(flat, shared, wrong, sum(one["seconds"] for one in written.values()))
    print(f"{'':8}{'poems':>6}{'obey':>8}{'poets':>8}{'shared: med.':>14}{'99 %':>6}{'most':>6}{'dist-2':>8}{'dist-3':>8}{'s/poem':>8}")  # fmt: skip
    for name, row in rows.items():
        share = "" if row.get("poets") is None else f"{row['poets']:.0%}"
        print(
            f"{name:8}{row['poems']:6}{row['obey']:8.1%}{share:>8}{row['shared_median']:14.0f}{row['shared_99']:6.0f}"
            f"{row['shared_max']:6}{row['distinct_2']:8.3f}{row['distinct_3']:8.3f}{row['seconds_a_poem']:8.3f}"
        )
    if arguments.out:
        lines = (
            json.dumps({"title": p.title, "form": p.form, "lines": p.lines}, ensure_ascii=False)
            for one in written.values()
            for p in one["poems"]
        )
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {name: getattr(arguments, name) for name in ("model", "rhyme", "candidates", "seed")}
    print(json.dumps({"benchmark": "poems", **settings, "forms": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()

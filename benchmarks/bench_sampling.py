"""What choosing a token costs: glmkit's `TokenChooser` beside transformers' logits processors, on the same logits.

    python benchmarks/bench_sampling.py [--vocabulary 50048] [--tokens 200] [--smoke] [--save]

Both get one row of random logits at a time, as the engine has them, hide what is never written, penalize, cut and draw; contenders take
turns at every token, so that what else the machine does meets both. Prints a table, then one JSON line:

    glmkit, transformers    median milliseconds of a token
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from results_page import environment, write_table_page
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glmkit.generation.decoding import BlankTokens, TokenChooser, random_stream
from glmkit.generation.settings import DecodingSettings

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, repetition penalty 1.2": {"repetition_penalty": 1.2},
    "sample": {"do_sample": True},
    "sample, top-p 0.9, temperature 0.8": {"do_sample": True, "top_p": 0.9, "temperature": 0.8},
    "sample, top-k 50": {"do_sample": True, "top_k": 50},
    "sample, all of these, no 3-gram twice": {
        "do_sample": True,
        "top_k": 50,
        "top_p": 0.9,
        "temperature": 0.8,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
    },
}

SPECIAL = [*range(10)]
"""Ids that are never written."""


def of_glmkit(
    settings: DecodingSettings, vocabulary: int
) -> Callable[[np.ndarray, list[int]], int]:
    """Returns what chooses as the engine does."""
    chooser, stream = TokenChooser(settings, SPECIAL, [], vocabulary), random_stream(0)
    return lambda logits, tokens: chooser.choose(logits, BlankTokens(tokens), stream)[0]


def of_transformers(settings: DecodingSettings) -> Callable[[np.ndarray, list[int]], int]:
    """Returns what chooses as transformers' `generate` does."""
    some: list[Any] = [SuppressTokensLogitsProcessor(SPECIAL)]
    if settings.repetition_penalty != 1.0:
        some.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        some.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.temperature != 1.0:
        some.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        some.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        some.append(TopPLogitsWarper(settings.top_p))
    processors = LogitsProcessorList(some)

    def choose(logits: np.ndarray, tokens: list[int]) -> int:
        scores = processors(torch.tensor([tokens]), torch.from_numpy(logits)[None].clone())  # type: ignore[arg-type]
        if settings.do_sample:
            return int(torch.multinomial(torch.softmax(scores, -1), 1)[0])
        return int(scores.argmax(-1)[0])

    return choose


@torch.inference_mode()
def times(settings: DecodingSettings, vocabulary: int, tokens: int) -> dict[str, float]:
    """Returns each contender's median milliseconds of a token."""
    rng, taken = np.random.default_rng(0), {"glmkit": list[float](), "transformers": list[float]()}
    contenders = {
        "glmkit": of_glmkit(settings, vocabulary),
        "transformers": of_transformers(settings),
    }
    written: list[int] = [20, 21, 22]
    for number in range(tokens):
        # Of a trained model: a few tokens have most of the probability.
        logits = rng.gumbel(size=vocabulary).astype(np.float32)
        for name in sorted(contenders, reverse=bool(number % 2)):
            start = time.perf_counter()
            token = contenders[name](logits, written)
            taken[name].append(1000 * (time.perf_counter() - start))
        written.append(token)
    return {name: statistics.median(some) for name, some in taken.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=50048)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--smoke", action="store_true", help="a small vocabulary and few tokens")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.vocabulary, arguments.tokens = 300, 3
    begun, rows = time.perf_counter(), []
    for name, given in SETTINGS.items():
        found = times(DecodingSettings(**given), arguments.vocabulary, arguments.tokens)
        rows.append({"settings": name, **found, "ratio": found["transformers"] / found["glmkit"]})
    table = "\n".join(
        [
            "| settings | glmkit, ms | transformers, ms | ratio |",
            "|---|---:|---:|---:|",
            *(f"| {row['settings']} | {row['glmkit']:.3f} | {row['transformers']:.3f} | {row['ratio']:.1f} |" for row in rows),
        ]
    )  # fmt: skip
    print(table)
    values = {
        "vocabulary": arguments.vocabulary,
        "tokens": arguments.tokens,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.save:
        introduction = (
            f"Milliseconds to choose one token from logits of {arguments.vocabulary} tokens that are on the CPU, medians of {arguments.tokens}: glmkit's "
            "`TokenChooser` (NumPy, one thread; it returns the log-probability too) beside transformers' logits processors of the same names "
            f"({torch.get_num_threads()} threads), in turns on the same random logits. The model's own work comes on top for both."
        )
        write_table_page(
            "sampling",
            "The cost of choosing a token",
            introduction,
            table,
            values,
            "python benchmarks/bench_sampling.py --save",
        )
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    main()

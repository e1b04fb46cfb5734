"""What guessing ahead saves: a text copied with prompt lookup, and an assistant model that is right in a known share of its guesses.

    python benchmarks/bench_speculation.py [--formats int8 bfloat16] [--threads 2] [--repeats 5] [--smoke] [--save]

Random weights: the model has glm-large-chinese's shape (24 x 1024), the assistant glm-mini's (8 x 256), both with 50,048 tokens. What is written
is forced (a constraint allows one text), 128 tokens after a prompt of 128, so that every pass of both models is real and only the guesses
are not the assistant's own: each is right with the probability that stands in the row. Prints a table, then one JSON line:

    tokens/s    median of interleaved runs
    ratio       to the same model alone, in the same round
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from random import Random
from typing import Any

import numpy as np
import torch
from generate_contenders import SHAPES, glm_config
from results_page import environment, write_table_page

from glmkit.checkpoint.quantized import NativeWeights
from glmkit.generation.assistant import Assistant
from glmkit.generation.constraints import Choices
from glmkit.generation.decoding import TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed, make_runner
from glmkit.generation.settings import DecodingSettings
from glmkit.model import GLMForConditionalGeneration
from glmkit.native.model import NativeModel

SMALL = (8, 256, 4, 50048, 1024)
SHARES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
END = 0


class Oracle:
    """An assistant that reads as the small model does, and guesses what the text will be with some probability."""

    def __init__(self, model: Any, text: list[int], share: float):
        self.config, self.model, self.text = model.config, model, text
        self.share, self.random = share, Random(0)

    def make_runner(self) -> Any:
        runner = make_runner(self.model)
        read = runner.forward

        def forward(feeds: list[Feed]) -> list[np.ndarray]:
            return [self.guessed(one, feed) for one, feed in zip(read(feeds), feeds, strict=True)]

        runner.forward = forward  # type: ignore[method-assign]
        return runner

    def guessed(self, logits: np.ndarray, feed: Feed) -> np.ndarray:
        """Logits for which the next token is as good as certain; the start marker has block position 1."""
        token = self.text[min(feed.blocks[-1] - 1, len(self.text) - 1)]
        if self.random.random() >= self.share:
            token = token % (logits.shape[-1] - 1) + 1
        logits[-1, token] += 1e4
        return logits


def make_model(shape: tuple[int, ...], kind: str) -> Any:
    torch.manual_seed(0)
    config = glm_config(shape)
    model = GLMForConditionalGeneration(config).eval()
    return NativeModel(config, NativeWeights.of(config, model.state_dict(), kind))


def seconds(
    model: Any, prompt: Prompt, text: list[int], assistant: Any, lookup: int
) -> tuple[float, int]:
    """Returns the time of writing a text behind a prompt, and the passes of the model."""
    runner, passes = make_runner(model), [0]
    read = runner.forward

    def forward(feeds: list[Feed]) -> list[np.ndarray]:
        passes[0] += 1
        return read(feeds)

    runner.forward = forward  # type: ignore[method-assign]
    engine = Engine(runner, 1, 1024, max_batch=1, assistant=assistant)
    settings = DecodingSettings(max_new_tokens=len(text) + 1, prompt_lookup_num_tokens=lookup)
    chooser = TokenChooser(settings, [], [END], model.config.vocab_size)
    engine.submit(Request(prompt, chooser, [Choices([text], END)]))
    engine.step()
    start = time.perf_counter()
    while engine.busy:
        engine.step()
    return time.perf_counter() - start, passes[0]


def rows_of(arguments: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    shapes = (SHAPES["smoke"], SHAPES["smoke"]) if arguments.smoke else (SHAPES["large"], SMALL)
    model, small = (make_model(shape, kind) for shape in shapes)
    length = 16 if arguments.smoke else 128
    ids = np.random.default_rng(0).choice(np.arange(4, shapes[0][3]), 2 * length, replace=False)
    text = ids[:length].tolist()
    copied = Prompt(np.array([*text[: length - 1], 3], np.int64), ["", ""], np.array([length - 1]))
    new = Prompt(np.array([*ids[length:-1].tolist(), 3], np.int64), ["", ""], np.array([length - 1]))  # fmt: skip
    contenders: dict[str, tuple[Prompt, Any, int]] = {
        "alone": (new, None, 0),
        "prompt lookup of 8, nothing repeats": (new, None, 8),
        "prompt lookup of 8, the prompt is copied": (copied, None, 8),
    }
    for count in (4, 8):
        for share in SHARES:
            oracle = Assistant(Oracle(small, text, share), count)
            contenders[f"assistant, {count} guesses, {share:.0%} right"] = (new, oracle, 0)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    passes = {}
    for _ in range(arguments.repeats):
        for name, (prompt, assistant, lookup) in contenders.items():
            lasted, passes[name] = seconds(model, prompt, text, assistant, lookup)
            times[name].append(lasted)
    return [
        {
            "format": kind,
            "written": name,
            "tokens_per_second": length / statistics.median(some),
            "ratio": statistics.median(
                one / other for one, other in zip(times["alone"], some, strict=True)
            ),  # fmt: skip
            "passes": passes[name],
        }
        for name, some in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=["int8", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one round")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    arguments.repeats = 1 if arguments.smoke else arguments.repeats
    torch.set_num_threads(arguments.threads)
    begun = time.perf_counter()
    rows = [row for kind in arguments.formats for row in rows_of(arguments, kind)]
    lines = ["| weights | written | tokens/s | ratio | passes |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {row['format']} | {row['written']} | {row['tokens_per_second']:.1f} | {row['ratio']:.2f} | {row['passes']} |"
        for row in rows
    ]
    shown = "\n".join(lines)
    print(shown)
    values = {
        "rows": rows,
        "threads": arguments.threads,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.save:
        introduction = (
            "Guesses are checked in one pass of the model, so that the text is the same. 128 tokens after a prompt of 128, "
            f"{arguments.threads} threads, random weights, the text forced: 24 x 1024 with 50,048 tokens, the assistant 8 x 256, "
            "whose guesses are right with the probability that the row says (with guesses of its own that depends on the pair of "
            "models). *passes*: of the large model."
        )
        command = f"python benchmarks/bench_speculation.py --formats {' '.join(arguments.formats)} --repeats {arguments.repeats} --save"
        write_table_page("speculation", "Guessing ahead", introduction, shown, values, command)
    print(json.dumps(values))


if __name__ == "__main__":
    sys.exit(main())

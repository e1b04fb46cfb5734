"""What a constraint costs for each token, beside a decode step of the published size.

    python benchmarks/bench_constraints.py --tokenizer FOLDER [--layers 24] [--hidden 1024] [--smoke] [--save]

FOLDER has a published vocabulary (50048 rows in the model). The model has random weights of glm-large-chinese's shape; a
decode step is one token of one sequence behind 128 others, in float32, on the backend that glmkit picks. Each constraint writes
blanks of random allowed tokens. Prints a table, then one JSON line:

    median, 95 %    milliseconds for one mask (`Constraint.allowed`), the state's update included
    share           the median / the median of a decode step
    build           seconds to make the constraint, without the vocabulary's tables
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_page import environment, write_table_page

from glmkit.generation.constraints import All, Choices, Length, Room
from glmkit.generation.grammar import Grammar, JsonSchema, Regex
from glmkit.generation.words import Exclude, Include
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.tokenizer import GLMTokenizer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["红", "绿", "blue"]}}},
    "required": ["name", "age", "tags"],
}  # fmt: skip

CONSTRAINTS: dict[str, Callable[[Any], Any]] = {
    "choices (3)": lambda t: Choices.of_texts(t, ["北京", "上海", "New York"]),
    "regex, a date": lambda t: Regex(t, r"[0-9]{4}年[0-9]{1,2}月[0-9]{1,2}日"),
    "regex, free Chinese text": lambda t: Regex(t, r"(\p{Han}|[，。]){20,60}"),
    "JSON schema": lambda t: JsonSchema(t, SCHEMA),
    "grammar": lambda t: Grammar(t, 'start: sum\nsum: n ("+" n)*\nn: /[0-9]+/ | "(" sum ")"'),
    "length, characters": lambda t: Length(t, 10, 40),
    "include (2 words)": lambda t: Include(t, ["北京", "春天"], Room(tokens=40)),
    "exclude (5 words)": lambda t: Exclude(t, ["北京", "上海", "不", "the", "a"]),
    "regex & include & length": lambda t: All(Regex(t, r"\p{Han}+"), Include(t, "春天"), Length(t, 10, 40)),
}  # fmt: skip


def decode_step(arguments: argparse.Namespace) -> list[float]:
    """Returns the milliseconds of decode steps."""
    config = GLMConfig(
        vocab_size=50048,
        hidden_size=arguments.hidden,
        num_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        max_sequence_length=1024,
    )
    from glmkit.generation.runner import Feed, make_runner

    model = GLMForConditionalGeneration(config).eval()
    runner = make_runner(model)
    sequence, times = runner.open(), []
    runner.forward([Feed(sequence, list(range(100, 228)), list(range(128)), [0] * 128, prefix=128)])
    for step in range(arguments.steps):
        start = time.perf_counter()
        runner.forward([Feed(sequence, [100], [5], [step + 1])])
        times.append(1000 * (time.perf_counter() - start))
    return times


def mask_times(limit: Any, end: int, blanks: int) -> list[float]:
    """Returns the milliseconds of each mask while blanks of random allowed tokens are written."""
    random, times = np.random.default_rng(0), []
    for _ in range(blanks):
        tokens: list[int] = []
        while len(tokens) < 40:
            start = time.perf_counter()
            ids = limit.allowed(tokens)
            times.append(1000 * (time.perf_counter() - start))
            ids = ids[ids != end]
            if not len(ids):
                break
            tokens.append(int(random.choice(ids)))
    return times


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--blanks", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="a tiny model and few blanks")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.hidden, arguments.steps, arguments.blanks = 2, 128, 3, 1
    begun = time.perf_counter()
    tokenizer = GLMTokenizer.from_pretrained(arguments.tokenizer)
    step = statistics.median(decode_step(arguments))
    Regex(tokenizer, "a")  # the vocabulary's tables
    Length(tokenizer, 1, 2)
    rows = []
    for name, build in CONSTRAINTS.items():
        start = time.perf_counter()
        limit = build(tokenizer)
        seconds = time.perf_counter() - start
        times = mask_times(limit, tokenizer.eop_token_id, arguments.blanks)
        median = statistics.median(times)
        rows.append(
            {
                "constraint": name,
                "median_ms": median,
                "p95_ms": float(np.quantile(times, 0.95)),
                "share": median / step,
                "build_s": seconds,
                "masks": len(times),
            }
        )
    table = "\n".join(
        [
            "| constraint | median, ms | 95 %, ms | share of a decode step | build, s |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {row['constraint']} | {row['median_ms']:.3f} | {row['p95_ms']:.3f} | {row['share']:.1%} | {row['build_s']:.3f} |"
                for row in rows
            ),
        ]
    )
    print(f"decode step: {step:.1f} ms\n\n{table}")
    values = {
        "decode_step_ms": step,
        "layers": arguments.layers,
        "hidden": arguments.hidden,
        "rows": rows,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.save:
        command = f"python benchmarks/bench_constraints.py --tokenizer FOLDER --layers {arguments.layers} --hidden {arguments.hidden} --save"
        introduction = (
            f"The cost of a mask for each token, beside a decode step ({step:.1f} ms, median; one sequence behind 128 tokens, {arguments.layers} "
            f"layers of {arguments.hidden}, vocabulary 50048, float32, random weights, {torch.get_num_threads()} threads, llguidance {version('llguidance')}). A mask is one call of `Constraint.allowed`, the "
            "state's update included, while blanks of random allowed tokens are written; the first masks of a constraint are its slowest. "
            "Building leaves out the vocabulary's tables, which are made once."
        )
        write_table_page(
            "constraints",
            "The cost of constraints",
            introduction,
            table,
            values,
            command,
        )
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())

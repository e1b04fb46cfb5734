"""A training step on a CPU with SDPA and with attention written out ("eager"), in short and long rows.

    python benchmarks/bench_attention.py [--dtype bfloat16|float32] [--threads 2] [--repetitions 5]

Prints a table. A step is forward, loss and backward of a GLM of a few layers in mixed precision on rows whose second half is predicted; the two
take turns in one process, and numbers are medians. `glmkit.training.building.choose_attention` follows what this says.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from glmkit.model import GLMConfig, GLMForConditionalGeneration

CONTENDERS = ("sdpa", "eager")
SHAPES = {"192 wide, 6 heads": (6, 192, 6), "768 wide, 12 heads": (4, 768, 12)}
"""Layers, width and heads; a large vocabulary would only hide the difference."""
ROWS = {64: 32, 128: 16, 192: 10, 256: 8, 512: 4}
"""Tokens of a row and rows: two thousand tokens a step."""


def seconds(
    shape: tuple[int, int, int], length: int, dropout: float, dtype: torch.dtype, repetitions: int
) -> dict[str, float]:
    """Returns the median seconds of a step of each contender."""
    layers, width, heads = shape
    config = GLMConfig(
        num_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        vocab_size=1024,
        max_sequence_length=length,
        embedding_dropout_prob=dropout,
        attention_dropout_prob=dropout,
        output_dropout_prob=dropout,
    )
    model = GLMForConditionalGeneration(config).train()
    input_ids = torch.randint(1024, (ROWS[length], length))
    labels = input_ids.where(torch.arange(length) >= length // 2, -100)
    prefix_lengths = torch.full((ROWS[length],), length // 2)
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for repetition in range(repetitions + 1):
        for name, times in taken.items():
            model.set_attn_implementation(name)
            begun = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                loss = model(input_ids=input_ids, prefix_lengths=prefix_lengths, labels=labels).loss
            loss.backward()
            if repetition:  # the first one warms up
                times.append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.dtype}, {options.threads} threads; seconds a step of about 2,000 tokens")
    print("| model | tokens of a row | dropout | sdpa | eager | sdpa / eager |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, shape in SHAPES.items():
        for length in ROWS:
            for dropout in (0.0, 0.1):
                one = seconds(shape, length, dropout, getattr(torch, options.dtype), options.repetitions)  # fmt: skip
                sdpa, eager = (one[contender] for contender in CONTENDERS)
                print(f"| {name} | {length} | {dropout} | {sdpa:.3f} | {eager:.3f} | {sdpa / eager:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""The memory formulas that `glmkit choose` uses against the resident memory of processes on a CPU.

    python benchmarks/bench_choose_memory.py [--presets smoke base large 515m] [--works fill full lora] [--smoke] [--save]

Each work runs in a process of its own: libraries are imported and a tiny model does the same work first; what the process
grows by from then on at its highest (Linux's VmHWM) is compared with the formula. Weights are random. Prints a table and, as
the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

MIB = 2**20
SMOKE = (4, 256, 4, 512, 8000)
"""Layers, hidden size, heads, positions, vocabulary of `--smoke`."""

SIZES = {"fill": (4, 256, 32), "full": (2, 128, 0), "lora": (2, 128, 0)}
"""Work -> rows, tokens of a row, tokens written."""


def make_config(preset: str):
    """Returns the configuration of a published size without dropout, or the one of `--smoke`."""
    from glmkit.model import GLMConfig

    none = dict.fromkeys(("attention_dropout_prob", "output_dropout_prob", "embedding_dropout_prob"), 0.0)  # fmt: skip
    if preset != "smoke":
        return GLMConfig.preset(preset, **none)
    layers, hidden, heads, positions, vocabulary = SMOKE
    return GLMConfig(
        num_layers=layers, hidden_size=hidden, num_attention_heads=heads, max_sequence_length=positions,
        vocab_size=vocabulary, **none,
    )  # fmt: skip


def estimate(work: str, config) -> int:
    """Returns the formula's bytes."""
    from glmkit.generation.memory import inference_memory
    from glmkit.training.adapter_memory import adapter_memory
    from glmkit.training.memory import memory_per_device

    rows, read, written = SIZES[work]
    if work == "fill":
        return inference_memory(config, batch_size=rows, input_tokens=read, output_tokens=written, dtype="float32").peak  # fmt: skip
    formula = adapter_memory if work == "lora" else memory_per_device
    return formula(config, rows, read, precision="float32", device="cpu").peak


def estimate_seconds(work: str, config) -> float:
    """Returns the formula's seconds: of a token of one text (fill), or of a step, on this CPU as it is measured now."""
    from glmkit.choosing.devices import parse_hardware
    from glmkit.choosing.speed import training_seconds, writing_seconds

    rows, read, written = SIZES[work]
    hardware = parse_hardware("cpu")
    if work == "fill":
        return writing_seconds(config, hardware, read + written)
    return training_seconds(config, hardware, examples=rows, row_length=read, predicted=read // 2, adapters=work == "lora", epochs=1)  # fmt: skip


def fill(config) -> float:
    """Builds a model, reads prompts and writes their blanks; returns seconds of CPU for one token of one text."""
    import numpy as np

    from glmkit.generation.decoding import TokenChooser
    from glmkit.generation.engine import Engine
    from glmkit.generation.prompts import Prompt
    from glmkit.generation.request import Request
    from glmkit.generation.settings import DecodingSettings
    from glmkit.generation.torch_runner import TorchRunner
    from glmkit.model import GLMForConditionalGeneration

    rows, read, written = SIZES["fill"]
    model = GLMForConditionalGeneration(config).eval()
    settings = DecodingSettings(max_new_tokens=written, min_new_tokens=written)
    chooser = TokenChooser(settings, [], [1], config.vocab_size)
    prompt = Prompt(np.full(read, 5), ["", ""], np.array([read - 1]))
    engine = Engine(TorchRunner(model), 2, config.max_sequence_length, max_batch=rows)
    for _ in range(rows):
        engine.submit(Request(prompt, chooser))
    for _ in engine.run():
        pass
    engine.submit(Request(prompt, chooser))
    times, before = [], None
    for _ in engine.run():
        now = time.process_time()
        times += [] if before is None else [now - before]
        before = now
    return sorted(times)[len(times) // 2]


def train(config, rank: int = 0) -> float:
    """Builds a model and trains it for two steps, all weights or adapters; returns seconds of CPU for a step."""
    import torch

    from glmkit.model import GLMForConditionalGeneration
    from glmkit.model.adapters import add_lora

    rows, length, _ = SIZES["full"]
    model = GLMForConditionalGeneration(config).train()
    if rank:
        model = add_lora(model, rank=rank)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
    drawn = torch.rand(rows, length, generator=generator) < 0.5
    positions = torch.arange(length).expand(rows, -1)
    batch = {
        "input_ids": ids,
        "position_ids": torch.stack((positions, torch.zeros_like(positions)), 1),
        "segment_ids": torch.ones_like(ids),
        "labels": torch.where(drawn, ids, -100),
    }
    for _ in range(2):
        started = time.process_time()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - started


def resident(name: str) -> int:
    """Returns bytes of this process's memory now ("VmRSS") or at its highest ("VmHWM")."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def measure_here(work: str, preset: str) -> dict[str, float]:
    """Does a work in this process; returns what it grew by."""
    do = {"fill": fill, "full": train, "lora": lambda config: train(config, rank=16)}[work]
    tiny = make_config("smoke")
    tiny.num_layers, tiny.vocab_size = 1, 500
    do(tiny)
    config, before = make_config(preset), resident("VmRSS")
    seconds = do(config)
    return {
        "preset": preset,
        "parameters": config.num_parameters,
        "work": work,
        "rows": SIZES[work][0],
        "tokens": SIZES[work][1],
        "written": SIZES[work][2],
        "measured": resident("VmHWM") - before,
        "estimated": estimate(work, config),
        "seconds": seconds,
        "estimated_seconds": estimate_seconds(work, config),
    }


def measure(work: str, preset: str) -> dict[str, float]:
    """Does a work in a fresh process, whose allocator gives every large tensor's memory back when it is freed."""
    # glibc would raise this threshold while it runs, and keep what is below it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    command = [sys.executable, __file__, "--here", work, preset]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: list[dict[str, float]]) -> str:
    """Returns the results in Markdown."""
    lines = ["| work | preset | parameters | rows x tokens | seconds, formula | seconds of CPU | formula, MiB | resident, MiB | formula / resident |", "|---|---|---:|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for one in results:
        ratio = one["estimated"] / one["measured"]
        written = f" + {one['written']}" if one["written"] else ""
        lines.append(
            f"| {one['work']} | {one['preset']} | {one['parameters'] / 1e6:.0f} M | {one['rows']} x {one['tokens']}{written} "
            f"| {one['estimated_seconds']:.2g} | {one['seconds']:.2g} | {one['estimated'] / MIB:.0f} "
            f"| {one['measured'] / MIB:.0f} | {ratio:.3f} |"
        )
    return "\n".join(lines)


INTRODUCTION = """
Formulas of `generation/memory.py` (fill: so many texts read, so many tokens written to each), `training/memory.py` (full: all
weights, AdamW) and `training/adapter_memory.py` (lora: rank 16) against what a process grew by at its highest (VmHWM), after
imports and a tiny model's work of the same kind. float32, random weights, no dropout, one thread, MALLOC_MMAP_THRESHOLD_=131072.
"smoke" is no published size. Seconds are those of `choosing/speed.py`, of a token of one text (fill) and of a step; the formula takes
the CPU's speed as it measures it, and other programs ran on the machine, so that they are an order of magnitude and no more. There was
no GPU: nothing of this was measured on one.
"""


def save(results: list[dict[str, float]], seconds: int) -> None:
    """Writes the results page, with what it had of other works and presets."""
    from results_page import RESULTS, environment, write_table_page

    facts = environment()
    path = RESULTS / f"choose-memory_cpu_{facts['date'][:7]}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"results": [], "seconds": 0}  # fmt: skip
    new = {(one["work"], one["preset"]): one for one in (*known["results"], *results)}
    write_table_page(
        "choose-memory",
        "Memory: what `glmkit choose` expects against what a process takes",
        INTRODUCTION,
        table(list(new.values())),
        {
            "environment": facts,
            "results": list(new.values()),
            "seconds": known["seconds"] + seconds,
        },
        "python benchmarks/bench_choose_memory.py --save",
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["smoke", "base", "large"])
    parser.add_argument("--works", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--smoke", action="store_true", help="a tiny model alone")
    parser.add_argument("--save", action="store_true", help="write docs/results/choose-memory_…, or add to it")  # fmt: skip
    parser.add_argument("--here", nargs=2, metavar=("WORK", "PRESET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(*options.here)))
        return
    started = time.monotonic()
    presets = ["smoke"] if options.smoke else options.presets
    results = [measure(work, preset) for work in options.works for preset in presets]
    seconds = round(time.monotonic() - started)
    print(table(results))
    if options.save:
        save(results, seconds)
    print(json.dumps({"results": results, "seconds": seconds}))


if __name__ == "__main__":
    main()

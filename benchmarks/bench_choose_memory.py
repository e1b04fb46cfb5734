"""The memory formulas that `glmkit choose` uses against the resident memory of processes on a CPU.

    python benchmarks/bench_choose_memory.py [--presets smoke base large 515m] [--works float32 int8 int4 full lora] [--smoke] [--save]

Each work runs in a process of its own: libraries are imported and a tiny model does the same work first; what the process
grows by from then on at its highest (Linux's VmHWM) is compared with the formula. Weights are random. float32, int8 and int4 fill
blanks with a checkpoint of float16, loaded as `glmkit.load` loads it; full and lora train. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MIB = 2**20
SMOKE = (4, 256, 4, 512, 8000)
"""Layers, hidden size, heads, positions, vocabulary of `--smoke`."""

FILLS = ("float32", "int8", "int4")
SIZES = {**dict.fromkeys(FILLS, (4, 256, 32)), "full": (2, 128, 0), "lora": (2, 128, 0)}
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
    if work in FILLS:
        return inference_memory(
            config, batch_size=rows, input_tokens=read, output_tokens=written, dtype=work, backend="native", stored="float16"
        ).peak  # fmt: skip
    formula = adapter_memory if work == "lora" else memory_per_device
    return formula(config, rows, read, precision="float32", device="cpu").peak


def estimate_seconds(work: str, config) -> dict[str, float]:
    """Returns the formula's seconds on this CPU as it is measured now: of prompts and of a token of one text and of all, or of a step."""
    from glmkit.choosing.devices import parse_hardware
    from glmkit.choosing.speed import Way, reading_seconds, training_seconds, writing_seconds

    rows, read, written = SIZES[work]
    hardware = parse_hardware("cpu")
    if work not in FILLS:
        return {"step": training_seconds(config, hardware, examples=rows, row_length=read, predicted=read // 2, adapters=work == "lora", epochs=1)}  # fmt: skip
    way, length = Way(work, "native", "float16"), read + written // 2
    return {
        "prompts": reading_seconds(config, hardware, way, read, rows),
        "one text": writing_seconds(config, hardware, way, length),
        "all texts": writing_seconds(config, hardware, way, length, rows),
    }


def fill(folder: Path, work: str) -> dict[str, float]:
    """Loads a model, reads prompts and writes their blanks; returns seconds of prompts, and of a token of one text and of all."""
    import numpy as np

    from glmkit.generation.decoding import TokenChooser
    from glmkit.generation.engine import Engine
    from glmkit.generation.prompts import Prompt
    from glmkit.generation.request import Request
    from glmkit.generation.settings import DecodingSettings
    from glmkit.native.loading import load_model

    rows, read, written = SIZES[work]
    model = load_model(folder, device="cpu", dtype="float32", quantization=None if work == "float32" else work)  # fmt: skip
    config = model.config
    settings = DecodingSettings(max_new_tokens=written, min_new_tokens=written)
    chooser = TokenChooser(settings, [], [1], config.vocab_size)
    prompt = Prompt(np.full(read, 5), ["", ""], np.array([read - 1]))
    engine = Engine(model.make_runner(), 2, config.max_sequence_length, max_batch=rows)

    def steps(texts: int) -> list[float]:
        for _ in range(texts):
            engine.submit(Request(prompt, chooser))
        times = []
        while engine.busy:
            began = time.perf_counter()
            engine.step()
            times.append(time.perf_counter() - began)
        return times

    steps(1)
    many, one = steps(rows), steps(1)
    return {"prompts": many[0], "one text": median(one[1:]), "all texts": median(many[1:])}


def train(config, rank: int = 0) -> dict[str, float]:
    """Builds a model and trains it for two steps, all weights or adapters; returns seconds of a step."""
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
        started = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"step": time.perf_counter() - started}


def resident(name: str) -> int:
    """Returns bytes of this process's memory now ("VmRSS") or at its highest ("VmHWM")."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def measure_here(work: str, preset: str, folders: Path) -> dict[str, Any]:
    """Does a work in this process; returns what it grew by."""

    def do(name: str, config) -> dict[str, float]:
        return fill(folders / name, work) if work in FILLS else train(config, 16 if work == "lora" else 0)  # fmt: skip

    do("tiny", tiny_config())
    gc.collect()
    config, before = make_config(preset), resident("VmRSS")
    seconds = do(preset, config)
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


def tiny_config():
    """Returns the configuration of a model that takes next to nothing."""
    tiny = make_config("smoke")
    tiny.num_layers, tiny.vocab_size = 1, 500
    return tiny


def write_model(folder: Path, config) -> None:
    """Writes a model of random weights, float16."""
    from glmkit.model import GLMForConditionalGeneration

    if not folder.is_dir():
        GLMForConditionalGeneration(config).half().save_pretrained(folder)


def measure(work: str, preset: str, folders: Path) -> dict[str, Any]:
    """Does a work in a fresh process, whose allocator gives every large tensor's memory back when it is freed."""
    if work in FILLS:
        write_model(folders / "tiny", tiny_config())
        write_model(folders / preset, make_config(preset))
    # glibc would raise this threshold while it runs, and keep what is below it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip
    command = [sys.executable, __file__, "--here", work, preset, str(folders)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def milliseconds(seconds: float) -> str:
    """Returns seconds in milliseconds, for people."""
    return f"{1000 * seconds:.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2g}"


def table(results: list[dict[str, Any]]) -> str:
    """Returns the results in Markdown."""
    lines = ["| work | preset | parameters | rows x tokens | milliseconds, formula / measured | formula, MiB | resident, MiB | formula / resident |", "|---|---|---:|---|---|---:|---:|---:|"]  # fmt: skip
    for one in results:
        ratio = one["estimated"] / one["measured"]
        written = f" + {one['written']}" if one["written"] else ""
        seconds = ", ".join(f"{what} {milliseconds(one['estimated_seconds'][what])} / {milliseconds(taken)}" for what, taken in one["seconds"].items())  # fmt: skip
        lines.append(
            f"| {one['work']} | {one['preset']} | {one['parameters'] / 1e6:.0f} M | {one['rows']} x {one['tokens']}{written} "
            f"| {seconds} | {one['estimated'] / MIB:.0f} | {one['measured'] / MIB:.0f} | {ratio:.3f} |"
        )
    return "\n".join(lines)


INTRODUCTION = """
Formulas of `generation/memory.py` (float32, int8 and int4: a checkpoint of float16 is loaded as `glmkit.load` loads it on a CPU, for the native
decoder; so many texts are read, so many tokens written to each), `training/memory.py` (full: all weights, AdamW, float32) and `training/adapter_memory.py`
(lora: rank 16) against what a process grew by at its highest (VmHWM), after imports and a tiny model's work of the same kind. Random weights, no dropout,
one thread, MALLOC_MMAP_THRESHOLD_=131072. "smoke" is no published size. Milliseconds are those of `choosing/speed.py`, of all prompts, of a token of one text and of
all texts, or of a step of training; the formula takes the CPU's speed as it measures it in the same process. There was no GPU: nothing of this was measured on one.

At 8 and 4 bits a processor with AVX-512 takes less than the formula: what the MLP widens to is never float32 there (4 I bytes for each token that is read).
"""


def save(results: list[dict[str, Any]], seconds: int) -> None:
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
    parser.add_argument(
        "--here", nargs=3, metavar=("WORK", "PRESET", "FOLDERS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.here:
        work, preset, folders = options.here
        print(json.dumps(measure_here(work, preset, Path(folders))))
        return
    started = time.monotonic()
    presets = ["smoke"] if options.smoke else options.presets
    with tempfile.TemporaryDirectory() as folders:
        results = [measure(work, preset, Path(folders)) for work in options.works for preset in presets]  # fmt: skip
    seconds = round(time.monotonic() - started)
    print(table(results))
    if options.save:
        save(results, seconds)
    print(json.dumps({"results": results, "seconds": seconds}))


if __name__ == "__main__":
    main()

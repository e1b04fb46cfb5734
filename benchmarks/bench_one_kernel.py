"""A decode step of one text as one kernel (`generation.one_kernel`) beside the same step by many, and where its time goes; for a GPU.

    python benchmarks/bench_one_kernel.py [--shapes large 2b 10b] [--bits 16 8] [--places 190 600] [--with WARPS=4 …] [--out FILE]

Captured steps of random weights are timed on the device alone, one replay at a time and twenty in a row. `--with` compiles the kernel
with other macros beside (several joined by commas: SLOT=8192,SLOTS=24). Then the kernel is compiled to note when each of its blocks
comes where, and the mean nanoseconds of each part of a layer are told.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from generate_contenders import glm_config
from gpu_contenders import SHAPES, ceilings, made_on

PARTS = ("the last layer's numbers", "normalised", "queries, keys, values", "sent", "a head's come", "attended", "context comes", "multiplied", "numbers come", "normalised", "widened", "wide ones come", "multiplied")  # fmt: skip
"""What has just been done at each place that the kernel stamps, 0 to 12."""


def prepared(shape: str, eight_bits: bool, capacity: int) -> tuple[Any, Any, torch.Tensor]:
    """Returns a model, its cache of two rows, and tokens that are barred (none)."""
    from glmkit.generation.rows import StaticRows
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.model.int8 import to_int8

    model = made_on("cuda", torch.bfloat16, lambda: GLMForConditionalGeneration(glm_config(SHAPES[shape])))  # fmt: skip
    if eight_bits:
        model = to_int8(model, "cuda")
    config, rows = model.config, StaticRows(model.config.num_layers)
    rows.reserve(2, capacity)
    heads = config.num_attention_heads
    rows.settle(model.glm.transformer.position_embeddings.weight.new_empty(1, heads, 1, config.hidden_size // heads))  # fmt: skip
    for one in rows.buffers:
        one.normal_()
    return model, rows, torch.zeros(1, config.vocab_size, dtype=torch.bool, device="cuda")


def numbers(place: int) -> torch.Tensor:
    """Returns what a step reads: id, positions, row, place, barred set."""
    return torch.tensor([[7], [place], [1], [0], [place], [0], [0]], device="cuda")


def timed(work: Any) -> tuple[float, float]:
    """Returns the microseconds of a captured piece of work: of one replay (the median of 30), and of each of twenty in a row."""
    from gpu_contenders import replayed

    from glmkit.generation.captured import captured

    graph = captured(work, torch.device("cuda"), torch.cuda.graph_pool_handle(), 2)[0]
    alone = replayed(graph, 30)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(20):
        graph.replay()
    end.record()
    end.synchronize()
    return alone * 1e6, start.elapsed_time(end) * 1e3 / 20


def ways(
    shape: str, bits: int, held: tuple[Any, ...], places: list[int], others: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Returns the times of a step: by kernels that begin early, by one, and by one with other macros."""
    from glmkit.generation.one_kernel import OneKernel
    from glmkit.generation.steps import Stepper, triton_kernels

    model, rows, barred = held
    layers, hidden, heads, vocabulary, _ = SHAPES[shape]
    weights = (12 * layers * hidden**2 + vocabulary * hidden) * bits / 8
    sizes = (heads, hidden // heads, model.config.hidden_act)
    stepper = Stepper(model, triton_kernels("kernels", torch.device("cuda"), torch.bfloat16, sizes))
    found = []
    for place in places:
        inputs = numbers(place)

        def early(inputs: torch.Tensor = inputs) -> Any:
            logits = stepper.logits(inputs, rows.buffers, 0, "early")
            return logits, stepper.likeliest(logits, barred, inputs[5], "early")

        works: dict[str, Any] = {"early": early}
        for other in [{}, *others]:
            kernel = OneKernel(model, rows.buffers, barred)
            kernel._macros.update(other)
            name = " ".join(["one", *(f"{key}={value}" for key, value in other.items())])
            works[name] = lambda kernel=kernel, inputs=inputs: kernel(inputs)
        for name, work in works.items():
            row: dict[str, Any] = {"shape": shape, "bits": bits, "place": place, "way": name}
            try:
                alone, each = timed(work)
                rate = (weights + 4 * layers * hidden * place) / each / 1e3
                row |= {"alone_us": round(alone, 1), "in_a_row_us": round(each, 1), "gb_s": round(rate)}  # fmt: skip
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {error}"[:200]
            print(json.dumps(row), flush=True)
            found.append(row)
    return found


def profile(shape: str, bits: int, held: tuple[Any, ...], place: int) -> dict[str, Any]:
    """Returns the mean nanoseconds of each part of a layer, of layers in the middle."""
    from glmkit.generation.one_kernel import OneKernel

    model, rows, barred = held
    kernel = OneKernel(model, rows.buffers, barred)
    blocks, layers = int(kernel._macros["BLOCKS"]), model.config.num_layers
    stamps = torch.zeros(blocks, layers, 16, dtype=torch.long, device="cuda")
    kernel._macros["STAMPS"] = f"{stamps.data_ptr()}ULL"
    for _ in range(5):
        kernel(numbers(place))
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    kernel(numbers(place))
    end.record()
    end.synchronize()
    taken = stamps.cpu().double()
    whole = (taken[:, -1, 0] - taken[:, 0, 0]).mean() / (layers - 1)  # cycles of a layer
    cycles = {}
    middle = taken[:, 2:-2]
    has_keys = middle[:, :, 4] > middle[:, :, 3]
    for number, name in enumerate(PARTS[1:], 1):
        parts = middle[:, :, number] - middle[:, :, number - 1]
        if number == 5:
            parts = middle[:, :, 5] - torch.where(has_keys, middle[:, :, 4], middle[:, :, 3])
        if number in (4, 5):
            parts = parts[has_keys]
        cycles[f"{number} {name}"] = parts.mean()
    cycles["13 the next layer begins"] = (middle[:, 1:, 0] - middle[:, :-1, 12]).mean()
    step = start.elapsed_time(end) * 1e6  # ns, stamps and all
    clock = (
        getattr(torch.cuda.get_device_properties(0), "clock_rate", 1_980_000) / 1e6
    )  # GHz, the highest
    told = {name: round(float(one) / clock) for name, one in cycles.items()}
    row = {"shape": shape, "bits": bits, "place": place, "step_us": round(step / 1e3, 1), "layer_ns": round(float(whole) / clock), "parts_ns": told}  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def macros(text: str) -> dict[str, str]:
    """Returns NAME=VALUE,… as a dictionary."""
    found = dict(part.partition("=")[::2] for part in text.split(","))
    if not all(name and value for name, value in found.items()):
        raise argparse.ArgumentTypeError(f"{text!r}; write NAME=VALUE, or several joined by commas")
    return found


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["large", "2b", "10b"], choices=[*SHAPES][1:])  # fmt: skip
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 8], choices=(16, 8))
    parser.add_argument("--places", type=int, nargs="+", default=[190], help="keys to attend to")
    parser.add_argument("--with", dest="others", type=macros, nargs="*", default=[], metavar="NAME=VALUE")  # fmt: skip
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0):
        parser.error("the kernel is for GPUs from Hopper on; there is none here")
    values: dict[str, Any] = {"device": torch.cuda.get_device_name(), "ceilings": ceilings("cuda", torch.bfloat16), "steps": [], "parts": []}  # fmt: skip
    print(json.dumps(values), flush=True)
    for shape in arguments.shapes:
        for bits in arguments.bits:
            with torch.inference_mode():
                held = prepared(shape, bits == 8, max(arguments.places) + 64)
                values["steps"] += ways(shape, bits, held, arguments.places, arguments.others)
                values["parts"].append(profile(shape, bits, held, arguments.places[0]))
            del held
            torch.cuda.empty_cache()
            if arguments.out:
                arguments.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

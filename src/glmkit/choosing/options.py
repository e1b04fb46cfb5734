"""One way to do the work with one model: what it takes, and what speaks for and against it.

In: a model of the table, a method, what is wanted. Out: an `Option`, all numbers from the formulas of `generation.memory`,
`training.memory`, `training.adapter_memory` and `choosing.speed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

from glmkit.checkpoint.architecture import Architecture
from glmkit.choosing.devices import GIB, Hardware
from glmkit.choosing.models import Candidate
from glmkit.choosing.speed import Way, reading_seconds, training_seconds, writing_seconds
from glmkit.choosing.tasks import Need
from glmkit.choosing.words import Text
from glmkit.generation.memory import Backend, inference_memory
from glmkit.training.adapter_memory import adapter_memory
from glmkit.training.memory import memory_per_device

Method = Literal["zero-shot", "lora", "full"]
METHODS: tuple[Method, ...] = ("zero-shot", "lora", "full")

RANK = 16
ROWS = 16
"""Of a step, as in `glmkit finetune`; fewer at a time where memory is short."""

SPECIALS = 4
"""Tokens of a row beside text and answer: its begin and end, the mask, the answer's start."""


@dataclass(frozen=True)
class Request:
    """What is wanted.

    Attributes:
        need: The work.
        examples: Labelled records there are.
        language: Of the texts, such as zh or en.
        hardware: What there is to compute on.
        latency: Seconds that one answer may take, or None.
        hours: That training may take.
        input_tokens: Of a text.
        output_tokens: Of an answer.
    """

    need: Need
    examples: int
    language: str
    hardware: Hardware
    latency: float | None
    hours: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Training:
    """Of fine-tuning.

    Attributes:
        memory: Bytes on each device at the peak.
        rows: At a time on each device.
        accumulation: Batches to a step.
        checkpointing: Whether activations are computed again.
        seconds: All of it.
        fits: Whether there is so much memory.
        quantized: Whether the frozen base is of 4 bits (QLoRA).
    """

    memory: int
    rows: int
    accumulation: int
    checkpointing: bool
    seconds: float
    fits: bool
    quantized: bool = False


@dataclass(frozen=True)
class Inference:
    """Of answering one text at a time, and many.

    Attributes:
        way: How it is computed.
        memory: Bytes on each device, one text at a time.
        seconds: Of one answer.
        batch_size: Texts at a time that fit, at most 32.
        answers_per_second: With that many on one device (on those that hold one copy).
        fits: Whether there is so much memory.
    """

    way: Way
    memory: int
    seconds: float
    batch_size: int
    answers_per_second: float
    fits: bool


@dataclass(frozen=True)
class Option:
    """A model and a method; `problems` are those of `judging.PROBLEMS` that it has, with words."""

    candidate: Candidate
    method: Method
    parameters: int
    training: Training | None
    inference: Inference
    problems: dict[str, Text]
    reasons: tuple[Text, ...]
    level: float
    command: str


def plan_training(config: Architecture, request: Request, method: Method) -> Training:
    """Returns the most rows at a time that fit, without checkpointing where that does; or what least does not fit.

    On a GPU adapters are trained on a base of 4 bits where one of full size does not fit.
    """
    hardware, length = request.hardware, request.input_tokens + request.output_tokens + SPECIALS
    share = min(1.0, (request.output_tokens + 1) / length)
    precision: Literal["mixed", "float32"] = "mixed" if hardware.device == "cuda" else "float32"
    rows, checkpointing, quantized, memory = ROWS, False, False, 0
    per_device = max(1, ROWS // hardware.count)
    sizes = [size for size in (16, 8, 4, 2, 1) if size <= per_device]
    bases = (False, True) if method == "lora" and hardware.device == "cuda" else (False,)
    for quantized, rows, checkpointing in product(bases, sizes, (False, True)):
        common = {
            "precision": precision,
            "processes": hardware.count,
            "checkpointing": checkpointing,
            "predicted_share": share,
            "device": hardware.device,
        }
        if method == "lora":
            quantize: Literal["nf4"] | None = "nf4" if quantized else None
            memory = adapter_memory(config, rows, length, rank=RANK, quantize=quantize, **common).peak  # type: ignore[arg-type]  # fmt: skip
        else:
            accumulating = rows < per_device
            memory = memory_per_device(config, rows, length, accumulating=accumulating, **common).peak  # type: ignore[arg-type]  # fmt: skip
        if memory <= hardware.usable:
            break
    seconds = training_seconds(
        config,
        hardware,
        examples=request.examples,
        row_length=length,
        predicted=request.output_tokens,
        adapters=method == "lora",
        checkpointing=checkpointing,
    )
    accumulation = max(1, per_device // rows)
    fits = memory <= hardware.usable
    return Training(memory, rows, accumulation, checkpointing, seconds, fits, quantized)


def ways_of(candidate: Candidate, request: Request, method: Method) -> list[Way]:
    """Returns the ways in which `glmkit.load` can answer with a model, the most exact first.

    On a CPU the native decoder; on one GPU what is written is written by captured steps with a static cache. Fewer bits come after
    all that keeps the weights as they are. What was trained is stored in float32.
    """
    hardware, writes = request.hardware, request.need.kind != "labels"
    stored = candidate.stored if method == "zero-shot" else "float32"
    if hardware.device == "cpu":
        dtypes = ("float32", "int8", "int4") if stored != "int8" else ("int8", "int4")
        return [Way(dtype, "native", stored) for dtype in dtypes]
    # Labels are compared in the pass that reads, layers on several devices are not captured.
    alone: Backend = "graphs" if writes else "torch"
    whole, eight_bits = Way(hardware.dtype, alone, stored), Way("int8", alone, stored)
    if stored == "int8":
        return [eight_bits]
    divided = [Way(hardware.dtype, "torch", stored, hardware.count)] if hardware.count > 1 else []
    return [whole, *divided, eight_bits]


def plan_inference(config: Architecture, request: Request, ways: list[Way]) -> Inference:
    """Returns what answering takes, in the first way that fits into memory and is fast enough, else in the first that fits, else in the last."""
    plans = [_plan(config, request, way) for way in ways]
    fitting = [plan for plan in plans if plan.fits] or plans[-1:]
    latency = request.latency
    fast = (plan for plan in fitting if latency is None or plan.seconds <= latency)
    return next(fast, fitting[0])


def _plan(config: Architecture, request: Request, way: Way) -> Inference:
    hardware = request.hardware
    read, written = request.input_tokens + SPECIALS, request.output_tokens

    def memory(batch_size: int) -> int:
        whole = inference_memory(
            config,
            batch_size=batch_size,
            input_tokens=read,
            output_tokens=written,
            dtype=way.dtype,
            backend=way.backend,
            stored=way.stored,
        )
        return -(-(whole.weights + whole.cache) // way.devices) + whole.working

    batch_size = next((size for size in (32, 16, 8, 4, 2) if memory(size) <= hardware.usable), 1)
    many = reading_seconds(config, hardware, way, read, batch_size)
    one = reading_seconds(config, hardware, way, read)
    if request.need.kind != "labels":
        steps, tokens = written - 1, read + written
        one += steps * writing_seconds(config, hardware, way, tokens)
        many += steps * writing_seconds(config, hardware, way, tokens, batch_size)
    least = memory(1)
    return Inference(way, least, one, batch_size, batch_size / many, least <= hardware.usable)


def rounded(candidate: Candidate, inference: Inference) -> bool:
    """Returns whether weights are of fewer bits than the checkpoint's."""
    return inference.way.dtype in ("int8", "int4") and inference.way.dtype != candidate.stored


def command(
    candidate: Candidate,
    method: Method,
    request: Request,
    training: Training | None,
    inference: Inference,
) -> str:
    """Returns the line to type; MODEL in it is the folder of the unpacked archive where there is no hub repository."""
    need, model = request.need, candidate.source
    if training is None:
        asked = ""
        if need.verb == "classify" and need.task != "topics":  # its default
            asked = f" --task {need.task}" if need.task else " --labels A,B,C"
        if rounded(candidate, inference):
            asked += f" --dtype {inference.way.dtype}"
        return f"glmkit {need.verb} --model {model}{asked}"
    task = need.task or "task.yaml"
    words = ["glmkit", "finetune", model, task, "--data train.jsonl", "--valid valid.jsonl"]
    words.append(f"-o runs/{candidate.name}-{method}")
    if request.hardware.count > 1:
        words.insert(0, f"torchrun --nproc-per-node {request.hardware.count} --no-python")
    if method == "lora":
        words.append("--method qlora" if training.quantized else f"--lora {RANK}")
    words.append(f"trainer.per_device_train_batch_size={training.rows}")
    if training.accumulation > 1:
        words.append(f"trainer.gradient_accumulation_steps={training.accumulation}")
    if training.checkpointing:
        words.append("trainer.activation_checkpointing=true")
    if request.hardware.device == "cuda":
        half = "trainer.bf16=true" if request.hardware.dtype == "bfloat16" else "trainer.fp16=true"
        words.append(half)
    if not candidate.preset and method == "full":
        words.append("trainer.learning_rate=2e-4")  # of some million weights: ten times the default
    return " ".join(words)


def gib(number: float) -> str:
    """Returns bytes in GiB, for people."""
    return f"{number / GIB:.1f}" if number >= GIB / 10 else f"{number / GIB:.2f}"

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
from glmkit.choosing.speed import reading_seconds, training_seconds, writing_seconds
from glmkit.choosing.tasks import Need
from glmkit.choosing.words import Text
from glmkit.generation.memory import inference_memory
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
        memory: Bytes on each device, one text at a time.
        devices: That the layers are divided among.
        seconds: Of one answer.
        batch_size: Texts at a time that fit, at most 32.
        answers_per_second: With that many on one device (on those that hold one copy).
        fits: Whether there is so much memory.
    """

    memory: int
    devices: int
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


def plan_inference(config: Architecture, request: Request) -> Inference:
    """Returns what answering takes: on one device where that does, else with the layers divided among all of one kind.

    On one GPU what is written is written as `glmkit.load` does there, by captured steps with a static cache.
    """
    hardware = request.hardware
    read, written = request.input_tokens + SPECIALS, request.output_tokens
    writes = request.need.kind != "labels"  # labels are compared in the pass that reads

    def captured(devices: int) -> bool:
        return writes and hardware.device == "cuda" and devices == 1

    def memory(batch_size: int, devices: int) -> int:
        whole = inference_memory(
            config,
            batch_size=batch_size,
            input_tokens=read,
            output_tokens=written,
            dtype=hardware.dtype,
            static=captured(devices),
        )
        return -(-(whole.weights + whole.cache) // devices) + whole.working

    devices = 1
    if memory(1, 1) > hardware.usable:
        devices = hardware.count
    batch_size = next((size for size in (32, 16, 8, 4, 2) if memory(size, devices) <= hardware.usable), 1)  # fmt: skip
    many = reading_seconds(config, hardware, read * batch_size)
    one = reading_seconds(config, hardware, read)
    if writes:
        steps, fast, tokens = written - 1, captured(devices), read + written
        one += steps * writing_seconds(config, hardware, tokens, captured=fast)
        many += steps * writing_seconds(config, hardware, tokens, batch_size, captured=fast)
    least = memory(1, devices)
    return Inference(least, devices, one, batch_size, batch_size / many, least <= hardware.usable)


def command(candidate: Candidate, method: Method, request: Request, training: Training | None) -> str:  # fmt: skip
    """Returns the line to type; MODEL in it is the folder of the unpacked archive where there is no hub repository."""
    need, model = request.need, candidate.source
    if training is None:
        asked = ""
        if need.verb == "classify" and need.task != "topics":  # its default
            asked = f" --task {need.task}" if need.task else " --labels A,B,C"
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

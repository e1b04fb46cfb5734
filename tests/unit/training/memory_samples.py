"""Measures what training steps allocate, with torch's own profiler, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

import torch
from torch.profiler import ProfilerActivity, profile

from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.training.masters import MasterAdamW


def peak_bytes(run) -> int:
    """Returns the most bytes that the CPU's allocator has given out during `run()`, beside those of before.

    A block that was there before and is freed meanwhile (by the garbage collector, say) counts for nothing.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    events = _allocations(watched.profiler.kineto_results.experimental_event_tree())
    held: dict[int, int] = {}
    total = most = 0
    for _, address, size in sorted(events, key=itemgetter(0)):
        if size > 0:
            held[address] = size
            total += size
            most = max(most, total)
        else:
            total -= held.pop(address, 0)
    return most


def _allocations(events) -> Iterator[tuple[int, int, int]]:
    """The allocator's events among `events` and below them: nanosecond, address, bytes (negative where freed)."""
    for event in events:
        if event.name == "[memory]":
            fields = event.extra_fields
            yield event.start_time_ns, fields.ptr, fields.alloc_size
        yield from _allocations(event.children)


def two_steps(
    config: GLMConfig,
    rows: int,
    length: int,
    precision: str,
    share: float,
    checkpointing: bool,
    divide=None,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
) -> None:
    """Builds a model and trains it for two steps; in the second the optimizer's state is there."""
    model = GLMForConditionalGeneration(config).train().to(device)
    model.set_attn_implementation(attention)
    if precision == "bfloat16":
        model = model.to(torch.bfloat16)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if divide is not None:
        divide(model)
    _train(model, config, rows, length, precision, share)


def adapter_steps(
    config: GLMConfig,
    rows: int,
    length: int,
    precision: str,
    share: float,
    checkpointing: bool,
    rank: int,
    device: torch.device | str = "cpu",
) -> None:
    """Builds a model and trains adapters on it for two steps."""
    from glmkit.model.adapters import add_lora

    model = add_lora(GLMForConditionalGeneration(config).train().to(device), rank=rank)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    _train(model, config, rows, length, precision, share)


def quantized_adapter_bytes(
    config: GLMConfig, rows: int, length: int, precision: str, checkpointing: bool, folder
) -> int:
    """Trains adapters on a base of 4 bits for two steps; returns the most bytes, the base's among them."""
    from glmkit.model.adapters import add_lora
    from glmkit.model.quantized import nf4_options

    GLMForConditionalGeneration(config).save_pretrained(folder)
    compute = "bfloat16" if precision == "mixed" else "float32"
    base = GLMForConditionalGeneration.from_pretrained(folder, dtype="float32", **nf4_options(compute))  # fmt: skip
    held = 0
    for weight in base.parameters():
        held += weight.nbytes
        if (state := getattr(weight, "quant_state", None)) is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes

    def run() -> None:
        model = add_lora(base.train(), rank=8)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        _train(model, config, rows, length, precision, 0.5)

    return held + peak_bytes(run)


def _train(model, config: GLMConfig, rows: int, length: int, precision: str, share: float) -> None:
    adam = MasterAdamW if precision == "bfloat16" else torch.optim.AdamW
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = adam(trained, lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
    drawn = torch.rand(rows, length, generator=generator) < share
    positions = torch.arange(length).expand(rows, -1)
    batch = {
        "input_ids": ids,
        "position_ids": torch.stack((positions, torch.zeros_like(positions)), 1),
        "segment_ids": torch.ones_like(ids),
        "labels": torch.where(drawn, ids, -100),
    }
    device = trained[0].device
    batch = {name: value.to(device) for name, value in batch.items()}
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "mixed"):
            loss = model(**batch).loss
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad()

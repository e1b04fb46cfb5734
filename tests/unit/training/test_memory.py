"""The memory formula against torch's allocator: within a tenth, whatever the shape."""

from __future__ import annotations

import multiprocessing
import os
import socket

import pytest
import torch
from memory_samples import peak_bytes, two_steps

from glmkit.errors import ConfigError
from glmkit.model import GLMConfig
from glmkit.training.memory import memory_per_device

# vocabulary, hidden, layers, tokens of a row, dropout, rows
DEEP = (1000, 128, 6, 128, 0.0, 6)
BIG_VOCABULARY = (8000, 128, 2, 128, 0.1, 8)
MANY_WEIGHTS = (2000, 256, 6, 128, 0.1, 1)
LONG = (1000, 128, 2, 384, 0.1, 2)


def make_config(vocabulary, hidden, layers, length, dropout) -> GLMConfig:
    return GLMConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=4,
        max_sequence_length=length,
        attention_dropout_prob=0.0,
        output_dropout_prob=dropout,
        embedding_dropout_prob=dropout,
    )


SLOW = pytest.mark.slow


def test_what_was_there_before_counts_for_nothing():
    kept = []
    peak_bytes(lambda: kept.append(torch.ones(50_000)))

    def run():
        kept.clear()
        torch.ones(1_000)

    assert peak_bytes(run) == 4_000


@pytest.mark.parametrize(
    ("shape", "precision", "checkpointing"),
    [
        (DEEP, "float32", False),
        (DEEP, "float32", True),
        (BIG_VOCABULARY, "mixed", False),
        pytest.param(MANY_WEIGHTS, "bfloat16", False, marks=SLOW),
        (MANY_WEIGHTS, "float32", True),
        pytest.param(BIG_VOCABULARY, "float32", False, marks=SLOW),
        pytest.param(BIG_VOCABULARY, "float32", True, marks=SLOW),
        pytest.param(BIG_VOCABULARY, "mixed", True, marks=SLOW),
        pytest.param(MANY_WEIGHTS, "float32", False, marks=SLOW),
        pytest.param(MANY_WEIGHTS, "bfloat16", True, marks=SLOW),
        pytest.param(LONG, "mixed", False, marks=SLOW),
        pytest.param(LONG, "mixed", True, marks=SLOW),
        pytest.param(DEEP, "bfloat16", False, marks=SLOW),
        pytest.param(DEEP, "bfloat16", True, marks=SLOW),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_is_allocated(shape, precision, checkpointing):
    *sizes, rows = shape
    config, length = make_config(*sizes), sizes[3]
    measured = peak_bytes(lambda: two_steps(config, rows, length, precision, 0.5, checkpointing))
    estimate = memory_per_device(
        config, rows, length, precision=precision, checkpointing=checkpointing, device="cpu"
    )
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def _measure_shard(rank: int, port: int, shape, precision: str, reshard: bool, queue) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    from glmkit.training import distributed

    def divide(model) -> None:
        distributed.divide(
            model,
            model.glm.transformer.layers,
            2,
            torch.device("cpu"),
            compute_dtype=torch.bfloat16 if precision == "mixed" else None,
            reshard=reshard,
        )

    *sizes, rows = shape
    config, length = make_config(*sizes), sizes[3]
    measured = peak_bytes(lambda: two_steps(config, rows, length, precision, 0.5, False, divide))
    queue.put(measured)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("shape", "precision"),
    [
        pytest.param(MANY_WEIGHTS, "float32", marks=SLOW),
        pytest.param(DEEP, "float32", marks=SLOW),
        pytest.param(DEEP, "mixed", marks=SLOW),
    ],
)
def test_the_estimate_of_a_shard(shape, precision):
    """Two processes hold one model together."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glmkit.training.pretrain", "torch.distributed.fsdp"])
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    queue = context.Queue()
    workers = [
        context.Process(target=_measure_shard, args=(rank, port, shape, precision, True, queue))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    measured = max(queue.get(timeout=100) for _ in workers)
    for worker in workers:
        worker.join()
    *sizes, rows = shape
    estimate = memory_per_device(
        make_config(*sizes),
        rows,
        sizes[3],
        precision=precision,
        processes=2,
        shards=2,
        device="cpu",
    )
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def test_what_is_divided_and_what_is_not():
    config = GLMConfig.preset("2b")
    whole = memory_per_device(config, 1, 512)
    divided = memory_per_device(config, 1, 512, processes=8, shards=8)
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(divided, name) == getattr(whole, name) // 8
    assert divided.activations <= whole.activations
    assert divided.peak < whole.peak / 2
    small = memory_per_device(config, 1, 512, checkpointing=True)
    assert small.activations < whole.activations / 5
    with pytest.raises(ConfigError, match=r"shards = 3 does not divide the 8 process"):
        memory_per_device(config, 1, 512, processes=8, shards=3)
    with pytest.raises(ConfigError, match="'fp8'; there are float32, mixed, bfloat16"):
        memory_per_device(config, 1, 512, precision="fp8")

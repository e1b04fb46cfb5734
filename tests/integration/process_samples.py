"""Runs of several processes in tests: forked from a server that has imported everything, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path

from pretrain_samples import make_config

PRELOAD = [
    "glmkit.training.pretrain",
    "glmkit.training.finetune",
    "accelerate",
    "matplotlib.pyplot",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
]
NO_DROPOUT = {
    f"{name}_dropout_prob": 0.0 for name in ("embedding", "attention", "output")
}  # fmt: skip


class Runs(dict):
    """Kind -> folder of its run, made when a test first asks for it."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, kind: str) -> Path:
        self[kind] = self.make(kind)
        return self[kind]


def launch(processes: int, config, log: Path, kill: dict | None = None) -> list[int]:
    """Trains in so many processes; returns their exit codes (negative: the signal that ended one).

    Args:
        processes: How many.
        config: A `PretrainConfig` or a `FinetuneConfig`.
        log: Where a process that fails writes its traceback.
        kill: What happens to process 0: {"when": "step" | "write" | "publish" | "full", "at": step, "signal": number}.
            "write": the checkpoint's tensors are written; "publish": all of it is, but under its hidden name; "full": no
            signal, but the disk (no file may grow) is full from that step on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    workers = [
        context.Process(target=work, args=(rank, processes, port, config, log, kill))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        for worker in workers:
            worker.join(0.05)
        if any(worker.exitcode not in (None, 0) for worker in workers):
            for worker in workers:  # as torchrun does
                worker.join(2)
                worker.kill()
    return [worker.exitcode for worker in workers]


def work(rank: int, processes: int, port: int, config, log: Path, kill: dict | None) -> None:
    """One process of a run."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    from glmkit.training import finetune, pretrain
    from glmkit.training.settings import PretrainConfig

    pretrains = isinstance(config, PretrainConfig)
    try:
        if kill and rank == 0:
            _arrange(pretrain if pretrains else finetune, **kill)
        (pretrain.pretrain if pretrains else finetune.finetune)(config)
    except BaseException:
        log.with_suffix(f".{rank}").write_text(traceback.format_exc())
        sys.stdout.flush()
        os._exit(1)  # gloo would wait for the others
    if processes > 1:
        import torch.distributed

        torch.distributed.destroy_process_group()


def _arrange(training, when: str, at: int, signal: int = signal.SIGKILL) -> None:
    """Lets this process be sent a signal at a moment of its run; `training` is the module that builds its trainer."""
    from transformers import TrainerCallback

    from glmkit.training import checkpoints, distributed

    def send() -> None:
        os.kill(os.getpid(), signal)

    def after(module, name: str, place) -> None:
        original = getattr(module, name)

        def replaced(*args):
            outcome = original(*args)
            if f"checkpoint-{at}" in str(place(args)):
                send()
            return outcome

        setattr(module, name, replaced)

    class Send(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == at and when == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            elif state.global_step == at:
                send()

    if when == "write":
        after(distributed, "save_state", lambda args: args[0])
    elif when == "publish":  # all is written, the name not yet given
        after(checkpoints, "_flush", lambda args: args[0])
    else:
        build = training.build_trainer

        def built(*args):
            trainer = build(*args)
            trainer.add_callback(Send())
            return trainer

        training.build_trainer = built


def config_for(
    data: Path, run: Path, processes: int, shards: int = 1, dropout: bool = False, **trainer
):
    """Returns a run whose steps have four rows, whatever the number of processes."""
    from dataclasses import replace

    config = make_config(data, run, **{"logging_steps": 1, **trainer})
    config.trainer.update(per_device_train_batch_size=2)
    if processes == 1:
        config.trainer.update(per_device_train_batch_size=4)
    if not dropout:
        config.model.update(NO_DROPOUT)
    return replace(
        config,
        data=replace(config.data, rows_per_step=4),
        distribution=replace(config.distribution, shards=shards),
    )

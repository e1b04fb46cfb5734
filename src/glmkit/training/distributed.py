"""Many processes: dividing a model among them (FSDP2), and one checkpoint format whatever the division.

In: a model, its optimizer, a number of processes. Out: a model whose layers are `fully_shard`ed; folders of
torch.distributed.checkpoint, written by all processes at once and read again by any number of them. Knows no batches and
no Trainer. Without `torch.distributed` all of it works in one process.

We divide the model ourselves because accelerate refuses FSDP on CPUs and puts the word embedding into a group of its
own, where the head, which is the same tensor, cannot reach it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from glmkit.errors import ConfigError

T = TypeVar("T")

WEIGHTS, OPTIMIZER = "model", "optimizer"
"""Top names in a state folder."""


def world_size() -> int:
    """Returns the number of processes; 1 without `torch.distributed`."""
    return dist.get_world_size() if _distributed() else 1


def rank() -> int:
    """Returns this process's number; 0 without `torch.distributed`."""
    return dist.get_rank() if _distributed() else 0


def check_shards(shards: int, processes: int) -> int:
    """Returns the number of processes that a model is divided among; 0 means all.

    Raises:
        ConfigError: The processes cannot be divided into groups of that size.
    """
    size = shards or processes
    if size < 1 or processes % size:
        raise ConfigError(
            f"distribution.shards = {shards} does not divide the {processes} process(es) of this run; allowed: 0 (all), "
            f"1 (no division) or a divisor of {processes}"
        )
    return size


def first_only(function: Callable[[], T]) -> T:
    """Returns what `function` returns in process 0, in all processes; what it raises there, all raise."""
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = function()
        except Exception as error:  # every process must hear of it, or the others wait for ever
            box[1] = error
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def all_as_first(value: T) -> T:
    """Returns process 0's value in all processes, each of which has one; those who differ would go on differently."""
    return gathered(value)[0]


def any_process(flag: bool, device: torch.device) -> bool:
    """Returns whether the flag is set in any process; `device` is where this process computes."""
    if world_size() == 1:
        return flag
    box = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return bool(box.item())


def gathered(value: T) -> list[T]:
    """Returns each process's value, in their order, in every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def summed(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of a small CPU tensor over all processes, in their order, in every process."""
    return torch.stack(gathered(values)).sum(0)


def divide(
    model: nn.Module,
    layers: Iterable[nn.Module],
    shards: int,
    device: torch.device,
    *,
    compute_dtype: torch.dtype | None = None,
    reshard: bool = True,
    offload: bool = False,
) -> nn.Module:
    """Divides weights, gradients and optimizer state of a model among groups of processes; returns the model.

    Each layer is gathered for its own forward and backward pass. What is outside of them, the embeddings (the word
    embedding is the head too) and the last LayerNorm, is one group, gathered from the beginning of the forward pass to
    the end of the backward pass.

    Args:
        model: On the CPU in process 0; elsewhere it may be on "meta", and gets process 0's weights.
        layers: Modules that are gathered one after another.
        shards: Processes that hold one copy together; with fewer than there are, the groups hold equal copies.
        device: Where this process computes.
        compute_dtype: Weights are gathered in it and gradients added up in float32; by default in their own type.
        reshard: Whether a layer's gathered weights are given up between forward and backward pass.
        offload: Whether what a process holds lies in the host's memory between its uses.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

    copies = world_size() // shards
    sizes, names = ((shards,), ("shard",)) if copies == 1 else ((copies, shards), ("copy", "shard"))
    mesh = dist.init_device_mesh(device.type, sizes, mesh_dim_names=names)
    options: dict[str, Any] = {"mesh": mesh}
    if compute_dtype is not None:
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=compute_dtype, reduce_dtype=torch.float32
        )
    if offload:
        options["offload_policy"] = CPUOffloadPolicy()
    weights = model.state_dict() if rank() == 0 else {}
    model.to("meta")
    for layer in layers:
        fully_shard(layer, reshard_after_forward=reshard, **options)
    fully_shard(model, **options)
    model.to_empty(device="cpu" if offload else device)
    set_model_state_dict(
        model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    )
    return model


def is_divided(model: nn.Module) -> bool:
    """Returns whether `divide` has divided the model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Returns all weights on the CPU of process 0, and nothing elsewhere; all processes must call it.

    Those of a model that is not divided may be its own, not copies.
    """
    return get_model_state_dict(
        _at_rest(model), options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )


def set_whole_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Gives a model, divided or not, process 0's weights; elsewhere `weights` may be empty."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=world_size() > 1)
    set_model_state_dict(_at_rest(model), weights, options=options)


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the optimizer's state, and a divided model's weights; each process writes its part.

    Names are those of the weights, so that it does not matter how many processes there were.
    """
    state: dict[str, Any] = {OPTIMIZER: get_optimizer_state_dict(_at_rest(model), optimizer)}
    if is_divided(model):
        state[WEIGHTS] = get_model_state_dict(model)
    with _quietly_alone():
        dcp.save(state, checkpoint_id=folder, no_dist=not _distributed())


def load_weights(folder: Path, model: nn.Module) -> None:
    """Reads the weights that `save_state` wrote, on any number of processes."""
    state = {WEIGHTS: get_model_state_dict(_at_rest(model))}
    with _quietly_alone():
        dcp.load(state, checkpoint_id=folder, no_dist=not _distributed())
    set_model_state_dict(model, state[WEIGHTS])


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Reads the optimizer's state that `save_state` wrote, on any number of processes.

    Weights that no batch had used until then (what reads sounds, before the first sound) have none, as they had when it was written.
    """
    state: Any = {OPTIMIZER: get_optimizer_state_dict(_at_rest(model), optimizer)}
    written = {
        name.removeprefix(f"{OPTIMIZER}.state.").rpartition(".")[0]
        for name in dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    }
    of_weights = state[OPTIMIZER]["state"]
    unused = of_weights.keys() - written
    if len(unused) < len(of_weights):  # else it is another model's, which the next lines say
        for name in unused:
            del of_weights[name]
    with _quietly_alone():
        dcp.load(state, checkpoint_id=folder, no_dist=not _distributed())
    options = StateDictOptions(strict=not unused)
    set_optimizer_state_dict(model, optimizer, state[OPTIMIZER], options=options)


def holds_weights(folder: Path) -> bool:
    """Returns whether a state folder holds weights beside the optimizer's state."""
    metadata = dcp.FileSystemReader(folder).read_metadata()
    return any(name.startswith(f"{WEIGHTS}.") for name in metadata.state_dict_metadata)


def _at_rest(model: nn.Module) -> nn.Module:
    """Returns the model with its parameters divided, as the optimizer knows them; a forward pass leaves some whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return model


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _quietly_alone() -> Iterator[None]:
    """Leaves out the warning that there is but one process; that is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield

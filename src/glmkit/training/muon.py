"""Muon for the layers' matrices, AdamW for everything else, as one optimizer.

In: parameters, in groups that say which are matrices. Out: an optimizer with AdamW's settings. The momentum of a matrix
is made nearly orthogonal before it is applied, so that all its directions learn at the same pace; embeddings, biases and
norms keep AdamW. An update is scaled to the size of AdamW's, so that both share learning rate and weight decay.

Source: K. Jordan et al., "Muon" (2024); the scale 0.2·sqrt(max(rows, columns)) is that of Liu et al., "Muon is Scalable
for LLM Training", arXiv 2502.16982, section 2.2. `torch.optim.Muon` multiplies in bfloat16, for which many CPUs have no
instructions, and takes no other parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from glmkit.runtime import has_fast_bfloat16

NAME = "muon"
"""`trainer.optim` of a recipe."""

COEFFICIENTS = (3.4445, -4.775, 2.0315)
STEPS = 5
UPDATE_SIZE = 0.2
"""Root mean square of AdamW's updates, roughly (arXiv 2502.16982)."""

ELEMENTS_TOGETHER = 2**24
"""Of matrices that are made orthogonal at once, at most: some more memory, 32 MiB for each copy in bfloat16."""

FUSED = "query_key_value"
"""Name of the layers that hold several matrices, one below the other."""
MATRICES_IN_FUSED = 3


def parameter_groups(
    model: nn.Module, decayed: Iterable[str], weight_decay: float
) -> list[dict[str, Any]]:
    """Returns the model's trained parameters in groups: matrices of layers, fused ones, and what AdamW moves.

    Args:
        model: The model; its layers are in a list named `layers`.
        decayed: Names of the parameters that decay.
        weight_decay: Of these.
    """
    decayed = set(decayed)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matrices = 0
        if ".layers." in name and parameter.ndim == 2:
            matrices = MATRICES_IN_FUSED if FUSED in name else 1
        groups.setdefault((matrices, name in decayed), []).append(parameter)
    return [
        {"params": some, "matrices": matrices, "weight_decay": weight_decay if decays else 0.0}
        for (matrices, decays), some in groups.items()
    ]


class Muon(torch.optim.Optimizer):
    """Muon and AdamW. Groups with `matrices` above 0 get Muon: each parameter is so many matrices, one below the other.

    Args:
        params: Groups, as from `parameter_groups`.
        lr: Learning rate, AdamW's.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: Where a group has none of its own.
        momentum: Muon's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "matrices": 0,
            },
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates the parameters that have a gradient.

        Raises:
            ValueError: A closure is given.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            moved = [one for one in group["params"] if one.grad is not None]
            if group["matrices"]:
                self._move_matrices(moved, group)
            elif moved:
                self._move_with_adamw(moved, group)

    def _move_matrices(self, moved: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape are made orthogonal together: a GPU would spend its time on starting small products."""
        by_shape: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for parameter in moved:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(buffer, group["momentum"])  # Nesterov
            pair = parameter, update.unflatten(0, (group["matrices"], -1))
            by_shape.setdefault(pair[1].shape, []).append(pair)
        for (matrices, *shape), pairs in by_shape.items():
            scale = UPDATE_SIZE * max(shape) ** 0.5
            size = pairs[0][1].numel()
            together = max(1, _elements_together(pairs[0][0].device) // size)
            for start in range(0, len(pairs), together):
                parameters, updates = zip(*pairs[start : start + together], strict=True)
                steps = orthogonalized(torch.cat(updates)).split(matrices)
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(
                        step.flatten(0, 1).to(parameter.dtype), alpha=-group["lr"] * scale
                    )

    def _move_with_adamw(self, moved: list[torch.Tensor], group: dict[str, Any]) -> None:
        for parameter in moved:
            if not self.state[parameter]:
                self.state[parameter].update(
                    step=torch.zeros(()),
                    exp_avg=torch.zeros_like(parameter),
                    exp_avg_sq=torch.zeros_like(parameter),
                )
        states = [self.state[parameter] for parameter in moved]
        adamw(
            list(moved),
            [one.grad for one in moved if one.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _elements_together(device: torch.device) -> int:
    """Returns how much goes into one product; a CPU is not faster with several matrices."""
    return 1 if device.type == "cpu" else ELEMENTS_TOGETHER


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Returns matrices [k, m, n] with the same singular vectors and singular values near 1 (about 0.7 to 1.2).

    Newton-Schulz iteration of fifth order, in bfloat16 where the device multiplies fast in it, else in float32.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if has_fast_bfloat16(matrices.device) else torch.float32)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

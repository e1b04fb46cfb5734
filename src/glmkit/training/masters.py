"""AdamW for weights in bfloat16: each has a float32 master that takes the updates.

In: a model in bfloat16. Out: an optimizer. Forward and backward need no casts of weights and no float32 copies of
activations; gradients are accumulated in float32, the master is updated, and the weight is its rounding.
Source: mixed precision with master weights, Micikevicius et al., arXiv 1710.03740, section 3.1.

Bytes a parameter: 2 the weight, 4 the gradient, 12 the master and AdamW's two moments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.adamw import adamw


class MasterAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` whose state holds a float32 `master` of each parameter beside the moments.

    A parameter without a gradient is left alone.

    Args:
        params: As in AdamW.
        **settings: AdamW's; `amsgrad`, `capturable` and `differentiable` have no effect.
    """

    def __init__(self, params: Any, **settings: Any):
        super().__init__(params, **settings)
        for parameter in self._parameters():
            parameter.grad_dtype = torch.float32
            master = parameter.detach().float().clone()
            # For the fused kernel the count is where the numbers are.
            device = master.device if self.defaults["fused"] else "cpu"
            self.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
                "master": master,
            }

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates the masters, then the weights.

        Raises:
            ValueError: A closure is given.
        """
        if closure is not None:
            raise ValueError("MasterAdamW takes no closure")
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state[parameter] for parameter in moved]
            adamw(
                [state["master"] for state in states],
                [parameter.grad for parameter in moved],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                foreach=group["foreach"],
                fused=group["fused"],
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
            )
            for parameter, state in zip(moved, states, strict=True):
                parameter.copy_(state["master"])

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state over; the weights become the roundings of its masters."""
        super().load_state_dict(state_dict)  # which rounds all of it to the weights' type
        saved = state_dict["state"]
        places = [place for group in state_dict["param_groups"] for place in group["params"]]
        for parameter, place in zip(self._parameters(), places, strict=True):
            state = self.state[parameter]
            for name in ("exp_avg", "exp_avg_sq", "master"):
                state[name] = saved[place][name].to(parameter.device, torch.float32, copy=True)
            parameter.copy_(state["master"])

"""Matrices of 8 bits in a torch model: for GPUs, where the decode steps read them as they are.

In: a configuration and packed int8 weights (`checkpoint.quantized`), or a model. Out: a `GLMForConditionalGeneration` whose Linears
and word embedding hold int8 and a scale for each row; all else of the model is in 16 or 32 bits. What calls a layer as such (prompts with
media, scores, gradients of activations) multiplies by the matrix written out for the moment. It does not learn.

Shapes: M x K a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from glmkit.checkpoint.packing import int8_rows
from glmkit.checkpoint.quantized import WORDS, NativeWeights, matrix_names
from glmkit.model.configuration import GLMConfig

if TYPE_CHECKING:
    from glmkit.model.modeling import GLMForConditionalGeneration


def widened(steps: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns rows of whole numbers, int8 […, K], times their scales, float32 […], in a number type."""
    return (steps * scales[..., None]).to(dtype)


class Int8Matrix(nn.Module):
    """A matrix as whole numbers and a scale for each row.

    Attributes:
        steps: int8 [M, K].
        scales: float32 [M], in whatever number type the model is.
    """

    steps: torch.Tensor
    scales: torch.Tensor
    like: torch.Tensor

    def __init__(self, steps: torch.Tensor, scales: torch.Tensor):
        super().__init__()
        self.register_buffer("steps", steps)
        self.register_buffer("scales", scales.float())
        self.register_buffer("like", torch.empty(0, device=steps.device), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The matrix written out in the model's number type; made anew each time."""
        return widened(self.steps, self.scales, self.like.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        scales = self.scales
        super()._apply(fn, recurse)
        self.scales = scales.to(self.steps.device)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """As a matrix written out: what is saved is a model like any other."""
        destination[f"{prefix}weight"] = self.weight
        if (bias := getattr(self, "bias", None)) is not None:
            destination[f"{prefix}bias"] = bias if keep_vars else bias.detach()


class Int8Linear(Int8Matrix):
    """A Linear of 8 bits."""

    def __init__(self, steps: torch.Tensor, scales: torch.Tensor):
        super().__init__(steps, scales)
        self.out_features, self.in_features = steps.shape
        self.bias = nn.Parameter(torch.zeros(len(steps), device=steps.device))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[…, K] -> […, M]."""
        return F.linear(hidden, self.weight, self.bias)


class Int8Embedding(Int8Matrix):
    """An embedding of 8 bits."""

    def __init__(self, steps: torch.Tensor, scales: torch.Tensor):
        super().__init__(steps, scales)
        self.num_embeddings, self.embedding_dim = steps.shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 […] -> […, K]."""
        return widened(self.steps[ids], self.scales[ids], self.like.dtype)


def has_int8(model: Any) -> bool:
    """Returns whether a model's matrices are of 8 bits."""
    return isinstance(model.glm.word_embeddings, Int8Embedding)


def int8_model(config: GLMConfig, weights: NativeWeights) -> GLMForConditionalGeneration:
    """Returns a torch model of packed int8 weights, in evaluation mode; its other numbers are float32.

    Args:
        config: The model's.
        weights: Of the quantization "int8".
    """
    from glmkit.model.modeling import GLMForConditionalGeneration

    with torch.inference_mode(False):
        with torch.device("meta"):
            model = GLMForConditionalGeneration(config)
        for name in matrix_names(config):
            _replace(model, name, *map(torch.from_numpy, int8_rows(weights.matrices[name])))
        vectors = {name: torch.tensor(one) for name, one in weights.vectors.items()}
        model.load_state_dict(vectors, strict=False, assign=True)
    return model.eval()


def rounded_rows(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `checkpoint.packing.rounded_rows`, wherever the weights are."""
    scales = weights.abs().amax(1) / 127
    steps = (weights / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return steps.to(torch.int8), scales


def to_int8(model: Any, device: torch.device | str) -> Any:
    """Moves a model to a device, its matrices in 8 bits, rounded there one by one as `checkpoint.packing.pack` does; returns it."""
    with torch.inference_mode(False):
        for name in matrix_names(model.config):
            module = model.get_submodule(name.removesuffix(".weight"))
            weight, bias = module.weight.detach().to(device), getattr(module, "bias", None)
            made = _replace(model, name, *rounded_rows(weight.float()))
            made.like = made.like.to(weight.dtype)
            if bias is not None:
                made.bias = bias
    return model.to(device).eval()


def _replace(model: Any, name: str, steps: torch.Tensor, scales: torch.Tensor) -> Any:
    """Puts a matrix of 8 bits in the place of one of a name."""
    made = (Int8Embedding if name == WORDS else Int8Linear)(steps, scales)
    model.set_submodule(name.removesuffix(".weight"), made)
    return made

"""A GLM on the native decoder, in the place of a `GLMForConditionalGeneration` that reads and writes.

In: a configuration and `NativeWeights`. Out: logits, hidden states, a runner. What the decoder does not do (gradients, maps of
attention, masks and embeddings of one's own, transformers' `generate`) a torch model made of the same weights does; it is built
when it is first asked for, takes four bytes a weight, and computes with the quantized weights but float32 activations.

Shapes: B rows, L tokens of a row, H hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from glmkit.checkpoint.quantized import NativeWeights
from glmkit.generation.runner import Feed
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.native.runner import NativeDecoder, NativeRunner

logger = logging.getLogger(__name__)

READ = {"input_ids", "position_ids", "attention_mask", "prefix_lengths", "media_embeds"}
"""Fields of a batch that the native decoder reads."""


class NativeModel:
    """A GLM on the native decoder.

    Attributes:
        config: Its `GLMConfig`.
        weights: Its `NativeWeights`.
        decoder: What computes with them.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    training = False

    def __init__(self, config: GLMConfig, weights: NativeWeights):
        self.config = config
        self.weights = weights
        self.decoder = NativeDecoder(config, weights)

    def make_runner(self) -> NativeRunner:
        """Returns a runner without sequences (`generation.runner.make_runner`)."""
        return NativeRunner(self.decoder)

    @cached_property
    def torch_model(self) -> GLMForConditionalGeneration:
        """The same weights as a torch model."""
        logger.info(
            "building a torch model of the %s weights, for what the native decoder does not do",
            self.weights.quantization,
        )
        return unpacked(self.config, self.weights)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.torch_model, name)

    def eval(self) -> NativeModel:
        """Returns itself: it never trains."""
        return self

    def __call__(self, **batch: Any) -> Any:
        """Logits [B, L, V] of a batch of `blanks.layout.collate`; anything else the torch model does."""
        if not _readable(batch):
            return self.torch_model(**batch)
        states = self._states(batch)
        return CausalLMOutputWithPast(logits=self.lm_head(states))

    @property
    def glm(self) -> Any:
        """The backbone: called with a batch it gives `last_hidden_state` [B, L, H]."""
        return _Backbone(self)

    def lm_head(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the logits […, V] of hidden states […, H]."""
        if states.requires_grad:
            return self.torch_model.lm_head(states)
        return self.decoder.head(states.flatten(0, -2)).unflatten(0, states.shape[:-1])

    def _states(self, batch: dict[str, Any]) -> torch.Tensor:
        """Returns [B, L, H], zero where a row is filled up."""
        ids, positions = batch["input_ids"], batch["position_ids"]
        mask, prefixes = batch.get("attention_mask"), batch.get("prefix_lengths")
        states = torch.zeros(*ids.shape, self.config.hidden_size)
        runner, feeds, places = self.make_runner(), [], []
        for row in range(len(ids)):
            real = torch.arange(ids.shape[1]) if mask is None else mask[row].nonzero()[:, 0]
            if len(real) == 0:
                continue
            first = int(real[0])
            prefix = 0 if prefixes is None else int(prefixes[row]) - first
            position, block = positions[row, :, real].tolist()
            tokens = (ids[row, real].tolist(), position, block)
            feeds.append(
                Feed(runner.open(), *tokens, max(0, prefix), len(real), batch.get("media_embeds"))
            )
            places.append((row, real))
        for (row, real), values in zip(places, runner.states(feeds), strict=True):
            states[row, real] = values
        return states


def as_torch(model: Any) -> Any:
    """Returns a model through which gradients flow and whose attention can be looked at: itself, or its torch model."""
    return model.torch_model if isinstance(model, NativeModel) else model


def unpacked(config: GLMConfig, weights: NativeWeights) -> GLMForConditionalGeneration:
    """Returns a torch model of packed weights, float32."""
    with torch.inference_mode(False):  # whoever asks first, gradients must flow later
        with torch.device("meta"):
            model = GLMForConditionalGeneration(config)
        model.load_state_dict(weights.state_dict(), assign=True)
    return model.eval()


class _Backbone:
    """`NativeModel.glm`: what is not reading goes to the torch model's backbone."""

    def __init__(self, model: NativeModel):
        self._model = model

    def __call__(self, **batch: Any) -> Any:
        if not _readable(batch):
            return self._model.torch_model.glm(**batch)
        return BaseModelOutputWithPast(last_hidden_state=self._model._states(batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model.torch_model.glm, name)


def _readable(batch: dict[str, Any]) -> bool:
    """Returns whether the decoder reads a batch: rows of real tokens side by side, whose part A is known."""
    given = {name for name, value in batch.items() if value is not None}
    if torch.is_grad_enabled() or not {"input_ids", "position_ids"} <= given <= READ:
        return False
    mask = batch.get("attention_mask")
    if mask is None:
        return True
    if mask.dim() != 2 or mask.shape != batch["input_ids"].shape or "prefix_lengths" not in given:
        return False
    edges = torch.nn.functional.pad(mask.bool().int(), (1, 1)).diff(dim=1).abs().sum(1)
    return bool((edges <= 2).all())

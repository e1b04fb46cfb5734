"""A GLM on the native decoder, in the place of a `GLMForConditionalGeneration` that reads and writes.

In: a configuration and `NativeWeights`. Out: logits, hidden states, a runner. What the decoder does not do (gradients, maps of
attention, masks and embeddings of one's own) a torch model made of the same weights does; it is built
when it is first asked for, takes four bytes a weight, and computes with the quantized weights but float32 activations.

Shapes: B rows, L tokens of a row, H hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from glmkit.checkpoint.quantized import NativeWeights
from glmkit.model import GLMConfig
from glmkit.native.reading import readable, row_feed
from glmkit.native.runner import NativeDecoder, NativeRunner

if TYPE_CHECKING:
    from glmkit.model import GLMForConditionalGeneration

logger = logging.getLogger(__name__)


class NativeModel:
    """A GLM on the native decoder.

    Attributes:
        config: Its `GLMConfig`.
        weights: Its `NativeWeights`.
        decoder: What computes with them.
        assistant: What guesses for it (`generation.infill.make_engine`), if anything does.
    """

    assistant: Any = None  # asking for what is not said here builds the torch model
    device = torch.device("cpu")
    dtype = torch.float32
    training = False
    takes_arrays = False

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
        model = unpacked(self.config, self.weights)
        model.generation_config = self.generation_config
        return model

    @cached_property
    def _generating(self) -> Any:
        from glmkit.native.generating import GeneratingModel

        return GeneratingModel(self.config)

    @property
    def generation_config(self) -> Any:
        """What `generate` does where it is not told."""
        return self._generating.generation_config

    @property
    def compute_transition_scores(self) -> Any:
        """As transformers': the scores of what `generate` wrote."""
        return self._generating.compute_transition_scores

    def generate(self, inputs: Any = None, *, use_cache: bool = True, **kwargs: Any) -> Any:
        """As `GLMForConditionalGeneration.generate`; with arguments that ask for more than tokens the torch model does it."""
        from glmkit.native.generating import ARGUMENTS, RunnerCache

        if (
            not use_cache
            or not {name for name, one in kwargs.items() if one is not None} <= ARGUMENTS
        ):
            return self.torch_model.generate(inputs, use_cache=use_cache, **kwargs)
        cache = RunnerCache(self.make_runner())
        return self._generating.generate(inputs, cache=cache, use_cache=True, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.torch_model, name)

    def eval(self) -> NativeModel:
        """Returns itself: it never trains."""
        return self

    def __call__(self, **batch: Any) -> Any:
        """Logits [B, L, V] of a batch of `blanks.layout.collate`; anything else the torch model does."""
        if not readable(batch):
            return self.torch_model(**batch)
        states = self._states(batch)
        return CausalLMOutputWithPast(logits=self.lm_head(states))

    @property
    def glm(self) -> Any:
        """The backbone: called with a batch it gives `last_hidden_state` [B, L, H]."""
        return _Backbone(self)

    def lm_head(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the logits […, V] of hidden states […, H]."""
        if isinstance(states, np.ndarray):
            return self.lm_head(torch.from_numpy(states)).numpy()
        if states.requires_grad:
            return self.torch_model.lm_head(states)
        return self.decoder.head(states.flatten(0, -2)).unflatten(0, states.shape[:-1])

    def _states(self, batch: dict[str, Any]) -> torch.Tensor:
        """Returns [B, L, H], zero where a row is filled up."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        states = torch.zeros(*ids.shape, self.config.hidden_size)
        filled = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask > 0
        rows = filled.any(1).nonzero()[:, 0].tolist()
        runner = self.make_runner()
        feeds = [row_feed(batch, row, runner.open()) for row in rows]
        for row, values in zip(rows, runner.states(feeds), strict=True):
            states[row, filled[row]] = torch.from_numpy(values)
        return states


def as_torch(model: Any) -> Any:
    """Returns a model through which gradients flow and whose attention can be looked at: itself, or its torch model."""
    return model.torch_model if isinstance(model, NativeModel) else model


def unpacked(config: GLMConfig, weights: NativeWeights) -> GLMForConditionalGeneration:
    """Returns a torch model of packed weights, float32."""
    from glmkit.model import GLMForConditionalGeneration

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
        if not readable(batch):
            return self._model.torch_model.glm(**batch)
        return BaseModelOutputWithPast(last_hidden_state=self._model._states(batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model.torch_model.glm, name)

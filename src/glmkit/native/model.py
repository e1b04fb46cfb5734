"""A GLM on the native decoder, in the place of a `GLMForConditionalGeneration` that reads and writes.

In: a configuration and `NativeWeights`; arrays, or torch's tensors. Out: logits, hidden states (of arrays arrays, of tensors tensors),
a runner. What the decoder does not do (gradients, maps of attention, masks and embeddings of one's own) a torch model made of the same
weights does; it is built when it is first asked for, takes four bytes a weight, and computes with the quantized weights but float32
activations. Without tensors neither torch nor transformers is imported.

Shapes: B rows, L tokens of a row, H hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.checkpoint.quantized import NativeWeights
from glmkit.errors import GenerationError, require_torch
from glmkit.native.reading import READ, is_arrays, readable, row_feed
from glmkit.native.runner import NativeDecoder, NativeRunner, as_float32

if TYPE_CHECKING:
    import torch

    from glmkit.model import GLMConfig, GLMForConditionalGeneration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrays:
    """What a batch of arrays is answered with, under transformers' names.

    Attributes:
        logits: float32 [B, L, V], or None.
        last_hidden_state: float32 [B, L, H], or None.
    """

    logits: np.ndarray | None = None
    last_hidden_state: np.ndarray | None = None


class NativeModel:
    """A GLM on the native decoder.

    Attributes:
        config: What it was given: an `Architecture`, a `GLMConfig`, or whatever has their fields.
        weights: Its `NativeWeights`.
        decoder: What computes with them.
        assistant: What guesses for it (`generation.infill.make_engine`), if anything does.
    """

    assistant: Any = None  # asking for what is not said here builds the torch model
    takes_arrays = True
    training = False

    def __init__(self, config: Any, weights: NativeWeights):
        self.config = config
        self.weights = weights
        self.decoder = NativeDecoder(config, weights)

    @property
    def device(self) -> torch.device:
        """Where tensors are that it is given."""
        _require_torch()
        import torch

        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The number type of what it answers."""
        _require_torch()
        import torch

        return torch.float32

    def make_runner(self) -> NativeRunner:
        """Returns a runner without sequences (`generation.runner.make_runner`)."""
        return NativeRunner(self.decoder)

    @cached_property
    def torch_model(self) -> GLMForConditionalGeneration:
        """The same weights as a torch model."""
        _require_torch()
        logger.info(
            "building a torch model of the %s weights, for what the native decoder does not do",
            self.weights.quantization,
        )
        model = unpacked(self.config, self.weights)
        model.generation_config = self.generation_config
        return model

    @cached_property
    def _generating(self) -> Any:
        _require_torch()
        from glmkit.native.generating import GeneratingModel

        return GeneratingModel(as_config(self.config))

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
        _require_torch()
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
        """Logits [B, L, V] of a batch of `blanks.layout.collate`.

        Of tensors that the decoder does not read, or whose gradients are wanted, the torch model's answer.

        Raises:
            GenerationError: Arrays that the decoder does not read.
        """
        if _of_arrays(batch):
            return Arrays(logits=self.lm_head(self._states(batch)))
        if not readable(batch):
            return self.torch_model(**batch)
        import torch
        from transformers.modeling_outputs import CausalLMOutputWithPast

        return CausalLMOutputWithPast(logits=self.lm_head(torch.from_numpy(self._states(batch))))  # type: ignore[arg-type]

    @property
    def glm(self) -> Any:
        """The backbone: called with a batch it gives `last_hidden_state` [B, L, H]."""
        return _Backbone(self)

    def lm_head(self, states: Any) -> Any:
        """Returns the logits […, V] of hidden states […, H], an array or a tensor."""
        given = isinstance(states, np.ndarray)
        if not given and states.requires_grad:
            return self.torch_model.lm_head(states)
        rows = as_float32(states).reshape(-1, self.config.hidden_size)
        logits = self.decoder.head(rows).reshape(*states.shape[:-1], self.config.vocab_size)
        if given:
            return logits
        import torch

        return torch.from_numpy(logits)

    def _states(self, batch: dict[str, Any]) -> np.ndarray:
        """Returns float32 [B, L, H], zero where a row is filled up."""
        ids, mask = np.asarray(batch["input_ids"]), batch.get("attention_mask")
        states = np.zeros((*ids.shape, self.config.hidden_size), np.float32)
        filled = np.ones(ids.shape, bool) if mask is None else np.asarray(mask) != 0
        rows = np.flatnonzero(filled.any(1)).tolist()
        runner = self.make_runner()
        feeds = [row_feed(batch, row, runner.open()) for row in rows]
        for row, values in zip(rows, runner.states(feeds), strict=True):
            states[row, filled[row]] = values
        return states


def _require_torch() -> None:
    require_torch(
        "What the native decoder does not do itself (tensors, gradients, maps of attention, transformers' generate)",
        "原生解码器不做的事（张量、梯度、注意力图、transformers 的 generate）",
    )


def as_torch(model: Any) -> Any:
    """Returns a model through which gradients flow and whose attention can be looked at: itself, or its torch model."""
    return model.torch_model if isinstance(model, NativeModel) else model


def as_config(config: Any) -> GLMConfig:
    """Returns transformers' configuration with the fields of another one; itself if it is that."""
    from glmkit.model import GLMConfig

    if isinstance(config, GLMConfig):
        return config
    return GLMConfig(**(config.to_dict() if hasattr(config, "to_dict") else vars(config)))


def unpacked(config: Any, weights: NativeWeights) -> GLMForConditionalGeneration:
    """Returns a torch model of packed weights, float32."""
    import torch

    from glmkit.model import GLMForConditionalGeneration

    with torch.inference_mode(False):  # whoever asks first, gradients must flow later
        with torch.device("meta"):
            model = GLMForConditionalGeneration(as_config(config))
        model.load_state_dict(weights.state_dict(), assign=True)
    return model.eval()


def _of_arrays(batch: dict[str, Any]) -> bool:
    """Returns whether a batch is of arrays; refuses those that the decoder does not read."""
    if not is_arrays(batch):
        return False
    if not readable(batch):
        given = ", ".join(sorted(name for name, one in batch.items() if one is not None))
        raise GenerationError(
            f"a batch of arrays with {given}: the native decoder reads {', '.join(sorted(READ))} of rows without holes; "
            "what else a model reads is given as torch tensors"
        )
    return True


class _Backbone:
    """`NativeModel.glm`: what is not reading goes to the torch model's backbone."""

    def __init__(self, model: NativeModel):
        self._model = model

    def __call__(self, **batch: Any) -> Any:
        if _of_arrays(batch):
            return Arrays(last_hidden_state=self._model._states(batch))
        if not readable(batch):
            return self._model.torch_model.glm(**batch)
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPast

        states = torch.from_numpy(self._model._states(batch))
        return BaseModelOutputWithPast(last_hidden_state=states)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model.torch_model.glm, name)

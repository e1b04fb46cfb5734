"""Virtual tokens: learned vectors in front of part A that every token reads (prefix tuning, prompt tuning, P-tuning), through PEFT.

In: a GLM, or a folder that PEFT wrote. Out: a `PeftModel` that trains them, or the GLM with them in place. They belong to part
A and stand in front of it: part A and part B see them, they see each other and never the text. So their keys and values are the
same for every text: `GLMModel` puts them in front of its keys, and neither positions (the text keeps those it has; block
position 0 would be theirs, and their vectors hold what a position would add) nor lengths of part A nor caches know of them.

PEFT's classes hold, make and save the vectors, but its own forward pass cannot read a GLM: with prefix tuning it adds the number
of virtual tokens to `position_ids`, both rows of them, so that part A gets block positions; with the others it drops
`position_ids` altogether; `prefix_lengths` it leaves as they are, so that part A would end too early; and it cannot put
columns in front of a 4-D mask (PEFT 0.21, `PeftModelForCausalLM.forward`). A plain `PeftModel` passes all arguments on.

Shapes: M virtual tokens, L layers, N heads, D head size, H hidden, B rows, K keys.

Sources: prefix tuning (arXiv 2101.00190), deep and without the small network as in P-tuning v2 (arXiv 2110.07602); prompt tuning
(arXiv 2104.08691); P-tuning (arXiv 2103.10385).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import nn

from glmkit.errors import ConfigError, missing_dependency, nearest

VirtualKind = Literal["prefix", "prompt", "ptuning"]

KINDS: dict[str, str] = {
    "prefix": "PREFIX_TUNING",
    "prompt": "PROMPT_TUNING",
    "ptuning": "P_TUNING",
}
"""Name -> PEFT's: keys and values of every layer; vectors that the first layer reads; such vectors, made by a small network."""

ENCODER_WEIGHTS = "prompt_encoder.safetensors"
"""Beside PEFT's file, which holds what the small network makes and not the network: training goes on from it."""

ENCODER = "prompt_encoder."
"""Begins the names in that file."""

LayerKeys = list[tuple[torch.Tensor, torch.Tensor]]
"""For each layer keys and values [1, N, M, D]."""


def in_front(virtual: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Returns [B, N, M + K, D]: virtual keys (or values) [1, N, M, D] in front of those of the tokens [B, N, K, D]."""
    rows = virtual.to(there.device, there.dtype).expand(there.shape[0], -1, -1, -1)
    return torch.cat((rows, there), dim=2)


class VirtualTokens(nn.Module):
    """Virtual tokens that are not trained any more: what `GLMModel.virtual_tokens` is at inference.

    Args:
        layers: For each layer keys and values [1, N, M, D].
    """

    def __init__(self, layers: LayerKeys):
        super().__init__()
        # Not in a state_dict: they are the adapter's, not the model's.
        for name, which in (("keys", 0), ("values", 1)):
            stacked = torch.stack([layer[which].detach() for layer in layers])
            self.register_buffer(name, stacked, persistent=False)

    def forward(self, backbone: Any) -> LayerKeys:
        """Returns each layer's keys and values."""
        return list(zip(self.get_buffer("keys"), self.get_buffer("values"), strict=True))


class TrainedVirtualTokens:
    """Virtual tokens of a `PeftModel`, made anew in each forward pass so that gradients reach them.

    Args:
        wrapped: The `PeftModel`; the caller keeps it. (No module: its weights are not the backbone's.)
    """

    def __init__(self, wrapped: Any):
        self._wrapped = wrapped

    def __call__(self, backbone: Any) -> LayerKeys:
        """Returns each layer's keys and values."""
        prompt = self._wrapped.get_prompt(1)
        if isinstance(prompt, torch.Tensor):
            return _read_by_themselves(backbone, prompt)
        return [(layer.keys, layer.values) for layer in prompt.layers]


def _read_by_themselves(backbone: Any, vectors: torch.Tensor) -> LayerKeys:
    """Returns the keys and values that each layer makes of [1, M, H], which stand for embeddings with their positions."""
    seen, hidden = _Seen(), vectors.to(backbone.dtype)
    for layer in backbone.transformer.layers:
        hidden, _ = layer(hidden, None, seen)
    return [seen.layers[number] for number in sorted(seen.layers)]


class _Seen:
    """In the place of a cache, notes each layer's keys and values; again when activation checkpointing computes them again."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what it is given."""
        self.layers.setdefault(layer, (keys, values))
        return keys, values


def add_virtual_tokens(
    model: Any,
    kind: VirtualKind,
    count: int,
    *,
    like: Sequence[int] = (),
    encoder_size: int | None = None,
) -> Any:
    """Returns the model, all of it frozen, with trainable virtual tokens, as a `PeftModel`.

    Args:
        model: A GLM.
        kind: One of `KINDS`.
        count: M.
        like: Ids that they are like at first, taken round and round: what the model makes of text is a far better beginning than
            random numbers (arXiv 2101.00190, section 7.4). By default random; "ptuning" is always random.
        encoder_size: Of "ptuning", the width of the small network; by default H.

    Raises:
        ConfigError: No such kind, or fewer than one token.
        MissingDependencyError: PEFT is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"virtual.kind = {kind!r}; there are {', '.join(KINDS)}{nearest(kind, KINDS)}"
        )
    if count < 1:
        raise ConfigError(f"virtual.tokens = {count} must be at least 1")
    peft = peft_module("virtual tokens")
    config_class = {
        "prefix": peft.PrefixTuningConfig,
        "prompt": peft.PromptTuningConfig,
        "ptuning": peft.PromptEncoderConfig,
    }[kind]
    options = {"encoder_hidden_size": encoder_size} if kind == "ptuning" and encoder_size else {}
    settings = config_class(num_virtual_tokens=count, num_transformer_submodules=1, **options)
    with without_warnings_of_peft():
        wrapped = peft.PeftModel(model, settings)
    if len(like) and kind != "ptuning":
        _begin_like(wrapped, torch.tensor(list(like))[torch.arange(count) % len(like)])
    model.glm.virtual_tokens = TrainedVirtualTokens(wrapped)
    return wrapped


@torch.no_grad()
def _begin_like(wrapped: Any, ids: torch.Tensor) -> None:
    """Sets virtual tokens to what the model makes of ids [M], read by themselves."""
    backbone = wrapped.get_base_model().glm
    places = torch.arange(len(ids), device=backbone.device) % backbone.config.max_sequence_length
    vectors = backbone.word_embeddings(ids.to(backbone.device))
    vectors = vectors + backbone.transformer.position_embeddings(places)
    if backbone.config.block_position_encoding:
        vectors = vectors + backbone.transformer.block_position_embeddings(places * 0)
    encoder = wrapped.prompt_encoder["default"]
    if wrapped.peft_config["default"].peft_type == "PREFIX_TUNING":
        was_training = backbone.training
        layers = _read_by_themselves(backbone.eval(), vectors[None])
        backbone.train(was_training)
        # PEFT's order: for each token layer by layer, keys before values, head by head.
        parts = [part[0].transpose(0, 1).flatten(1) for layer in layers for part in layer]
        vectors = torch.cat(parts, dim=1)
    encoder.embedding.weight.copy_(vectors)


def fix_virtual_tokens(wrapped: Any) -> Any:
    """Returns the model of a `PeftModel` with its virtual tokens in place, not to be trained; it is a plain model again."""
    model = wrapped.get_base_model()
    with torch.no_grad():
        model.glm.virtual_tokens = VirtualTokens(TrainedVirtualTokens(wrapped)(model.glm))
    return model


def save_encoder(wrapped: Any, folder: Path) -> None:
    """Writes all weights that make the virtual tokens."""
    weights = {
        ENCODER + name: value.detach().cpu().contiguous()
        for name, value in wrapped.prompt_encoder["default"].state_dict().items()
    }
    safetensors.torch.save_file(weights, folder / ENCODER_WEIGHTS, metadata={"format": "pt"})


def set_encoder(wrapped: Any, weights: dict[str, torch.Tensor]) -> None:
    """Gives a `PeftModel` the weights that `save_encoder` wrote; others in the dict are left aside."""
    own = {name.removeprefix(ENCODER): value for name, value in weights.items() if name.startswith(ENCODER)}  # fmt: skip
    wrapped.prompt_encoder["default"].load_state_dict(own)


def peft_module(what: str) -> Any:
    """Returns PEFT.

    Raises:
        MissingDependencyError: It is not installed.
    """
    # PEFT imports bitsandbytes wherever that is; what it lacks for its own quantized layers concerns nobody here.
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import peft
    except ImportError as error:
        raise missing_dependency("peft", what, "peft") from error
    finally:
        logger.setLevel(level)
    return peft


@contextmanager
def without_warnings_of_peft() -> Iterator[None]:
    """Leaves out warnings that say nothing to the user: of a name that will go, of several adapters, of a base that is not on the hub."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="Could not find a config file in")
        yield

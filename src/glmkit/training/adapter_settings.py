"""Which weights a fine-tuning run trains in place of all: settings of LoRA, virtual tokens and media, and their contradictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from glmkit.model.virtual_tokens import KINDS, VirtualKind
from glmkit.multimodal.configuration import MediumConfig


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (arXiv 2106.09685) in place of training all weights."""

    rank: int = 0
    """Of the adapters; 0 trains all weights."""
    alpha: float | None = None
    """An adapter's output is scaled by alpha / rank; by default alpha = 2 · rank."""
    dropout: float = 0.0
    """On an adapter's input."""
    target_modules: list[str] | None = None
    """Names of the layers that get one; by default every Linear of the Transformer's layers."""
    merge: bool = False
    """Whether `model/` holds the merged model (and `adapter/` the adapter) instead of the adapter alone."""
    quantize: Literal["nf4"] | None = None
    """Keep the frozen Linears of the layers in 4 bits while adapters are trained (QLoRA, arXiv 2305.14314); they are merged into,
    or used with, the weights as they were."""


@dataclass(frozen=True)
class VirtualSettings:
    """Learned tokens in front of the text, in place of training any weight of the model."""

    tokens: int = 0
    """How many; 0 is none."""
    kind: VirtualKind = "prefix"
    """`prefix`: keys and values of every layer (prefix tuning, P-tuning v2); `prompt`: vectors that the first layer reads (prompt
    tuning); `ptuning`: such vectors, made by a small network while they are trained (P-tuning)."""
    encoder_size: int | None = None
    """Of `ptuning`, the width of the small network; by default that of the model."""


@dataclass(frozen=True)
class MediaSettings:
    """What reads images, sounds and clips, of a task with media."""

    image: MediumConfig | None = None
    """Encoder and projector of a model that reads no images yet; by default a small one, trained from nothing."""
    audio: MediumConfig | None = None
    """Likewise of sounds."""
    video: MediumConfig | None = None
    """Likewise of clips."""
    train: list[Literal["encoder", "projector"]] = field(
        default_factory=lambda: ["encoder", "projector"]
    )
    """Which of its parts are trained."""
    freeze_language: bool = False
    """Whether the GLM itself stays as it is (without LoRA): the first of two stages trains the projector alone."""
    cache_mb: int = 1024
    """Megabytes of decoded media that are kept in memory for the next time that they are asked about."""

    def given(self) -> dict[str, MediumConfig]:
        """Returns kind -> settings, where there are some."""
        some = {"image": self.image, "audio": self.audio, "video": self.video}
        return {kind: one for kind, one in some.items() if one is not None}


def check_adapters(lora: LoraSettings, virtual: VirtualSettings, problems: list[str]) -> None:
    """Adds what contradicts itself to the problems."""
    if lora.rank < 0 or not 0 <= lora.dropout < 1:
        problems.append(
            f"lora.rank = {lora.rank} must be at least 0, lora.dropout = {lora.dropout} in [0, 1)"
        )
    if lora.merge and not lora.rank:
        problems.append("lora.merge = true needs lora.rank above 0")
    if lora.quantize and not lora.rank:
        problems.append("lora.quantize = 'nf4' needs lora.rank above 0: weights of 4 bits cannot be trained themselves")  # fmt: skip
    if virtual.tokens < 0:
        problems.append(f"virtual.tokens = {virtual.tokens} must be at least 0")
    if virtual.tokens and lora.rank:
        problems.append(
            "virtual.tokens and lora.rank: choose one; or train one of them, and the other with model.from = its folder"
        )
    if virtual.encoder_size is not None and (virtual.kind != "ptuning" or virtual.encoder_size < 1):
        problems.append(
            f"virtual.encoder_size = {virtual.encoder_size} is the width of the network of virtual.kind = 'ptuning' "
            f"(there are {', '.join(KINDS)}), at least 1"
        )

"""The configuration of a GLM without the library that carries it: sizes, activation, dropout, the ids of special tokens.

In: keyword arguments, a preset's name or a folder's `config.json` (glmkit's own or the published hub format). Out:
`Architecture`, which imports neither torch nor transformers; transformers' configuration of the same model
(`model.GLMConfig`) has its fields and checks from here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from glmkit.checkpoint.configs import MODEL_TYPE, is_hub_config, normalize_config, read_json
from glmkit.errors import ConfigError, nearest
from glmkit.whole_files import write_text

ACTIVATIONS = {
    "gelu": "exact GELU (erf), what the published hub code applies",
    "gelu_new": "tanh approximation of GELU, what the training code applies",
    "relu": "max(0, x), the tutorial's formula",
}

POOLINGS = ("cls", "mean", "last")

# layers, hidden size, heads, positions, padded vocabulary. Source: the model table of THUDM/GLM and the
# argument files of its pretraining scripts.
PRESETS: dict[str, tuple[int, int, int, int, int]] = {
    "base": (12, 768, 12, 512, 30592),
    "large": (24, 1024, 16, 512, 30592),
    "roberta-large": (24, 1024, 16, 512, 50304),
    "large-chinese": (24, 1024, 16, 1024, 50048),
    "515m": (30, 1152, 18, 512, 30592),
    "2b": (36, 2048, 32, 1024, 50304),
    "10b": (48, 4096, 64, 1024, 50304),
    "10b-chinese": (48, 4096, 64, 1024, 50048),
}

LOGITS_PER_CHUNK = 2**26
"""Of the LM head in training: 256 MiB in float32, enough rows to keep a matrix unit busy."""

T = TypeVar("T", bound="Architecture")


@dataclass(kw_only=True)
class Architecture:
    """What a GLM (Du et al., ACL 2022) is made of.

    Attributes:
        vocab_size: Rows of the embedding table, padding rows included.
        hidden_size: Width H of the residual stream.
        num_layers: Transformer layers.
        num_attention_heads: Heads; must divide `hidden_size`.
        intermediate_size: Width of the MLP; 4 · `hidden_size` by default.
        max_sequence_length: Largest position; both position tables have one row more.
        hidden_act: "gelu" (erf), "gelu_new" (tanh approximation) or "relu".
        embedding_dropout_prob: Dropout after the sum of the embeddings.
        attention_dropout_prob: Dropout on attention probabilities.
        output_dropout_prob: Dropout after the attention's dense layer and after the MLP.
        layernorm_epsilon: Epsilon of every LayerNorm.
        initializer_range: Standard deviation of initial weights; output projections get
            `initializer_range / sqrt(2 · num_layers)`.
        block_position_encoding: Whether the second position table exists (False: one-dimensional
            positions, the paper's ablation).
        attention_scale: Kept for round trips; the original uses it to divide and multiply back around the
            softmax, which is the same function in exact arithmetic.
        pool_token: What `GLMForSequenceClassification` reads: "cls" (first real token), "mean" or "last".
        classifier_dropout: Dropout of the classification head; `output_dropout_prob` by default.
        num_tokens: Real tokens of the vocabulary; the rows above are padding and never emitted by `glm.*`.
        cls_token_id: Ids of the special tokens, this and the following; None where the folder did not tell.
        extra: What a `config.json` says besides (`architectures`, `dtype`, labels …), for transformers' configuration.
            No field: it is empty where nothing was read, and two architectures that differ in it alone are equal.

    Raises:
        ConfigError: Sizes that contradict each other, an unknown activation, pooling or preset.
    """

    model_type: ClassVar[str] = MODEL_TYPE
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "max_position_embeddings": "max_sequence_length",
    }

    vocab_size: int = 30592
    hidden_size: int = 768
    num_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    max_sequence_length: int = 512
    hidden_act: str = "gelu_new"
    embedding_dropout_prob: float | int = 0.1
    attention_dropout_prob: float | int = 0.1
    output_dropout_prob: float | int = 0.1
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    block_position_encoding: bool = True
    attention_scale: float | int = 1.0
    pool_token: str = "cls"
    classifier_dropout: float | int | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    num_tokens: int | None = None
    cls_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    mask_token_id: int | None = None
    smask_token_id: int | None = None
    gmask_token_id: int | None = None
    sop_token_id: int | None = None
    eop_token_id: int | None = None

    def __post_init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self._complete()

    @classmethod
    def of(cls: type[T], config: Mapping[str, Any]) -> T:
        """Returns the architecture that keyword arguments or the dict in a `config.json` say; what is no field is `extra`.

        Raises:
            CheckpointError: It is another model's configuration.
            ConfigError: As for the class.
        """
        told = {cls.attribute_map.get(k, k): v for k, v in translated(config).items()}
        told.pop("model_type", None)
        names = {field.name for field in fields(cls)}
        made = cls(**{name: told.pop(name) for name in names & told.keys()})
        made.extra = told
        return made

    @classmethod
    def from_folder(cls: type[T], folder: str | Path) -> T:
        """Returns what a folder's `config.json` says, in glmkit's format or the published one.

        Raises:
            CheckpointError: There is no such file, it is damaged, or it is another model's.
            ConfigError: As for the class.
        """
        return cls.of(read_json(Path(folder) / "config.json"))

    def save(self, folder: Path) -> None:
        """Writes a folder's `config.json` in glmkit's format."""
        told = {name: value for name, value in self.to_dict().items() if value is not None}
        text = json.dumps(
            {**told, "model_type": MODEL_TYPE}, ensure_ascii=False, indent=2, sort_keys=True
        )
        write_text(folder / "config.json", text + "\n")

    def __getattr__(self, name: str) -> Any:
        """Returns a field by the name that other models' configurations give it."""
        if name in type(self).attribute_map:
            return getattr(self, type(self).attribute_map[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and `extra`: keyword arguments for `model.GLMConfig`."""
        return {**self.extra, **{one.name: getattr(self, one.name) for one in fields(Architecture)}}

    def _complete(self) -> None:
        """Sets what follows from other fields, and complains about all that is wrong."""
        if self.intermediate_size is None and _is_number(self.hidden_size):
            self.intermediate_size = 4 * self.hidden_size
        if problems := self._problems():
            raise ConfigError("this GLM configuration cannot be built: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        """Returns what is wrong, one clause for each field."""
        problems = []
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_attention_heads")
        for name in (*sizes, "intermediate_size", "max_sequence_length"):
            value = getattr(self, name)
            unset = value is None and name == "intermediate_size"
            if not unset and (not isinstance(value, int) or value < 1):
                problems.append(f"{name}={value!r} must be a whole number, at least 1")
        if not problems and self.hidden_size % self.num_attention_heads:
            problems.append(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        for name, allowed in (("hidden_act", ACTIVATIONS), ("pool_token", POOLINGS)):
            if (value := getattr(self, name)) not in allowed:
                problems.append(f"{name}={value!r}; allowed: {', '.join(allowed)}")
        for name in (
            "embedding_dropout_prob",
            "attention_dropout_prob",
            "output_dropout_prob",
            "classifier_dropout",
        ):
            value = getattr(self, name)
            optional = value is None and name == "classifier_dropout"
            if not optional and not (_is_number(value) and 0 <= value < 1):
                problems.append(f"{name}={value!r} must be a number in [0, 1)")
        for name in ("layernorm_epsilon", "initializer_range"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                problems.append(f"{name}={value!r} must be a number above 0")
        if not self.tie_word_embeddings:
            problems.append("tie_word_embeddings=False: GLM's head is its word embedding")
        return problems

    @classmethod
    def preset(cls: type[T], name: str, **overrides: Any) -> T:
        """Returns the configuration of a published size.

        Args:
            name: One of `PRESETS`.
            **overrides: Fields to set otherwise.

        Raises:
            ConfigError: No preset has that name.
        """
        if name not in PRESETS:
            raise ConfigError(
                f"no preset {name!r}; there are {', '.join(PRESETS)}{nearest(name, PRESETS)}"
            )
        layers, hidden, heads, positions, vocab = PRESETS[name]
        return cls(
            **{
                "num_layers": layers,
                "hidden_size": hidden,
                "num_attention_heads": heads,
                "max_sequence_length": positions,
                "vocab_size": vocab,
                **overrides,
            }
        )

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of `GLMForConditionalGeneration` (the LM head is the word embedding)."""
        hidden, mlp = self.hidden_size, self.intermediate_size or 4 * self.hidden_size
        attention = 4 * hidden * hidden + 4 * hidden
        feed_forward = 2 * hidden * mlp + mlp + hidden
        positions = (2 if self.block_position_encoding else 1) * (self.max_sequence_length + 1)
        return (
            (self.vocab_size + positions) * hidden
            + self.num_layers * (attention + feed_forward + 4 * hidden)
            + 2 * hidden
        )

    @property
    def output_initializer_range(self) -> float:
        """Standard deviation of the initial output projections (THUDM/GLM `mpu/transformer.py`)."""
        return self.initializer_range / math.sqrt(2 * self.num_layers)


def head_chunk(vocab_size: int) -> int:
    """Returns of how many predicted tokens the logits are there at a time while a model is trained."""
    return max(1, LOGITS_PER_CHUNK // vocab_size)


def translated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration dict in glmkit's own terms: the published hub format (`model_type: "glm"`) is translated.

    Raises:
        CheckpointError: It is another model's.
    """
    if not is_hub_config(config):
        return dict(config)
    return {"model_type": MODEL_TYPE, **normalize_config(config)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)

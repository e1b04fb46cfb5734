"""The configuration of a folder -> keyword arguments of glmkit's model configuration, and back.

In: the dict in a `config.json`, or the shapes of a training folder, which has no configuration. Out: the
same fields for every format. Also says which configurations are of another model than this GLM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glmkit.errors import CheckpointError

MODEL_TYPE = "glm_infilling"
HUB_MODEL_TYPE = "glm"

HUB_DEFAULTS: dict[str, Any] = {
    "num_layers": 24,
    "vocab_size": 30592,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "max_sequence_length": 512,
    "embedding_dropout_prob": 0.1,
    "attention_dropout_prob": 0.1,
    "output_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "block_position_encoding": True,
    "initializer_range": 0.02,
    "pool_token": "cls",
}
"""What the published configuration class assumes where a `config.json` is silent (that of glm-large)."""

UNWRITTEN_IN_HUB: dict[str, Any] = {"hidden_act": "gelu", "layernorm_epsilon": 1e-5}
"""What the hub's code has built in: it reads no such field."""

TRAINING_HIDDEN_ACT = "gelu_new"
"""The training code's GELU, the tanh approximation, in transformers' spelling."""

WITH_HEAD = frozenset({"GLMForSequenceClassification", "GLMForTokenClassification"})
"""Architectures that have a head of their own besides the backbone."""

_OPTIONAL = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout")

_HUB_CONSTANTS: dict[str, Any] = {
    "checkpoint_activations": False,
    "checkpoint_num_layers": 1,
    "output_predict": True,
    "parallel_output": True,
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
}

_AUTO_MAP = {
    "AutoConfig": "configuration_glm.GLMConfig",
    "AutoModel": "modeling_glm.GLMModel",
    "AutoModelForSeq2SeqLM": "modeling_glm.GLMForConditionalGeneration",
    "AutoModelForMultipleChoice": "modeling_glm.GLMForMultipleChoice",
}

PUBLISHED_HEADS = {768: 12, 1024: 16, 1152: 18, 2048: 32, 4096: 64}
"""Hidden size -> attention heads of every published size (head width 64)."""


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        CheckpointError: The file is not there or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); fetch the file again."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, expected a JSON object.")
    return value


def is_hub_config(raw: Mapping[str, Any]) -> bool:
    """Returns whether a configuration dict comes from another program's folder and needs `normalize_config`."""
    return raw.get("model_type", MODEL_TYPE) != MODEL_TYPE or (
        "model_type" not in raw and "block_position_encoding" in raw
    )


def normalize_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments for glmkit's model configuration.

    Args:
        raw: The dict of a `config.json` (hub or glmkit format), or what `infer_config` returned.

    Returns:
        A dict with the size, dropout, scale and activation fields; for a glmkit folder all of its fields.
        `hidden_act` is "gelu" (exact) where a hub folder does not say otherwise. Fields of the original
        that change nothing in the numbers (`parallel_output` ...) are left out.

    Raises:
        CheckpointError: It configures another model, or an option of the original that was never published.
    """
    require_this_glm(raw)
    if raw.get("model_type") == MODEL_TYPE:
        return {k: v for k, v in raw.items() if k not in ("model_type", "transformers_version")}
    for name, meaning in (
        ("relative_encoding", "relative positions"),
        ("spell_length", "spelling"),
    ):
        if raw.get(name):
            raise CheckpointError(
                f"config.json has {name}={raw[name]!r}: {meaning} were an experiment of the original code; no "
                "published GLM uses them and glmkit does not read them."
            )
    config = {name: raw.get(name, default) for name, default in HUB_DEFAULTS.items()}
    config |= {name: raw.get(name, default) for name, default in UNWRITTEN_IN_HUB.items()}
    config |= {name: raw[name] for name in _OPTIONAL if raw.get(name) is not None}
    if has_head(raw):
        config["architectures"] = list(raw["architectures"])
    return config


def has_head(raw: Mapping[str, Any]) -> bool:
    """Returns whether the model of a `config.json` labels texts or tokens with a head."""
    return not WITH_HEAD.isdisjoint(raw.get("architectures") or ())


def require_this_glm(raw: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` where a configuration is of another model, and says which tool reads it."""
    model_type = raw.get("model_type", HUB_MODEL_TYPE)
    if model_type == MODEL_TYPE:
        return
    if "chatglm" in str(model_type).lower() or "ChatGLM" in str(raw.get("architectures", "")):
        other = "ChatGLM, a later dialogue model"
    elif model_type == HUB_MODEL_TYPE and "num_hidden_layers" in raw and "num_layers" not in raw:
        other = "the later GLM (GLM-4) that transformers >= 4.46 calls 'glm'"
    elif model_type != HUB_MODEL_TYPE:
        other = f"a model of type {model_type!r}"
    elif (
        "num_layers" not in raw
        and "block_position_encoding" not in raw
        and "hidden_size" not in raw
    ):
        raise CheckpointError(
            "config.json has none of the fields of a GLM (num_layers, hidden_size, block_position_encoding)."
        )
    else:
        return
    raise CheckpointError(
        f"This is {other}, not the blank-infilling GLM (arXiv 2103.10360) that glmkit reads. "
        "Load it with transformers' AutoModel."
    )


def infer_config(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Any],
    num_attention_heads: int | None = None,
) -> dict[str, Any]:
    """Returns the configuration of a training folder, which stores none, from its merged shapes.

    Args:
        shapes: Name -> shape of the merged weights.
        stored: The arguments that the file carries, empty where it has none.
        num_attention_heads: Needed where neither `stored` nor the published sizes tell it.

    Returns:
        A dict for `normalize_config`.

    Raises:
        CheckpointError: Weights that tell the size are missing, or the number of heads cannot be known.
    """
    for name in ("word_embeddings.weight", "transformer.position_embeddings.weight"):
        if len(shapes.get(name, ())) != 2:
            raise CheckpointError(
                f"The training folder has no matrix {name!r}, so it is not a GLM's."
            )
    vocab_size, hidden_size = shapes["word_embeddings.weight"]
    layers = {name.split(".")[2] for name in shapes if name.startswith("transformer.layers.")}
    blocks = "transformer.block_position_embeddings.weight" in shapes
    rows = shapes["transformer.position_embeddings.weight"][0]
    heads = stored.get("num_attention_heads") or num_attention_heads
    heads = heads or PUBLISHED_HEADS.get(hidden_size)
    if heads is None:
        known = ", ".join(f"{size}: {count}" for size, count in PUBLISHED_HEADS.items())
        raise CheckpointError(
            f"A training folder does not store its number of attention heads, and hidden size {hidden_size} is "
            f"not a published one (hidden size: heads are {known}). Pass num_attention_heads=..."
        )
    if num_attention_heads not in (None, heads):
        raise CheckpointError(
            f"num_attention_heads={num_attention_heads} was given, but the folder says {heads}."
        )
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_layers": len(layers),
        "num_attention_heads": heads,
        "max_sequence_length": rows - 1
        if blocks
        else rows,  # the tables have one row more with blocks
        "block_position_encoding": blocks,
        "attention_scale": stored.get("attention_scale", HUB_DEFAULTS["attention_scale"]),
        "hidden_act": TRAINING_HIDDEN_ACT,
    }


def hub_config(config: Mapping[str, Any], dtype: str, architecture: str) -> dict[str, Any]:
    """Returns the `config.json` of the published format for a complete normalised configuration.

    `hidden_act` and `layernorm_epsilon` appear only where they differ from what the hub's code has built
    in: glmkit honours them there, the hub's code does not know them.
    """
    raw = {
        "architectures": [architecture],
        "auto_map": _AUTO_MAP,
        "model_type": HUB_MODEL_TYPE,
        "torch_dtype": dtype,
        **_HUB_CONSTANTS,
    }
    raw |= {name: config[name] for name in HUB_DEFAULTS}
    raw |= {name: config[name] for name in _OPTIONAL if config.get(name) is not None}
    for name, built_in in UNWRITTEN_IN_HUB.items():
        if config.get(name, built_in) != built_in:
            raw[name] = config[name]
    return dict(sorted(raw.items()))

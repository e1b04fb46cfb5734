"""`from_pretrained`: every known format of weights becomes a model.

In: a folder, file or hub name in the published, training or glmkit format. Out: a model, or a
`CheckpointError` that says what is wrong. Formats are read by `checkpoint`; placement, dtype and device
maps are transformers' work.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from glmkit.checkpoint import check_state_dict, read_checkpoint, resolve
from glmkit.model.configuration import GLMConfig
from glmkit.special_tokens import PUBLISHED, PUBLISHED_SIZES, published_kind

logger = logging.getLogger(__name__)

_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class GLMLoadableModel(PreTrainedModel):
    """A transformers model whose `from_pretrained` reads every format of GLM weights."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *model_args: Any,
        config: GLMConfig | None = None,
        num_attention_heads: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Loads weights of any known format; executes nothing that a checkpoint contains.

        Args:
            pretrained_model_name_or_path: A folder (hub, training or glmkit format), a training file, or a
                hub name such as "THUDM/glm-large-chinese".
            *model_args: Passed to the model.
            config: A configuration to use instead of the folder's.
            num_attention_heads: Heads of a training folder, which does not record them.
            **kwargs: As in transformers: `dtype` (default: as stored), `device_map`,
                `attn_implementation`, `revision`, `cache_dir` …, and configuration fields to override.

        Returns:
            The model, in evaluation mode.

        Raises:
            CheckpointError: Nothing there, unknown format, unsafe, truncated, or weights that do not fit.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
        for name in ("trust_remote_code", "_from_auto", "adapter_kwargs", "_commit_hash"):
            kwargs.pop(name, None)
        path = resolve(pretrained_model_name_or_path, **hub)
        checkpoint = read_checkpoint(path, num_attention_heads=num_attention_heads)
        if config is None:
            fields = {**special_token_fields(path), **checkpoint.config}
            known = GLMConfig.__dataclass_fields__.keys() | {"num_labels", "num_hidden_layers"}
            overrides = {
                name: kwargs.pop(name) for name in list(kwargs) if name in known - {"dtype"}
            }
            config = GLMConfig(**{**fields, **overrides})
        config.name_or_path = str(pretrained_model_name_or_path)
        with torch.device("meta"):
            skeleton = cls(config, *model_args)
        prefix = f"{cls.base_model_prefix}."
        expected = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
        is_head = any(name.startswith(prefix) for name in expected)
        state_dict = {
            f"{prefix}{name}" if is_head and f"{prefix}{name}" in expected else name: value
            for name, value in checkpoint.state_dict.items()
        }
        if not is_head:
            # A bare GLMModel leaves a fine-tuned head aside.
            state_dict = {name: value for name, value in state_dict.items() if name in expected or
                          name.startswith(("transformer.", "word_embeddings."))}  # fmt: skip
        own_parts = {name.split(".")[0] for name in expected if not name.startswith(prefix)}
        new_parts = tuple(
            f"{part}."
            for part in own_parts
            if is_head and not any(name.startswith(f"{part}.") for name in state_dict)
        )
        check_state_dict(state_dict, expected, allow_missing=new_parts)
        if new_parts:
            logger.warning(
                "%s: %s not in the checkpoint and newly initialised; fine-tune before use",
                cls.__name__,
                ", ".join(sorted(part[:-1] for part in new_parts)),
            )
        return super().from_pretrained(
            None, *model_args, config=config, state_dict=state_dict, **kwargs
        )


def special_token_fields(path: Path) -> dict[str, int]:
    """Returns configuration fields for the published vocabulary that lies at `path`, or nothing."""
    kind = published_kind(path) if path.is_dir() else None
    if kind is None:
        return {}
    ids = asdict(PUBLISHED[kind])
    del ids["block"]
    return {
        "num_tokens": PUBLISHED_SIZES[kind],
        **{f"{name}_token_id": value for name, value in ids.items()},
    }

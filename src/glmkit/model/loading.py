"""`from_pretrained`: every known format of weights becomes a model.

In: a folder, file or hub name in the published, training or glmkit format. Out: a model, or a
`CheckpointError` that says what is wrong. Formats are read by `checkpoint`; placement, dtype and device
maps are transformers' work.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from glmkit.checkpoint import check_state_dict, read_checkpoint, resolve
from glmkit.checkpoint.naming import HEADS
from glmkit.errors import CheckpointError
from glmkit.model.attention_names import check_attention
from glmkit.model.configuration import GLMConfig
from glmkit.special_tokens import special_token_fields

logger = logging.getLogger(__name__)

GENERATION_CONFIG = "generation_config.json"

BYTES_WORTH_A_BAR = 1_000_000_000
"""Smaller weights are there before one has read what the bar says."""

_CONFIG_FIELDS = {*GLMConfig.__dataclass_fields__, "num_labels", "num_hidden_layers"} - {"dtype"}

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
            ConfigError: There is no such attention.
        """
        check_attention(kwargs.get("attn_implementation"))
        if pretrained_model_name_or_path is None:
            with quiet_unless_terminal():
                return super().from_pretrained(None, *model_args, config=config, **kwargs)
        if kwargs.pop("trust_remote_code", False):
            logger.warning(
                "trust_remote_code is ignored: glmkit runs its own code, never a folder's"
            )
        for name in ("_from_auto", "adapter_kwargs", "_commit_hash"):
            kwargs.pop(name, None)
        hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
        path = resolve(pretrained_model_name_or_path, **hub)
        checkpoint = read_checkpoint(path, num_attention_heads=num_attention_heads)
        if config is None:
            fields = {**special_token_fields(path), **checkpoint.config}
            overrides = {name: kwargs.pop(name) for name in list(kwargs) if name in _CONFIG_FIELDS}
            config = GLMConfig(**{**fields, **overrides})
        if (path / GENERATION_CONFIG).is_file():
            kwargs.setdefault("generation_config", GenerationConfig.from_pretrained(path))
        with torch.device("meta"):
            skeleton = cls(config, *model_args)
        expected = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
        state_dict = _fitted(cls, checkpoint.state_dict, expected, path)
        size = sum(tensor.nbytes for tensor in state_dict.values())
        with quiet_unless_terminal(size >= BYTES_WORTH_A_BAR):
            model = super().from_pretrained(
                None, *model_args, config=config, state_dict=state_dict, **kwargs
            )
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers' `save_pretrained`; `from_pretrained` and the Auto classes read the folder.

        Raises:
            CheckpointError: The model has an adapter's virtual tokens, which would be lost.
        """
        backbone: Any = getattr(self, self.base_model_prefix, self)
        if getattr(backbone, "virtual_tokens", None) is not None:
            raise CheckpointError(
                "this model has an adapter's virtual tokens, which are no weights of its own and would be lost; keep the "
                "adapter's folder, which names its base"
            )
        size = sum(weight.nbytes for weight in self.parameters())
        with quiet_unless_terminal(size >= BYTES_WORTH_A_BAR):
            super().save_pretrained(save_directory, **kwargs)


def _fitted(
    cls: Any, state_dict: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], path: Path
) -> dict[str, torch.Tensor]:
    """Returns the weights under the names of `cls`, whose new heads may be missing and others' are left aside."""
    prefix = f"{cls.base_model_prefix}."
    is_head = any(name.startswith(prefix) for name in expected)
    fitted = {
        f"{prefix}{name}" if is_head and f"{prefix}{name}" in expected else name: value
        for name, value in state_dict.items()
    }
    own_heads = {head for head in HEADS if any(name.startswith(head) for name in expected)}
    left = {name for name in fitted if name.startswith(tuple(set(HEADS) - own_heads))}
    if left:
        logger.info("%s has no place for %s; left aside", cls.__name__, ", ".join(sorted(left)))
    fitted = {name: value for name, value in fitted.items() if name not in left}
    new = {head for head in own_heads if not any(name.startswith(head) for name in fitted)}
    check_state_dict(fitted, expected, allow_missing=tuple(new), source=path)
    if new:
        logger.warning(
            "%s: %s not in the checkpoint and newly initialised; fine-tune before use",
            cls.__name__,
            ", ".join(sorted(head[:-1] for head in new)),
        )
    return fitted


@contextmanager
def quiet_unless_terminal(long: bool = True) -> Iterator[None]:
    """Keeps transformers' progress bars away from anything but a terminal, and from work that is not long."""
    if (long and sys.stderr.isatty()) or not is_progress_bar_enabled():
        yield
        return
    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()

"""A checkpoint in one format -> the same model in another, proven by its logits before it appears.

In: a folder or hub name in any known format. Out: a folder in the format asked for and a
`ConversionReport`. The result is written under a temporary name, loaded as any user would load it, and
compared with the source on fixed random input; only then does the target appear.

The original's two programs have different GELUs built in (hub: exact, training: tanh). glmkit records which
one a model was made with in every format that it writes; where the original program of the target format
would compute something else, the report says by how much.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from glmkit.checkpoint import Checkpoint, new_folder, read_checkpoint, resolve, write_files
from glmkit.checkpoint.adapters import MEDIA_FOLDER, media_folder
from glmkit.checkpoint.architecture import Architecture
from glmkit.errors import CheckpointError, nearest
from glmkit.model.configuration import GLMConfig
from glmkit.model.loading import GENERATION_CONFIG
from glmkit.model.modeling import GLMModel
from glmkit.runtime import DTYPES
from glmkit.special_tokens import special_token_fields
from glmkit.whole_files import copy_matching

TOKENIZER_FILES = (
    "cog-pretrain.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)

COMPANIONS = (GENERATION_CONFIG, "tasks/*.yaml", "calibration.json", "finetuned.json")
"""How the model is to write, and what fine-tuning and `glmkit calibrate` leave beside it: its head is not asked without."""

BUILT_IN = {
    "hub": {"hidden_act": "gelu", "layernorm_epsilon": 1e-5},
    "megatron": {"hidden_act": "gelu_new", "layernorm_epsilon": 1e-5},
}
"""What the original program that reads a format computes, whatever the folder says."""

RELATIVE_TOLERANCE = 1e-5
"""Of the largest logit: the same weights through the same code in float32."""


@dataclass(frozen=True)
class ConversionReport:
    """What was converted and how it was checked.

    Attributes:
        source: What was read.
        target: What was written.
        source_format: "glmkit", "hub" or "megatron".
        target_format: The same.
        dtype: Type of the stored weights.
        hidden_act: The activation, unchanged by the conversion.
        num_weights: Numbers in the file, heads included.
        max_abs_difference: Largest difference of a logit to the source, whose weights were rounded to `dtype`.
        tolerance: What it was allowed to be.
        rounding_difference: Largest difference of a logit to the unrounded source; 0 if `dtype` is kept.
        original_code_difference: Largest difference between the model and what the original program for the
            target format would compute from the folder; 0 where it computes the same function.
        tokenizer_files: Names of the files copied along.
        warnings: What the user should know.
    """

    source: str
    target: Path
    source_format: str
    target_format: str
    dtype: str
    hidden_act: str
    num_weights: int
    max_abs_difference: float
    tolerance: float
    rounding_difference: float
    original_code_difference: float
    tokenizer_files: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.source} ({self.source_format}) -> {self.target} ({self.target_format}), "
            f"{self.num_weights:,} weights in {self.dtype}, {self.hidden_act}",
            f"largest difference of a logit {self.max_abs_difference:.1e} (allowed {self.tolerance:.1e}), "
            f"by rounding {self.rounding_difference:.1e}",
            f"tokenizer files: {', '.join(self.tokenizer_files) or 'none'}",
        ]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def convert(
    source: str | Path,
    target: str | Path,
    to: str = "glmkit",
    *,
    shards: int = 1,
    dtype: torch.dtype | str | None = None,
    num_attention_heads: int | None = None,
    tokenizer: str | Path | None = None,
    iteration: int = 1,
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
) -> ConversionReport:
    """Writes a checkpoint in another format and compares logits before it reports success.

    A folder gets weights, configuration, settings of generation, vocabulary, tasks, calibrations and what reads media; the original's
    Python files, which `trust_remote_code` needs in a hub-format folder, come from the published repositories.

    Args:
        source: Folder, training file or hub name.
        target: Folder to write; absent or empty unless `overwrite`.
        to: "glmkit", "hub" or "megatron".
        shards: Model-parallel shards, for "megatron".
        dtype: Type to store; the source's by default.
        num_attention_heads: For training folders of an unpublished size.
        tokenizer: Folder with the vocabulary files to copy; the source by default.
        iteration: Name of the iteration's folder, for "megatron".
        max_shard_size: In bytes or such as "5GB", for "glmkit" and "hub".
        overwrite: Replace an existing checkpoint.

    Returns:
        The report.

    Raises:
        CheckpointError: The source cannot be read, the target is taken or cannot express the model, or the
            written model's logits differ (then nothing is left behind).
    """
    path = resolve(source)
    checkpoint = read_checkpoint(path, num_attention_heads=num_attention_heads)
    vocabulary = path if tokenizer is None else Path(tokenizer)
    fields = _complete_fields(checkpoint, vocabulary)
    stored = _dtype(dtype) or checkpoint.source_dtype
    with new_folder(target, overwrite=overwrite) as temporary:
        write_files(
            temporary,
            to,
            fields,
            checkpoint.state_dict,
            shards=shards,
            dtype=_dtype(dtype),
            iteration=iteration,
            max_shard_size=max_shard_size,
        )
        copied = copy_matching(vocabulary, temporary, TOKENIZER_FILES)
        copy_matching(path, temporary, COMPANIONS)
        if (media := media_folder(path)) is not None:
            shutil.copytree(media, temporary / MEDIA_FOLDER)
        compared = _compare(checkpoint, temporary, fields, stored, to)
    return ConversionReport(
        source=str(source),
        target=Path(target),
        source_format=checkpoint.format,
        target_format=to,
        dtype=str(stored).removeprefix("torch."),
        hidden_act=fields["hidden_act"],
        num_weights=sum(tensor.numel() for tensor in checkpoint.state_dict.values()),
        tokenizer_files=copied,
        warnings=_warnings(to, fields, compared["original_code_difference"], copied),
        **compared,
    )


def _complete_fields(checkpoint: Checkpoint, vocabulary: Path) -> dict[str, Any]:
    """All of the configuration's fields that are set, the vocabulary's special ids included."""
    config = GLMConfig(**{**special_token_fields(vocabulary), **checkpoint.config})
    own = {name: value for name, value in config.to_dict().items() if name in _OWN_FIELDS}
    fields = {**checkpoint.config, **own}
    return {name: value for name, value in fields.items() if value is not None}


_OWN_FIELDS = frozenset(one.name for one in dataclasses.fields(Architecture))


def _compare(
    checkpoint: Checkpoint, folder: Path, fields: Mapping[str, Any], stored: torch.dtype, to: str
) -> dict[str, float]:
    """Returns the report's four numbers; raises where source and result are not the same model."""
    rounded = {name: tensor.to(stored) for name, tensor in checkpoint.state_dict.items()}
    written = read_checkpoint(folder).state_dict
    for name, tensor in rounded.items():
        if not torch.equal(written[name], tensor):
            raise CheckpointError(f"{name} was not written as it was read; nothing was converted.")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{name} has values that are not finite in {stored}; convert to float32 or bfloat16."
            )
    expected = _logits(rounded, fields)
    result = _logits(folder, {})
    tolerance = RELATIVE_TOLERANCE * expected.abs().max().item()
    difference = _largest(result, expected)
    if not difference <= tolerance:
        raise CheckpointError(
            f"The converted model's logits differ by {difference:.2e} from the source's (allowed "
            f"{tolerance:.2e}); nothing was converted."
        )
    rounding = other = 0.0
    if stored != checkpoint.source_dtype:
        rounding = _largest(result, _logits(checkpoint.state_dict, fields))
    if _differs_in_original(to, fields):
        other = _largest(result, _logits(rounded, {**fields, **BUILT_IN[to]}))
    return {
        "max_abs_difference": difference,
        "tolerance": tolerance,
        "rounding_difference": rounding,
        "original_code_difference": other,
    }


def _logits(weights: Path | Mapping[str, torch.Tensor], fields: Mapping[str, Any]) -> torch.Tensor:
    """Runs a model in float32 on fixed random input; returns logits [2, S, V].

    Tokens and positions are drawn from the whole tables; the first half of a row is part A.
    """
    if isinstance(weights, Path):
        model = GLMModel.from_pretrained(weights, dtype=torch.float32)
    else:
        names = ("word_embeddings.", "transformer.")
        backbone = {name: tensor for name, tensor in weights.items() if name.startswith(names)}
        config = GLMConfig(**{**fields, "dtype": "float32"})
        model = GLMModel.from_pretrained(
            None, config=config, state_dict=backbone, dtype=torch.float32
        )
    config = model.eval().config
    length = min(64, config.max_sequence_length)
    draw = torch.Generator().manual_seed(0)
    input_ids = torch.randint(config.vocab_size, (2, length), generator=draw)
    position_ids = torch.randint(config.max_sequence_length, (2, 2, length), generator=draw)
    position_ids[:, 1, : length // 2] = 0
    with torch.inference_mode():
        hidden = model(
            input_ids=input_ids,
            position_ids=position_ids,
            prefix_lengths=torch.full((2,), length // 2),
            use_cache=False,
        ).last_hidden_state
        return F.linear(hidden, model.word_embeddings.weight)


def _largest(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left - right).abs().max().item()


def _differs_in_original(to: str, fields: Mapping[str, Any]) -> bool:
    return any(fields[name] != value for name, value in BUILT_IN.get(to, {}).items())


def _warnings(
    to: str, fields: Mapping[str, Any], difference: float, copied: tuple[str, ...]
) -> tuple[str, ...]:
    warnings = []
    if _differs_in_original(to, fields):
        program = "hub's" if to == "hub" else "training"
        ours = ", ".join(f"{name}={fields[name]}" for name in BUILT_IN[to])
        theirs = ", ".join(f"{name}={value}" for name, value in BUILT_IN[to].items())
        warnings.append(
            f"glmkit reads the folder as it was ({ours}), but the original {program} code always computes "
            f"with {theirs}: logits there differ by up to {difference:.1e}"
        )
    if not copied:
        warnings.append(
            "no vocabulary files were found beside the weights; give the folder that has them (tokenizer=...), "
            "or copy them into the result"
        )
    return tuple(warnings)


def _dtype(name: torch.dtype | str | None) -> torch.dtype | None:
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise CheckpointError(
            f"Unknown dtype {name!r}; allowed: {', '.join(DTYPES)}{nearest(name, DTYPES)}"
        )
    return getattr(torch, name)

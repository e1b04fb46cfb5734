"""Verbs about a checkpoint: convert, info. Bodies import what they need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from glmkit.cli.language import say
from glmkit.cli.preparing import Overwrite
from glmkit.errors import FRAMEWORKS, UserError


def convert(
    source: Annotated[str, typer.Argument(help=say("Checkpoint to read.", "源检查点。"))],
    target: Annotated[Path, typer.Argument(help=say("Folder to write.", "目标目录。"))],
    to: Annotated[str, typer.Option(help="glmkit, hub, megatron")] = "glmkit",
    shards: Annotated[
        int,
        typer.Option(help=say("Model-parallel shards (megatron).", "模型并行分片数（megatron）。")),
    ] = 1,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16")] = None,
    num_attention_heads: Annotated[
        int | None,
        typer.Option(
            help=say("For training folders of unusual size.", "训练目录未记录注意力头数时给出。")
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help=say("Folder with the vocabulary.", "词表目录。"))
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help=say(
                "int8, int4, bfloat16 (in 12 bits): weights for CPUs, read by glmkit.",
                "int8、int4、bfloat16（以 12 位存放）：供 CPU 使用的权重。",
            )
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Converts a checkpoint; logits are compared before the result appears."""
    if quantize is not None:
        _quantize(source, target, quantize, to, dtype, tokenizer, overwrite)
        return
    from glmkit.model.convert import convert as run

    report = run(
        source,
        target,
        to,
        shards=shards,
        dtype=dtype,
        num_attention_heads=num_attention_heads,
        tokenizer=tokenizer,
        overwrite=overwrite,
    )
    typer.echo(str(report))


def _quantize(
    source: str,
    target: Path,
    quantization: str,
    to: str,
    dtype: str | None,
    tokenizer: str | None,
    overwrite: bool,
) -> None:
    from glmkit.native.quantizing import quantize

    if to != "glmkit" or dtype is not None:
        raise UserError(
            "--quantize writes glmkit's own format, in one number type; leave --to and --dtype out"
        )
    report = quantize(source, target, quantization, tokenizer=tokenizer, overwrite=overwrite)
    typer.echo(str(report))


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help=say("Model folder; without one, this machine.", "模型目录；不给则显示本机信息。")
        ),
    ] = None,
    num_attention_heads: Annotated[
        int | None, typer.Option(help=say("For training folders.", "用于训练目录。"))
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help=say(
                "GiB to train a preset on each GPU, by number of shards.",
                "按分片数列出训练某预设时每块 GPU 的显存（GiB）。",
            )
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=say("Print JSON.", "输出 JSON。"))
    ] = False,
) -> None:
    """Says what a checkpoint is (without reading its weights), what this machine offers, or what training takes."""
    if memory is not None:
        from glmkit.training.memory import memory_table

        for title, checkpointing in (
            ("", False),
            ("trainer.activation_checkpointing: true\n", True),
        ):
            typer.echo(title + memory_table((memory,), checkpointing=checkpointing))
        return
    facts = _machine() if model is None else _checkpoint(model, num_attention_heads)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, default=str))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


def _machine() -> dict[str, object]:
    import platform

    import glmkit
    from glmkit.native.library import instructions, why_not
    from glmkit.runtime import choose_device, choose_dtype, num_threads

    device = choose_device()
    versions = {package: _version(package) for package in FRAMEWORKS}
    if missing := [package for package, version in versions.items() if version is None]:
        versions[missing[0]] = say(
            "not installed: no training, heads, media, explanations, GPU; pip install glmkit adds it",
            "未安装：不能训练、使用任务头和多媒体、解释，也不用 GPU；pip install glmkit 可补上",
        )
        versions |= dict.fromkeys(missing[1:], say("not installed", "未安装"))
        graphs = say("torch is not installed", "未安装 torch")
    elif device.startswith("cuda"):
        from glmkit.generation.graphs import on_this_machine

        graphs = on_this_machine()
    else:
        graphs = "no GPU of NVIDIA or AMD here"
    return {
        "glmkit": glmkit.__version__,
        "python": platform.python_version(),
        **versions,
        "cpu cores": os.cpu_count(),
        "threads": num_threads(),
        "device": device,
        "dtype": choose_dtype(None, device),
        "native decoder": why_not() or f"on CPUs, {instructions()} instructions",
        "CUDA graphs": graphs,
    }


def _version(package: str) -> str | None:
    """Returns the version of a package, which is not imported for it, or None where it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    return None if found is None else importlib.metadata.version(package)


def _checkpoint(model: str, num_attention_heads: int | None) -> dict[str, object]:
    from glmkit.checkpoint import detect_format, read_config, resolve
    from glmkit.checkpoint.adapters import media_folder
    from glmkit.checkpoint.architecture import Architecture
    from glmkit.checkpoint.configs import MODEL_TYPE

    path = resolve(model)
    if not path.exists():
        raise UserError(f"{model} does not exist")
    media = media_folder(path)
    kinds: tuple[str, ...] = ()
    if media is not None:
        from glmkit.multimodal.configuration import read_media_config

        kinds = read_media_config(media).kinds
    fields = read_config(path, num_attention_heads=num_attention_heads)
    config = Architecture.of({"model_type": MODEL_TYPE, **fields})
    return {
        "path": path,
        "format": detect_format(path),
        "parameters": f"{config.num_parameters:,}",
        **{
            name: getattr(config, name)
            for name in (
                "num_layers",
                "hidden_size",
                "num_attention_heads",
                "vocab_size",
                "max_sequence_length",
                "hidden_act",
            )
        },
        "reads": ", ".join(("text", *kinds)),
    }

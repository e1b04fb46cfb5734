"""A trained folder -> the asset that glmkit ships: weights, vocabulary, checksums, card.

In: the model's folder of a pretraining run (`RUN/model` or `RUN/model-average`), the run's own records, and what
`glmkit evaluate` measured. Out: `src/glmkit/assets/glm-mini/`, whole or not at all. The first command ships weights, the
second renders the card again once the shipped model has been evaluated:

    python recipes/glm-mini/ship.py weights runs/glm-mini/run/model-average --hardware "1 core of an AMD EPYC (Zen 4)"
    python recipes/glm-mini/ship.py card --results docs/results/glm-mini_cpu_YYYY-MM.json

The third ships an adapter that sees pictures (`recipes/multimodal/lessons.py`) beside it, as `assets/glm-mini-vision/`:

    python recipes/glm-mini/ship.py vision runs/eyes/model --example scene.png --results docs/results/glm-mini-vision_cpu_YYYY-MM.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from card import FACTS, TrainingFacts, write_cards, write_vision_cards
from safetensors.torch import load_file, save_file

from glmkit import load
from glmkit.checkpoint import new_folder
from glmkit.checkpoint.adapters import base_of
from glmkit.embedded import DEFAULT_MODEL, VISION_MODEL
from glmkit.errors import UserError
from glmkit.evaluation.provenance import weights_fingerprint
from glmkit.model.convert import convert
from glmkit.native.loading import QUANTIZED
from glmkit.native.quantizing import quantize

ASSETS = Path(__file__).resolve().parents[2] / "src" / "glmkit" / "assets"
ASSET = ASSETS / "glm-mini"
MAX_BYTES, MAX_BYTES_OF_VISION = 40_000_000, 5_000_000
CHECKSUMS = "SHA256SUMS"
BESIDE_THE_WEIGHTS = ("calibration.json",)
"""Files of a model's folder that the loader reads and `convert` does not know."""
UNLISTED = (CHECKSUMS, FACTS)
"""Not in the checksums, nor are the cards: they are rendered again without touching the model."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Target = Annotated[Path, typer.Option(help="Folder of the asset.")]


@app.command()
def weights(
    model: Annotated[Path, typer.Argument(help="RUN/model or RUN/model-average.")],
    run: Annotated[
        Path | None, typer.Option(help="Run with log.jsonl and config.yaml; by default RUN above.")
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="Runs, or assets, that this one went on from, oldest first."),
    ] = None,
    hardware: Annotated[str, typer.Option(help="What it was trained on.")] = "not recorded",
    dtype: Annotated[str, typer.Option(help="Of the stored weights, or int8, int4.")] = "int8",
    target: Target = ASSET,
) -> None:
    """Writes the asset from a trained folder; the old one stays until the new one is whole."""
    runs = [*(earlier or []), run or model.parent]
    facts = TrainingFacts.of(runs, hardware)
    with new_folder(target, overwrite=True) as temporary:
        if dtype in QUANTIZED:
            quantize(model, temporary, dtype)
        else:
            convert(model, temporary, "glmkit", dtype=dtype)
        _allow_cache(temporary / "config.json")
        for name in BESIDE_THE_WEIGHTS:
            if (model / name).is_file():
                shutil.copyfile(model / name, temporary / name)
        for file in temporary.iterdir():
            file.chmod(0o644)
        filled = load(temporary, device="cpu").fill("床前[MASK]光。", max_new_tokens=4)
        facts.save(temporary / FACTS)
        write_checksums(temporary)
        write_cards(temporary, facts, results=None)
        size = folder_size(temporary)
        if size > MAX_BYTES:
            raise UserError(
                f"the asset would have {size:,} bytes, {MAX_BYTES:,} are allowed; store a smaller model"
            )
    typer.echo(f"{target}: {size:,} bytes in {dtype}; it loads and fills: {filled}")


@app.command()
def card(
    results: Annotated[
        Path | None,
        typer.Option(help="JSON of `make evaluate-mini`, or results.json of `glmkit evaluate`."),
    ] = None,
    target: Target = ASSET,
) -> None:
    """Renders MODEL_CARD.md and MODEL_CARD.zh.md again; weights and checksums stay as they are."""
    verify(target)
    measured = None if results is None else json.loads(results.read_text(encoding="utf-8"))
    if measured is not None:
        fingerprint = weights_fingerprint(load(target, device="cpu").model)
        if measured["weights_fingerprint"] != fingerprint:
            raise UserError(
                f"{results} was measured on other weights ({measured['weights_fingerprint'][:12]}) than those of "
                f"{target} ({fingerprint[:12]}); evaluate this asset"
            )
    write_cards(target, TrainingFacts.load(target / FACTS), measured)
    typer.echo(f"{target}: MODEL_CARD.md, MODEL_CARD.zh.md")


@app.command()
def vision(
    adapter: Annotated[Path, typer.Argument(help="Adapter of glm-mini with a folder `media`.")],
    example: Annotated[Path, typer.Option(help="A picture that the demo shows.")],
    results: Annotated[Path, typer.Option(help="JSON of benchmarks/bench_multimodal.py.")],
    target: Target = ASSETS / VISION_MODEL,
) -> None:
    """Writes the adapter that sees: weights in bfloat16, the example, checksums and cards; the vocabulary is its base's."""
    base = base_of(adapter)
    if base != DEFAULT_MODEL:
        raise UserError(
            f"{adapter} is an adapter of {base!r}; only {DEFAULT_MODEL}'s can be shipped"
        )
    with new_folder(target, overwrite=True) as temporary:
        for name in ("config.json", "adapter_config.json", "media/config.json"):
            (temporary / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(adapter / name, temporary / name)
        for name in ("adapter_model.safetensors", "media/model.safetensors"):
            weights = {key: value.bfloat16() if value.is_floating_point() else value for key, value in load_file(adapter / name).items()}  # fmt: skip
            save_file(weights, temporary / name, metadata={"format": "pt"})
        shutil.copyfile(example, temporary / "example.png")
        for file in temporary.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        picture = {"type": "image", "image": str(temporary / "example.png")}
        asked = {"type": "text", "text": "图里有什么？"}
        said = load(temporary, device="cpu").chat([{"role": "user", "content": [picture, asked]}])
        write_checksums(temporary)
        write_vision_cards(temporary, json.loads(results.read_text(encoding="utf-8")))
        size = folder_size(temporary)
        if size > MAX_BYTES_OF_VISION:
            raise UserError(
                f"the adapter would have {size:,} bytes, {MAX_BYTES_OF_VISION:,} are allowed"
            )
    typer.echo(f"{target}: {size:,} bytes; of its example it says: {said}")


def _allow_cache(path: Path) -> None:
    """Switches on what a trainer may have left off in the configuration: reading only what is new when generating."""
    config = {**json.loads(path.read_text(encoding="utf-8")), "use_cache": True}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def listed_files(folder: Path) -> list[Path]:
    """Returns the files that the checksums cover: all that the loader may read."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in UNLISTED and path.suffix != ".md"
    )


def write_checksums(folder: Path) -> None:
    """Writes SHA256SUMS in the form of the program sha256sum."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in listed_files(folder)
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path) -> None:
    """Compares an asset's files with its checksums.

    Raises:
        UserError: A file is changed, missing or not listed.
    """
    if not (folder / CHECKSUMS).is_file():
        raise UserError(f"{folder} has no {CHECKSUMS}: `ship.py weights` makes the asset first")
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in listed_files(folder)
    }
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        raise UserError(
            f"{folder}: {', '.join(wrong)} differ from {CHECKSUMS}; ship the asset again"
        )


def folder_size(folder: Path) -> int:
    """Returns the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    try:
        app()
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(2) from error

"""Pictures, sounds and clips with questions in Chinese and English, from which a small multimodal GLM learns on a CPU.

Out, under a folder: `{image,audio,video}.{train,valid,heldout}.jsonl` and the media that their lines name, or the
same with the media inside as `.parquet`. `heldout` has combinations that `train` and `valid` never show.
    python recipes/multimodal/make_data.py data --images 24000 --sounds 40000 --clips 10000
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Annotated, Any

import clips
import numpy as np
import scenes
import sounds
import speech
import typer
from facts import facts_of
from PIL import Image
from questions import Balance, choose

from glmkit.whole_files import write_text

QUESTIONS = {"train": 4, "valid": 4, "heldout": 4}
"""Questions about each medium, half of them in each language."""

SPLITS = tuple(QUESTIONS)


class Format(str, Enum):
    """Lines of JSON that name files, or tables of Parquet that contain them."""

    jsonl = "jsonl"
    parquet = "parquet"


@dataclass(frozen=True)
class Medium:
    """A kind of medium: its folder, its files' suffix, and how one is drawn and written."""

    folder: str
    suffix: str
    sample: Callable[[np.random.Generator, bool], Any]
    encode: Callable[[Any, np.random.Generator], bytes]


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


MEDIA = {
    "image": Medium("images", "png", scenes.sample, lambda s, rng: png_bytes(scenes.draw(s, rng))),
    "audio": Medium(
        "sounds", "wav", sounds.sample, lambda s, rng: sounds.wav_bytes(sounds.render(s, rng))
    ),
    "video": Medium("clips", "mp4", clips.sample, lambda s, rng: clips.mp4_bytes(clips.draw(s, rng))),
}  # fmt: skip

Row = tuple[dict[str, Any], bytes]
"""A medium's line, and its file's bytes."""


def draw(kind: str, split: str, seed: int, index: int) -> tuple[Any, bytes, np.random.Generator]:
    """Returns a medium's truth, its file's bytes and the generator that goes on to its questions.

    A medium depends on the seed, its split and its number alone: more of them leave the first as they are.
    """
    where = (list(MEDIA).index(kind), SPLITS.index(split), index)
    rng = np.random.default_rng([seed, *where])
    medium = MEDIA[kind].sample(rng, split == "heldout")
    return medium, MEDIA[kind].encode(medium, rng), rng


def rows(kind: str, split: str, number: int, seed: int, processes: int = 1) -> Iterator[Row]:
    """Yields the lines of a split and the bytes of their media, the same with any number of processes."""
    balance = Balance()
    job = partial(draw, kind, split, seed)
    pool = Pool(processes) if processes > 1 else None
    try:
        drawn = pool.imap(job, range(number), chunksize=64) if pool else map(job, range(number))
        for index, (medium, data, rng) in enumerate(drawn):
            facts = facts_of(medium, split == "heldout")
            asked = choose(facts, QUESTIONS[split], balance, rng)
            name = f"{MEDIA[kind].folder}/{split}-{index:06d}.{MEDIA[kind].suffix}"
            yield {kind: name, "questions": asked, "scene": medium.truth()}, data
    finally:
        if pool:
            pool.terminate()


# -- files


def write_jsonl(out: Path, kind: str, split: str, lines: Iterator[Row]) -> Counter[str]:
    """Writes the media and, when all of them are there, their lines; returns the questions of each kind."""
    (out / MEDIA[kind].folder).mkdir(exist_ok=True)
    kinds: Counter[str] = Counter()
    text = []
    for line, data in lines:
        _write_bytes(out / line[kind], data)
        kinds.update(question["kind"] for question in line["questions"])
        text.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(out / f"{kind}.{split}.jsonl", "".join(text))
    return kinds


def write_parquet(out: Path, kind: str, split: str, lines: Iterator[Row]) -> Counter[str]:
    """Writes one table, each medium in it as `{"bytes": …, "path": …}`; returns the questions of each kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: Counter[str] = Counter()
    table = []
    for line, data in lines:
        kinds.update(question["kind"] for question in line["questions"])
        table.append(line | {kind: {"bytes": data, "path": line[kind]}})
    path = out / f"{kind}.{split}.parquet"
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.Table.from_pylist(table), temporary, row_group_size=1000)
    temporary.rename(path)
    return kinds


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Folder to write to; it is made.")],
    images: Annotated[int, typer.Option(min=0, help="Pictures of train.")] = 24_000,
    sounds_: Annotated[int, typer.Option("--sounds", min=0, help="Sounds of train.")] = 40_000,
    clips_: Annotated[int, typer.Option("--clips", min=0, help="Clips of train.")] = 10_000,
    valid: Annotated[int, typer.Option(min=0, help="Media of each kind in valid.")] = 500,
    heldout: Annotated[int, typer.Option(min=0, help="Media of each kind in heldout.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same data.")] = 0,
    format_: Annotated[
        Format, typer.Option("--format", help="Media as files, or inside a table.")
    ] = Format.jsonl,
    processes: Annotated[int, typer.Option(min=1, help="Processes that draw media.")] = 1,
) -> None:
    """Writes pictures, sounds and clips with questions and answers in Chinese and English.

    About 12 minutes on one core, 2.9 GB, as given here. Spoken digits are among the sounds where espeak-ng is installed.
    """
    write = write_jsonl if format_ is Format.jsonl else write_parquet
    out.mkdir(parents=True, exist_ok=True)
    if sounds_ and not speech.available():
        typer.echo(
            "espeak-ng is not installed: no spoken digits among the sounds. (apt-get install espeak-ng)"
        )
    for kind, train in {"image": images, "audio": sounds_, "video": clips_}.items():
        for split, number in {"train": train, "valid": valid, "heldout": heldout}.items():
            if not train or not number:
                continue
            kinds = write(out, kind, split, rows(kind, split, number, seed, processes))
            asked = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
            typer.echo(f"{kind}.{split}.{format_.value}: {number} media; questions: {asked}")


if __name__ == "__main__":
    app()

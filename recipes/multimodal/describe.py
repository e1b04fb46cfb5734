"""All that is in a medium, in one answer: a dense lesson for encoders that begin with nothing.

    python recipes/multimodal/describe.py DATA

Reads `{image,audio,video}.train.jsonl` (and valid) of `make_data.py` and writes `{image,audio,video}.dense.{train,valid}.jsonl` beside them:
one question in each language, whose answer names every shape with colour, size and place (of clips: way and speed), every property of a
sound. A question about one property tells an encoder one word of what it should see; this one tells it everything at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wording import LANGUAGES, WAYS, word

ASKED = {
    "image": {"zh": "列出所有图形。", "en": "List all shapes."},
    "audio": {"zh": "描述这段声音。", "en": "Describe the sound."},
    "video": {"zh": "列出所有动作。", "en": "List all moves."},
}
SIDE = 64
PLACES = {"zh": (("左", "中", "右"), ("上", "中", "下")), "en": (("left", "middle", "right"), ("top", "middle", "bottom"))}  # fmt: skip


def place(x: float, y: float, language: str) -> str:
    """Returns which ninth of the picture a point is in."""
    across, down = PLACES[language]
    column, row = across[int(3 * x / SIDE)], down[int(3 * y / SIDE)]
    return column + row if language == "zh" else f"{row} {column}"


def shapes(scene: dict[str, Any], language: str) -> str:
    """Returns all shapes of a picture from left to right."""
    found = []
    for one in sorted(scene["shapes"], key=lambda one: one["x"]):
        words = [word(one[name], language) for name in ("colour", "size", "shape")]
        words.append(place(one["x"], one["y"], language))
        found.append("".join(words) if language == "zh" else " ".join(words))
    return ("，" if language == "zh" else ", ").join(found)


def moves(scene: dict[str, Any], language: str) -> str:
    """Returns what all shapes of a clip do, from left to right."""
    found = []
    for one in sorted(scene["shapes"], key=lambda one: one["way"][0][0]):
        words = [word(one["colour"], language), word(one["shape"], language)]
        words.append(WAYS[one["direction"]] if language == "zh" else one["direction"])
        words += [word(one["speed"], language)] if one["speed"] else []
        found.append("".join(words) if language == "zh" else " ".join(words))
    return ("，" if language == "zh" else ", ").join(found)


def dense(kind: str, record: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the two questions of a record."""
    if kind == "audio":  # its caption says everything
        captions = {one["language"]: one["answer"] for one in record["questions"] if one["kind"] == "caption"}  # fmt: skip
        answers = {language: captions.get(language, "") for language in LANGUAGES}
    else:
        say = shapes if kind == "image" else moves
        answers = {language: say(record["scene"], language) for language in LANGUAGES}
    return [
        {"question": ASKED[kind][language], "answer": answer, "kind": "dense", "language": language}
        for language, answer in answers.items()
        if answer
    ]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for kind in ASKED:
        for split in ("train", "valid"):
            source = Path(sys.argv[1]) / f"{kind}.{split}.jsonl"
            target = source.with_name(f"{kind}.dense.{split}.jsonl")
            partial = target.with_suffix(".partial")
            with source.open(encoding="utf-8") as lines, partial.open("w", encoding="utf-8") as out:
                for line in lines:
                    record = json.loads(line)
                    if questions := dense(kind, record):
                        kept = {kind: record[kind], "questions": questions}
                        out.write(json.dumps(kept, ensure_ascii=False) + "\n")
            partial.rename(target)


if __name__ == "__main__":
    main()

"""All that is in a medium, in one answer: a dense lesson for encoders that begin with nothing.

    python recipes/multimodal/describe.py DATA

Reads `{image,audio,video}.train.jsonl` (and valid) of `make_data.py` and writes `{image,audio,video}.dense.{train,valid}.jsonl` beside them:
questions whose answers name every shape with colour, size and place (of clips: way and speed), how many there are of each, where they are
from each other, every property of a sound. A question about one property tells an encoder one word of what it should see; these tell it
everything at once.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from wording import LANGUAGES, WAYS, count, timbre_key, word

ASKED = {
    "image.list": {"zh": "列出所有图形。", "en": "List all shapes."},
    "image.count": {"zh": "数一数图形。", "en": "Count everything."},
    "image.relations": {"zh": "列出位置关系。", "en": "List all relations."},
    "audio.list": {"zh": "说说听到的声音。", "en": "List what is heard."},
    "audio.count": {"zh": "一声一声地数。", "en": "Count one by one."},
    "video.list": {"zh": "列出所有动作。", "en": "List all moves."},
}
SIDE = 64
PLACES = {"zh": (("左", "中", "右"), ("上", "中", "下")), "en": (("left", "middle", "right"), ("top", "middle", "bottom"))}  # fmt: skip
AROUND = {"above": "上", "below": "下", "left": "左", "right": "右"}

Record = dict[str, Any]


def place(centre: Sequence[float], language: str) -> str:
    """Returns which ninth of the picture a point is in."""
    across, down = PLACES[language]
    column, row = across[int(3 * centre[0] / SIDE)], down[int(3 * centre[1] / SIDE)]
    return column + row if language == "zh" else f"{row} {column}"


def joined(parts: list[str], language: str) -> str:
    """Returns words of one thing."""
    return ("" if language == "zh" else " ").join(parts)


def listed(parts: list[str], language: str) -> str:
    """Returns several things."""
    return ("，" if language == "zh" else ", ").join(parts)


def name(one: Record, language: str) -> str:
    return joined([word(one["colour"], language), word(one["shape"], language)], language)


def shapes(scene: Record, language: str) -> str:
    """Returns all shapes of a picture from left to right: colour, size, shape, place."""
    found = []
    for one in sorted(scene["shapes"], key=lambda one: one["x"]):
        words = [word(one[part], language) for part in ("colour", "size", "shape")]
        found.append(joined([*words, place((one["x"], one["y"]), language)], language))
    return listed(found, language)


def numbers(scene: Record, language: str) -> str:
    """Returns how many shapes there are, of each colour and of each shape."""
    found = [count(len(scene["shapes"]), "个", language)]
    for part in ("colour", "shape"):
        counted = Counter(one[part] for one in scene["shapes"])
        found += [
            joined([word(key, language), count(counted[key], "个", language)], language)
            for key in sorted(counted)
        ]
    return listed(found, language)


def relations(scene: Record, language: str) -> str:
    """Returns where each shape is from the next to its right, and the last from the first; none between two of one name."""
    ordered = sorted(scene["shapes"], key=lambda one: one["x"])
    found = []
    for one, other in zip(ordered, ordered[1:] + ordered[:1], strict=True):
        right, down = one["x"] - other["x"], one["y"] - other["y"]
        if name(one, language) == name(other, language):
            continue
        if abs(right) > abs(down):
            where = "right" if right > 0 else "left"
        else:
            where = "below" if down > 0 else "above"
        if language == "zh":
            found.append(f"{name(one, language)}在{name(other, language)}{AROUND[where]}")
        else:
            found.append(f"{name(one, language)} {where} {name(other, language)}")
    return listed(found, language)


def moves(scene: Record, language: str) -> str:
    """Returns what all shapes of a clip do, from left to right: colour, shape, first, middle and last place, way, speed."""
    found = []
    for one in sorted(scene["shapes"], key=lambda one: one["way"][0][0]):
        way = one["way"]
        words = [name(one, language)]
        words += [place(way[index], language) for index in (0, len(way) // 2, -1)]
        words.append(WAYS[one["direction"]] if language == "zh" else one["direction"])
        words += [word(one["speed"], language)] if one["speed"] else []
        found.append(joined(words, language))
    return listed(found, language)


def beeps(sound: Record, language: str) -> str:
    """Returns pitch, timbre, tempo, melody and number of beeps; of a spoken digit the digit and its language."""
    if sound["type"] == "digit":
        spoken = {"zh": "Chinese", "en": "English"}[sound["spoken_language"]]
        said = word(f"digit {sound['digit']}", language)
        return listed([word(spoken, language), said], language)
    words = [sound["pitch"], timbre_key(sound["timbre"]), sound["tempo"], sound["sequence"]]
    found = [word(one, language) for one in words if one]
    return listed([*found, count(sound["count"], "声", language)], language)


def steps(sound: Record, language: str) -> str:
    """Returns the beeps one by one, each with the way from the one before."""
    if sound["type"] == "digit":
        return ""
    found = [count(1, "声", language)]
    for number, (before, note) in enumerate(pairwise(sound["notes"]), start=2):
        way = "flat" if note == before else "rising" if note > before else "falling"
        found.append(joined([count(number, "声", language), word(way, language)], language))
    return listed(found, language)


SAY: dict[str, Callable[[Record, str], str]] = {
    "image.list": shapes,
    "image.count": numbers,
    "image.relations": relations,
    "audio.list": beeps,
    "audio.count": steps,
    "video.list": moves,
}


def dense(kind: str, record: Record) -> list[dict[str, str]]:
    """Returns the questions of a record, each in both languages."""
    return [
        {"question": ASKED[what][language], "answer": answer, "kind": what, "language": language}
        for what, say in SAY.items()
        if what.partition(".")[0] == kind
        for language in LANGUAGES
        if (answer := say(record["scene"], language))
    ]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for kind in ("image", "audio", "video"):
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

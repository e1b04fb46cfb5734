"""What can be asked about a picture, a sound or a clip, and what the answers are, in no language yet.

In: a scene, sound or clip. Out: facts. In held-out media only those that concern what is held out are returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from clips import Clip
from scenes import COLOURS, HELD_OUT, PAIRS, SHAPES, Item, Scene
from sounds import HELD_OUT_TONES, Sound
from speech import Digit
from wording import LANGUAGES, WAYS, count, listing, timbre_key, with_article, word

IN_A_CAPTION = 3
"""Most shapes that a caption lists."""


@dataclass(frozen=True)
class Fact:
    """A question and its answer: a form of `wording.TEMPLATES`, keys of words for its places, the answer by language."""

    form: str
    answer: dict[str, str]
    slots: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.form.partition(".")[0]


def of_word(key: str) -> dict[str, str]:
    return {language: word(key, language) for language in LANGUAGES}


def of_count(number: int, measure: str) -> dict[str, str]:
    return {language: count(number, measure, language) for language in LANGUAGES}


def facts_of(medium: Scene | Sound | Digit | Clip, held_out: bool) -> list[Fact]:
    """Returns what can be asked about a medium, of any kind of medium."""
    if isinstance(medium, Scene):
        return [*_scene(medium, held_out)]
    if isinstance(medium, Clip):
        return [*_clip(medium, held_out)]
    return [*_digit(medium)] if isinstance(medium, Digit) else [*_sound(medium, held_out)]


# -- pictures


def names(items: list[Item], item: Item) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the ways to name one of several shapes without doubt: by its shape, by its colour, alone."""
    if sum(other.shape == item.shape for other in items) == 1:
        yield "shape", {"shape": item.shape}
    if sum(other.colour == item.colour for other in items) == 1:
        yield "colour", {"colour": item.colour}
    if len(items) == 1:
        yield "only", {}


def _scene(scene: Scene, held_out: bool) -> Iterator[Fact]:
    items = list(scene.items)
    asked = [item for item in items if not held_out or item.pair in HELD_OUT]
    for item in asked:
        yield from _look(items, item)
        for name, slots in names(items, item):
            yield Fact(f"size.{name}", of_word(item.size), slots)
    yield from _counts(items, asked)
    yield from _relations(items, asked)
    yield from _existence(items, held_out)
    if len(items) <= IN_A_CAPTION:
        yield Fact("caption.image", {"zh": _caption(items, "zh"), "en": _caption(items, "en")})


def _look(items: list[Item], item: Item) -> Iterator[Fact]:
    for name, slots in names(items, item):
        if name != "colour":
            yield Fact(f"colour.{name}", of_word(item.colour), slots)
        if name != "shape":
            yield Fact(f"shape.{name}", of_word(item.shape), slots)


def _counts(items: list[Item], asked: list[Item]) -> Iterator[Fact]:
    yield Fact("count.all", of_count(len(items), "个"))
    shapes, colours = Counter(i.shape for i in items), Counter(i.colour for i in items)
    for shape in sorted({item.shape for item in asked}):
        yield Fact("count.shape", of_count(shapes[shape], "个"), {"shape": shape})
    for colour in sorted({item.colour for item in asked}):
        yield Fact("count.colour", of_count(colours[colour], "个"), {"colour": colour})


def _relations(items: list[Item], asked: list[Item]) -> Iterator[Fact]:
    """Yields where one shape is from another, where that is clear: 12 pixels away, and less than half that sideways."""
    for item in items:
        for other in items:
            right, down = item.x - other.x, item.y - other.y
            near, far = sorted((abs(right), abs(down)))
            if item is other or not (item in asked or other in asked) or far < 12 or near > far / 2:
                continue
            across = "right" if right > 0 else "left"
            where = across if far == abs(right) else ("below" if down > 0 else "above")
            others = dict(names(items, other))
            for name, slots in names(items, item):
                if name in others and item.pair != other.pair:
                    slots = slots | {"other": others[name][name]}
                    yield Fact(f"relation.{name}", of_word(where), slots)


def _existence(items: list[Item], held_out: bool) -> Iterator[Fact]:
    there = {item.pair for item in items}
    for colour, shape in sorted(HELD_OUT) if held_out else PAIRS:
        answer = of_word("yes" if (colour, shape) in there else "no")
        yield Fact("exists.both", answer, {"colour": colour, "shape": shape})
    if not held_out:
        for form, options, present in (
            ("colour", COLOURS, {colour for colour, _ in there}),
            ("shape", SHAPES, {shape for _, shape in there}),
        ):
            for option in options:
                answer = of_word("yes" if option in present else "no")
                yield Fact(f"exists.{form}", answer, {form: option})


def _caption(items: list[Item], language: str) -> str:
    """Returns the caption of a picture: its shapes from left to right, of a single one also the size."""
    phrases = []
    for item in sorted(items, key=lambda item: item.x):
        colour, shape = word(item.colour, language), word(item.shape, language)
        size = word(item.size, language) if len(items) == 1 else ""
        if language == "zh":
            phrases.append(f"一个{colour}的{size}{shape}" if size else f"{colour}{shape}")
        else:
            phrases.append(with_article(f"{size} {colour} {shape}".strip()))
    return listing(phrases, language)


# -- sounds


def _sound(sound: Sound, held_out: bool) -> Iterator[Fact]:
    tone = sound.tone in HELD_OUT_TONES
    if tone or not held_out:
        if sound.pitch:
            yield Fact("pitch", of_word(sound.pitch))
        yield Fact("timbre", of_word(timbre_key(sound.timbre)))
    if sound.sequence and not (held_out and tone):
        yield Fact("sequence", of_word(sound.sequence))
        if sound.tempo:
            yield Fact("tempo", of_word(sound.tempo))
    yield Fact("count.beeps", of_count(sound.count, "声"))
    if sound.pitch and (sound.tempo or sound.count == 1):
        caption = {"zh": _heard_in_chinese(sound), "en": _heard_in_english(sound)}
        yield Fact("caption.audio", caption)


def _heard_in_chinese(sound: Sound) -> str:
    timbre = word(timbre_key(sound.timbre), "zh")
    first = f"{count(sound.count, '声', 'zh')}{word(str(sound.pitch), 'zh')}{timbre}"
    if not sound.sequence or not sound.tempo:
        return first
    return f"{first}，{word(sound.tempo, 'zh')}，{word(sound.sequence, 'zh')}"


def _heard_in_english(sound: Sound) -> str:
    first = f"{count(sound.count, '', 'en')} {sound.pitch} {sound.timbre} beep"
    if not sound.sequence or not sound.tempo:
        return first
    return f"{first}s, {sound.tempo}, {sound.sequence}"


def _digit(digit: Digit) -> Iterator[Fact]:
    said = of_word(f"digit {digit.digit}")
    spoken = of_word({"zh": "Chinese", "en": "English"}[digit.spoken_language])
    yield Fact("digit", said)
    yield Fact("language", spoken)
    caption = {"zh": f"用{spoken['zh']}说{said['zh']}", "en": f"{said['en']} in {spoken['en']}"}
    yield Fact("caption.audio", caption)


# -- clips


def _clip(clip: Clip, held_out: bool) -> Iterator[Fact]:
    items = [mover.item for mover in clip.movers]
    for mover in clip.movers:
        if held_out and mover.item.pair not in HELD_OUT:
            continue
        yield from _look(items, mover.item)
        for name, slots in names(items, mover.item):
            yield Fact(f"direction.{name}", of_word(mover.direction), slots)
            if mover.speed:
                yield Fact(f"speed.{name}", of_word(mover.speed), slots)
    yield Fact("caption.video", {"zh": _seen(clip, "zh"), "en": _seen(clip, "en")})


def _seen(clip: Clip, language: str) -> str:
    """Returns the caption of a clip: its shapes, at first from left to right, and their ways; of a single one the speed."""
    phrases = []
    for mover in sorted(clip.movers, key=lambda mover: float(mover.way[0, 0])):
        colour, shape = word(mover.item.colour, language), word(mover.item.shape, language)
        moves, speed = mover.direction != "still", mover.speed if len(clip.movers) == 1 else None
        if language == "zh":
            how = f"{word(speed, 'zh')}速" if speed else ""
            way = f"{WAYS[mover.direction]}{'移动' if moves else ''}"
            phrases.append(f"{colour}{shape}{how}{way}")
        else:
            how = {"fast": " fast", "slow": " slowly", None: ""}[speed]
            way = f"moves {mover.direction}{how}" if moves else "stays still"
            phrases.append(f"{with_article(f'{colour} {shape}')} {way}")
    return ("，" if language == "zh" else ", ").join(phrases)

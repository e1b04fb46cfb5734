"""Sounds of characters: tone (平 level, 仄 oblique) and rhyme group, in a system of rhymes.

In: a character. Out: its readings as `Sound`s, and the one that may be relied on when writing. Two systems:

- `modern`: today's Mandarin, from pypinyin; tones 1 and 2 are level; the 14 groups of 中华新韵.
- `pingshui`: the sounds of Tang and Song verse (平水韵; for tunes the 19 parts of 词林正韵), with the entering tone as
  oblique. The shipped table is learnt from regulated verse by `learning`; no rhyme book was copied.

A poem is written with the sounds that are sure: a character with several common readings of different tone is neither
level nor oblique, and one whose rhyme is not sure is no rhyme. A poem is judged kindly: any reading counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal, Protocol

from glmkit.applications.poetry.forms import LEVEL, OBLIQUE
from glmkit.errors import GenerationError, nearest

System = Literal["modern", "pingshui"]

_GROUPS = {
    "麻": "a ia ua",
    "波": "o uo e",
    "皆": "ie ve",
    "开": "ai uai",
    "微": "ei uei",
    "豪": "ao iao",
    "尤": "ou iou",
    "寒": "an ian uan van",
    "文": "en in uen vn",
    "唐": "ang iang uang",
    "庚": "eng ing ueng ong iong",
    "齐": "i er v",
    "姑": "u",
}
_GROUP_OF = {final: group for group, finals in _GROUPS.items() for final in finals.split()}
_BUZZING = ("zh", "ch", "sh", "r", "z", "c", "s")
"""Initials after which the final written i is that of 支."""

_SEVERAL_READINGS = set(
    "与丧中为乐乘予什仅仔会传伯估佃佚作供侥便俩假兴冠冲几分切划创刨别刷刹削剥劈劲勒勾单卜卷参叉发只可叶号吓吗否呐员和咯咱咳咽哈哑哪喝喷嚼圈圩场埋塔大奔委娜宁宿将尾屏"
    "差帖干应度弹强当待得恶扁扇扎扒抄把折抹担拓拧择拽指挑挣据排提撇撮擂攒教散数斗旋晕曝曲更朝朴校模横正殷氏氓汗沓没泊泥混渐漂瀑炸煞熟熨燎燕爪片牟率珩畜疟的盖盛相省看"
    "着石磨禁禅种秘称稽空笼糊累纤给绿缝缩翟肋背胜脉脚脯舍色艾芋荷菲落著葛蒙薄藏行要观论说调豁车轧转过还迫逮遗那都重量钉钻铺长间闷阿降隽难露骨鲜齐龟"
)
"""Characters with two common readings whose tones or finals differ: unsure for writing."""


@dataclass(frozen=True)
class Sound:
    """One reading of a character: its tone, 平 or 仄, and its rhyme group ("" where it is not known)."""

    tone: str
    group: str


class Sounds(Protocol):
    """A system of sounds."""

    def __hash__(self) -> int: ...

    def readings(self, character: str) -> tuple[Sound, ...]:
        """Returns all readings that may count, () for what has no sound."""

    def sure(self, character: str) -> Sound | None:
        """Returns the reading to rely on in writing, or None; its group is "" where the rhyme is not sure."""


class ModernSounds:
    """Today's Mandarin, from pypinyin."""

    def __init__(self) -> None:
        import pypinyin  # its tables take a moment

        self._pypinyin = pypinyin

    @lru_cache(maxsize=65536)  # noqa: B019 - the object is made once (`sounds`)
    def readings(self, character: str) -> tuple[Sound, ...]:
        """Returns every reading that the dictionary has, the usual one first."""
        style = self._pypinyin.Style
        (syllables,) = self._pypinyin.pinyin(
            character, style=style.TONE3, heteronym=True, errors="ignore"
        ) or [[]]
        found = (self._sound(syllable) for syllable in syllables)
        return tuple(dict.fromkeys(sound for sound in found if sound is not None))

    def sure(self, character: str) -> Sound | None:
        """Returns the usual reading of a character that has one."""
        readings = self.readings(character)
        return readings[0] if readings and character not in _SEVERAL_READINGS else None

    def _sound(self, syllable: str) -> Sound | None:
        if not syllable[-1:].isdigit():
            return None
        from pypinyin.contrib.tone_convert import to_finals, to_initials

        final, initial = to_finals(syllable, strict=True), to_initials(syllable, strict=True)
        group = "支" if final == "i" and initial in _BUZZING else _GROUP_OF.get(final, "")
        return Sound(LEVEL if syllable[-1] in "12" else OBLIQUE, group)


class ClassicalSounds:
    """The sounds of Tang and Song verse, from the learnt table; a character that it lacks is read as today.

    A lacking character with today's level tone may have been an entering one: it counts as either, and is not sure.
    """

    def __init__(self, for_tunes: bool) -> None:
        file = resources.files("glmkit.applications.poetry") / "sounds.txt"
        self._readings = read_table(file.read_text(encoding="utf-8"), for_tunes)
        self._modern = sounds("modern")

    def readings(self, character: str) -> tuple[Sound, ...]:
        """Returns the readings of the table."""
        if character in self._readings:
            return self._readings[character]
        tones = {reading.tone for reading in self._modern.readings(character)}
        if LEVEL in tones:
            tones.add(OBLIQUE)
        return tuple(Sound(tone, "") for tone in sorted(tones))

    def sure(self, character: str) -> Sound | None:
        """Returns the only reading of a character that has one."""
        readings = self.readings(character)
        tones = {reading.tone for reading in readings}
        if len(tones) != 1:
            return None
        return readings[0] if len(readings) == 1 else Sound(tones.pop(), "")


def read_table(text: str, for_tunes: bool) -> dict[str, tuple[Sound, ...]]:
    """Returns the readings of a table of sounds.

    Args:
        text: Lines `shi|ci tone group characters`, `-` for no group; `#` begins a comment.
        for_tunes: Which of the two kinds of rhyme to read: those of tunes (ci) or of regulated verse (shi).
    """
    readings: dict[str, dict[Sound, None]] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        kind, tone, group, characters = line.split(" ")
        if kind == ("ci" if for_tunes else "shi"):
            for character in characters:
                sound = Sound(tone, group.strip("-"))
                readings.setdefault(character, {})[sound] = None
    return {character: tuple(found) for character, found in readings.items()}


@cache
def sounds(system: str, for_tunes: bool = False) -> Sounds:
    """Returns a system of sounds.

    Args:
        system: "modern" or "pingshui".
        for_tunes: Whether rhymes are those of tunes; makes no difference for "modern".

    Raises:
        GenerationError: There is no such system.
    """
    if system == "modern":
        return ModernSounds()
    if system == "pingshui":
        return ClassicalSounds(for_tunes)
    raise GenerationError(
        f"rhyme={system!r} must be 'modern' or 'pingshui'{nearest(str(system), ('modern', 'pingshui'))}"
    )

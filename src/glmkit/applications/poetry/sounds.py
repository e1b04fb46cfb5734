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
from glmkit.errors import GenerationError, missing_dependency, nearest

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
    "长重行为中看教过相将应分间难传观空冠调当藏散数处好恶乐胜降便倒发干更还几假卷量没宁强曲舍参少兴要与正种转着称禁冲"
    "丧载缝供号和横荷背担弹得都否喝晃会济夹渐结尽劲可累燎笼露绿率蒙撇铺曝切圈煞扇省石说宿提挑鲜削血钉咽燕遗饮晕攒扎炸"
    "涨折挣钻琢作那哪落色薄剥伯车盛乘单朝斗度恶骨裹哈汗哗划晕奇其期齐茄圩校轧屏泊扒把蚌刨奔扁别簸卜朴差叉刹禅颤场抄"
    "创伺攒撮沓大待逮叨提的地翟佃垛娥阿儿坊菲脯盖葛给勾估咕龟癸桧涡珩虹糊混豁稽缉系嚼侥脚校解芥仅龃据隽咳勒肋"
    "了擂俩咯里论绺吗脉埋氓闷猛秘模磨抹牟呐囊泥拧弄疟娜排刨喷劈片漂迫仆瀑栖蹊稀纤巷血寻哑殷叶艾佚熨予员"
    "晃暗咱择粘爪只指著属撞拽仔什似氏熟刷谁缩塔苔帖吐拓瓦委尾吓厦衔臭畜旋芋雨语王闻思听望醒"
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
        try:
            import pypinyin
        except ImportError as error:
            raise missing_dependency("pypinyin", "the sounds of characters", "poem") from error
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
        MissingDependencyError: pypinyin is not installed.
    """
    if system == "modern":
        return ModernSounds()
    if system == "pingshui":
        return ClassicalSounds(for_tunes)
    raise GenerationError(
        f"rhyme={system!r} must be 'modern' or 'pingshui'{nearest(str(system), ('modern', 'pingshui'))}"
    )

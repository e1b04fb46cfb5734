"""Learns the sounds of Tang and Song verse from how poets used the characters: the table `sounds.txt`.

In: poems, as records with `kind` (诗 or 词) and `lines`. Out: the text of the table. Nothing is looked up in a rhyme book:

1. Tones. Regulated verse fixes the tone of even places and of verse ends. Starting from today's tones, each poem is laid
   against the four skeletons, the best one votes for the tones of the characters in its fixed places, and so again with
   the tones found. Entering tones, level or not today, come out as oblique, because poets put them there.
2. Rhymes. Characters that end the rhyming verses of one poem are neighbours. A few members of each group, known to every
   student of the art, are given (`SHI`, `CI`); the others take the groups of their neighbours.

Shapes: N poems, L characters of each, V characters, G groups, E pairs of neighbours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from glmkit.applications.poetry.alphabet import is_han
from glmkit.applications.poetry.forms import LEVEL, OBLIQUE
from glmkit.applications.poetry.sounds import sounds

SHI = {
    "东": "东风中空同红翁通穷公功宫雄丛鸿蓬融终", "冬": "冬钟龙松容峰浓封逢锋踪农宗慵胸", "江": "江窗双缸降",
    "支": "支时诗知迟枝期悲奇思", "微": "微归飞衣稀非扉", "鱼": "鱼书居余初疏庐虚渠锄裾舒诸渔徐除如",
    "虞": "虞无图湖孤都壶儒珠隅符途扶芜吴愚俱夫呼枯徒娱乌", "齐": "齐西低溪迷泥", "佳": "佳鞋阶怀谐柴斋牌钗街",
    "灰": "灰来开回台杯梅才苔催哉埃", "真": "真人春新尘身神", "文": "文云闻分君群纷军", "元": "元门村昏言存魂孙园痕",
    "寒": "寒看难安干宽官残端阑盘欢冠澜", "删": "删山间闲还关颜班斑环湾艰悭攀", "先": "先年天然边烟前船",
    "萧": "萧朝遥桥寥消", "肴": "肴交巢茅郊梢教", "豪": "豪高劳毛骚涛", "歌": "歌多何波过和", "麻": "麻花家华斜沙",
    "阳": "阳香长凉光乡", "庚": "庚生声明行情清名城成平轻晴惊鸣英荣横兵京",
    "青": "青星亭庭灵听形冥经屏醒萍汀馨丁瓶铃零", "蒸": "蒸僧灯冰能层", "尤": "尤秋游流头", "侵": "侵心深阴林",
    "覃": "覃南三谈酣堪甘潭岚参庵蓝惭", "盐": "盐帘簷嫌尖潜", "咸": "咸岩衫帆谗杉凡衔",
}  # fmt: skip
"""The level groups of 平水韵 and some of their members."""

CI = {
    "1": "东风中空红钟峰浓逢重动梦弄送洞凤共用", "2": "香长凉光江窗阳双上望向唱浪想漾",
    "3": "时知归飞回杯梅西低溪水里子意地泪醉起喜", "4": "书居无图湖孤雨路去树处语住暮絮",
    "5": "来开台怀才在海外态载待", "6": "人春新云门村魂尽阵近粉信问引",
    "7": "年天山间寒看言烟前晚远见面断乱浅眼院", "8": "朝遥高桥小晓老好草少照了", "9": "多何波歌过我个坐破锁",
    "10": "花家斜涯马下夜画谢话挂", "11": "生声明情星冰层灯冷影醒静镜定径", "12": "秋游流头柳酒久后袖瘦手",
    "13": "心深阴林锦枕品甚饮沁", "14": "南三帘纤点染淡暗减胆掩", "15": "绿玉竹屋足曲束宿", "16": "落薄角鹤阁约索",
    "17": "日笔湿息力色得客白夕石碧", "18": "月雪叶发歇节咽别切", "19": "合压鸭答甲",
}  # fmt: skip
"""The nineteen parts of 词林正韵, all tones together, and some of their members."""

_FIXED = {"oblique-oblique": "-仄-平仄", "level-level": "-平-仄平", "level-oblique": "-平-仄仄", "oblique-level": "-仄-平平"}  # fmt: skip
_OPENINGS = (
    ("oblique-oblique", "level-level", "level-oblique", "oblique-level"),
    ("oblique-level", "level-level", "level-oblique", "oblique-level"),
    ("level-oblique", "oblique-level", "oblique-oblique", "level-level"),
    ("level-level", "oblique-level", "oblique-oblique", "level-level"),
)
"""The four skeletons' first verses; in the second and the fourth the first verse rhymes."""

_MARKS = re.compile(r"[，。！？；、：,]")
_SURE, _SHARE = 0.85, 0.7
"""From which share on a tone, and a group, is sure."""


def learn_table(records: Iterable[Mapping[str, Any]], fewest: int = 10) -> str:
    """Returns the table of sounds that poems teach.

    Args:
        records: Poems with `kind` (诗, 词; others are passed over) and `lines` in simplified characters.
        fewest: A character is in the table if it came so often in a fixed place.
    """
    regulated, ends = _sort(records)
    characters = sorted({c for poems in regulated.values() for poem in poems for c in poem})
    number = {character: index for index, character in enumerate(characters)}
    numbered = {
        shape: np.array([[number[c] for c in poem] for poem in poems])
        for shape, poems in regulated.items()
    }
    level, oblique, kept = learn_tones(numbered, characters)
    share = (level + 0.5) / (level + oblique + 1)
    shi_pairs = _pairs(_rhyming(kept), (share > 1 - _SURE), len(characters))
    shi, shi_count = spread(shi_pairs, SHI, number)
    known = [[number[c] for c in line_ends if c in number] for line_ends in ends]
    ci_pairs = _ci_pairs(known, share > 0.5, shi_pairs, len(characters))
    ci, ci_count = spread(ci_pairs, CI, number)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for index in np.argsort(-(level + oblique), kind="stable"):
        if level[index] + oblique[index] < fewest:
            break
        for tone in _tones(share[index]):
            of_shi = _groups(shi[index], shi_count[index], list(SHI)) if tone == LEVEL else ["-"]
            of_ci = _groups(ci[index], ci_count[index], list(CI))
            for kind, groups in (("shi", of_shi), ("ci", of_ci)):
                for group in groups:
                    rows.setdefault((kind, tone, group), []).append(characters[index])
    return "".join(
        f"{kind} {tone} {group} {''.join(found)}\n"
        for (kind, tone, group), found in sorted(rows.items())
    )


def learn_tones(
    poems: Mapping[tuple[int, int], np.ndarray], characters: Sequence[str], rounds: int = 5
) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]]:
    """Returns how often each character stood in a level and in an oblique place, and the poems that kept a skeleton.

    Args:
        poems: (characters of a verse, verses) -> int64 [N, L], numbers of characters.
        characters: The characters.
        rounds: How often tones are estimated anew.

    Returns:
        float [V], float [V], and for each shape the regulated poems [N', L] with the skeleton of each [N'].
    """
    modern = sounds("modern")
    today = [{reading.tone for reading in modern.readings(c)[:1]} for c in characters]
    prior = np.array([0.8 if LEVEL in t else 0.1 if OBLIQUE in t else 0.5 for t in today])
    share = prior
    for turn in range(rounds):
        level, oblique = np.zeros(len(characters)), np.zeros(len(characters))
        kept = {}
        log_level = np.log(np.clip(share, 0.01, 0.99))
        log_oblique = np.log(np.clip(1 - share, 0.01, 0.99))
        for (length, num_verses), rows in poems.items():
            fixed = [_skeleton(opening, length, num_verses) for opening in _OPENINGS]
            fit = np.stack(
                [log_level[rows[:, f == 1]].sum(1) + log_oblique[rows[:, f == -1]].sum(1) for f in fixed], 1
            )  # fmt: skip
            best = fit.argmax(1)
            # Old-style verse fits no skeleton; the bar rises once entering tones are known.
            mean = fit.max(1) / np.abs(fixed[0]).sum()
            regular = mean > (-0.45 if turn < 2 else -0.22)
            kept[length, num_verses] = rows[regular], best[regular]
            for which, f in enumerate(fixed):
                some = rows[regular & (best == which)]
                level += np.bincount(some[:, f == 1].ravel(), minlength=len(characters))
                oblique += np.bincount(some[:, f == -1].ravel(), minlength=len(characters))
        share = (level + 2 * prior) / (level + oblique + 2)
    return level, oblique, kept


def spread(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    seeds: Mapping[str, str],
    number: Mapping[str, int],
    rounds: int = 30,
) -> tuple[np.ndarray, np.ndarray]:
    """Spreads the seeds' groups over their neighbours.

    Args:
        pairs: int64 [E], int64 [E], float [E]: neighbours, both ways, and how often they were.
        seeds: Group -> characters that are in it for sure.
        number: Character -> its number.
        rounds: How often groups are passed on.

    Returns:
        float [V, G], the share of each group; float [V], how often the character rhymed.
    """
    first, second, weight = pairs
    size, num_groups = len(number), len(seeds)
    count = np.bincount(first, weight, minlength=size)
    # Common characters meet everyone; without this they would outvote the rest.
    weight = weight / np.sqrt(count[first] + 1) / np.sqrt(count[second] + 1)
    shares = np.full((size, num_groups), 1 / num_groups)
    given = [
        (number[c], g) for g, members in enumerate(seeds.values()) for c in members if c in number
    ]
    for turn in range(rounds + 1):
        if turn:
            sharp = shares**2 / (shares**2).sum(1, keepdims=True)
            informed = (sharp.max(1) > 1.5 / num_groups).astype(float)
            votes = np.stack(
                [
                    np.bincount(first, weight * sharp[second, g] * informed[second], minlength=size)
                    for g in range(num_groups)
                ],
                axis=1,
            )
            total = votes.sum(1, keepdims=True)
            shares = np.where(total > 0, votes / np.maximum(total, 1e-12), 1 / num_groups)
        for index, group in given:
            shares[index] = np.arange(num_groups) == group
    return shares, count


def _sort(
    records: Iterable[Mapping[str, Any]],
) -> tuple[dict[tuple[int, int], list[str]], list[list[str]]]:
    """Returns regulated-looking poems by shape, and for all other verse the last characters of its lines."""
    regulated: dict[tuple[int, int], list[str]] = {}
    ends = []
    for record in records:
        lines = [str(line) for line in record["lines"]]
        verses = [verse for verse in _MARKS.split("".join(lines)) if verse]
        shape = (len(verses[0]) if verses else 0, len(verses))
        even = all(len(verse) == shape[0] for verse in verses)
        if record["kind"] == "诗" and even and shape[0] in (5, 7) and shape[1] in (4, 8):
            if all(map(is_han, "".join(verses))):
                regulated.setdefault(shape, []).append("".join(verses))
        elif record["kind"] in ("诗", "词"):
            ends.append([last[-1] for line in lines if (last := _MARKS.sub("", line))])
    return regulated, ends


def _skeleton(opening: Sequence[str], length: int, num_verses: int) -> np.ndarray:
    """Returns int [L]: 1 where the place is level, -1 where it is oblique, 0 where it is free."""
    plain = _OPENINGS[0] if opening in _OPENINGS[:2] else _OPENINGS[2]
    text = ""
    for one in [*opening, *plain][:num_verses]:
        verse = _FIXED[one]
        if length == 7:
            verse = "-" + (LEVEL if verse[1] == OBLIQUE else OBLIQUE) + verse
        text += verse
    return np.array([{LEVEL: 1, OBLIQUE: -1}.get(symbol, 0) for symbol in text])


def _rhyming(
    kept: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]],
) -> Iterable[np.ndarray]:
    """Yields int64 [N, rhyming verses]: the characters that rhyme in each poem."""
    for (length, num_verses), (rows, which) in kept.items():
        even = [length * number + length - 1 for number in range(1, num_verses, 2)]
        first_rhymes = (which == 1) | (which == 3)
        yield rows[first_rhymes][:, [length - 1, *even]]
        yield rows[~first_rhymes][:, even]


def _pairs(
    rhyming: Iterable[np.ndarray], usable: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys = [
        rows[:, a] * size + rows[:, b]
        for rows in rhyming
        for a, b in permutations(range(rows.shape[1]), 2)
    ]
    key, weight = np.unique(np.concatenate(keys), return_counts=True)
    first, second = key // size, key % size
    good = (first != second) & usable[first] & usable[second]
    return first[good], second[good], weight[good].astype(float)


def _ci_pairs(
    ends: Sequence[Sequence[int]],
    is_level: np.ndarray,
    shi: tuple[np.ndarray, np.ndarray, np.ndarray],
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns neighbours among ends of near lines that agree in tone, and those of regulated verse, lightly."""
    counts: Counter[tuple[int, int]] = Counter()
    for line_ends in ends:
        for apart in (1, 2):
            for one, other in zip(line_ends, line_ends[apart:], strict=False):
                if one != other and is_level[one] == is_level[other]:
                    counts[one, other] += 1
                    counts[other, one] += 1
    for one, other, weight in zip(*(array.tolist() for array in shi), strict=True):
        counts[one, other] += min(weight, 3)
    keys = np.array(list(counts), np.int64).reshape(-1, 2)
    return keys[:, 0], keys[:, 1], np.array(list(counts.values()), float)


def _tones(share: float) -> tuple[str, ...]:
    if share > _SURE:
        return (LEVEL,)
    return (OBLIQUE,) if share < 1 - _SURE else (LEVEL, OBLIQUE)


def _groups(shares: np.ndarray, count: float, names: Sequence[str]) -> list[str]:
    """Returns the sure group, the likely ones where none is sure, `-` where nothing is known."""
    order = np.argsort(-shares, kind="stable")
    if count < 5:
        return ["-"]
    if shares[order[0]] > _SHARE:
        return [names[order[0]]]
    return [names[group] for group in order[:3] if shares[group] > 0.15] or ["-"]

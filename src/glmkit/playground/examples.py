"""What can be clicked on to try each tab: real sentences, in both languages, those of the page's own first."""

from __future__ import annotations

FILL = {
    "zh": (
        "这座城市位于[MASK]省，人口约[MASK]万。",
        "白日依山尽，黄河入海[MASK]。",
        "长城是中国古代的[MASK]建筑，每年有很多[MASK]前来参观。",
        "他推开窗户，[sMASK]然后微笑着说：“早上好！”",
    ),
    "en": (
        "The river flows into the [MASK] near the [MASK] of the city.",
        "She was born in [MASK] and studied [MASK] at the university.",
        "It was late. [sMASK] Then the lights went out.",
    ),
}
POEM = {
    "zh": (
        ("春江花月夜", "七言绝句", "", "", ""),
        ("", "五言绝句", "春夏秋冬", "", ""),
        ("秋思", "七言绝句", "", "", "西风 明月"),
        ("登高", "五言律诗", "", "", ""),
    ),
}
ARTICLE = {
    "zh": (
        ("人工智能与教育", ""),
        ("我的家乡", "春天\n夏天\n秋天"),
        ("图书馆是城市的一盏灯。", ""),
    ),
    "en": (("The history of the railway", ""), ("A small town by the sea", "Morning\nEvening")),
}
CHAT = {
    "zh": ("你好，今天过得怎么样？", "周末有什么好玩的地方？", "我最近总是睡不好。"),
    "en": ("Hello, how are you today?", "What do you like to read?"),
}
SENTIMENT = {
    "zh": ("房间很干净，服务也热情，下次还会再来。", "等了一个小时，菜是凉的，再也不来了。"),
    "en": (
        "A warm, funny film with a wonderful cast.",
        "Boring from the first minute to the last.",
    ),
}
TOPICS = {
    "zh": (
        ("主队加时险胜，球迷彻夜狂欢", ""),
        ("今年高考作文题公布", ""),
        ("新款手机搭载自研芯片", "科技,体育,财经"),
    ),
    "en": (("The striker scored twice in the final", "sports,finance,science"),),
}
SUMMARY = {
    "zh": (
        "市气象台今天下午发布暴雨蓝色预警，预计今晚到明天白天，全市大部分地区有中到大雨，局地暴雨，山区需防范山洪等次生灾害。"
        "交通部门提醒市民减少外出，地铁将根据客流延长运营时间。",
    ),
    "en": (
        "The city council voted on Tuesday to close the old bridge for repairs. Engineers had found cracks in two of its pillars. "
        "Buses will take another way until the spring, and the work is expected to cost four million.",
    ),
}
ANSWER = {
    "zh": (
        ("长城是中国古代的伟大建筑，总长度超过两万千米，东起山海关，西至嘉峪关。", "长城有多长？"),
        ("李白是唐代诗人，公元701年出生，被后人称为“诗仙”。", "李白被称为什么？"),
    ),
    "en": (
        (
            "The bridge was opened in 1932 and crosses the harbour. It was designed by a British firm and built by local workers.",
            "When was the bridge opened?",
        ),
    ),
}
EXPLAIN = {
    "zh": (("白日依山尽，黄河入海[MASK]。", "blanks"), ("等了一个小时，菜是凉的，再也不来了。", "sentiment")),
    "en": (("She was born in [MASK] and studied law.", "blanks"), ("A warm, funny film with a wonderful cast.", "sentiment")),
}  # fmt: skip
COMPARE = {
    "zh": ("春天来了，", "床前[MASK]光，疑是地上霜。"),
    "en": ("The city is known for", "It was a dark night and"),
}


def both(examples: dict[str, tuple], code: str) -> list:
    """Returns examples of both languages, those of `code` first; each is a list of inputs."""
    other = "en" if code == "zh" else "zh"
    some = [*examples.get(code, ()), *examples.get(other, ())]
    return [list(one) if isinstance(one, tuple) else [one] for one in some]

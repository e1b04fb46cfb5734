"""A few records of each benchmark, written by hand in the format in which it is published."""

from __future__ import annotations

import json
from typing import Any

PASSAGE = "Ann met Bob in Paris. Bob had lived there for ten years, and Ann stayed with him."


def span(text: str, part: str, last: int = 1) -> dict[str, Any]:
    """Returns a mention as ReCoRD has it, whose end is inclusive."""
    start = text.index(part)
    return {"text": part, "start": start, "end": start + len(part) - last}


def squad(context: str, *asked: tuple[str, list[str]]) -> dict[str, Any]:
    """Returns a whole file of SQuAD 1.1 or CMRC 2018."""
    qas = [
        {
            "id": f"q{number}",
            "question": question,
            "answers": [{"text": one, "answer_start": context.index(one)} for one in answers],
        }
        for number, (question, answers) in enumerate(asked)
    ]
    paragraph = {"context": context, "qas": qas}
    return {"version": "1.1", "data": [{"title": "A", "paragraphs": [paragraph]}]}


RIVER = "长江全长约6300公里，流入东海。黄河全长约5464公里，流入渤海。"
SUMMARIES = [
    ("The council closed the old bridge on Monday after cracks were found.", "Old bridge closed"),
    ("A farmer found a bell in his field and gave it to the museum.", "Bell found in a field"),
]
IDIOMS = ["画蛇添足", "守株待兔", "亡羊补牢", "杯弓蛇影"]

RECORDS: dict[str, list[dict[str, Any]]] = {
    "superglue/boolq": [
        {"question": "is the bridge old", "passage": "The bridge is 300 years old.", "idx": 0, "label": True},
        {"question": "is the bridge closed", "passage": "The bridge is open to all.", "idx": 1, "label": False},
    ],
    "superglue/cb": [
        {"premise": "I know that Ann sings.", "hypothesis": "Ann sings.", "label": "entailment", "idx": 0},
        {"premise": "I doubt that Ann sings.", "hypothesis": "Ann sings.", "label": "neutral", "idx": 1},
        {"premise": "I know that Ann is mute.", "hypothesis": "Ann sings.", "label": "contradiction", "idx": 2},
    ],
    "superglue/copa": [
        {"premise": "The glass fell.", "choice1": "It broke.", "choice2": "It sang.", "question": "effect", "idx": 0, "label": 0},
        {"premise": "The street was wet.", "choice1": "It was noon.", "choice2": "It rained.", "question": "cause", "idx": 1, "label": 1},
    ],
    "superglue/multirc": [
        {
            "idx": 7,
            "version": 1.1,
            "passage": {
                "text": PASSAGE,
                "questions": [
                    {"idx": 0, "question": "Who lived in Paris?", "answers": [
                        {"idx": 0, "text": "Bob", "label": 1},
                        {"idx": 1, "text": "Ann", "label": 0},
                    ]},
                    {"idx": 1, "question": "Where did they meet?", "answers": [
                        {"idx": 2, "text": "In Rome", "label": 0},
                        {"idx": 3, "text": "In Paris", "label": 1},
                    ]},
                ],
            },
        }
    ],
    "superglue/record": [
        {
            "source": "hand",
            "idx": 0,
            "passage": {"text": PASSAGE + "\n@highlight\nAnn stayed", "entities": [{k: v for k, v in span(PASSAGE, name).items() if k != "text"} for name in ("Ann", "Bob", "Paris")]},
            "qas": [
                {"idx": 0, "query": "In the spring @placeholder's guest left.", "answers": [span(PASSAGE, "Bob")]},
                {"idx": 1, "query": "Both @placeholder liked it.", "answers": [span(PASSAGE, "Ann"), span(PASSAGE, "Bob")]},
            ],
        }
    ],
    "superglue/rte": [
        {"premise": "The dog slept all day.", "hypothesis": "The dog slept.", "label": "entailment", "idx": 0},
        {"premise": "The dog slept all day.", "hypothesis": "The dog ran.", "label": "not_entailment", "idx": 1},
    ],
    "superglue/wic": [
        {"word": "bank", "sentence1": "He sat on the bank.", "sentence2": "The bank lent money.", "idx": 0, "label": False, "start1": 14, "start2": 4, "end1": 18, "end2": 8, "version": 1.1},
        {"word": "run", "sentence1": "They run fast.", "sentence2": "She will run home.", "idx": 1, "label": True, "start1": 5, "start2": 9, "end1": 8, "end2": 12, "version": 1.1},
    ],
    "superglue/wsc": [
        {"text": "Ann thanked Bea because she had helped.", "target": {"span1_index": 2, "span1_text": "Bea", "span2_index": 4, "span2_text": "she"}, "idx": 0, "label": True},
        {"text": "Ann thanked Bea because she had helped.", "target": {"span1_index": 0, "span1_text": "Ann", "span2_index": 4, "span2_text": "she"}, "idx": 1, "label": False},
    ],
    "superglue/wsc_nouns": [
        {"text": "Ann thanked Bea because she had helped.", "target": {"span1_index": 2, "span1_text": "Bea", "span2_index": 4, "span2_text": "she"}, "idx": 0, "label": True, "candidates": [{"text": "Ann"}, {"text": "bea"}]},
        {"text": "The cup broke the plate, as it was hard.", "target": {"span1_index": 0, "span1_text": "The cup", "span2_index": 6, "span2_text": "it"}, "idx": 1, "label": True, "candidates": ["the plate"]},
        {"text": "Ann thanked Bea because she had helped.", "target": {"span1_index": 0, "span1_text": "Ann", "span2_index": 4, "span2_text": "she"}, "idx": 2, "label": False, "candidates": [{"text": "Bea"}]},
    ],
    "clue/afqmc": [
        {"sentence1": "怎么还款", "sentence2": "还款的办法", "label": "1"},
        {"sentence1": "怎么还款", "sentence2": "怎么开户", "label": "0"},
    ],
    "clue/tnews": [
        {"label": "108", "label_desc": "news_edu", "sentence": "期末考试推迟一周", "keywords": "考试,学生"},
        {"label": "103", "label_desc": "news_sports", "sentence": "门将扑出两个点球", "keywords": ""},
    ],
    "clue/iflytek": [
        {"label": "46", "label_des": "视频", "sentence": "随时随地看高清电影和电视剧。"},
        {"label": "0", "label_des": "打车", "sentence": "一键叫车，司机马上来接你。"},
    ],
    "clue/cmnli": [
        {"sentence1": "他在北京工作。", "sentence2": "他有工作。", "label": "entailment"},
        {"sentence1": "他在北京工作。", "sentence2": "他不住在中国。", "label": "contradiction"},
        {"sentence1": "他在北京工作。", "sentence2": "他喜欢北京。", "label": "neutral"},
    ],
    "clue/ocnli": [
        {"level": "easy", "sentence1": "雨下了一天。", "sentence2": "今天没有下雨。", "label": "contradiction", "label0": "contradiction", "genre": "tv", "prem_id": "a", "id": 0},
        {"level": "hard", "sentence1": "雨下了一天。", "sentence2": "地是湿的。", "label": "-", "label0": "neutral", "genre": "tv", "prem_id": "a", "id": 1},
        {"level": "easy", "sentence1": "雨下了一天。", "sentence2": "下雨了。", "label": "entailment", "label0": "entailment", "genre": "tv", "prem_id": "a", "id": 2},
    ],
    "clue/cluewsc": [
        {"target": {"span2_index": 9, "span1_index": 0, "span1_text": "小明", "span2_text": "他"}, "idx": 0, "label": "true", "text": "小明没去上学，因为他病了。"},
        {"target": {"span2_index": 9, "span1_index": 4, "span1_text": "上学", "span2_text": "他"}, "idx": 1, "label": "false", "text": "小明没去上学，因为他病了。"},
    ],
    "clue/csl": [
        {"id": 1, "abst": "本文测量了河流的水质，并分析了污染的来源。", "keyword": ["河流", "水质", "污染"], "label": "1"},
        {"id": 2, "abst": "本文测量了河流的水质，并分析了污染的来源。", "keyword": ["河流", "小麦"], "label": "0"},
    ],
    "clue/c3": [
        {"id": "1-1", "context": ["男：你怎么来的？", "女：我坐火车来的。"], "question": "女的怎么来的？", "choice": ["坐火车", "坐飞机", "开车"], "answer": "坐火车"},
        {"context": ["小河边有一棵树。"], "questions": [
            {"question": "树在哪里？", "choice": ["山上", "河边"], "answer": "河边"},
            {"question": "有几棵树？", "choice": ["一棵", "两棵"], "answer": "一棵"},
        ]},
    ],
    "clue/chid": [
        {"content": ["这样做是#idiom000001#，不如不做。丢了再找，#idiom000002#。", "他在树下等，真是#idiom000003#。"], "candidates": IDIOMS, "answers": {"#idiom000001#": 0, "#idiom000002#": 2, "#idiom000003#": 1}},
        {"content": "他疑心太重，#idiom#。", "candidates": IDIOMS, "answers": {"text": ["杯弓蛇影"], "candidate_id": [3]}},
    ],
    "clue/cmrc": [
        squad(RIVER, ("长江流入哪里？", ["东海", "流入东海", "东海"]), ("黄河有多长？", ["约5464公里"])),
        {"id": "x", "context": RIVER, "question": "长江有多长？", "answers": {"text": ["约6300公里"], "answer_start": [4]}},
    ],
    "seq2seq/gigaword": [{"document": text, "summary": short} for text, short in SUMMARIES],
    "seq2seq/xsum": [{"document": text, "summary": short, "id": "1"} for text, short in SUMMARIES],
    "seq2seq/cnn_dm": [{"article": text, "highlights": short, "id": "1"} for text, short in SUMMARIES],
    "seq2seq/squad_questions": [
        squad(PASSAGE, ("Who met Bob?", ["Ann"]), ("Where did Ann stay?", ["in Paris", "Paris"])),
    ],
    **{
        name: [{"text": "Bob went to the door and opened the door"}, {"text": "Ann saw a dog , and Ann liked the dog"}]
        for name in ("lm/lambada", "lm/lambada_uni")
    },
    **{
        name: [{"text": " \n = Bridge = \n \n The well @-@ known bridge , built in 1 @,@ 700 ( or later ) , isn 't old . \n"}]
        for name in ("lm/wikitext", "lm/wikitext_uni")
    },
}  # fmt: skip
"""Task of the catalog -> records."""

QUESTIONS: dict[str, list[tuple[str, str]]] = {
    "superglue/boolq": [
        ("The bridge is 300 years old. Question: is the bridge old? Answer: [MASK].", "Yes"),
        ("The bridge is open to all. Question: is the bridge closed? Answer: [MASK].", "No"),
    ],
    "superglue/cb": [
        ('"Ann sings"? [MASK], "I know that Ann sings."', "Yes"),
        ('"Ann sings"? [MASK], "I doubt that Ann sings."', "Maybe"),
        ('"Ann sings"? [MASK], "I know that Ann is mute."', "No"),
    ],
    "superglue/copa": [
        ('"it broke" or "it sang"? The glass fell, so [MASK].', "it broke"),
        ('"it was noon" or "it rained"? The street was wet because [MASK].', "it rained"),
    ],
    "superglue/multirc": [
        (f"{PASSAGE} Question: Who lived in Paris? Is it Bob? [MASK].", "Yes"),
        (f"{PASSAGE} Question: Who lived in Paris? Is it Ann? [MASK].", "No"),
        (f"{PASSAGE} Question: Where did they meet? Is it In Rome? [MASK].", "No"),
        (f"{PASSAGE} Question: Where did they meet? Is it In Paris? [MASK].", "Yes"),
    ],
    "superglue/record": [
        (f"{PASSAGE}\n- Ann stayed In the spring [MASK]'s guest left.", "Bob"),
        (f"{PASSAGE}\n- Ann stayed Both [MASK] liked it.", "Ann"),
    ],
    "superglue/rte": [
        ('"The dog slept"? [MASK], "The dog slept all day."', "Yes"),
        ('"The dog ran"? [MASK], "The dog slept all day."', "No"),
    ],
    "superglue/wic": [
        ('"He sat on the bank." / "The bank lent money." Similar sense of "bank"? [MASK].', "No"),
        ('"They run fast." / "She will run home." Similar sense of "run"? [MASK].', "Yes"),
    ],
    "superglue/wsc": [
        ("Ann thanked Bea because *she* had helped. Does the pronoun '*she*' refer to Bea? [MASK].", "Yes"),
        ("Ann thanked Bea because *she* had helped. Does the pronoun '*she*' refer to Ann? [MASK].", "No"),
    ],
    "superglue/wsc_nouns": [
        ("Ann thanked Bea because *she* had helped. The pronoun '*she*' refers to [MASK].", "Bea"),
        ("The cup broke the plate, as *it* was hard. The pronoun '*it*' refers to [MASK].", "The cup"),
    ],
    "clue/afqmc": [
        ("怎么还款？你是说还款的办法？[MASK]。", "是"),
        ("怎么还款？你是说怎么开户？[MASK]。", "不是"),
    ],
    "clue/tnews": [
        ("标题：期末考试推迟一周关键词：考试,学生类别：[MASK]", "教育"),
        ("标题：门将扑出两个点球关键词：类别：[MASK]", "体育"),
    ],
    "clue/iflytek": [
        ("随时随地看高清电影和电视剧。\n这是一款[MASK]类的应用。", "视频"),
        ("一键叫车，司机马上来接你。\n这是一款[MASK]类的应用。", "打车"),
    ],
    "clue/cmnli": [
        ("“他有工作”？[MASK]，“他在北京工作。”", "是的"),
        ("“他不住在中国”？[MASK]，“他在北京工作。”", "不是"),
        ("“他喜欢北京”？[MASK]，“他在北京工作。”", "也许"),
    ],
    "clue/ocnli": [
        ("“今天没有下雨”？[MASK]，“雨下了一天。”", "不是"),
        ("“下雨了”？[MASK]，“雨下了一天。”", "是的"),
    ],
    "clue/cluewsc": [
        ("#小明#没去上学，因为*他*病了。代词“*他*”[MASK]指“#小明#”。", "是"),
        ("小明没去#上学#，因为*他*病了。代词“*他*”[MASK]指“#上学#”。", "不是"),
    ],
    "clue/csl": [
        ("本文测量了河流的水质，并分析了污染的来源。\n“河流、水质、污染”[MASK]这段摘要的关键词。", "是"),
        ("本文测量了河流的水质，并分析了污染的来源。\n“河流、小麦”[MASK]这段摘要的关键词。", "不是"),
    ],
    "clue/c3": [
        ("男：你怎么来的？\n女：我坐火车来的。\n问：女的怎么来的？\n答：[MASK]", "坐火车"),
        ("小河边有一棵树。\n问：树在哪里？\n答：[MASK]", "河边"),
        ("小河边有一棵树。\n问：有几棵树？\n答：[MASK]", "一棵"),
    ],
    "clue/chid": [
        ("这样做是[MASK]，不如不做。丢了再找，____。", "画蛇添足"),
        ("这样做是____，不如不做。丢了再找，[MASK]。", "亡羊补牢"),
        ("他在树下等，真是[MASK]。", "守株待兔"),
        ("他疑心太重，[MASK]。", "杯弓蛇影"),
    ],
    "clue/cmrc": [
        (f"{RIVER}\n请问，长江流入哪里？[MASK]。", "东海"),
        (f"{RIVER}\n请问，黄河有多长？[MASK]。", "约5464公里"),
        (f"{RIVER}\n请问，长江有多长？[MASK]。", "约6300公里"),
    ],
    **{
        name: [(f"[sMASK] Content: {text}", short) for text, short in SUMMARIES]
        for name in ("seq2seq/gigaword", "seq2seq/xsum", "seq2seq/cnn_dm")
    },
    "seq2seq/squad_questions": [
        (f"{PASSAGE} Question: [sMASK] Answer: Ann", "Who met Bob?"),
        (f"{PASSAGE} Question: [sMASK] Answer: in Paris", "Where did Ann stay?"),
    ],
    **{
        name: [
            ("Bob went to the door and opened the [gMASK]", "door"),
            ("Ann saw a dog , and Ann liked the [gMASK]", "dog"),
        ]
        for name in ("lm/lambada", "lm/lambada_uni")
    },
    **{
        name: [("[gMASK]", "= Bridge =\n\nThe well-known bridge, built in 1,700 (or later), isn't old.")]
        for name in ("lm/wikitext", "lm/wikitext_uni")
    },
}  # fmt: skip
"""Task -> its questions by the first pattern, with their answers."""

OTHERS = {"Bob": "Tom", "Ann": "Eve", "bridge": "castle", "sings": "hums", "The glass": "A glass", "The street": "A street", "dog": "cat",
    "bank": "line", "run": "jog", "cup": "pan", "door": "gate", "farmer": "driver", "款": "钱", "一周": "两周", "点球": "任意球", "随时": "随心",
    "一键": "随手", "北京": "上海", "雨": "雪", "小明": "小红", "河流": "湖泊", "火车": "汽车", "小河": "大河", "这样": "那样", "疑心": "心事",
    "树下": "路边", "约": "近"}  # fmt: skip


def other(records: list[dict]) -> list[dict]:
    """Returns records that are not the same but like them, and as long where places are published."""
    text = json.dumps(records, ensure_ascii=False)
    for old, new in OTHERS.items():
        text = text.replace(old, new)
    return json.loads(text)

"""The words of questions and answers in Chinese and English, and the questions' wordings.

A form is a way to ask for a kind of fact: `colour.shape` asks for the colour of what the shape names. Where
several wordings are given, they mean the same. A place in braces takes a word; `{shapes}` takes its plural.
"""

from __future__ import annotations

LANGUAGES = ("zh", "en")

WORDS = {
    "zh": {
        "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色",
        "blue": "蓝色", "purple": "紫色", "white": "白色", "black": "黑色",
        "pink": "粉色", "brown": "棕色", "cyan": "青色",
        "circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形", "ring": "环形", "cross": "十字",
        "big": "大", "small": "小",
        "left": "左", "right": "右", "above": "上", "below": "下", "up": "上", "down": "下",
        "yes": "有", "no": "没有",
        "1": "一", "2": "两", "3": "三", "4": "四",
        "low": "低音", "middle": "中音", "high": "高音",
        "sine": "正弦波", "square wave": "方波", "saw": "锯齿波", "noise": "噪声", "bell": "铃声",
        "rising": "上升", "falling": "下降", "flat": "不变", "fast": "快", "medium": "中等", "slow": "慢",
        "still": "不动", "back and forth": "来回",
        "Chinese": "中文", "English": "英文",
        **{f"digit {i}": word for i, word in enumerate("零一二三四五六七八九")},
    },
    "en": {
        "square wave": "square", "1": "one", "2": "two", "3": "three", "4": "four",
        **{f"digit {i}": word for i, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])},
    },
}  # fmt: skip
"""Words by their key; a word that English lacks here is its key."""

WAYS = {"up": "向上", "down": "向下", "left": "向左", "right": "向右", "still": "不动", "back and forth": "来回"}  # fmt: skip

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    # pictures
    "colour.shape": {
        "zh": ("{shape}是什么颜色？", "{shape}的颜色是？", "{shape}什么颜色？"),
        "en": ("What colour is the {shape}?", "Which colour is the {shape}?", "Name the colour of the {shape}."),
    },
    "colour.only": {
        "zh": ("它是什么颜色？", "这个图形什么颜色？"),
        "en": ("What colour is it?", "What colour is the shape?"),
    },
    "shape.colour": {
        "zh": ("{colour}的是什么形状？", "{colour}图形是什么？", "什么形状是{colour}的？"),
        "en": ("What shape is {colour}?", "What is the {colour} shape?", "Which shape is {colour}?"),
    },
    "shape.only": {
        "zh": ("它是什么形状？", "这是什么图形？"),
        "en": ("What shape is it?", "Which shape is this?"),
    },
    "size.shape": {
        "zh": ("{shape}是大还是小？", "{shape}的大小？"),
        "en": ("Is the {shape} big or small?", "What size is the {shape}?"),
    },
    "size.colour": {
        "zh": ("{colour}的是大还是小？", "{colour}图形大还是小？"),
        "en": ("Is the {colour} shape big or small?", "What size is the {colour} shape?"),
    },
    "size.only": {
        "zh": ("它是大还是小？", "这个图形大还是小？"),
        "en": ("Is it big or small?", "What size is it?"),
    },
    "count.all": {
        "zh": ("有几个图形？", "图里有几个图形？", "一共几个图形？"),
        "en": ("How many shapes are there?", "How many shapes?", "Count the shapes."),
    },
    "count.shape": {
        "zh": ("有几个{shape}？", "{shape}有几个？"),
        "en": ("How many {shapes} are there?", "How many {shapes}?"),
    },
    "count.colour": {
        "zh": ("有几个{colour}的？", "{colour}图形有几个？"),
        "en": ("How many {colour} shapes are there?", "How many are {colour}?"),
    },
    "relation.shape": {
        "zh": ("{shape}在{other}的哪边？", "相对{other}，{shape}在哪边？"),
        "en": ("Where is the {shape} relative to the {other}?", "From the {other}, where is the {shape}?"),
    },
    "relation.colour": {
        "zh": ("{colour}的在{other}的哪边？", "相对{other}，{colour}在哪边？"),
        "en": ("Where is {colour} relative to {other}?", "From {other}, where is {colour}?"),
    },
    "exists.shape": {
        "zh": ("有{shape}吗？", "图里有没有{shape}？"),
        "en": ("Is there a {shape}?", "Any {shapes} here?"),
    },
    "exists.colour": {
        "zh": ("有{colour}的吗？", "图里有没有{colour}？"),
        "en": ("Is anything {colour}?", "Any {colour} shapes here?"),
    },
    "exists.both": {
        "zh": ("有{colour}的{shape}吗？", "有没有{colour}{shape}？"),
        "en": ("Is any {shape} {colour}?", "Any {colour} {shapes} here?"),
    },
    "caption.image": {
        "zh": ("描述这张图。", "图里有什么？"),
        "en": ("Describe the picture.", "What is in the picture?"),
    },
    # sounds
    "pitch": {
        "zh": ("音高是高、中还是低？", "音是高、中还是低？", "音有多高？"),
        "en": ("How high is the pitch?", "Is it low, middle or high?", "What pitch is it?"),
    },
    "timbre": {
        "zh": ("是什么音色？", "这是哪种波形？", "音色是？"),
        "en": ("What timbre is it?", "Which wave is it?", "What does it sound like?"),
    },
    "count.beeps": {
        "zh": ("响了几声？", "一共几声？", "有几声？"),
        "en": ("How many beeps?", "How many beeps are there?", "Count the beeps."),
    },
    "sequence": {
        "zh": ("音高怎么变？", "上升、下降还是不变？", "音调怎么走？"),
        "en": ("How does the pitch move?", "Rising, falling or flat?", "Where does the pitch go?"),
    },
    "tempo": {
        "zh": ("节奏是快、中等还是慢？", "响得多快？", "节奏怎么样？"),
        "en": ("Is it fast, medium or slow?", "What is the tempo?", "How fast are the beeps?"),
    },
    "digit": {
        "zh": ("说的是几？", "读的是哪个数字？", "听到的是几？"),
        "en": ("Which digit is spoken?", "What number is said?", "Which number do you hear?"),
    },
    "language": {
        "zh": ("说的是中文还是英文？", "是什么语言？"),
        "en": ("Which language is it?", "Is it Chinese or English?"),
    },
    "caption.audio": {
        "zh": ("描述这段声音。", "听到了什么？"),
        "en": ("Describe the sound.", "What do you hear?"),
    },
    # clips; colour.* and shape.* are those of pictures
    "direction.shape": {
        "zh": ("{shape}往哪边动？", "{shape}怎么移动？", "{shape}朝哪边走？"),
        "en": ("Which way does the {shape} move?", "Where does the {shape} go?", "How does the {shape} move?"),
    },
    "direction.colour": {
        "zh": ("{colour}的往哪边动？", "{colour}图形怎么移动？"),
        "en": ("Which way does the {colour} one move?", "Where does the {colour} shape go?"),
    },
    "direction.only": {
        "zh": ("它往哪边动？", "它怎么移动？"),
        "en": ("Which way does it move?", "Where does it go?"),
    },
    "speed.shape": {
        "zh": ("{shape}动得快还是慢？", "{shape}的速度？"),
        "en": ("Is the {shape} fast or slow?", "How fast is the {shape}?"),
    },
    "speed.colour": {
        "zh": ("{colour}的快还是慢？", "{colour}图形的速度？"),
        "en": ("Is the {colour} shape fast or slow?", "How fast is the {colour} shape?"),
    },
    "speed.only": {
        "zh": ("它动得快还是慢？", "它的速度？"),
        "en": ("Is it fast or slow?", "How fast is it?"),
    },
    "caption.video": {
        "zh": ("描述这段视频。", "视频里有什么？"),
        "en": ("Describe the video.", "What happens in the video?"),
    },
}  # fmt: skip


def word(key: str, language: str) -> str:
    return WORDS[language].get(key, key)


def timbre_key(timbre: str) -> str:
    """Returns the key of a timbre's word: a square is a shape, too."""
    return "square wave" if timbre == "square" else timbre


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def ask(template: str, slots: dict[str, str], language: str) -> str:
    """Returns a wording with its words; `slots` has keys of words."""
    words = {name: word(key, language) for name, key in slots.items()}
    if "shape" in words:
        words["shapes"] = plural(words["shape"])
    return template.format(**words)


def count(number: int, measure: str, language: str) -> str:
    """Returns a number as a word, in Chinese with its measure word."""
    text = word(str(number), language)
    return text + measure if language == "zh" else text


def listing(phrases: list[str], language: str) -> str:
    """Returns phrases as a list in a sentence."""
    if len(phrases) == 1:
        return phrases[0]
    commas, last = ("、", "和") if language == "zh" else (", ", " and ")
    return commas.join(phrases[:-1]) + last + phrases[-1]

"""What went wrong, as a person reads it in the page's language.

In: any exception. Out: a message. The library's messages are English; those that the page's fields can cause have their Chinese here,
beside the pattern by which they are known. Any other mistake of the user keeps its English words under a Chinese heading, and of an
error of the server's own nothing is told but its number, as in the API.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from glmkit.playground.words import Speaker
from glmkit.serving.failures import Failure, failure_of

CHINESE: tuple[tuple[str, str], ...] = (
    (r"the text has (\d+) tokens, the model reads (\d+); shorten it", "文本有 {0} 个词元，模型最多读 {1} 个；请缩短文本。"),
    (r"max_tokens=(\d+) is more than the (\d+) ", "max_tokens={0} 超过了上限 {1}；请减小。"),
    (r"the texts have (\d+) characters together; at most (\d+)", "文本共 {0} 个字符，上限为 {1}；请缩短。"),
    (r"a completion fills one blank, but the prompt has several", "这里只能有一个空白；多个空白请用“填空”。"),
    (r"n=\d+ searches for the likeliest texts .* combined with (.+)$", "查看最可能的填法时不能使用 {0}；请先清空。"),
    (r"acrostic='(.+)' must be (.+) Chinese characters, one for each line or verse of a (.+)$", "藏头“{0}”的字数不对：{2}需要 {1} 个汉字。"),
    (r"first_line='(.+)' has (\d+) Chinese characters; whole verses of a (.+) have (.+)$", "首句“{0}”有 {1} 个汉字；{2}的整句字数为 {3}。"),
    (r"first_line has '(.)' where the acrostic has '(.)'", "首句此处为“{0}”，与藏头的“{1}”不一致。"),
    (r"'(.+)' does not fit the tones of a (.+), whose verses", "“{0}”不合{1}的平仄；请改字，或换一套声韵。"),
    (r"this model's vocabulary has (\d+) single Chinese characters", "此模型的词表只有 {0} 个单字，不足以作诗；请用中文词表的模型，例如 glm-mini。"),
    (r"labels=.* must be at least two strings, different and not empty", "标签至少要有两个，且互不相同、不为空。"),
    (r"give an outline, or a text with blanks, but not both", "提纲与带空白的文本不能同时给出。"),
    (r"the system message has (\d+) characters", "系统消息有 {0} 个字符，没有给对话留下空间；请缩短。"),
    (r"Length: minimum=(\d+) .* maximum=(\d+)", "最少字数 {0} 与最多字数 {1} 矛盾。"),
    (r"regex='(?s:(.+))' cannot be used", "正则表达式“{0}”无法使用；请用 Rust regex 的语法（没有环视与反向引用）。"),
    (r"question \d+: it has (\d+) tokens as the model is asked", "问题有 {0} 个词元，没有给材料留下空间；请缩短问题。"),
    (r"latency '(.+)': write", "时限“{0}”看不懂；请写 200ms、1.5s 之类。"),
    (r"gpu '(.+?)': ", "设备“{0}”无法识别；请写 1x24GB、2x RTX 3090、cpu 或 cpu:16GB。"),
    (r"has more than (\d+) images, sounds and clips", "图片、声音与视频合计最多 {0} 个；请减少文件，或清空对话。"),
    (r"images, sounds and clips of the request have more than ([\d,]+) bytes", "图片、声音与视频合计超过 {0} 字节；请缩小或截短。"),
    (r"the text with its media has (\d+) tokens.* reads (\d+)", "文本连同图片、声音与视频有 {0} 个词元，模型最多读 {1} 个；请缩短文本或减少文件。"),
    (r"the last message has (\d+) tokens with its media; the model reads (\d+)", "这句话连同图片、声音与视频有 {0} 个词元，模型在此最多读 {1} 个；请缩短文本或减少文件。"),
    (r"names other media than were given", "文本中的 <|image|>、<|audio|>、<|video|> 与所给文件不符；请在每个文件的位置各写一个标记，或一个也不写。"),
    (r"is no image that is read here", "这不是能读取的图片，或开头已损坏；请转换为 PNG 或 JPEG。"),
    (r"pixels", "图片的像素太多或为零；请换一张小些的。"),
    (r"s long; a sound of at least|is longer than (\d+) minutes|has [\d,]+ frames", "声音或视频太短或太长；请截取一段。"),
    (r"cannot be decoded|is damaged|shows nothing|it has no \w+ stream|does not decode here", "文件无法解码、已损坏，或不含所需的声音、画面；请重新保存，或转换为 PNG、WAV、MP4。"),
    (r"needs the package '(.+)', which is not installed. Install it with: (.+)$", "此功能需要软件包 {0}，服务器尚未安装。安装命令：{1}"),
)  # fmt: skip
"""Pattern of a message -> its Chinese, in which {0} is the pattern's first group."""

_LIMITS = {
    "greater_than_equal": ("too_low", "ge"),
    "less_than_equal": ("too_high", "le"),
    "greater_than": ("above", "gt"),
}


class Mistake(Exception):
    """A mistake that the page itself has found; its message is in the page's language."""


def message_of(error: Exception, say: Speaker, request_id: str) -> tuple[str, str]:
    """Returns what to say of an error, and perhaps details in English."""
    if isinstance(error, Mistake):
        return str(error), ""
    if isinstance(error, ValidationError):
        return _of_field(error, say), ""
    failure = failure_of(error, request_id)
    if failure.code in ("queue_full", "deadline_exceeded", "closing", "internal_error"):
        seconds = failure.headers.get("Retry-After", "1")
        return say(failure.code, seconds=seconds, id=request_id), ""
    return _translated(failure, say)


def _translated(failure: Failure, say: Speaker) -> tuple[str, str]:
    if not say.chinese:
        return failure.message, ""
    for pattern, chinese in CHINESE:
        if found := re.search(pattern, failure.message):
            return chinese.format(*found.groups()), ""
    return say("unknown"), failure.message


def _of_field(error: ValidationError, say: Speaker) -> str:
    """Returns what is wrong with the first wrong field of a request."""
    first = error.errors()[0]
    field, value = str(first["loc"][0]), first["input"]
    if first["type"] in _LIMITS:
        key, name = _LIMITS[first["type"]]
        return say(key, field=field, value=value, limit=f"{first['ctx'][name]:g}")
    if first["type"].startswith(("int_", "float_")):
        return say("whole" if first["type"].startswith("int") else "number", field=field, value=value)  # fmt: skip
    return say("field_wrong", field=field, reason=first["msg"])

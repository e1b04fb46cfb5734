"""One option for each decoding setting, for the verbs that write."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import typer

from glmkit.cli.language import say
from glmkit.generation.settings import DecodingSettings

CHINESE = {
    "max_new_tokens": "每个空白最多写多少词元。",
    "min_new_tokens": "每个空白最少写多少词元。",
    "do_sample": "采样，而不是取最可能的词元。",
    "temperature": "采样温度，logits 除以它。",
    "top_k": "只从最可能的 k 个词元中采样（0 为不限）。",
    "top_p": "只从累计概率达到此值的最可能词元中采样。",
    "num_beams": "束宽；大于 1 时逐个空白做束搜索。",
    "num_return_sequences": "每个空白给出几种备选（至多为束宽；不能采样）。",
    "length_penalty": "束搜索得分除以长度的几次方。",
    "repetition_penalty": "大于 1 时，空白中已有的词元不易再出现。",
    "no_repeat_ngram_size": "空白中不重复这么长的 n 元组（0 为关闭）。",
    "stop": "停止串：空白在它之前结束，不包含它。",
    "guidance_scale": "远离反向提示的力度（1 为不引导，不给则为 1.5）。",
    "prompt_lookup_num_tokens": "每步从原文猜测并一并检验的词元数（0 为关闭，只用于贪心）。",
    "seed": "每条文本的随机种子；不给则随机。",
}
"""Help in Chinese; in English it is the docstring of `DecodingSettings`."""


def with_decoding_settings(
    body: Callable[..., None], defaults: Mapping[str, Any] = MappingProxyType({})
) -> Callable[..., None]:
    """Gives a verb one option for each field of `DecodingSettings`, passed to it as `settings`.

    Args:
        body: The verb.
        defaults: Defaults of its own.
    """
    documentation = dict(
        re.findall(r"^ {4}(\w+): (.+?)$", inspect.getdoc(DecodingSettings) or "", re.MULTILINE)
    )
    hints = get_type_hints(DecodingSettings) | {"stop": list[str]}
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(field.name, [] if field.name == "stop" else field.default),
            annotation=Annotated[
                hints[field.name],
                typer.Option(help=say(documentation[field.name], CHINESE[field.name])),
            ],
        )
        for field in fields(DecodingSettings)
    ]

    @functools.wraps(body)
    def verb(**arguments: Any) -> None:
        chosen = {option.name: arguments.pop(option.name) for option in options}
        # A shell passes a line's end as two characters.
        chosen["stop"] = tuple(one.replace("\\n", "\n") for one in chosen["stop"])
        if not chosen[
            "do_sample"
        ]:  # the verb's own settings of drawing do not apply; the user's are a mistake
            for name in {"temperature", "top_k", "top_p"} & set(defaults):
                if chosen[name] == defaults[name]:
                    chosen[name] = getattr(DecodingSettings, name)
        body(settings=DecodingSettings(**chosen), **arguments)

    signature = inspect.signature(body, eval_str=True)
    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "settings"
    ]
    verb.__signature__ = signature.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *options]}
    return verb

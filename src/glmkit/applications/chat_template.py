"""The dialogue task as a Jinja chat template, so that `tokenizer.apply_chat_template` and what calls it work.

In: the task. Out: a template that renders messages to the text whose ids are those of `dialogue.conversation_prompt`.
Unlike that function it cannot shorten a conversation, nor say which message is wrong in glmkit's words.
"""

from __future__ import annotations

import json
from typing import Any

from glmkit.special_tokens import GMASK, MASK, SMASK
from glmkit.tasks.rendering import CHINESE_SHARE
from glmkit.tasks.task import Task

_TEMPLATE = """\
{%- macro line(text) -%}
{{ (text.splitlines() | join(' ') | trim)MASKS }}
{%- endmacro -%}
{%- set count = namespace(letters=0, chinese=0, said='') -%}
{%- for message in messages if message.role != 'system' -%}
{%- set count.said = count.said + line(message.content) + '\\n' -%}
{%- endfor -%}
{%- for letter in count.said[:2000] if letter.isalpha() -%}
{%- set count.letters = count.letters + 1 -%}
{%- if '\\u4e00' <= letter <= '\\u9fff' -%}
{%- set count.chinese = count.chinese + 1 -%}
{%- endif -%}
{%- endfor -%}
{%- set shares = SHARE * ([1, count.letters] | max) -%}
{%- set speakers = CHINESE if count.chinese >= shares else ENGLISH -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ speakers[0] }}
{%- elif message.role == 'assistant' -%}
{{ speakers[1] }}
{%- elif not (message.role == 'system' and loop.first) -%}
{{ raise_exception('a conversation has the roles user and assistant, and system first; not ' + message.role) }}
{%- endif -%}
{{ line(message.content) }}
{%- if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ (speakers[1] | trim) + 'BLANK' }}
{%- endif -%}
"""


def chat_template(task: Task) -> str:
    """Returns the template of a dialogue task (its first Chinese pattern's blank, its speakers)."""
    assert task.turns is not None
    masks = "".join(
        f" | replace({mask!r}, {mask.replace('[', '[ ')!r})" for mask in (MASK, SMASK, GMASK)
    )
    blank = next(mask for mask in (MASK, SMASK, GMASK) if mask in task.patterns["zh"][0])
    values: dict[str, Any] = {
        "MASKS": masks,
        "SHARE": CHINESE_SHARE,
        "CHINESE": json.dumps(task.turns.speakers["zh"], ensure_ascii=False),
        "ENGLISH": json.dumps(task.turns.speakers["en"]),
        "BLANK": blank,
    }
    template = _TEMPLATE
    for name, value in values.items():
        template = template.replace(name, str(value))
    return template

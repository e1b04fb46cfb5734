"""Options of fill and generate that control what is written, and the arguments of `glm.fill` that they make.

In: the options of a command line. Out: one constraint for all blanks, or None, everything given being kept at once; what the text is led
away from, and which labels it shall have.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from glmkit.cli.language import say
from glmkit.errors import GenerationError

OPTIONS: tuple[tuple[str, Any, Any, str, str], ...] = (
    ("choices", list[str], [], "What a blank may be; once for each.", "空白只能是其中之一；每个给一次。"),
    ("regex", str | None, None, "Regular expression that all of a blank matches.", "整个空白须匹配的正则表达式。"),
    ("json_schema", Path | None, None, "File with a JSON schema that a blank obeys.", "空白须符合的 JSON Schema 文件。"),
    ("grammar", Path | None, None, "File with a grammar (Lark) of what a blank is.", "空白须符合的文法（Lark）文件。"),
    ("include", list[str], [], "Word that a blank holds; once for each.", "空白必须包含的词；每个给一次。"),
    ("exclude", list[str], [], "Word that no blank holds; once for each.", "空白不得包含的词；每个给一次。"),
    ("min_characters", int, 0, "Fewest characters of a blank.", "每个空白的最少字数。"),
    ("max_characters", int | None, None, "Most characters of a blank.", "每个空白的最多字数。"),
    ("min_lines", int, 0, "Fewest lines of a blank.", "每个空白的最少行数。"),
    ("max_lines", int | None, None, "Most lines of a blank.", "每个空白的最多行数。"),
)  # fmt: skip
"""Of constraints: name, type, default, help in English and Chinese."""

LEADING: tuple[tuple[str, Any, Any, str, str], ...] = (
    ("negative_prompt", str | None, None, "Text with as many blanks, from which what is written is led away; see --guidance-scale.", "反向提示：空白数相同的文本，生成内容会远离它；力度见 --guidance-scale。"),
    ("prefer", list[str], [], "TASK=LABEL that a text shall have, such as sentiment=positive: the best of several draws is kept.", "希望文本具有的 任务=标签，如 sentiment=positive：采样若干份，保留最符合的一份。"),
    ("candidates", int, 8, "How many texts are drawn with --prefer.", "使用 --prefer 时采样的份数。"),
)  # fmt: skip
"""The same of what leads a text without deciding it."""


def with_control(body: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options, passed to it as one `control` (name -> value)."""
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(help=say(english, chinese))],
        )
        for name, kind, default, english, chinese in (*OPTIONS, *LEADING)
    ]

    @functools.wraps(body)
    def verb(**arguments: Any) -> None:
        chosen = {option.name: arguments.pop(option.name) for option in options}
        body(control=chosen, **arguments)

    signature = inspect.signature(body)
    kept = [one for name, one in signature.parameters.items() if name != "control"]
    parameters = [*kept, *options]
    verb.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {one.name: one.annotation for one in parameters}
    return verb


def constraint_of(tokenizer: Any, control: dict[str, Any]) -> Any:
    """Returns the constraint that the options make, or None where none was given.

    Raises:
        GenerationError: An impossible constraint, or a file that cannot be read.
        MissingDependencyError: `--regex`, `--json-schema` or `--grammar` without `glmkit[control]`.
    """
    if all(control[name] == default for name, _, default, *_ in OPTIONS):
        return None
    from glmkit.generation.control import Control

    given = {name: control[name] for name, *_ in OPTIONS}
    for name in ("json_schema", "grammar"):
        if control[name] is not None:
            given[name] = _read(control[name])
    return Control(**given).constraint(tokenizer)


def leading_of(control: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `glm.fill` for one text that the other options make.

    Raises:
        GenerationError: `--prefer` without a label.
    """
    prefer: dict[str, str] = {}
    for one in control["prefer"]:
        task, _, label = one.rpartition("=")
        if not task or not label:
            raise GenerationError(
                f"--prefer {one}: a task and a label are needed, such as --prefer sentiment=positive"
            )
        prefer[task] = label
    found: dict[str, Any] = {"negative_prompt": control["negative_prompt"]}
    if prefer:
        found |= {"prefer": prefer, "candidates": control["candidates"], "do_sample": True}
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenerationError(
            f"{path} cannot be read: {error}; give a text file in UTF-8"
        ) from error

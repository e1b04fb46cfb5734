"""A record and a task -> the question with its blank, and the answer, as texts.

In: one record (a JSON object) and a `Task`. Out: a `Question`. Whatever does not fit says
which record, which pattern, and what to do. Knows no tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glmkit.errors import DataError, closest, nearest
from glmkit.multimodal.media import Medium, as_medium, in_order
from glmkit.special_tokens import GMASK, MASK, MEDIA_MARKERS, SMASK
from glmkit.tasks.hiding import hide
from glmkit.tasks.published import unfold
from glmkit.tasks.task import BLANK, MEDIA, PLACEHOLDER, Language, Task

CHINESE_SHARE = 0.2
"""Share of Chinese characters from which on a record is asked in Chinese."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        before: Text before the blank.
        mask: The blank: `[MASK]`, `[sMASK]` or `[gMASK]`.
        after: Text after the blank.
        answer: What fills the blank.
        language: Of the pattern.
        media: In the order of their places in the text; markers (`<|image|>` …) are plain text where there are none.
    """

    before: str
    mask: str
    after: str
    answer: str
    language: Language
    media: tuple[Medium, ...] = ()


def expand(
    task: Task, record: Mapping[str, Any], where: str, language: Language | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yields the records that each make one question: the record, those its view makes, or one for each reply.

    Raises:
        DataError: A record that is not in the view's format, or no turns where there should be.
    """
    for one in flat_records(task, record, where):
        if task.turns:
            yield from _turns(task, one, where, language)
        else:
            yield one


def flat_records(task: Task, record: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """Returns the records that the task's view makes of a published one; without a view the record itself.

    Raises:
        DataError: A record that is not in the view's format.
    """
    return [record] if task.view is None else [*unfold(task.view, record, where)]


def question(
    task: Task,
    record: Mapping[str, Any],
    where: str,
    *,
    pattern: int = 0,
    language: Language | None = None,
    seed: int = 0,
    answered: bool = True,
) -> Question:
    """Returns the question that a record makes; of a filling task with nothing to hide, one with an empty answer.

    Args:
        task: The task.
        record: A JSON object (see `expand`).
        where: `file:line`, for messages.
        pattern: Which of the patterns, taken modulo their number.
        language: Of the pattern; by default that of the record.
        seed: Of what a filling task hides.
        answered: Whether the record has an answer; without one the question's is empty.

    Raises:
        DataError: A field is missing, or a label is not among the task's.
    """
    asked_in = asked_language(task, record, language)
    patterns = task.patterns[asked_in]
    chosen = patterns[pattern % len(patterns)]
    if task.hide:
        return _filling(task, record, where, chosen, asked_in, seed)
    blank = BLANK.search(chosen)
    assert blank is not None
    answer = ""
    if answered and task.label is not None:
        answers = choices_of(task, record, where, asked_in)
        answer = answers[right_choice(task, record, answers, where, chosen)]
    elif answered:
        answer = _render(task, str(task.answer), record, where)
    record, media = _placed(task, chosen, record, where)
    return Question(
        before=_render(task, chosen[: blank.start()], record, where),
        mask=blank.group(),
        after=_render(task, chosen[blank.end() :], record, where),
        answer=answer,
        language=asked_in,
        media=media,
    )


def _placed(
    task: Task, pattern: str, record: Mapping[str, Any], where: str
) -> tuple[Mapping[str, Any], tuple[Medium, ...]]:
    """Returns a record with `media`, markers of what its texts do not place, and its media in the order of their places.

    Raises:
        DataError: The pattern has no place for them.
        MediaError: The texts name other media than the record has.
    """
    if not task.media:
        return record, ()
    given = media_of(task, record, where)
    text = _render(task, pattern, {**record, MEDIA: ""}, where)
    placed, media = in_order(text, given, where=where)
    front = "".join(MEDIA_MARKERS[one.kind] for one in media) if placed != text else ""
    if front and f"{{{MEDIA}}}" not in pattern:
        raise DataError(
            f"{where}: the pattern {pattern!r} has no {{{MEDIA}}}, where the record's media could stand"
        )
    return {**record, MEDIA: front}, tuple(media)


def media_of(task: Task, record: Mapping[str, Any], where: str) -> list[Medium]:
    """Returns the media of a record, in the order of the task's fields.

    Raises:
        MediaError: A field holds something else.
    """
    found = []
    for name, kind in task.media.items():
        value = record.get(name)
        some = value if isinstance(value, list) else [] if value is None or value == "" else [value]
        found += [as_medium(kind, one, where=where) for one in some]
    return found


def _filling(
    task: Task, record: Mapping[str, Any], where: str, pattern: str, language: Language, seed: int
) -> Question:
    """Hides something in the field of the record that `task.hide` names."""
    assert task.hide is not None
    field = f"{{{task.hide.field}}}"
    text = _render(task, field, record, where)
    start, end = hide(text, task.hide.unit, seed) or (len(text), len(text))
    before, after = (_render(task, part, record, where) for part in pattern.split(field))
    return Question(
        before=before + text[:start],
        mask=task.hide.mask,
        after=text[end:] + after,
        answer=text[start:end],
        language=language,
    )


def asked_language(
    task: Task, record: Mapping[str, Any], language: Language | None = None
) -> Language:
    """Returns the language of a record's patterns: as asked or as the record's; a task in one language asks in that one."""
    wanted = language_of(task, record) if language is None else language
    return next(name for name in (wanted, "zh", "en") if task.patterns.get(name))  # type: ignore[return-value]


def choices_of(task: Task, record: Mapping[str, Any], where: str, language: Language) -> list[str]:
    """Returns what may fill the blank: a classification's words in the order of its labels, or the record's choices.

    Raises:
        DataError: A choice's field is missing, or there are fewer than two choices.
    """
    if task.kind == "classification":
        return [words[language] for words in task.labels.values()]
    [pattern, *more] = task.choices
    name = PLACEHOLDER.fullmatch(pattern)
    value = _value(task, record, name[1], name[2], pattern, where) if name and not more else None
    if isinstance(value, list):
        choices = [_unblanked(text_of(one)).strip() for one in value]
    else:
        choices = [_render(task, one, record, where) for one in task.choices]
    if len(choices) < 2 or not all(choices):
        raise DataError(
            f"{where}: there must be at least two choices, none of them empty, for the task {task.name!r}\n"
            f"{_shown(record, pattern)}"
        )
    return choices


def right_choice(
    task: Task,
    record: Mapping[str, Any],
    choices: Sequence[str],
    where: str,
    pattern: str = "",
) -> int:
    """Returns the index of a record's right answer among its `choices`.

    Raises:
        DataError: There is no label, or none that says which.
    """
    labels = right_labels(_value(task, record, str(task.label), None, pattern, where))
    label = next((one for one in labels if one.strip() in choices), labels[0])
    if task.kind == "classification":
        if label in task.labels:
            return list(task.labels).index(label)
        raise DataError(
            f"{where}: the label {label!r} is not one of the task {task.name!r}, which has "
            f"{', '.join(task.labels)}{nearest(label, task.labels)}\n{_shown(record, pattern)}\nAdd it to the "
            "task's labels (in a YAML file of your own), or correct the record."
        )
    if label.strip() in choices:
        return choices.index(label.strip())
    number = int(label) - task.first_choice if re.fullmatch(r"\d+", label) else -1
    if 0 <= number < len(choices):
        return number
    last = task.first_choice + len(choices) - 1
    raise DataError(
        f"{where}: the label {label!r} says no choice: allowed are the numbers {task.first_choice} to {last} "
        f"(the task's first_choice is {task.first_choice}) and the choices' texts\n{_shown(record, pattern)}"
    )


def right_labels(value: Any) -> list[str]:
    """Returns a label field's value as texts: one, or of a list all that are right; truth values as "true" and "false"."""
    several = value if isinstance(value, list) and value else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in several]


def language_of(task: Task, record: Mapping[str, Any]) -> Language:
    """Returns "zh" where Chinese characters are `CHINESE_SHARE` of the letters or more, else "en"."""
    texts = [name for name in task.fields if name not in task.media]
    text = "".join(text_of(record.get(name))[:2000] for name in texts)
    chinese = len(_CHINESE.findall(text))
    return "zh" if chinese >= CHINESE_SHARE * max(1, sum(map(str.isalpha, text))) else "en"


_CHINESE = re.compile("[\u4e00-\u9fff]")


def text_of(value: Any) -> str:
    """Returns a field's value as a text: lists by lines, a turn by its content."""
    if isinstance(value, list):
        return "\n".join(map(text_of, value))
    if isinstance(value, Mapping):
        return text_of(value.get("content"))
    return "" if value is None else str(value)


def _turns(
    task: Task, record: Mapping[str, Any], where: str, language: Language | None
) -> Iterator[Mapping[str, Any]]:
    """Yields the record once for each reply, with `history` and `reply`."""
    assert task.turns is not None
    name = task.turns.field
    turns = _value(task, record, name, None, "", where)
    if not isinstance(turns, list):
        raise DataError(
            f"{where}: the field {name!r} must be a list of turns, it is a {type(turns).__name__}\n"
            f"{_shown(record, task.all_patterns()[0][1])}"
        )
    language = language_of(task, record) if language is None else language
    lines: list[str] = []
    for number, turn in enumerate(turns):
        speaker, said = speaker_of(task, language, number), text_of(turn).strip()
        if lines and said and (number % 2 or task.turns.learn == "all"):
            yield {**record, "history": "\n".join([*lines, speaker]), "reply": said}
        lines.append(speaker + said)


def speaker_of(task: Task, language: Language, number: int) -> str:
    """Returns what stands before turn `number` (counted from 0) of a conversation."""
    assert task.turns is not None
    speakers = task.turns.speakers.get(language) or [""]
    return speakers[number % len(speakers)]


def _render(task: Task, pattern: str, record: Mapping[str, Any], where: str) -> str:
    """Returns a pattern with its fields filled in; what looks like a blank in a field is no blank."""

    def fill(match: Any) -> str:
        value = _unblanked(text_of(_value(task, record, match[1], match[2], pattern, where)))
        return value if match[3] else value.strip()

    return PLACEHOLDER.sub(fill, pattern)


def kept_around(task: Task, record: Mapping[str, Any], answer: str, where: str) -> str:
    """Returns what must stay in the field that gives way: the answer, or what the task says."""
    around = task.shorten.around if task.shorten else ""
    return _render(task, around, record, where) if around else answer


def _unblanked(text: str) -> str:
    """Returns a text in which nothing looks like a blank."""
    return BLANK.sub(lambda found: _unmasked[found.group()], text)


_unmasked = {mask: mask.replace("[", "[ ") for mask in (MASK, SMASK, GMASK)}


def _value(
    task: Task,
    record: Mapping[str, Any],
    name: str,
    index: str | None,
    pattern: str,
    where: str,
) -> Any:
    if name not in record:
        raise missing_field(task, record, name, where, pattern)
    value = record[name]
    if index is None:
        return value
    if not isinstance(value, list) or len(value) <= int(index):
        raise DataError(
            f"{where}: {{{name}[{index}]}} needs a list of more than {index} in the field {name!r}\n"
            f"{_shown(record, pattern)}"
        )
    return value[int(index)]


def missing_field(
    task: Task, record: Mapping[str, Any], name: str, where: str, pattern: str = ""
) -> DataError:
    """Returns the error of a record without a field: which record, which pattern, what to do."""
    pattern = pattern or next((one for _, one in task.all_patterns()), f"{{{name}}}")
    likely = closest(name, record) or next(iter(record), "FIELD")
    return DataError(
        f"{where}: the record has no field {name!r}{nearest(name, record) or '.'} The task {task.name!r} needs it "
        f"({task.fields.get(name, name)}).\n{_shown(record, pattern)}\nSay which field it is, for example "
        f"rename={{{name!r}: {likely!r}}} (--rename {name}={likely}), or write a task of your own."
    )


def _shown(record: Mapping[str, Any], pattern: str) -> str:
    short = {
        name: value if len(text_of(value)) <= 60 else text_of(value)[:60] + "…"
        for name, value in record.items()
    }
    asked = f"\n  pattern: {pattern!r}" if pattern else ""
    return f"  record:  {json.dumps(short, ensure_ascii=False, default=str)}{asked}"

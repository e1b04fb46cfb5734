"""A task: what a record must have, how it is asked, what the answer is. One YAML file, shipped or the user's own.

In: a name of the catalog or a path. Out: a `Task`, checked. Knows no data and no tokenizer. The same file serves
multi-task pretraining, fine-tuning and evaluation.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from glmkit.config import load_config
from glmkit.errors import ConfigError, nearest
from glmkit.multimodal.media import Kind
from glmkit.special_tokens import GMASK, MASK, SMASK
from glmkit.tasks.hiding import Unit
from glmkit.tasks.published import VIEWS

Language = Literal["zh", "en"]

PLACEHOLDER = re.compile(r"\{(\w+)(?:\[(\d+)\])?(!)?\}")
"""`{field}` or `{field[0]}` in a pattern; `{field!}` keeps the spaces at the field's ends."""

BLANK = re.compile("|".join(map(re.escape, (MASK, SMASK, GMASK))))
"""How the blank may be written in a pattern."""

MADE_BY_TURNS = ("history", "reply")
"""Fields that `turns` makes."""

MEDIA = "media"
"""Field that a task with media has beside its own: the markers of the media that no other field places."""


@dataclass(frozen=True)
class Shorten:
    """Which field gives way where a record does not fit."""

    field: str
    """The field."""
    keep: Literal["start", "end", "answer"] = "start"
    """The part that stays: its start, its end, or what is around the answer (if the answer is in it)."""
    around: str = ""
    """With `keep: answer`, a pattern of what must stay where it is not the answer, such as `{answers[0]}`."""


@dataclass(frozen=True)
class Reading:
    """How a text is measured left to right."""

    context: Literal["bidirectional", "unidirectional"] = "bidirectional"
    """Whether what stands before the measured tokens is read in part A, or written in part B like them."""
    stride: int | None = None
    """Tokens that are measured at a time once a text is longer than the model reads; by default half of that."""


@dataclass(frozen=True)
class Turns:
    """A conversation becomes one sample for each reply, with what was said before; no later turn is seen."""

    field: str
    """The field with the turns: texts, or records with `content`."""
    speakers: dict[Language, list[str]] = dataclasses.field(default_factory=dict)
    """Put before the turns by turns, such as `["甲：", "乙："]`; the last one stands before the blank."""
    learn: Literal["all", "replies"] = "all"
    """Which turns are samples: all but the first, or every second one, what is replied to the first speaker."""


@dataclass(frozen=True)
class Hide:
    """A filling task: what is hidden in a record's text; see `glmkit.tasks.hiding.hide`."""

    field: str
    """The field in which something is hidden."""
    unit: Unit
    """What is hidden: a character, a word, a line."""
    mask: Literal["[MASK]", "[sMASK]", "[gMASK]"] = "[MASK]"
    """What stands in its place."""


@dataclass(frozen=True)
class Task:
    """One task; `load_task` reads it."""

    name: str
    """Name in logs and reports."""
    kind: Literal["classification", "multiple_choice", "generation", "filling", "text", "tagging"]
    """`classification`: the answer is one of `labels`; `multiple_choice`: one of the record's own `choices`; `generation`:
    a text of the record; `filling`: what `hide` hides in a text of the record; `text`: the text itself, measured as a
    whole; `tagging`: spans of the text have labels (names, words), told by a head that reads the text alone."""
    metric: str
    """What evaluation counts: accuracy, macro_f1, rouge, exact_match, bleu, perplexity, bits_per_character … (the guide to
    evaluation has all)."""
    fields: dict[str, str]
    """Field of a record -> what it holds."""
    patterns: dict[Language, list[str]] = dataclasses.field(default_factory=dict)
    """Language -> ways to ask, each a text with `{field}`s and one blank, `[MASK]`, `[sMASK]` or `[gMASK]`; of tagging none."""
    label: str | None = None
    """Classification: the field with the label; multiple choice: with the right choice, its number or its text; tagging: with
    the spans, `[start, end, label]` in characters, half-open."""
    labels: dict[str, dict[Language, str]] = dataclasses.field(default_factory=dict)
    """Classification: label in the data -> the word that fills the blank (the verbalizer), by language. Tagging: label -> what it
    is called."""
    choices: list[str] = dataclasses.field(default_factory=list)
    """Multiple choice: a pattern for each choice; or one, the name of a field with a list in braces (`{choices}`)."""
    first_choice: int = 0
    """Multiple choice: the number that the data give to the first choice."""
    answer: str | None = None
    """Generation and text: a pattern without a blank that makes the answer."""
    hide: Hide | None = None
    """Filling: what is hidden. The patterns have no blank of their own, and the field once."""
    shorten: Shorten | None = None
    """What to do with long records; without it they are left out."""
    turns: Turns | None = None
    """For conversations; makes the fields `history` and `reply`."""
    media: dict[str, Kind] = dataclasses.field(default_factory=dict)
    """Field of a record -> the kind of medium that it holds: a path (from the file's folder), bytes, or a list of them. A record
    needs not have all; `{media}` in a pattern is where those stand that no text places by `<|image|>`, `<|audio|>`, `<|video|>`."""
    view: str | None = None
    """Published format of the records (`tasks.published.VIEWS`), from which those with the fields above are made."""
    group: str | None = None
    """Classification: field whose equal values make one question, for `group_match`."""
    decoding: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Generation: decoding settings of evaluation, under transformers' names."""
    reading: Reading = dataclasses.field(default_factory=Reading)
    """Text, and generation measured by `greedy_match`: how the context is read."""
    split_by: str | None = None
    """Field whose equal values stay on one side when held-out records are set apart; by default the whole record."""
    max_length: int | None = None
    """Most tokens that are read of a question, as a model was fine-tuned; by default all that a model can read."""

    def __post_init__(self) -> None:
        """Checks everything that does not need data.

        Raises:
            ConfigError: Names all that is wrong.
        """
        known = {
            *self.fields,
            *(MADE_BY_TURNS if self.turns else ()),
            *((MEDIA,) if self.media else ()),
        }
        problems = [
            *self._wrong_patterns(known),
            *self._wrong_for_the_kind(),
            *self._wrong_fields(known),
        ]
        if self.view is not None and self.view not in VIEWS:
            problems.append(
                f"view: there is no {self.view!r}{nearest(self.view, VIEWS)} (there are {', '.join(VIEWS)})"
            )
        if self.reading.context == "unidirectional" and not all(
            pattern.endswith((MASK, SMASK, GMASK)) for _, pattern in self.all_patterns()
        ):
            problems.append("reading.context unidirectional: patterns must end with the blank")
        if problems:
            raise ConfigError(
                f"the task {self.name!r} cannot be used:\n- " + "\n- ".join(dict.fromkeys(problems))
            )

    def _wrong_patterns(self, known: set[str]) -> list[str]:
        """Returns what is wrong with patterns, and with the labels' words in their languages."""
        problems = []
        for language, pattern in self.all_patterns():
            if self.hide is None and len(BLANK.findall(pattern)) != 1:
                problems.append(
                    f"the pattern {pattern!r} must have one blank: {MASK}, {SMASK} or {GMASK}"
                )
            if self.hide is not None and (
                BLANK.search(pattern) or pattern.count(f"{{{self.hide.field}}}") != 1
            ):
                problems.append(
                    f"the pattern {pattern!r} must have {{{self.hide.field}}} once, in which something is hidden, "
                    "and no blank"
                )
            problems += [
                f"the pattern {pattern!r} uses the field {name!r}, which is not under fields{nearest(name, known)}"
                for name, *_ in PLACEHOLDER.findall(pattern)
                if name not in known
            ]
            problems += [
                f"the pattern {pattern!r} writes the field {name!r}, which holds a medium: it stands where {{{MEDIA}}} is"
                for name, *_ in PLACEHOLDER.findall(pattern)
                if name in self.media and name != MEDIA
            ]
            problems += [
                f"labels.{label}: there is no word in {language!r}"
                for label, words in self.labels.items()
                if not words.get(language)
            ]
        return problems

    def _wrong_for_the_kind(self) -> list[str]:
        """Returns what a task of this kind lacks, or has in spite of it."""
        problems = []
        if any(self.patterns.values()) == (self.kind == "tagging"):
            problems.append("patterns: at least one is needed, and of tagging none")
        if (self.kind in ("classification", "tagging")) != bool(self.labels):
            problems.append("a classification or tagging has labels, and nothing else has")
        if self.kind == "tagging" and len(self.fields) != 2:
            problems.append("tagging has two fields: the text, and the label with its spans")
        if (self.kind == "multiple_choice") != bool(self.choices):
            problems.append("a multiple choice has choices, and nothing else has")
        with_label = self.kind in ("classification", "multiple_choice", "tagging")
        if with_label != (self.label is not None):
            problems.append(
                "a classification, multiple choice or tagging has a label, and nothing else has"
            )
        if (self.kind in ("generation", "text")) != (self.answer is not None):
            problems.append("a generation or text task has an answer, and nothing else has")
        if (self.kind == "filling") != (self.hide is not None):
            problems.append("a filling task has hide, and nothing else has")
        if self.media and self.kind not in ("classification", "multiple_choice", "generation"):
            problems.append(f"media: a task of the kind {self.kind} reads none")
        return problems

    def _wrong_fields(self, known: set[str]) -> list[str]:
        """Returns where a setting names a field that there is not."""
        problems = []
        around = self.shorten.around if self.shorten else ""
        written = PLACEHOLDER.findall("".join((self.answer or "", around, *self.choices)))
        for name in (self.label, self.group, self.split_by, *(name for name, *_ in written)):
            if name is not None and name not in known:
                problems.append(f"the field {name!r} is not under fields{nearest(name, known)}")
        for setting, part in (("shorten", self.shorten), ("hide", self.hide)):
            if part and part.field not in known:
                problems.append(
                    f"{setting}.field: {part.field!r} is not under fields{nearest(part.field, known)}"
                )
        problems += [
            f"media: the field {name!r} is not under fields{nearest(name, self.fields)}"
            for name in self.media
            if name not in self.fields
        ]
        if self.turns and self.turns.field not in self.fields:
            problems.append(f"turns.field: {self.turns.field!r} is not under fields")
        return problems

    def all_patterns(self) -> list[tuple[Language, str]]:
        """Returns (language, pattern) of all patterns."""
        return [(language, one) for language, some in self.patterns.items() for one in some]


@cache
def catalog() -> dict[str, Path]:
    """Returns the shipped tasks: name -> file; a folder's are named `folder/name`."""
    folder = Path(str(resources.files("glmkit.tasks"))) / "catalog"
    names = {path: path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}  # fmt: skip
    return {name: path for path, name in sorted(names.items(), key=lambda one: ("/" in one[1], one[1]))}  # fmt: skip


def load_task(name: str | Path) -> Task:
    """Returns a task of the catalog, or of the user's own YAML file.

    Raises:
        ConfigError: There is none of that name, or the file is wrong.
    """
    known = catalog()
    if str(name) in known:
        return _shipped(str(name))
    if Path(name).suffix in (".yaml", ".yml"):
        return load_config(Task, name)
    raise ConfigError(
        f"there is no task {str(name)!r}{nearest(str(name), known) or '.'} The catalog has {', '.join(known)}. For a task "
        "of your own give the path of its .yaml file."
    )


@cache
def _shipped(name: str) -> Task:
    """Returns a task of the catalog, read once: every chat and every summary asks for one."""
    return load_config(Task, catalog()[name])

"""Settings -> the steps of a task, in order: functions that change a text, or say why it is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glmkit.corpus.cleaning import normalise
from glmkit.corpus.steps.settings import Steps
from glmkit.errors import ConfigError

Change = Callable[[str], str]
Drop = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Step:
    """One step: either `change` returns the text as it goes on, or `drop` returns a reason or None.

    Raises:
        ConfigError: It has both functions or none.
    """

    name: str
    change: Change | None = None
    drop: Drop | None = None

    def __post_init__(self) -> None:
        if (self.change is None) == (self.drop is None):
            raise ConfigError(f"the step {self.name!r} needs one function, either change or drop")


@dataclass(frozen=True)
class MinLength:
    """Drops short texts."""

    min_chars: int

    def __call__(self, text: str) -> str | None:
        """Returns the reason to drop a text, or None."""
        if not text.strip():
            return "empty"
        return "too short" if len(text) < self.min_chars else None


def build_rules(steps: Steps, index: Path) -> list[Step]:
    """Returns the steps that look at one text at a time.

    Args:
        steps: What is asked for.
        index: Where the index of passages lies, if texts are compared with evaluation texts.

    Raises:
        MissingDependencyError: A package of the extra `glmkit[corpus]` is not installed.
    """
    rules = []
    if steps.normalise:
        rules.append(Step("normalise", change=normalise))
    if steps.simplify:
        from glmkit.corpus.steps.language import Simplifier

        rules.append(Step("simplify", change=Simplifier()))
    rules.append(Step("length", drop=MinLength(steps.min_chars)))
    if steps.language.keep:
        from glmkit.corpus.steps.language import LanguageRule

        rules.append(Step("language", drop=LanguageRule(steps.language)))
    if steps.quality.enabled:
        from glmkit.corpus.steps.quality import QualityRule

        rules.append(Step("quality", drop=QualityRule(steps.quality)))
    if steps.decontamination.against:
        from glmkit.corpus.steps.decontamination import DecontaminationRule

        rules.append(Step("decontamination", drop=DecontaminationRule(index)))
    if steps.mask_personal:
        from glmkit.corpus.steps.personal import PersonalMask

        rules.append(Step("personal data", change=PersonalMask()))
    return rules

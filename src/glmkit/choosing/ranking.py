"""`glmkit.choose`: every GLM of the table with its best method, in order, by rules that can be read here.

An option is before another that has a graver problem (`judging.PROBLEMS`, in this order). Among equals the better method for the
examples is first (`judging.level_of`), then the larger model: the paper's and everyone's experience is that of models trained alike the
larger does a task better, and nothing else is known of a task before it is measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glmkit.choosing.advice import Advice, other_families
from glmkit.choosing.devices import Hardware, parse_hardware
from glmkit.choosing.judging import PROBLEMS, level_of, problems_of, strengths_of
from glmkit.choosing.models import CANDIDATES, Candidate
from glmkit.choosing.options import (
    METHODS,
    Method,
    Option,
    Request,
    command,
    plan_inference,
    plan_training,
    ways_of,
)
from glmkit.choosing.tasks import find_need
from glmkit.errors import ConfigError

HOURS = 48.0
"""That training may take if nobody says otherwise."""


@dataclass(frozen=True)
class Choice:
    """What to take.

    Attributes:
        request: What was wanted.
        ranking: Each GLM once, with its best method, the best first.
        others: Options with the other methods, in order too.
        advice: Other families, the better answers first.
    """

    request: Request
    ranking: tuple[Option, ...]
    others: tuple[Option, ...]
    advice: tuple[Advice, ...]

    @property
    def best(self) -> Option | None:
        """The first of the ranking if it fits in memory, reads the language and the task is GLM's; else None."""
        first = self.ranking[0]
        grave = {"memory", "language"} & set(first.problems)
        return None if grave or self.request.need.kind == "other" else first

    def __str__(self) -> str:
        from glmkit.choosing.report import as_text

        return as_text(self, chinese=self.request.language == "zh")


def choose(
    task: str,
    *,
    examples: int = 0,
    language: str = "zh",
    gpu: str | Hardware | None = None,
    latency: float | str | None = None,
    hours: float = HOURS,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> Choice:
    """Ranks the GLMs there are for a task, data and a machine; nothing is downloaded.

    Args:
        task: "summarize", "classify", "sentiment", "answer", "fill", "poem" … (`choosing.tasks.NEEDS`), a name of the
            catalog, or a task file.
        examples: Labelled records there are.
        language: Of the texts: zh, en, or another's two letters.
        gpu: "1x24GB", "2x RTX 3090", "cpu", "cpu:16GB"; by default this machine.
        latency: That one answer may take: seconds, or "200ms".
        hours: That training may take.
        input_tokens: Of a text; by default what is usual of the task.
        output_tokens: Of an answer; likewise.

    Returns:
        The ranking; `print` shows it, `choosing.report.as_dict` has all of it.

    Raises:
        ConfigError: A value that means nothing; says what does.
    """
    need = find_need(task)
    if not re.fullmatch(r"[a-z]{2,3}", language):
        raise ConfigError(
            f"language {language!r}: two letters, such as zh (Chinese) or en (English)"
        )
    if examples < 0:
        raise ConfigError(f"examples = {examples}; how many labelled records are there? 0 or more")
    if not hours > 0:
        raise ConfigError(f"hours = {hours:g}; training must have some time")
    for name, tokens in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if tokens is not None and tokens < 1:
            raise ConfigError(f"{name} = {tokens}; it must be at least 1")
    request = Request(
        need,
        examples,
        language,
        gpu if isinstance(gpu, Hardware) else parse_hardware(gpu),
        parse_seconds(latency),
        hours,
        input_tokens or need.input_tokens,
        output_tokens or need.output_tokens,
    )
    options = [
        _option(candidate, method, request)
        for candidate in CANDIDATES
        for method in METHODS
        if method == "zero-shot" or examples
    ]
    options.sort(key=_key)
    best: dict[str, Option] = {}
    for option in options:
        best.setdefault(option.candidate.name, option)
    advice = other_families(
        need,
        examples,
        any(language in candidate.languages for candidate in CANDIDATES),
        max(request.input_tokens, request.output_tokens),
        max(candidate.config.max_sequence_length for candidate in CANDIDATES),
    )
    chosen = tuple(best.values())
    others = tuple(option for option in options if best[option.candidate.name] is not option)
    return Choice(request, chosen, others, tuple(advice))


def parse_seconds(latency: float | str | None) -> float | None:
    """Returns seconds: of "200ms", "1.5s", or a number of seconds.

    Raises:
        ConfigError: It is no time, or none above 0.
    """
    if latency is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|)\s*", str(latency), re.IGNORECASE)
    seconds = float(found[1]) / (1000 if found[2].lower() == "ms" else 1) if found else 0.0
    if not seconds > 0:
        raise ConfigError(f"latency {latency!r}: write 200ms, 1.5s, or seconds, above 0")
    return seconds


def _key(option: Option) -> tuple[object, ...]:
    grave = tuple(name in option.problems for name in PROBLEMS)
    return (*grave, -option.level, -option.parameters, option.candidate.name)


def _option(candidate: Candidate, method: Method, request: Request) -> Option:
    config = candidate.config
    training = None if method == "zero-shot" else plan_training(config, request, method)
    inference = plan_inference(config, request, ways_of(candidate, request, method))
    problems = problems_of(candidate, config, request, training, inference)
    level, reason = level_of(candidate, config, method, request)
    reasons = [reason, *strengths_of(candidate, config, request, training, inference)]
    return Option(
        candidate,
        method,
        config.num_parameters,
        training,
        inference,
        problems,
        tuple(reasons),
        level,
        command(candidate, method, request, training, inference),
    )

"""Questions for a medium from its facts, balanced: who knows a question's text alone can but guess its answer.

In: facts of one medium after the other. Out: questions in Chinese and English with their answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from facts import Fact
from scenes import pick
from wording import LANGUAGES, TEMPLATES, ask

Question = dict[str, str]
Asked = tuple[str, Question]
"""A form of question, and the question."""


@dataclass
class Balance:
    """How often each answer was given so far: to each question's text, and to each form of question in a language."""

    given: defaultdict[tuple[str, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def _counts(self, asked: Asked) -> tuple[Counter[str], Counter[str]]:
        form, question = asked
        return self.given["", question["question"]], self.given[form, question["language"]]

    def lead(self, asked: Asked) -> float:
        """Returns how far an answer is ahead of the mean of the answers seen: above 0, others should come."""
        answer = asked[1]["answer"]
        return sum(counts[answer] - _mean(counts) for counts in self._counts(asked))

    def wanted(self, asked: Asked) -> bool:
        """Tells whether a question may be asked; a sentence as an answer cannot be balanced, nor be guessed."""
        answer = asked[1]["answer"]
        return asked[1]["kind"] == "caption" or all(
            counts[answer] <= 1 + 1.05 * _mean(counts) for counts in self._counts(asked)
        )

    def add(self, asked: Asked) -> None:
        for counts in self._counts(asked):
            counts[asked[1]["answer"]] += 1


def _mean(counts: Counter[str]) -> float:
    return counts.total() / max(len(counts), 1)


def choose(
    facts: list[Fact], number: int, balance: Balance, rng: np.random.Generator
) -> list[Question]:
    """Returns questions, half of them in each language, of as many kinds as there are; no text comes twice.

    Args:
        facts: what can be asked about the medium.
        number: how many questions are wanted; fewer where facts have fewer wordings or answers are not wanted.
        balance: what was asked of the media before; it learns what is asked now.
        rng: draws kinds, facts and wordings.
    """
    by_kind: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_kind[fact.kind].append(fact)
    kinds = sorted(by_kind)
    return [
        question
        for language in LANGUAGES
        for question in _choose(
            [by_kind[kind] for kind in _turns(kinds, rng)],
            *(number // 2, language, balance, rng),
        )
    ]


def _turns(kinds: list[str], rng: np.random.Generator) -> list[str]:
    """Returns kinds in the order in which they have their turn: again only when all have come, a caption once."""
    rounds = [[kinds[index] for index in rng.permutation(len(kinds))] for _ in range(4)]
    return rounds[0] + [kind for later in rounds[1:] for kind in later if kind != "caption"]


def _choose(
    turns: list[list[Fact]], number: int, language: str, balance: Balance, rng: np.random.Generator
) -> Iterable[Question]:
    """Returns questions of one language, each of the facts whose turn it is."""
    chosen: dict[str, Question] = {}
    for facts in turns:
        if len(chosen) == number:
            break
        _, question = best = _best(facts, language, balance, rng)
        if question["question"] not in chosen and balance.wanted(best):
            chosen[question["question"]] = question
            balance.add(best)
    return chosen.values()


def _best(facts: list[Fact], language: str, balance: Balance, rng: np.random.Generator) -> Asked:
    """Returns the question whose answer lags most, of those drawn: one or two of each form and answer."""
    answers: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        answers[fact.form, fact.answer[language]].append(fact)
    drawn = [pick(rng, same) for same in answers.values() for _ in range(min(len(same), 2))]
    asked = [_question(fact, language, rng) for fact in drawn]
    asked = [asked[index] for index in rng.permutation(len(asked))]
    return min(asked, key=balance.lead)


def _question(fact: Fact, language: str, rng: np.random.Generator) -> Asked:
    template = pick(rng, TEMPLATES[fact.form][language])
    question = {
        "question": ask(template, fact.slots, language),
        "answer": fact.answer[language],
        "kind": fact.kind,
        "language": language,
    }
    return fact.form, question

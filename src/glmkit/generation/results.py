"""What generation returns: small frozen records that print well."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """One way to fill all blanks of a text: one of the n likeliest, or one that was drawn.

    Attributes:
        text: The whole text, blanks replaced.
        blanks: The contents of each blank, in the order of the text.
        score: Log-probability of these contents together, in nats, end markers included.
        probability: exp(score): the share that the model gives them among all contents there could be.
        preference: With `prefer`: how probable it is that the text has the labels wanted.
    """

    text: str
    blanks: list[str]
    score: float
    probability: float
    preference: float | None = None

    def __str__(self) -> str:
        share = self.probability if self.preference is None else self.preference
        return f"{share:.1%} {self.text}"


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled.

    Attributes:
        text: The whole text, blanks replaced.
        blanks: The contents of each blank, in the order of the text.
        scores: For each blank the sum of its tokens' log-probabilities, the end marker included.
        alternatives: For each blank other contents with their scores, best first (with beams).
        finished: For each blank whether it ended by itself and not at `max_new_tokens`.
        candidates: The n likeliest ways to fill all blanks together, or (with `prefer`) those drawn; best first.
    """

    text: str
    blanks: list[str]
    scores: list[float]
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Score:
    """The log-probability of a text.

    Attributes:
        text: The text scored.
        log_probability: Sum over its tokens, in nats.
        tokens: Its tokens, as text.
        token_log_probabilities: Log-probability of each token, in nats.
        perplexity: exp of the mean negative log-probability of a token.
    """

    text: str
    log_probability: float
    tokens: list[str]
    token_log_probabilities: list[float]
    perplexity: float

    def __str__(self) -> str:
        return f"{self.log_probability:.3f} nats over {len(self.tokens)} tokens, perplexity {self.perplexity:.2f}"


@dataclass(frozen=True)
class Classification:
    """The label of a text.

    Attributes:
        label: The likeliest label.
        probabilities: Probability of each label, in the order of the task's labels.
    """

    label: str
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return f"{self.label} ({self.probabilities[self.label]:.1%})"


@dataclass(frozen=True)
class Span:
    """A part of a text that has a label.

    Attributes:
        label: What it is.
        text: Its text.
        start: Where it begins, in characters.
        end: Where it ends, not included.
        score: Mean probability of its tags, between 0 and 1.
    """

    label: str
    text: str
    start: int
    end: int
    score: float

    def __str__(self) -> str:
        return f"{self.text}/{self.label}"


@dataclass(frozen=True)
class Tagging:
    """A text with the spans that were found in it.

    Attributes:
        text: The text.
        spans: In their order; none overlap.
    """

    text: str
    spans: list[Span]

    def __str__(self) -> str:
        return " ".join(map(str, self.spans)) or "-"


@dataclass(frozen=True)
class Answer:
    """An answer from a context.

    Attributes:
        text: The answer, or an empty string where there is none.
        score: The probability that the model gives to just this answer, between 0 and 1.
        start: Where the context has it (in characters), or -1.
        end: Where it ends there, or -1.
    """

    text: str
    score: float
    start: int
    end: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Poem:
    """A poem that keeps its form.

    Attributes:
        title: The title it was asked with.
        form: The form's Chinese name.
        lines: Its lines with punctuation, one for each sentence (of a shi, a couplet).
    """

    title: str
    form: str
    lines: list[str]

    def __str__(self) -> str:
        heading = f"{self.title} · {self.form}" if self.title else self.form
        return "\n".join([heading, *self.lines])

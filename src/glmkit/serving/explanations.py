"""What clients ask of `/v1/explain` and get: pydantic models of `glm.explain`'s arguments and of its data.

In: JSON. Out: checked values. The meaning of each number is said in `glmkit.explain.results`; in place of what is no number there is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from glmkit.serving.schemas import Text, TextsOrRecords, WithMedia

Method = Literal["integrated_gradients", "ablation", "attention_rollout"]
Contents = Annotated[list[Text], Field(max_length=1000)]
Span = tuple[int, int]


class ExplainRequest(WithMedia):
    """Says why blanks are filled so, or with `task` or `labels` why a text or record has its label."""

    model: str | None = Field(None, max_length=256)
    texts: TextsOrRecords
    blanks: Contents | Annotated[list[Contents], Field(max_length=1000)] | None = Field(
        None,
        description="What the blanks contain (for several texts a list for each); by default what the model writes.",
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Most tokens of a blank that the model writes; 16 by default."
    )
    labels: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=2, max_length=100
    )
    task: str | None = Field(None, max_length=200, description="Such as topics or sentiment.")
    template: str | None = Field(None, max_length=2000, description="With labels: how to ask.")
    label: str | None = Field(
        None, max_length=200, description="The label to explain; by default the likeliest."
    )
    language: Literal["zh", "en"] | None = None
    methods: Annotated[list[Method], Field(min_length=1, max_length=3)] | None = None
    baseline: Literal["mask", "pad", "mean"] = "mask"
    unit: Literal["word", "token"] = "word"
    top_k: int = Field(5, ge=1, le=20, description="Alternatives to each token.")
    attention: bool = Field(False, description="The attention maps too, of short texts.")


class Unit(BaseModel):
    text: str
    start: int
    end: int
    source: str
    index: int | None = Field(None, description="Of a medium's row, such as a part of a picture.")


class Attribution(BaseModel):
    method: str
    values: list[float | None]
    score: float | None
    baseline_score: float | None
    gap: float | None
    complete: bool
    steps: int | None


class Step(BaseModel):
    token: str
    probability: float
    alternatives: list[tuple[str, float]]


class Lens(BaseModel):
    tokens: list[str]
    probabilities: list[list[float]]
    top: list[list[tuple[str, float]]]


class Attention(BaseModel):
    tokens: list[str]
    prefix_length: int
    weights: list[list[list[list[float]]]]


class PromptExample(BaseModel):
    text: str
    start: int
    end: int
    contribution: float


class Evidence(BaseModel):
    name: str
    content: str
    score: float | None
    probability: float
    units: list[Unit]
    attributions: dict[str, Attribution]
    steps: list[Step]
    lens: Lens | None
    examples: list[PromptExample]


class Explained(BaseModel):
    text: str
    filled: str
    kind: Literal["blanks", "label"]
    blanks: list[Span]
    probabilities: dict[str, float]
    facts: dict[str, Any]
    evidence: list[Evidence]
    attention: list[Attention] | None = None


class ExplainResponse(BaseModel):
    model: str
    data: list[Explained]

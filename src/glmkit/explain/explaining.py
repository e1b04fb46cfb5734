"""The way in: a text with blanks, or a text and a task -> `Explanation`.

In: a model, its tokenizer, a text; for blanks their contents, given or filled in here; for a label a task. Out: the
evidence of all methods. The model is left as it was: mode, weights, gradients, attention code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glmkit.applications.calibration import Calibration
from glmkit.applications.classification import prejudice
from glmkit.applications.heads import is_head
from glmkit.applications.labels import as_records
from glmkit.errors import ConfigError, UserError, nearest
from glmkit.explain.attention import read_with_maps, rollout_of_units
from glmkit.explain.attribution import (
    BASELINES,
    METHODS,
    Attributor,
    baseline_vector,
    check_methods,
)
from glmkit.explain.examples import example_contributions, find_examples
from glmkit.explain.filling import Filling, evidence_for
from glmkit.explain.lens import lens_and_steps
from glmkit.explain.progress import watched
from glmkit.explain.questions import asked
from glmkit.explain.results import Attention, Attribution, Evidence, Explanation, Unit
from glmkit.explain.rows import Rows
from glmkit.explain.scoring import Objective, content_objective, label_objective, scores_of
from glmkit.explain.units import Grouping, token_text
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.special_tokens import FIRST_MEDIA_ID
from glmkit.tasks.rendering import asked_language
from glmkit.tasks.task import Language, Task
from glmkit.tokens.base import well_formed


@dataclass(frozen=True)
class Settings:
    """How texts are explained.

    Attributes:
        methods: Of attribution; names of `METHODS`.
        baseline: What stands for a word that is not known: "mask", "pad" or "mean".
        unit: "word" (tokens of a word together) or "token".
        top_k: Alternatives to each token.
        attention: Whether the maps are kept; a rollout is made from them anyway.
        progress: Called before each pass of the model; what it raises ends the explanation.
    """

    methods: Sequence[str] | str = METHODS
    baseline: str = "mask"
    unit: Grouping = "word"
    top_k: int = 5
    attention: bool = True
    progress: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", check_methods(self.methods))  # type: ignore[arg-type]
        if self.baseline not in BASELINES:
            raise UserError(f"baseline={self.baseline!r} must be one of {', '.join(BASELINES)}")
        if self.unit not in ("word", "token"):
            raise UserError(f"unit={self.unit!r} must be 'word' or 'token'")
        if not isinstance(self.top_k, int) or self.top_k < 1:
            raise UserError(f"top_k={self.top_k!r} must be a whole number, at least 1")


def explain(
    model: Any,
    tokenizer: Any,
    text: str | Prompt,
    *,
    blanks: Sequence[str] | None = None,
    settings: Settings | None = None,
    separator: str | None = None,
    decoding: DecodingSettings | None = None,
) -> Explanation:
    """Says why the blanks of a text are filled as they are.

    Args:
        model: A `GLMForConditionalGeneration`.
        tokenizer: Its `GLMTokenizer`.
        text: The text; without a blank it gets `[gMASK]` at its end. One that is too long is cut on the left, as `fill`
            does. Or a prompt, which may have media: each of their rows is evidence.
        blanks: The contents, one for each blank; by default what the model writes. They are explained as their text is
            encoded, which may be other tokens than those that were written one by one.
        settings: How to explain.
        separator: What stands between the examples of a prompt (see `examples.find_examples`).
        decoding: How the model fills the blanks.

    Raises:
        UserError: Unknown settings, or contents that do not match the blanks.
        GenerationError: As `build_prompt`; contents longer than the model's positions; a prompt that is not its text encoded.
        MissingDependencyError: A method of captum's without `glmkit[explain]`.
    """
    chosen = settings or Settings()
    with unchanged(model), watched(model, chosen.progress):
        filling = Filling.of(model, tokenizer, text, blanks, decoding)
        rows, units = filling.rows(chosen.unit)
        shots = find_examples(filling.pieces, separator)
        examples = example_contributions(model, filling.text, shots, rows, filling.without)
        maps, hidden = read_with_maps(model, rows)
        baseline = baseline_vector(model, tokenizer.special_ids, chosen.baseline)
        scores = scores_of(model, [rows])[0]
        evidence = []
        for number, content in enumerate(filling.contents):
            allowed = evidence_for(units, number)
            methods = _attributions(
                model, rows, allowed, content_objective(number), number, float(scores[number]), baseline, maps, chosen
            )  # fmt: skip
            lens, steps = lens_and_steps(model, tokenizer, hidden, rows, number, chosen.top_k)
            kept = np.flatnonzero(allowed)
            evidence.append(
                Evidence(
                    name=f"blank {number + 1}",
                    content=content,
                    score=float(scores[number]),
                    probability=float(np.exp(scores[number])),
                    units=tuple(units[n] for n in kept),
                    attributions={name: _of_units(one, kept) for name, one in methods.items()},
                    steps=steps,
                    lens=lens,
                    examples=examples[number],
                )
            )
    return Explanation(
        text=filling.text,
        filled=filling.prompt.assemble(list(filling.contents)),
        kind="blanks",
        evidence=tuple(evidence),
        blanks=tuple(filling.blank_spans()),
        attention=_attention(tokenizer, rows, maps, units) if chosen.attention else (),
        facts={
            **_facts(model, chosen),
            "explained": "log-probability of the blank's content and its end, in nats",
            "given": blanks is not None,
        },
    )


def explain_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Prompt],
    *,
    blanks: Sequence[Sequence[str] | None] | None = None,
    **options: Any,
) -> list[Explanation]:
    """Returns what `explain` says of each of several texts.

    Args:
        model: As in `explain`; so are `tokenizer` and the options.
        tokenizer: The tokenizer.
        texts: The texts, or prompts.
        blanks: For each text the contents of its blanks.
        **options: Of `explain`.

    Raises:
        UserError: A number of contents that does not fit; as `explain`.
    """
    given = [None] * len(texts) if blanks is None else list(blanks)
    if len(given) != len(texts):
        raise UserError(
            f"blanks: contents for {len(given)} texts were given, but there are {len(texts)}; give a list of contents for "
            "each text"
        )
    return [
        explain(model, tokenizer, text, blanks=contents, **options)
        for text, contents in zip(texts, given, strict=True)
    ]


def explain_label(
    model: Any,
    tokenizer: Any,
    text: str | Mapping[str, Any],
    task: Task,
    *,
    label: str | None = None,
    settings: Settings | None = None,
    language: Language | None = None,
    calibration: Calibration | None = None,
    contextual: bool = False,
    names: Mapping[str, str] | None = None,
    reader: Any = None,
) -> Explanation:
    """Says why a text, or a record with its images, sounds and clips, has a label.

    What is explained are the label's log-odds, log p(label) - log p(all other labels), from the mean log-probability of
    its word over the task's patterns, before any calibration.

    Args:
        model: A `GLMForConditionalGeneration`, or a head whose outputs are in the order of the task's labels.
        tokenizer: Its `GLMTokenizer`.
        text: A text, or a record with the task's fields. A long one is shortened as the task says.
        task: A classification.
        label: The label to explain; by default the likeliest one.
        settings: How to explain.
        language: Of the patterns; by default the text's.
        calibration: Of the probabilities that are reported.
        contextual: Whether to take off what a text without content gets.
        names: Label -> the name that people read.
        reader: What reads the record's media (`multimodal.reader.MediaReader`), or None. Each of their rows is evidence.

    Raises:
        ConfigError: A task that is no classification, or a label that it has not.
        DataError: A record without a field.
        MediaError: Media that cannot be read, or a model that reads none.
        GenerationError: A text that cannot be shortened enough.
        MissingDependencyError: As `explain`.
    """
    chosen = settings or Settings()
    [given] = as_records(task, [text])
    record = {name: _plain(value) if name not in task.media else value for name, value in given.items()}  # fmt: skip
    spoken = asked_language(task, record, language)
    with unchanged(model), watched(model, chosen.progress):
        free = prejudice(model, tokenizer, task)[spoken] if contextual else None
        question = asked(model, tokenizer, record, task, spoken, chosen.unit, reader)
        rows, units, labels = question.rows, question.units, list(task.labels)
        scores = scores_of(model, [rows])[0] - (0.0 if free is None else free)
        shares = (calibration or Calibration()).probabilities(scores[None], labels)[0]
        number = _label_number(label, labels, names or {}, shares)
        objective = label_objective(number, free)
        everything = np.ones(len(units), bool)
        maps, hidden = read_with_maps(model, rows)
        baseline = baseline_vector(model, tokenizer.special_ids, chosen.baseline)
        odds = float(scores[number] - np.logaddexp.reduce(np.delete(scores, number)))
        methods = _attributions(
            model, rows, everything, objective, number, odds, baseline, maps, chosen
        )
        lens, steps = None, ()
        if not is_head(model):
            lens, steps = lens_and_steps(model, tokenizer, hidden, rows, number, chosen.top_k)  # type: ignore[assignment]
    public = {one: (names or {}).get(one, one) for one in labels}
    whole = "\n".join(question.fields.values())
    evidence = Evidence(
        name=public[labels[number]],
        content=task.labels[labels[number]][spoken],
        score=odds,
        probability=float(shares[number]),
        units=units,
        attributions=methods,
        steps=steps,
        lens=lens,
    )
    return Explanation(
        text=whole,
        filled=whole,
        kind="label",
        evidence=(evidence,),
        probabilities={public[one]: float(share) for one, share in zip(labels, shares, strict=True)},
        attention=_attention(tokenizer, rows, maps, units) if chosen.attention else (),
        facts={
            **_facts(model, chosen),
            "explained": "log p(label) - log p(all other labels), in nats, before calibration",
            "task": task.name,
            "questions": list(question.questions),
            "fields": dict(question.fields),
            "media": question.media,
        },
    )  # fmt: skip


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Runs a model in evaluation mode and gives it back in the mode that it had; gradients are those of inputs alone."""
    modes = [(one, one.training) for one in model.modules()]
    model.eval()
    try:
        # Inside inference_mode nothing has a gradient.
        with torch.inference_mode(False):
            yield
    finally:
        for one, training in modes:
            one.training = training


def _attributions(
    model: Any,
    rows: Rows,
    evidence: np.ndarray,
    objective: Objective,
    content: int,
    score: float,
    baseline: torch.Tensor,
    maps: list[np.ndarray],
    settings: Settings,
) -> dict[str, Attribution]:
    """Returns method -> attribution of all units."""
    found: dict[str, Attribution] = {}
    attributor = None
    for method in settings.methods:
        if method == "attention_rollout":
            values = rollout_of_units(model, rows, maps, content, len(evidence))
            found[method] = Attribution(method, values, score)
            continue
        if attributor is None:
            attributor = Attributor(model, rows, evidence, objective, baseline)
        compute: Callable[[], Attribution] = getattr(attributor, method)
        found[method] = compute()
    return found


def _of_units(one: Attribution, kept: np.ndarray) -> Attribution:
    return Attribution(one.method, one.values[kept], one.score, one.baseline_score, one.gap, one.complete, one.steps)  # fmt: skip


def _attention(
    tokenizer: Any, rows: Rows, maps: list[np.ndarray], units: Sequence[Unit]
) -> tuple[Attention, ...]:
    def shown(token: int, unit: int) -> str:
        return units[unit].text if token >= FIRST_MEDIA_ID else token_text(tokenizer, token)

    return tuple(
        Attention(
            tuple(map(shown, rows.ids[row, :size].tolist(), rows.units[row, :size].tolist())),
            int(rows.prefix_lengths[row]),
            maps[row],
        )
        for row, size in enumerate(rows.lengths.tolist())
    )


def _facts(model: Any, settings: Settings) -> dict[str, Any]:
    return {
        "model": str(model.config.name_or_path or type(model).__name__),
        "layers": model.config.num_layers,
        "heads": model.config.num_attention_heads,
        "baseline": settings.baseline,
        "unit": settings.unit,
    }


def _label_number(
    label: str | None, labels: list[str], names: Mapping[str, str], shares: np.ndarray
) -> int:
    if label is None:
        return int(np.argmax(shares))
    known = {**{names.get(one, one): n for n, one in enumerate(labels)}, **{one: n for n, one in enumerate(labels)}}  # fmt: skip
    if label not in known:
        raise ConfigError(f"the label {label!r} is not one of {', '.join(known)}{nearest(str(label), known)}")  # fmt: skip
    return known[label]


def _plain(value: Any) -> Any:
    return well_formed(value) if isinstance(value, str) else value

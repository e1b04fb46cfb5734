"""The three pretraining objectives: a sample of ids becomes an example with blanks.

In: one sample's ids (a chunk of the token stream), the special tokens' ids, a random generator. Out: an
`Example`, laid out by `layout.lay_out`. Every draw comes from the generator, so a sample and a seed give the
same example on any machine. Knows ids only: no text, no tokenizer.

- *token*: spans of a few tokens, 15 % of the text, each behind a `[MASK]`.
- *sentence*: whole sentences, 15 % of the text, each behind an `[sMASK]`.
- *document*: one long span behind a `[gMASK]`, mostly to the end of the text.

Sources: GLM paper (arXiv 2103.10360) sections 2.1 and 2.2; THUDM/GLM `blocklm_utils.py`, by recorded statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmkit.blanks.layout import Example, Piece, lay_out
from glmkit.blanks.spans import document_span, sentence_spans, token_spans
from glmkit.errors import ConfigError, nearest
from glmkit.special_tokens import SpecialTokenIds

OBJECTIVES = ("token", "sentence", "document")
"""Names of the objectives."""

FALLBACK = ("token", "document", "sentence")
"""Which objective takes a sample that is too short for the one that was drawn."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """How blanks are made; the defaults are the published arguments of glm-large-chinese."""

    token_weight: float = 0.4
    """Share of the token objective, relative to the other two weights."""
    sentence_weight: float = 0.3
    """Share of the sentence objective."""
    document_weight: float = 0.3
    """Share of the document objective."""
    token_ratio: float = 0.15
    """Share of a sample's tokens that the token objective hides."""
    mean_span_length: float = 3
    """Mean of the Poisson distribution of span lengths, in tokens."""
    max_span_length: int = 40
    """Longest span of the token objective, in tokens."""
    sentence_ratio: float = 0.15
    """Share of a sample's tokens that the sentence objective hides, at least."""
    document_min_ratio: float = 0.25
    """Shortest span of the document objective, as a share of the sample."""
    document_infill_prob: float = 0.5
    """Probability that the document objective's span lies inside the text instead of at its end."""
    block_mask_prob: float = 0.1
    """Probability that a token read in part B is replaced by `[dBLOCK]` (token objective)."""
    task_masks: bool = True
    """Whether each objective has its own mask token; otherwise all use `[MASK]`."""
    shuffle_blanks: bool = True
    """Whether blanks are written in random order; otherwise from left to right."""

    def __post_init__(self) -> None:
        """Checks all values.

        Raises:
            ConfigError: Names every value that is not allowed.
        """
        problems = [
            f"{name}={value}: must be between 0 and 1"
            for name, value in vars(self).items()
            if name.endswith(("_ratio", "_prob")) and not 0 <= value <= 1
        ]
        weights = {name: value for name, value in vars(self).items() if name.endswith("_weight")}
        problems += [
            f"{name}={value}: must not be negative"
            for name, value in weights.items()
            if not value >= 0
        ]
        if not sum(weights.values()) > 0:
            problems.append(f"{', '.join(weights)}: at least one must be positive")
        if not self.mean_span_length > 0:
            problems.append(f"mean_span_length={self.mean_span_length}: must be positive")
        if self.max_span_length < 1:
            problems.append(f"max_span_length={self.max_span_length}: must be at least 1")
        if problems:
            raise ConfigError(
                "the pretraining objectives cannot be used:\n- " + "\n- ".join(problems)
            )

    def weight(self, objective: str) -> float:
        """Returns the share of an objective, relative to the other weights."""
        return float(getattr(self, f"{objective}_weight"))


def draw_objective(rng: np.random.Generator, settings: ObjectiveSettings) -> str:
    """Draws one of `OBJECTIVES` by its weight."""
    cumulative = np.cumsum([settings.weight(name) for name in OBJECTIVES])
    return OBJECTIVES[
        int(np.searchsorted(cumulative[:-1], rng.random() * cumulative[-1], side="right"))
    ]


def make_any_example(
    ids: np.ndarray,
    rng: np.random.Generator,
    specials: SpecialTokenIds,
    settings: ObjectiveSettings,
    sentence_ends: np.ndarray | None = None,
) -> tuple[str, Example] | None:
    """Draws an objective and makes the sample's example; arguments as in `make_example`.

    Where the sample is too short for the objective that was drawn, the others of `FALLBACK` are tried in
    their order, except those of weight 0.

    Returns:
        The objective that was used and the example; None if the sample is too short for all.
    """
    drawn = draw_objective(rng, settings)
    for name in dict.fromkeys((drawn, *FALLBACK)):
        if settings.weight(name) > 0:
            example = make_example(ids, name, rng, specials, settings, sentence_ends)
            if example is not None:
                return name, example
    return None


def make_example(
    ids: np.ndarray,
    objective: str,
    rng: np.random.Generator,
    specials: SpecialTokenIds,
    settings: ObjectiveSettings,
    sentence_ends: np.ndarray | None = None,
) -> Example | None:
    """Hides parts of one sample behind mask tokens.

    Args:
        ids: Integers [S], one sample; it may begin with `[CLS]`, end with the end-of-text token and hold
            several documents.
        objective: One of `OBJECTIVES`.
        rng: The only source of randomness.
        specials: Ids of the vocabulary's special tokens.
        settings: How blanks are made.
        sentence_ends: Which tokens end a sentence: bool [vocab] (see `spans.ends_sentence`) or their ids.
            Without it there are no sentences to hide.

    Returns:
        The example, of S + 1 tokens for each blank (without an end: S + 1 in all); None if the sample is too
        short for the objective.

    Raises:
        ConfigError: There is no such objective.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"there is no pretraining objective {objective!r}{nearest(objective, OBJECTIVES)}; "
            f"known are {', '.join(OBJECTIVES)}"
        )
    ids = np.asarray(ids, dtype=np.int64)
    if not len(ids):
        return None
    ends_open, mask = False, specials.mask
    if objective == "token":
        spans = token_spans(
            ids,
            rng,
            cls=specials.cls,
            eos=specials.eos,
            ratio=settings.token_ratio,
            mean=settings.mean_span_length,
            longest=settings.max_span_length,
        )
    elif objective == "sentence":
        mask = specials.smask
        spans = sentence_spans(
            ids,
            rng,
            cls=specials.cls,
            eos=specials.eos,
            is_end=_is_sentence_end(ids, sentence_ends),
            ratio=settings.sentence_ratio,
        )
    else:
        mask = specials.gmask
        spans, inside = document_span(
            ids,
            rng,
            cls=specials.cls,
            eos=specials.eos,
            min_ratio=settings.document_min_ratio,
            infill_prob=settings.document_infill_prob,
        )
        ends_open = not inside
    if not len(spans):
        return None
    corrupt = settings.block_mask_prob if objective == "token" else 0.0
    return hide(
        ids,
        rng.permutation(spans) if settings.shuffle_blanks else spans[np.argsort(spans[:, 0])],
        mask=mask if settings.task_masks else specials.mask,
        sop=specials.sop,
        end=None if ends_open else specials.eop,
        read=_corrupted(ids, rng, specials.block, corrupt),
    )


def hide(
    ids: np.ndarray,
    spans: np.ndarray,
    *,
    mask: int,
    sop: int,
    end: int | None,
    read: np.ndarray | None = None,
) -> Example:
    """Hides spans of a sample, each behind one mask token.

    Args:
        ids: int64 [S].
        spans: int64 [n, 2], the spans in the order in which their contents are written; none overlap.
        mask: Id of the mask token.
        sop: Id of `<|startofpiece|>`.
        end: Id that is predicted after each span, or None if none is.
        read: int64 [S], what part B reads instead of `ids`.
    """
    starts, ends = spans[:, 0], spans[:, 1]
    change = np.zeros(len(ids) + 1, np.int64)
    change[starts + 1] += 1
    change[ends] -= 1
    visible = np.cumsum(change)[:-1] == 0
    context = ids.copy()
    context[starts] = mask
    places = np.cumsum(visible)[starts] - 1
    inputs = ids if read is None else read
    pieces = [
        Piece(place, ids[start:stop], end, inputs[start:stop])
        for place, start, stop in zip(places.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ]
    return lay_out(context[visible], pieces, sop)


def _corrupted(
    ids: np.ndarray, rng: np.random.Generator, block: int | None, prob: float
) -> np.ndarray | None:
    """Returns `ids` with some replaced by `[dBLOCK]`, or None where the vocabulary or objective has none."""
    if block is None or not prob:
        return None
    return np.where(rng.random(len(ids)) < prob, block, ids)


def _is_sentence_end(ids: np.ndarray, sentence_ends: np.ndarray | None) -> np.ndarray:
    """Returns bool [S]: whether each token ends a sentence."""
    if sentence_ends is None:
        return np.zeros(len(ids), bool)
    ends = np.asarray(sentence_ends)
    return ends[ids] if ends.dtype == bool else np.isin(ids, ends)

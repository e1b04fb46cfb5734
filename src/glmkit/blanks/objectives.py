"""The three pretraining objectives: a sample of ids becomes an example with blanks.

In: one sample's ids (a chunk of the token stream), the special tokens' ids, a random generator. Out: an
`Example`, as `layout.lay_out` would lay it out. Every draw comes from the generator, so a sample and a seed give the
same example on any machine. Knows ids only: no text, no tokenizer.

- *token*: spans of a few tokens, 15 % of the text, each behind a `[MASK]`.
- *sentence*: whole sentences, 15 % of the text, each behind an `[sMASK]`.
- *document*: one long span behind a `[gMASK]`, mostly to the end of the text.

Sources: GLM paper (arXiv 2103.10360) sections 2.1 and 2.2, and its ablation study; THUDM/GLM `blocklm_utils.py`, by recorded statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from glmkit.blanks.layout import IGNORE_INDEX, Example
from glmkit.blanks.spans import document_span, sentence_spans, token_spans
from glmkit.errors import ConfigError, nearest
from glmkit.special_tokens import SpecialTokenIds

MASKS = {"token": "mask", "sentence": "smask", "document": "gmask"}
"""Name of an objective -> the mask behind which it hides, by its name in `SpecialTokenIds`."""

OBJECTIVES = tuple(MASKS)
"""Names of the objectives."""

SENTINEL = "[MASK{}]"
"""Names of the sentinel tokens in a vocabulary: `[MASK0]`, `[MASK1]` …"""

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
    """Whether blanks are written in random order; otherwise from left to right (in the paper's ablation study)."""
    sentinel_tokens: bool = False
    """Whether each blank has its own mask token, as in T5, which tells where it is instead of the position (in the
    paper's ablation study). The vocabulary must have `[MASK0]`, `[MASK1]` …, one for each blank of a sample."""
    block_positions: bool = True
    """Whether the second position counts inside each blank (the paper's "2D positional encoding"); otherwise it is 1 all through part
    B, for a model without the second position table (`model.block_position_encoding: false`)."""
    random_positions_below: int = 0
    """Above 0, a sample's positions begin at a random number instead of 0 and stay below this, so that short rows
    train the later rows of the position table too. At most the model's `max_sequence_length`."""
    short_prob: float = 0.02
    """Probability that a sample is cut to a random shorter length; what is cut off is a sample of its own."""

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
        if self.random_positions_below < 0:
            problems.append(
                f"random_positions_below={self.random_positions_below}: must not be negative"
            )
        if self.max_span_length < 1:
            problems.append(f"max_span_length={self.max_span_length}: must be at least 1")
        if problems:
            raise ConfigError(
                "the pretraining objectives cannot be used:\n- " + "\n- ".join(problems)
            )

    def weight(self, objective: str) -> float:
        """Returns the share of an objective, relative to the other weights."""
        return float(getattr(self, f"{objective}_weight"))


def find_sentinels(vocabulary: Mapping[str, int]) -> np.ndarray:
    """Returns int64 [n]: the ids of `[MASK0]`, `[MASK1]` …, up to the first that the vocabulary lacks."""
    found: list[int] = []
    while (token := SENTINEL.format(len(found))) in vocabulary:
        found.append(vocabulary[token])
    return np.array(found, np.int64)


def draw_objective(rng: np.random.Generator, settings: ObjectiveSettings) -> str:
    """Draws one of `OBJECTIVES` by its weight."""
    return draw_objectives(rng, settings, 1)[0]


def draw_objectives(rng: np.random.Generator, settings: ObjectiveSettings, count: int) -> list[str]:
    """Draws `count` of `OBJECTIVES` by their weights."""
    cumulative = np.cumsum([settings.weight(name) for name in OBJECTIVES])
    drawn = cumulative[:-1].searchsorted(rng.random(count) * cumulative[-1], side="right")
    return [OBJECTIVES[index] for index in drawn]


def make_any_example(
    ids: np.ndarray,
    rng: np.random.Generator,
    specials: SpecialTokenIds,
    settings: ObjectiveSettings,
    sentence_ends: np.ndarray | None = None,
    *,
    drawn: str | None = None,
    span_lengths: np.ndarray | None = None,
    max_blanks: int | None = None,
    sentinels: np.ndarray | None = None,
) -> tuple[str, Example] | None:
    """Draws an objective, unless it is `drawn`, and makes the sample's example; else as `make_example`.

    Where the sample is too short for the objective that was drawn, the others of `FALLBACK` are tried in
    their order, except those of weight 0.

    Returns:
        The objective that was used and the example; None if the sample is too short for all.
    """
    drawn = draw_objective(rng, settings) if drawn is None else drawn
    for name in dict.fromkeys((drawn, *FALLBACK)):
        if settings.weight(name) > 0:
            example = make_example(
                ids,
                name,
                rng,
                specials,
                settings,
                sentence_ends,
                span_lengths=span_lengths,
                max_blanks=max_blanks,
                sentinels=sentinels,
            )
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
    *,
    span_lengths: np.ndarray | None = None,
    max_blanks: int | None = None,
    sentinels: np.ndarray | None = None,
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
        span_lengths: int64 [n], lengths for the token objective that are drawn already, by `draw_lengths`.
        max_blanks: Blanks beyond so many are not made, so that the example fits where there is room for it.
        sentinels: int64 [n], the sentinel tokens' ids, needed with `settings.sentinel_tokens`.

    Returns:
        The example, of S tokens and 2 for each blank (without an end: S + 1 in all); None if the sample is too
        short for the objective.

    Raises:
        ConfigError: There is no such objective, or there are no sentinel tokens.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"there is no pretraining objective {objective!r}{nearest(objective, OBJECTIVES) or '.'} "
            f"Known are {', '.join(OBJECTIVES)}"
        )
    ids = np.asarray(ids, dtype=np.int64)
    if not len(ids):
        return None
    if settings.sentinel_tokens:
        sentinels = _checked_sentinels(sentinels)
        max_blanks = min(max_blanks or len(sentinels), len(sentinels))
    else:
        sentinels = None
    spans, open_end = _draw_spans(
        ids, objective, rng, specials, settings, sentence_ends, span_lengths
    )
    spans = spans[:max_blanks]
    if not len(spans):
        return None
    spans = rng.permutation(spans) if settings.shuffle_blanks else spans[spans[:, 0].argsort()]
    corrupt = settings.block_mask_prob if objective == "token" else 0.0
    example = hide(
        ids,
        spans,
        mask=getattr(specials, MASKS[objective] if settings.task_masks else "mask"),
        sop=specials.sop,
        end=None if open_end else specials.eop,
        read=_corrupted(ids, rng, specials.block, corrupt),
        sentinels=sentinels,
        block_positions=settings.block_positions,
    )
    if settings.random_positions_below:
        return _moved(example, rng, settings.random_positions_below)
    return example


def hide(
    ids: np.ndarray,
    spans: np.ndarray,
    *,
    mask: int | np.ndarray,
    sop: int,
    end: int | None,
    read: np.ndarray | None = None,
    sentinels: np.ndarray | None = None,
    block_positions: bool = True,
) -> Example:
    """Hides spans of a sample, each behind one mask token.

    The outcome is `lay_out`'s (a test says so) of the same part A and pieces, made without a loop over them.

    Args:
        ids: int64 [S].
        spans: int64 [n, 2], the spans in the order in which their contents are written; none overlap.
        mask: Id of the mask token, or int64 [n] of each span's.
        sop: Id of `<|startofpiece|>`.
        end: Id that is predicted after each span, or None if none is (one span alone).
        read: int64 [S], what part B reads instead of `ids`.
        sentinels: Ids of distinct mask tokens, for the blanks in the order in which they are written: each stands
            for its blank in part A and, instead of `sop`, begins it in part B, whose positions then tell nothing.
        block_positions: Whether the second position counts inside each blank; otherwise it is 1 in part B.
    """
    if end is None:
        assert len(spans) == 1, "only a single span can go without an end"
    starts, stops = spans[:, 0], spans[:, 1]
    # Part B: piece k takes sizes[k] places, from firsts[k] on; each place predicts one token of the text, or the end.
    sizes = stops - starts + 1
    ends = sizes.cumsum()
    firsts, n_b = ends - sizes, int(ends[-1]) - (end is None)
    index = np.arange(ends[-1])
    predicted = (starts - firsts).repeat(sizes) + index
    # Part A: of each span only its first place stays, for the mask token.
    visible = np.ones(len(ids) + 1, bool)
    visible[predicted] = False
    visible[stops] = True
    visible[starts] = True
    context = ids.copy()
    context[starts] = mask if sentinels is None else sentinels[: len(spans)]
    context = context[visible[:-1]]
    n_a, predicted = len(context), predicted[:n_b]
    input_ids = np.empty(n_a + n_b, np.int64)
    labels = np.empty(n_a + n_b, np.int64)
    positions = np.empty((2, n_a + n_b), np.int64)
    labels[:n_a] = IGNORE_INDEX
    ids.take(predicted, out=labels[n_a:], mode="clip")
    if end is not None:
        labels[n_a + ends - 1] = end
    input_ids[:n_a] = context
    (ids if read is None else read).take(predicted - 1, out=input_ids[n_a:], mode="clip")
    input_ids[n_a + firsts] = sop if sentinels is None else sentinels[: len(spans)]
    positions[0, :n_a] = np.arange(n_a)
    positions[1, :n_a] = 0
    if sentinels is None:
        positions[0, n_a:] = (visible.cumsum()[starts] - 1).repeat(sizes)[:n_b]
    else:
        positions[0, n_a:] = n_a
    positions[1, n_a:] = (index - firsts.repeat(sizes) + 1)[:n_b] if block_positions else 1
    return Example(input_ids, positions, labels, n_a)


def _draw_spans(
    ids: np.ndarray,
    objective: str,
    rng: np.random.Generator,
    specials: SpecialTokenIds,
    settings: ObjectiveSettings,
    sentence_ends: np.ndarray | None,
    span_lengths: np.ndarray | None,
) -> tuple[np.ndarray, bool]:
    """Returns an objective's spans, int64 [n, 2], and whether the last one ends with the sample itself."""
    borders = {"cls": specials.cls, "eos": specials.eos}
    if objective == "token":
        spans = token_spans(
            ids,
            rng,
            ratio=settings.token_ratio,
            mean=settings.mean_span_length,
            longest=settings.max_span_length,
            lengths=span_lengths,
            **borders,
        )
        return spans, False
    if objective == "sentence":
        is_end = _is_sentence_end(ids, sentence_ends)
        return sentence_spans(
            ids, rng, is_end=is_end, ratio=settings.sentence_ratio, **borders
        ), False
    spans, inside = document_span(
        ids,
        rng,
        min_ratio=settings.document_min_ratio,
        infill_prob=settings.document_infill_prob,
        **borders,
    )
    return spans, not inside


def _checked_sentinels(sentinels: np.ndarray | None) -> np.ndarray:
    if sentinels is None or not len(sentinels):
        raise ConfigError(
            "objectives.sentinel_tokens = true needs distinct mask tokens in the vocabulary, and it has none. Add "
            "them and prepare the corpus with that tokenizer: "
            f'tokenizer.add_special_tokens({{"additional_special_tokens": ["{SENTINEL.format(0)}", '
            f'"{SENTINEL.format(1)}", …]}}), one for each blank of a sample; or set it to false.'
        )
    return np.asarray(sentinels, np.int64)


def _moved(example: Example, rng: np.random.Generator, below: int) -> Example:
    """Returns the example with its first positions moved on by one random number, all staying below `below`."""
    room = below - int(example.position_ids[0].max())
    if room <= 1:
        return example
    positions = example.position_ids.copy()
    positions[0] += int(rng.integers(room))
    return replace(example, position_ids=positions)


def _corrupted(
    ids: np.ndarray, rng: np.random.Generator, block: int | None, prob: float
) -> np.ndarray | None:
    """Returns `ids` with some replaced by `[dBLOCK]`, or None where the vocabulary or objective has none."""
    if block is None or not prob:
        return None
    read = ids.copy()
    read[rng.random(len(ids)) < prob] = block
    return read


def _is_sentence_end(ids: np.ndarray, sentence_ends: np.ndarray | None) -> np.ndarray:
    """Returns bool [S]: whether each token ends a sentence."""
    if sentence_ends is None:
        return np.zeros(len(ids), bool)
    ends = np.asarray(sentence_ends)
    return ends[ids] if ends.dtype == bool else np.isin(ids, ends)

"""The objectives against what the original's `ConstructBlockStrategy` made of the same texts.

Statistics are compared within five standard errors of the difference of two means, so a test fails by
chance about once in a million; the seed is fixed, so it fails always or never.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from conftest import SHARED, golden_folder
from glmkit.blanks.layout import Example, Piece, collate, dense_mask, lay_out
from glmkit.blanks.objectives import ObjectiveSettings, hide, make_example
from glmkit.blanks.spans import SENTENCE_ENDS, draw_lengths
from glmkit.special_tokens import SpecialTokenIds
from glmkit.tokens.tokenizer import GLMTokenizer

SAMPLES = 3000
SETUPS = ("large_chinese", "base_english")
OBJECTIVE_OF_MODE = {"bert": "token", "sentence": "sentence", "gpt": "document"}


@lru_cache(maxsize=1)
def _file() -> dict:
    path = SHARED / "golden" / "pretrain-objective.json"
    if not path.is_file():
        pytest.skip(
            "recorded numbers are not on this machine: shared/golden/pretrain-objective.json"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _specials(recorded: dict) -> SpecialTokenIds:
    ids = recorded["command_token_ids"]
    return SpecialTokenIds(
        cls=ids["ENC"],
        eos=ids["eos"],
        pad=ids["pad"],
        sop=ids["sop"],
        eop=ids["eop"],
        mask=ids["MASK"],
        smask=ids.get("sMASK", ids["MASK"]),
        gmask=ids.get("gMASK", ids["MASK"]),
        block=ids.get("dBLOCK"),
    )


def _settings(recorded: dict) -> ObjectiveSettings:
    given = recorded["arguments"]
    return ObjectiveSettings(
        token_weight=given["bert_prob"],
        sentence_weight=given["gap_sentence_prob"],
        document_weight=1 - given["bert_prob"] - given["gap_sentence_prob"],
        token_ratio=given["bert_ratio"],
        mean_span_length=given["average_block_length"],
        max_span_length=given["max_block_length"],
        sentence_ratio=given["gap_sentence_ratio"],
        document_min_ratio=given["gpt_min_ratio"],
        document_infill_prob=given["gpt_infill_prob"],
        block_mask_prob=given["block_mask_prob"],
        task_masks=given["task_mask"],
        shuffle_blanks=given["shuffle_blocks"],
    )


def _recipe_sample(recorded: dict, number: int) -> np.ndarray:
    """Sample `number` of the recorded run, by the recipe in the file."""
    values, specials = recorded["recipe_values"], _specials(recorded)
    length, draw = values["length"], random.Random(values["base"] + number)

    def doc(n: int) -> list[int]:
        body = [
            recorded["period_id"]
            if draw.random() < 0.05
            else draw.randrange(values["lo"], values["hi"])
            for _ in range(n - 2)
        ]
        return [specials.cls, *body, specials.eos]

    if number % 4 < 3:
        return np.array(doc(length))
    first, second = (
        draw.randrange(length // 8, length // 2),
        draw.randrange(length // 8, length // 4),
    )
    return np.array(doc(first) + doc(second) + doc(length - first - second))


@lru_cache(maxsize=1)
def _sentence_ends() -> np.ndarray:
    """The original's table: a Chinese token with a mark of the list anywhere in it ends a sentence."""
    tokenizer = GLMTokenizer.from_pretrained(golden_folder("tiny-chinese").path)
    tokens = tokenizer.convert_ids_to_tokens(list(range(50000)))
    has_mark = [any(mark in token for mark in SENTENCE_ENDS) for token in tokens]
    return np.array(has_mark + [False] * 48)


@lru_cache(maxsize=2)
def _texts(setup: str) -> tuple[np.ndarray, ...]:
    return tuple(_recipe_sample(_file()[setup], number) for number in range(SAMPLES))


@dataclass(frozen=True)
class Made:
    """What our objectives made, measured as the recorded statistics are."""

    masked_ratio: np.ndarray
    spans_per_sample: np.ndarray
    source_length_sep: np.ndarray
    total_length: np.ndarray
    span_lengths: np.ndarray
    block_share: float
    infill_share: float


@lru_cache(maxsize=4)
def _make(setup: str, mode: str) -> Made:
    recorded = _file()[setup]
    specials, settings = _specials(recorded), _settings(recorded)
    is_end = _sentence_ends()
    rng = np.random.default_rng(2026)
    masked, counts, sources, totals, lengths, blocks, infills = [], [], [], [], [], 0, 0
    for ids in _texts(setup):
        example = make_example(ids, OBJECTIVE_OF_MODE[mode], rng, specials, settings, is_end)
        assert example is not None
        starts = np.flatnonzero(example.position_ids[1] == 1)
        here = np.diff([*starts, len(example)]) - 1
        infills += example.labels[-1] == specials.eop
        masked.append(here.sum() / len(ids))
        counts.append(len(starts))
        sources.append(example.prefix_length)
        totals.append(len(example))
        lengths.extend(here)
        if specials.block is not None:
            blocks += np.count_nonzero(example.input_ids[example.prefix_length :] == specials.block)
    return Made(
        *map(np.array, (masked, counts, sources, totals, lengths)),
        block_share=blocks / sum(lengths),
        infill_share=infills / len(masked),
    )


CASES = [("large_chinese", mode) for mode in OBJECTIVE_OF_MODE] + [("base_english", "bert")]


@pytest.mark.parametrize(("setup", "mode"), CASES)
@pytest.mark.parametrize(
    "name", ["masked_ratio", "spans_per_sample", "source_length_sep", "total_length"]
)
def test_statistics(setup, mode, name):
    """Mean, spread and range of what is hidden, and of how long examples get."""
    recorded = _file()[setup]["statistics"][mode][name]
    ours = getattr(_make(setup, mode), name)
    # The originals draw the document objective's length once per batch of 4: 4 samples count as one.
    independent = recorded["n"] / (4 if mode == "gpt" else 1)
    error = np.sqrt(ours.var() / len(ours) + recorded["std"] ** 2 / independent)
    assert abs(ours.mean() - recorded["mean"]) <= 5 * error + 1e-6
    assert ours.std() == pytest.approx(recorded["std"], rel=0.08, abs=1e-6)
    for percent in ("5", "25", "50", "75", "95"):
        # Medians and quartiles of integers may differ by one step and its rounding.
        step = 3 * recorded["std"] / np.sqrt(independent) + (
            1 / 256 if name == "masked_ratio" else 2
        )
        assert np.percentile(ours, int(percent)) == pytest.approx(
            recorded["percentiles"][percent], abs=2.5 * step
        )


@pytest.mark.parametrize(("setup", "mode"), [case for case in CASES if case[1] != "gpt"])
def test_span_length_histogram(setup, mode):
    """Each length's share of all spans, within five standard errors."""
    recorded = _file()[setup]["statistics"][mode]["span_length_histogram"]
    counts = np.zeros(600)
    for length, count in recorded.items():
        counts[int(length)] = count
    ours = np.bincount(_make(setup, mode).span_lengths, minlength=600)
    n_ours, n_recorded = ours.sum(), counts.sum()
    both = (ours + counts) / (n_ours + n_recorded)
    error = np.sqrt(both * (1 - both) * (1 / n_ours + 1 / n_recorded))
    often = ours + counts >= 20
    assert (np.abs(ours / n_ours - counts / n_recorded)[often] <= 5 * error[often]).all()
    assert ours[~often].sum() <= 5 * np.sqrt(n_ours) + counts[~often].sum()


def test_span_length_weights():
    """The distribution of lengths is the recorded table: Poisson with mean 3, cut, scaled to sum 1."""
    weights = np.array(_file()["large_chinese"]["block_length_weights"])
    drawn = draw_lengths(np.random.default_rng(0), 300_000, mean=3, longest=len(weights))
    shares = np.bincount(drawn, minlength=len(weights) + 1)[1:] / len(drawn)
    expected = weights / weights.sum()
    assert (np.abs(shares - expected) <= 5 * np.sqrt(expected / len(drawn)) + 1e-12).all()


def test_share_of_block_tokens():
    recorded = _file()["large_chinese"]["statistics"]["bert"]["dblock_share_of_span_inputs"]
    made = _make("large_chinese", "bert")
    error = np.sqrt(0.09 * (1 / made.span_lengths.sum() + 1 / 600_000))
    assert abs(made.block_share - recorded) <= 5 * error
    assert _make("large_chinese", "sentence").block_share == 0
    assert _make("large_chinese", "gpt").block_share == 0


def test_share_of_infilling():
    recorded = _file()["large_chinese"]["statistics"]["gpt"]
    share = _make("large_chinese", "gpt").infill_share
    error = np.sqrt(0.25 * (1 / SAMPLES + 1 / recorded["samples"]))
    assert abs(share - recorded["infill_share"]) <= 5 * error


def _spans_of(ids: list[int], source: list[int], positions: list[int], blocks: list[int]):
    """The spans behind a recorded output, in its order: int64 [n, 2]."""
    n_a = len(source)
    starts = [index for index in range(n_a, len(blocks)) if blocks[index] == 1]
    ends = [
        *starts[1:],
        next((i for i in range(n_a + 1, len(blocks)) if not blocks[i]), len(blocks)),
    ]
    by_place = sorted(
        (positions[start], end - start - 1) for start, end in zip(starts, ends, strict=True)
    )
    begin, hidden = {}, 0
    for place, length in by_place:
        begin[place] = place + hidden
        hidden += length - 1
    return np.array(
        [
            (begin[positions[start]], begin[positions[start]] + end - start - 1)
            for start, end in zip(starts, ends, strict=True)
        ]
    )


@pytest.mark.parametrize("setup", SETUPS)
def test_concrete_samples(setup):
    """The recorded spans laid out by us: every field of the recorded output, exactly."""
    recorded = _file()[setup]
    specials = _specials(recorded)
    assert len(recorded["concrete_samples"]) >= 5
    for sample in recorded["concrete_samples"]:
        ids, sep = np.array(sample["input_tokens"]), sample["sep"]
        spans = _spans_of(
            ids, sample["tokens"][:sep], sample["position_ids"], sample["block_position_ids"]
        )
        # Several documents (kind "3") are always continued to the end.
        to_the_end = sample["mode"] == "gpt" and sample["kind"] != "infill"
        if to_the_end:
            spans[:, 1] += 1  # the last token is predicted, never read
        # What part B read instead of the text, where the original wrote [dBLOCK].
        read, cursor = ids.copy(), sep
        for start, end in spans:
            n_read = end - start - to_the_end
            read[start : start + n_read] = sample["tokens"][cursor + 1 : cursor + 1 + n_read]
            cursor += n_read + 1
        mask = next(token for token in sample["tokens"][:sep] if token in specials.masks)
        example = hide(
            ids,
            spans,
            mask=mask,
            sop=specials.sop,
            end=None if to_the_end else specials.eop,
            read=read,
        )
        assert example.prefix_length == sep
        assert example.input_ids.tolist() == sample["tokens"]
        assert example.position_ids.tolist() == [
            sample["position_ids"],
            sample["block_position_ids"],
        ]
        scored = np.array(sample["loss_mask"], bool)
        assert ((example.labels != -100) == scored).all()
        assert (example.labels[scored] == np.array(sample["targets"])[scored]).all()


@pytest.mark.parametrize("setup", SETUPS)
def test_padded_batch(setup):
    """A recorded batch of two lengths: our fields are the same, and padding is told by our mask alone."""
    recorded = _file()[setup]
    specials, batch = _specials(recorded), recorded["padded_batch"]
    examples: list[Example] = []
    for ids, text, positions, sep in zip(
        batch["input_tokens"],
        batch["text"],
        batch["position_id"],
        batch["attention_mask"],
        strict=True,
    ):
        spans = _spans_of(ids, text[:sep], *positions)
        read, cursor, pieces = np.array(text), sep, []
        for start, end in spans:
            pieces.append(
                Piece(
                    positions[0][cursor],
                    np.array(ids[start:end]),
                    specials.eop,
                    read[cursor + 1 : cursor + 1 + end - start],
                )
            )
            cursor += end - start + 1
        examples.append(lay_out(text[:sep], pieces, specials.sop))
    ours = collate(examples, pad=0)
    assert ours["input_ids"].tolist() == batch["text"]
    assert ours["position_ids"].tolist() == batch["position_id"]
    assert ours["prefix_lengths"].tolist() == batch["attention_mask"]
    scored = np.array(batch["loss_mask"], bool)
    assert ((ours["labels"] != -100) == scored).all()
    assert (ours["labels"][scored] == np.array(batch["target"])[scored]).all()
    # The originals' mask is the separator: part A whole, the rest causal. Ours also hides padding.
    index = np.arange(ours["input_ids"].shape[1])
    separator = (index < ours["prefix_lengths"][:, None, None]) | (index <= index[:, None])
    assert (dense_mask(ours) == separator & (ours["attention_mask"][:, None] > 0)).all()

"""Beam search on a runner against transformers' `generate` on the same model, with constraints, penalties and stop strings as its processors."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_samples import EOP, PAD, SOP, StopPair, make_chooser, make_prompt
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import POSITIONS, VOCABULARY, tiny_models
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.errors import GenerationError
from glmkit.generation.beams import search
from glmkit.generation.constraints import Choices
from glmkit.generation.request import Request
from glmkit.generation.torch_runner import TorchRunner
from glmkit.generation.warping import MIN_SCORE


class Ends:
    """A stop string as a criterion of transformers."""

    def __init__(self, stop: Any, start: int):
        self.stop, self.start = stop, start

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor(
            [self.stop.cut(row) is not None for row in ids[:, self.start :].tolist()]
        )


@torch.inference_mode()
def of_transformers(model: Any, request: Request, place: int, written: list[Piece]) -> list[tuple[list[int], float]]:  # fmt: skip
    """Contents of a blank with their log-probabilities, the best first."""
    prompt, chooser = request.prompt, request.chooser
    asked, limit = chooser.settings, request.constraints[place]
    blank = Piece(int(prompt.mask_indices[place]), np.empty(0, np.int64), scored=False)
    batch = collate([lay_out(prompt.ids, [*written, blank], SOP)], PAD)
    del batch["labels"]
    inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
    start = inputs["input_ids"].shape[1]
    penalties = LogitsProcessorList()
    if asked.repetition_penalty != 1.0:
        penalties.append(RepetitionPenaltyLogitsProcessor(asked.repetition_penalty))
    if asked.no_repeat_ngram_size:
        penalties.append(NoRepeatNGramLogitsProcessor(asked.no_repeat_ngram_size))

    def penalize(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return penalties(ids[:, start:], scores)

    def limited(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, tokens in enumerate(ids[:, start:].tolist()):
            kept = np.asarray(limit.allowed(tokens), np.int64)
            other = np.setdiff1d(np.arange(scores.shape[1]), kept)
            scores[row, other] = MIN_SCORE
        return scores

    output = model.generate(
        **inputs,
        max_new_tokens=asked.max_new_tokens,
        min_new_tokens=asked.min_new_tokens,
        num_beams=asked.num_beams,
        num_return_sequences=asked.num_return_sequences,
        length_penalty=asked.length_penalty,
        suppress_tokens=chooser.forbidden.tolist(),
        logits_processor=LogitsProcessorList([penalize, *([limited] if limit else [])]),
        eos_token_id=[EOP],
        pad_token_id=PAD,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        stopping_criteria=[Ends(chooser.stop, start)] if chooser.stop else None,
    )
    steps = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    found = []
    for tokens, scores, parents in zip(
        output.sequences[:, start:].tolist(),
        steps.tolist(),
        output.beam_indices.tolist(),
        strict=True,
    ):
        size = sum(parent >= 0 for parent in parents)
        # With fewer contents than beams it fills up: with probability 0, from the beams beside the first, or with beginnings.
        whole = EOP in tokens[:size] or size == asked.max_new_tokens or (chooser.stop and chooser.stop.cut(tokens[:size]))  # fmt: skip
        if whole and parents[:1] == [0] and sum(scores[:size]) > MIN_SCORE:
            found.append((tokens[:size], sum(scores[:size])))
    return found


@given(
    which=st.integers(0, 2),
    seed=st.integers(0, 10**6),
    blanks=st.integers(1, 2),
    beams=st.integers(2, 5),
    longest=st.integers(1, 9),
    least=st.integers(0, 9),
    length_penalty=st.sampled_from([1.0, 0.0, -1.0, 2.5]),
    penalty=st.sampled_from([1.0, 1.0, 1.4]),
    ngram=st.sampled_from([0, 0, 1, 2]),
    limited=st.booleans(),
    stopped=st.booleans(),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_contents_are_those_of_transformers(
    which, seed, blanks, beams, longest, least, length_penalty, penalty, ngram, limited, stopped
):
    model, rng = tiny_models()[which], Random(seed)
    stop: Any = StopPair(rng.randrange(4, VOCABULARY), rng.randrange(4, VOCABULARY)) if stopped else None  # fmt: skip
    chooser = make_chooser(
        stop,
        max_new_tokens=longest,
        min_new_tokens=min(least, longest),
        num_beams=beams,
        num_return_sequences=rng.randint(1, beams),
        length_penalty=length_penalty,
        repetition_penalty=penalty,
        no_repeat_ngram_size=ngram,
    )
    prompt = make_prompt(rng, blanks)
    limit = Choices([[5, 6, 7], [5, 6, 8, 9], [10], [10, 11]], EOP) if limited else None
    request = Request(prompt, chooser, [limit] * blanks)
    try:
        found = search(TorchRunner(model), request, SOP, POSITIONS)
    except GenerationError:
        assert limited or ngram
        expected = of_transformers(model, request, 0, [])
        assert expected == [] or blanks > 1
        return
    written: list[Piece] = []
    for place, contents in enumerate(found):
        expected = of_transformers(model, request, place, written)
        assert len(contents) == len(expected)
        for one, (tokens, score) in zip(contents, expected, strict=True):
            ended = tokens[-1:] == [EOP]
            shown = tokens[:-1] if ended else tokens
            if stop and (cut := stop.cut(shown)):
                shown = [*shown[: cut.kept], *cut.rest]
                assert one.finished
            else:
                assert one.finished == ended
            assert one.tokens == shown
            assert sum(one.log_probabilities) == pytest.approx(score, abs=1e-3)
        mask = int(prompt.mask_indices[place])
        written.append(Piece(mask, np.asarray(contents[0].tokens, np.int64), scored=False))


def test_no_sequence_is_left_and_beams_share_the_prompt():
    """Part A is read once; each step reads as many sequences as there are beams."""
    passes: list[int] = []

    class Watched(TorchRunner):
        def forward(self, feeds):
            passes.append(sum(len(feed.ids) for feed in feeds))
            return super().forward(feeds)

    runner = Watched(tiny_models()[1])
    prompt = make_prompt(Random(2), 2)
    chooser = make_chooser(max_new_tokens=5, min_new_tokens=5, num_beams=3)
    search(runner, Request(prompt, chooser, [None, None]), SOP, POSITIONS)
    assert runner._sequences == {}
    assert passes == [len(prompt.ids) + 1, *[3] * 4, len(prompt.ids) + 7, *[3] * 4]


def test_a_constraint_that_leaves_nothing_is_told():
    chooser = make_chooser(max_new_tokens=4, num_beams=2)
    nothing: Any = SimpleNamespace(allowed=lambda tokens: [] if tokens else [5])
    request = Request(make_prompt(Random(1), 1), chooser, [nothing])
    with pytest.raises(GenerationError, match="nothing may follow the first 1 tokens"):
        search(TorchRunner(tiny_models()[0]), request, SOP, POSITIONS)

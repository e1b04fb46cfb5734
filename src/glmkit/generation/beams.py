"""Beam search of each blank, by transformers' `generate`.

In: a model, a request. Out: contents of its blanks, each with alternatives. Constraints, penalties, guidance and stop strings are
brought to transformers as its logits processors and stopping criteria; they look at the blank, not at part A.

Shapes: B rows (beams), T tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
)

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.generation.arrays import log_softmax
from glmkit.generation.constraints import Constraint, allowed_ids
from glmkit.generation.decoding import MIN_SCORE, BlankTokens, TokenChooser, nothing_allowed
from glmkit.generation.guidance import Guidance
from glmkit.generation.infill import blank_text, filled
from glmkit.generation.request import Request
from glmkit.generation.results import Filled
from glmkit.generation.runner import Feed, Runner, make_runner
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import StopStrings


@torch.inference_mode()
def fill_with_beams(model: Any, tokenizer: Any, request: Request) -> Filled:
    """Searches the blanks one after the other with transformers' beam search; the best one is kept."""
    written: list[Piece] = []
    blanks: list[BlankTokens] = []
    alternatives = []
    for place in range(len(request.prompt.mask_indices)):
        found = _search_blank(model, tokenizer, request, place, written)
        blanks.append(found[0])
        mask = int(request.prompt.mask_indices[place])
        written.append(Piece(mask, np.asarray(found[0].tokens), scored=False))
        alternatives.append(
            [(blank_text(tokenizer, one).strip(), sum(one.log_probabilities)) for one in found]
        )
    return replace(filled(tokenizer, request.prompt, blanks), alternatives=alternatives)


def _search_blank(
    model: Any, tokenizer: Any, request: Request, place: int, written: list[Piece]
) -> list[BlankTokens]:
    """Returns the contents that beams find for the blank at `place`, behind those that are written; the best one first.

    Raises:
        GenerationError: What the blank may be leaves nothing.
    """
    ids, prompt, chooser = tokenizer.special_ids, request.prompt, request.chooser
    settings, stop, constraint = chooser.settings, chooser.stop, request.constraints[place]
    open_blank = Piece(int(prompt.mask_indices[place]), np.empty(0, np.int64), scored=False)
    batch = collate([lay_out(prompt.ids, [*written, open_blank], ids.sop)], ids.pad)
    inputs = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
    del inputs["labels"]
    prompt_length = inputs["input_ids"].shape[1]
    processors = _beam_limits(constraint, chooser, prompt_length)
    if request.guidance is not None:
        guide = BeamGuide(
            make_runner(model), request.guidance, written, open_blank, ids.sop, prompt_length
        )
        processors.insert(0, guide)
    output = model.generate(
        **inputs,
        media_embeds=prompt.embeddings,
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens,
        num_beams=settings.num_beams,
        num_return_sequences=settings.num_return_sequences,
        length_penalty=settings.length_penalty,
        suppress_tokens=[*chooser.forbidden.tolist(), *range(chooser.num_tokens, model.config.vocab_size)],
        logits_processor=processors,
        eos_token_id=sorted((ids.eop, ids.eos)),
        pad_token_id=ids.pad,
        do_sample=False,
        use_cache=True,  # a trainer leaves it off in the configuration that it saves
        return_dict_in_generate=True,
        output_scores=True,
        stopping_criteria=[StopBeams(stop, prompt_length)] if stop else None,
    )  # fmt: skip
    steps = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    new = output.sequences[:, prompt_length:]
    found = [
        _until_end(tokens.tolist(), scores.tolist(), {ids.eop, ids.eos}, stop)
        for tokens, scores in zip(new, steps, strict=True)
    ]
    # With fewer allowed contents than beams the search fills up: with ones of probability 0, with copies that
    # come from the beams it started from beside the first, or (parent -1) with none.
    kept = [
        one
        for one, parents in zip(found, output.beam_indices.tolist(), strict=True)
        if parents[:1] == [0] and sum(one.log_probabilities) > MIN_SCORE
    ]
    if not kept:
        raise nothing_allowed(constraint, len(found[0].tokens), settings)
    return kept


def _beam_limits(
    constraint: Constraint | None, chooser: TokenChooser, prompt_length: int
) -> LogitsProcessorList:
    """Returns constraint and penalties as transformers' beam search takes them; both look at the blank, not at part A."""
    penalties = _penalties(chooser.settings)

    def penalize(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return penalties(ids[:, prompt_length:], scores)  # type: ignore[arg-type]

    def limit(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, tokens in enumerate(ids[:, prompt_length:].tolist()):
            following = allowed_ids(constraint, tokens, scores.shape[-1])
            if following is not None:
                kept = torch.from_numpy(following).to(scores.device)
                limited = torch.full_like(scores[row], MIN_SCORE)
                limited[kept] = scores[row, kept]
                scores[row] = limited
        return scores

    processors: list = [penalize] if penalties else []
    return LogitsProcessorList(processors if constraint is None else [*processors, limit])


def _penalties(settings: DecodingSettings) -> LogitsProcessorList:
    """Returns what `warping.penalized` does, for rows of beams."""
    found: list[Any] = []
    if settings.repetition_penalty != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    return LogitsProcessorList(found)


def _until_end(
    tokens: list[int], scores: list[float], ends: set[int], stop: StopStrings | None
) -> BlankTokens:
    length = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    if stop and (cut := stop.cut(tokens[:length])):
        written = cut.kept + 1
        while stop.cut(tokens[:written]) is None:  # up to the token that completed the stop string
            written += 1
        kept = [*tokens[: cut.kept], *cut.rest]
        return BlankTokens(kept, scores[:written], finished=True, text=cut.text)
    return BlankTokens(tokens[:length], scores[: length + 1], finished=length < len(tokens))


class BeamGuide:
    """Guidance of transformers' beam search over one blank, as a logits processor.

    Args:
        runner: The model, which reads the other prompt here.
        guidance: What the text is led away from.
        written: Contents of the blanks before, at the text's own masks.
        blank: The blank that is searched, at the text's own mask.
        sop: Id of the start marker.
        prompt_length: Tokens before the blank's contents in what transformers generates from.
    """

    def __init__(
        self,
        runner: Runner,
        guidance: Guidance,
        written: Sequence[Piece],
        blank: Piece,
        sop: int,
        prompt_length: int,
    ):
        self._runner, self._guidance, self._prompt_length = runner, guidance, prompt_length
        pieces = [
            replace(one, mask_index=guidance.position(one.mask_index)) for one in (*written, blank)
        ]
        example = lay_out(guidance.against.ids, pieces, sop)
        positions, blocks = example.position_ids.tolist()
        self._position = pieces[-1].mask_index
        self._first = (example.input_ids.tolist(), positions, blocks, example.prefix_length)
        self._read: dict[tuple[int, ...], tuple[int, np.ndarray]] = {}

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns guided log-probabilities [rows, V] of rows of tokens [rows, T] with the text's own scores [rows, V]."""
        rows = [tuple(row) for row in ids[:, self._prompt_length :].tolist()]
        wanted = list(dict.fromkeys(rows))
        feeds = [self._feed(row) for row in wanted]
        logits = [one[0] for one in self._runner.forward(feeds)]
        for sequence, _ in self._read.values():
            self._runner.close(sequence)
        self._read = {
            row: (feed.sequence, one) for row, feed, one in zip(wanted, feeds, logits, strict=True)
        }
        away = log_softmax(np.stack([self._read[row][1] for row in rows]))
        guided = log_softmax(self._guidance.guided(scores.cpu().numpy(), away))
        return torch.from_numpy(guided).to(scores)

    def _feed(self, row: tuple[int, ...]) -> Feed:
        if not row:
            return Feed(self._runner.open(), *self._first, media=self._guidance.against.embeddings)
        parent, _ = self._read[row[:-1]]
        return Feed(self._runner.fork(parent), [row[-1]], [self._position], [len(row) + 1])


class StopBeams(StoppingCriteria):
    """Ends the beams in whose new tokens a stop string was written."""

    def __init__(self, stop: StopStrings, prompt_length: int):
        self.stop = stop
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        """Returns bool [B x beams]."""
        rows = input_ids[:, self.prompt_length :].tolist()
        ended = [self.stop.cut(row) is not None for row in rows]
        return torch.tensor(ended, device=input_ids.device)

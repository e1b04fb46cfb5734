"""The decoding loop: part A is read once, then every blank is written, left to right.

In: a model and prompts with blanks. Out: the tokens of every blank and their log-probabilities. A blank is
conditioned on the ones before it; its start marker is fed where the last one ended, on the same cache, so
nothing is ever computed twice. Rows of a batch run independently and leave the batch when they are done.

Shapes: B rows still running, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList
from transformers.cache_utils import DynamicCache
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.errors import GenerationError
from glmkit.generation.constraints import Constraint
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import Cut, StopStrings

MIN_SCORE = -torch.inf


@dataclass
class BlankTokens:
    """The contents of one blank, while and after they are written.

    Attributes:
        tokens: Ids, without the end marker.
        log_probabilities: One for each token, and one for the end marker if the blank ended by itself.
        finished: Whether it ended by itself, or before a stop string.
        text: The contents where a stop string cut them, perhaps within a token.
    """

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finished: bool = False
    text: str | None = None


@dataclass(frozen=True)
class Event:
    """A token was written (`token`), or the blank ended (`token` is None), in `row`'s blank `blank`."""

    row: int
    blank: int
    token: int | None


@dataclass
class _Row:
    """One prompt while it is decoded.

    `pending` are the inputs still to be fed: (id, position, block). The last `hidden` inputs fed belong to a stop
    string: the blanks after it must not see them.
    """

    number: int
    masks: np.ndarray
    blanks: list[BlankTokens]
    constraints: Sequence[Constraint | None]
    generator: torch.Generator | None
    pending: deque[tuple[int, int, int]] = field(default_factory=deque)
    hidden: int = 0
    done: bool = False


class TokenChooser:
    """Chooses the next token of a row from its logits; holds what is forbidden and how to draw."""

    def __init__(
        self,
        settings: DecodingSettings,
        forbidden: Sequence[int],
        ends: Sequence[int],
        num_tokens: int,
        stop: StopStrings | None = None,
    ):
        """Prepares the processors.

        Args:
            settings: How to choose.
            forbidden: Ids never to be written (special tokens).
            ends: Ids that end a blank.
            num_tokens: Real tokens of the vocabulary; padding rows from there on are never written.
            stop: Strings before which a blank ends.
        """
        self.settings = settings
        self.forbidden = torch.tensor(sorted(forbidden), dtype=torch.long)
        self.ends = torch.tensor(sorted(ends), dtype=torch.long)
        self.num_tokens = num_tokens
        self.stop = stop
        penalties: list[Any] = []
        if settings.repetition_penalty != 1.0:
            penalties.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if settings.no_repeat_ngram_size:
            penalties.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
        warpers: list[Any] = []
        if settings.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1.0:
            warpers.append(TopPLogitsWarper(settings.top_p))
        self.penalties = LogitsProcessorList(penalties)
        self.processors = LogitsProcessorList(penalties + warpers)

    def masked(self, logits: torch.Tensor, num_written: int) -> torch.Tensor:
        """Returns a float32 copy of logits [V] without what is never written, or not after `num_written` tokens."""
        logits = logits.float().clone()
        logits[self.num_tokens :] = MIN_SCORE
        logits[self.forbidden] = MIN_SCORE
        if num_written < self.settings.min_new_tokens:
            logits[self.ends] = MIN_SCORE
        return logits

    def choose(
        self,
        logits: torch.Tensor,
        blank: BlankTokens,
        generator: torch.Generator | None,
        constraint: Constraint | None = None,
    ) -> tuple[int, float]:
        """Returns the chosen id and its log-probability, from logits [V] on the CPU.

        The log-probability is the model's own, among real and not special tokens: what a constraint or a penalty
        rules out does not change it, so that texts written under different constraints can be compared.

        Raises:
            GenerationError: The constraint and the settings together leave no token.
        """
        logits = scores = self.masked(logits, len(blank.tokens))
        ids = None if constraint is None else constraint.allowed(blank.tokens)
        if ids is not None and len(ids) == 1 and not self.settings.no_repeat_ngram_size:
            token = int(ids[0])  # no choice: nothing to weigh or to draw
            if logits[token] > MIN_SCORE:
                return token, float(logits[token] - torch.logsumexp(logits, -1))
        if ids is not None:
            scores = torch.full_like(logits, MIN_SCORE)
            scores[ids] = logits[ids]
        if self.processors:
            history: Any = torch.tensor([blank.tokens], dtype=torch.long)
            scores = self.processors(history, scores[None].clone())[0]  # type: ignore[arg-type]
        if bool((scores == MIN_SCORE).all()):
            raise nothing_allowed(constraint, len(blank.tokens), self.settings)
        if self.settings.do_sample:
            token = int(torch.multinomial(torch.softmax(scores, -1), 1, generator=generator))
        else:
            token = int(scores.argmax())
        return token, float(logits[token] - torch.logsumexp(logits, -1))


def nothing_allowed(
    constraint: Constraint | None, num_tokens: int, settings: DecodingSettings
) -> GenerationError:
    """Returns the error for a blank that can go on with nothing."""
    return GenerationError(
        f"nothing may follow the first {num_tokens} tokens of a blank under {type(constraint).__name__}, "
        f"min_new_tokens={settings.min_new_tokens} and no_repeat_ngram_size={settings.no_repeat_ngram_size}; "
        "loosen the constraint, or lower these settings"
    )


@torch.inference_mode()
def decode_events(
    model: Any,
    prompts: Sequence[Prompt],
    chooser: TokenChooser,
    sop: int,
    pad: int,
    constraints: Sequence[Sequence[Constraint | None]] | None = None,
    seeds: Sequence[int | None] | None = None,
) -> Iterator[tuple[Event, list[list[BlankTokens]]]]:
    """Writes every blank of every prompt, yielding each token as it comes.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        prompts: Prompts with at least one blank each.
        chooser: How tokens are chosen.
        sop: Id of the start marker.
        pad: Id that fills up rows.
        constraints: For each prompt what each of its blanks may contain; None is anything.
        seeds: For each prompt the seed of its random stream, instead of the settings'.

    Yields:
        The event, and the contents of all blanks of all prompts so far (the same lists, growing).

    Raises:
        GenerationError: A constraint leaves no token.
    """
    chosen = [chooser.settings.seed] * len(prompts) if seeds is None else seeds
    rows = [
        _Row(
            number=number,
            masks=prompt.mask_indices,
            blanks=[BlankTokens()],
            constraints=constraints[number] if constraints else [None] * len(prompt.mask_indices),
            generator=_generator(chosen[number]) if chooser.settings.do_sample else None,
        )
        for number, prompt in enumerate(prompts)
    ]
    contents = [row.blanks for row in rows]
    first = [
        Piece(int(prompt.mask_indices[0]), np.empty(0, np.int64), scored=False)
        for prompt in prompts
    ]
    batch = collate(
        [lay_out(prompt.ids, [piece], sop) for prompt, piece in zip(prompts, first, strict=True)],
        pad,
        side="left",
    )
    inputs = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
    visible, prefix = inputs["attention_mask"], inputs["prefix_lengths"]
    unpadded = bool(visible.all())
    ids, positions = inputs["input_ids"], inputs["position_ids"]
    cache = DynamicCache(config=model.config)
    while True:
        logits = (
            model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=None if unpadded else visible,
                prefix_lengths=prefix,
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .cpu()
        )
        for row, row_logits in zip(rows, logits, strict=True):
            if not row.pending:
                yield (
                    _advance(row, row_logits, chooser, sop, model.config.max_sequence_length),
                    contents,
                )
        running = [place for place, row in enumerate(rows) if not row.done]
        if not running:
            return
        if len(running) < len(rows):
            rows = [rows[place] for place in running]
            keep = torch.tensor(running, device=model.device)
            cache.batch_select_indices(keep)
            visible, prefix = visible[keep], prefix[keep]
        for place, row in enumerate(rows):
            if row.hidden:
                visible[place, -row.hidden :] = 0
                row.hidden, unpadded = 0, False
        fed = torch.tensor([row.pending.popleft() for row in rows], device=model.device)
        ids, positions = fed[:, :1], fed[:, 1:, None]
        visible = torch.nn.functional.pad(visible, (0, 1), value=1)


def _advance(
    row: _Row, logits: torch.Tensor, chooser: TokenChooser, sop: int, max_positions: int
) -> Event:
    """Adds a token to the row's current blank, or ends it and opens the next one."""
    number = len(row.blanks) - 1
    blank, position = row.blanks[-1], int(row.masks[number])
    token, log_probability = chooser.choose(logits, blank, row.generator, row.constraints[number])
    blank.log_probabilities.append(log_probability)
    blank.finished = token in chooser.ends
    if not blank.finished:
        blank.tokens.append(token)
        if chooser.stop and (cut := chooser.stop.cut(blank.tokens)):
            _cut_short(row, blank, cut, position)
        else:
            row.pending.append((token, position, len(blank.tokens) + 1))
            if len(blank.tokens) < min(chooser.settings.max_new_tokens, max_positions - 1):
                return Event(row.number, number, token)
    if number + 1 < len(row.masks):
        row.blanks.append(BlankTokens())
        row.pending.append((sop, int(row.masks[number + 1]), 1))
    else:
        row.done = True
    return Event(row.number, number, None if blank.finished else token)


def _cut_short(row: _Row, blank: BlankTokens, cut: Cut, position: int) -> None:
    """Ends a blank before a stop string, so that later blanks see its contents alone."""
    row.hidden = len(blank.tokens) - 1 - cut.kept  # the last token has not been fed
    blank.tokens = blank.tokens[: cut.kept]
    for token in cut.rest:
        blank.tokens.append(token)
        row.pending.append((token, position, len(blank.tokens) + 1))
    blank.text, blank.finished = cut.text, True


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    return generator.manual_seed(seed)

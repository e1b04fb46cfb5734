"""Filling: texts with blanks -> `Filled`, batched; and one text as a stream.

In: a model, its tokenizer, texts, decoding settings. Out: results in the order of the texts. A batch gives
the tokens that its texts give one by one. Each call has an engine and a runner of its own, so that threads do not meet and
nothing is kept of a model that may change.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from math import exp
from typing import Any

import numpy as np

from glmkit.errors import GenerationError
from glmkit.generation import beams, nbest
from glmkit.generation.constraints import Constraint, per_blank
from glmkit.generation.decoding import BlankTokens, TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.guidance import guidance_of
from glmkit.generation.pieces import TextPieces
from glmkit.generation.prompts import Prompt, build_prompt
from glmkit.generation.request import Event, Request, Ticket
from glmkit.generation.results import Candidate, Filled
from glmkit.generation.runner import make_runner
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import StopStrings

Constraints = Constraint | Sequence[Constraint | None] | None
"""What one text's blanks may contain: one constraint for all of them, one for each, or None."""

SPARE_WAYS = 4
"""Ways searched for beyond those wanted, because different tokens may spell the same text."""


def fill(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Prompt],
    settings: DecodingSettings,
    *,
    batch_size: int = 8,
    constraints: Sequence[Constraints] | None = None,
    n: int | None = None,
    negative_prompts: Sequence[str | Prompt | None] | None = None,
) -> list[Filled]:
    """Fills every blank of every text, left to right, each conditioned on the earlier ones.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        texts: Texts with `[MASK]`, `[sMASK]` or `[gMASK]` (or prompts); one without gets `[gMASK]` at its end.
        settings: How tokens are chosen.
        batch_size: Texts decoded together, shorter ones first; the next one begins as soon as one is done.
        constraints: For each text what its blanks may contain.
        n: Search for the n likeliest ways to fill all blanks of a text together (`generation.nbest`).
        negative_prompts: For each text another one that it is led away from (`generation.guidance`), with as many blanks,
            or None; scores are then those of the guided distribution.

    Raises:
        GenerationError: As `build_prompt`; constraints or negative prompts that do not match the texts; constraints that
            leave no token; settings that cannot be combined with `n`.
    """
    if n is not None:
        nbest.check_settings(n, settings)
    if n is None and settings.num_beams == 1:
        drawn = draw(
            model,
            tokenizer,
            texts,
            settings,
            [[None]] * len(texts),
            batch_size=batch_size,
            constraints=constraints,
            negative_prompts=negative_prompts,
        )
        return [result for [result] in drawn]
    requests = [
        request.within(_positions(model))  # the engine sees to it itself
        for request in _requests(model, tokenizer, texts, settings, constraints, negative_prompts)
    ]
    if n is not None:
        return [_fill_n_best(model, tokenizer, request, n) for request in requests]
    return [_fill_with_beams(model, tokenizer, request) for request in requests]


def draw(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Prompt],
    settings: DecodingSettings,
    seeds: Sequence[Sequence[int | None]],
    *,
    batch_size: int = 8,
    constraints: Sequence[Constraints] | None = None,
    negative_prompts: Sequence[str | Prompt | None] | None = None,
) -> list[list[Filled]]:
    """Fills every text as often as it has seeds; part A is read once for up to `batch_size` of its fillings.

    Args:
        model: As in `fill`; so are `tokenizer`, `texts`, `constraints` and `negative_prompts`.
        tokenizer: The tokenizer.
        texts: The texts.
        settings: How tokens are chosen; no beams.
        seeds: For each text the seed of each filling's random stream; None is the settings'.
        batch_size: Fillings written together.
        constraints: For each text what its blanks may contain.
        negative_prompts: For each text another one that it is led away from.

    Raises:
        GenerationError: As `fill`; beams.
    """
    requests = _requests(model, tokenizer, texts, settings, constraints, negative_prompts)
    engine = make_engine(model, tokenizer, max_batch=batch_size)
    tickets: dict[int, list[Ticket]] = {}
    for index in sorted(range(len(requests)), key=lambda index: len(requests[index].prompt.ids)):
        own = seeds[index]
        parts = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
        tickets[index] = [engine.submit(replace(requests[index], seeds=part)) for part in parts]
    for _ in _unfailed(engine.run()):
        pass
    return [
        [
            filled(tokenizer, request.prompt, sample)
            for ticket in tickets[index]
            for sample in ticket.samples
        ]
        for index, request in enumerate(requests)
    ]


def stream(
    model: Any,
    tokenizer: Any,
    text: str | Prompt,
    settings: DecodingSettings,
    constraint: Constraints = None,
    negative_prompt: str | Prompt | None = None,
) -> Generator[str, None, bool]:
    """Yields the contents of a text's first blank as they are written, in pieces that are whole characters.

    The pieces joined are what `fill` gives for that blank; the generator returns whether the blank ended by itself.
    """
    first, against = (
        None if one is None else _first_blank(build_prompt(tokenizer, one, _positions(model)))
        for one in (text, negative_prompt)
    )
    assert first is not None
    [request] = _requests(model, tokenizer, [first], settings, [constraint], [against])
    pieces, written = TextPieces(request.chooser.stop), ""
    engine = make_engine(model, tokenizer, max_batch=1)
    [[blank]] = engine.submit(request).samples
    for _ in _unfailed(engine.run()):
        written = blank_text(tokenizer, blank)
        if piece := pieces.add(written, blank.finished):
            yield piece
    if piece := pieces.rest(written):
        yield piece
    return blank.finished


def _first_blank(prompt: Prompt) -> Prompt:
    return replace(prompt, mask_indices=prompt.mask_indices[:1])


def _positions(model: Any) -> int:
    return model.config.max_sequence_length


def _unfailed(events: Iterable[Event]) -> Iterator[Event]:
    """Yields events up to the first error of a request, which it raises."""
    for event in events:
        if event.ticket.error is not None:
            raise event.ticket.error
        yield event


def make_engine(model: Any, tokenizer: Any, **limits: Any) -> Engine:
    """Returns an engine for a model in evaluation mode.

    Args:
        model: A `GLMForConditionalGeneration`; an `Assistant` that is its attribute `assistant` guesses for it.
        tokenizer: Its `GLMTokenizer`.
        **limits: `max_batch`, `max_tokens`.
    """
    assistant = getattr(model, "assistant", None)
    sop, positions = tokenizer.special_ids.sop, _positions(model)
    return Engine(make_runner(model), sop, positions, assistant=assistant, **limits)


def make_chooser(
    model: Any, tokenizer: Any, settings: DecodingSettings, *, num_likeliest: int = 0
) -> TokenChooser:
    """Returns the chooser for this vocabulary: no special token but the ends, no padding row is written.

    Args:
        model: A `GLMForConditionalGeneration`.
        tokenizer: Its `GLMTokenizer`.
        settings: How to choose.
        num_likeliest: So many of the likeliest tokens are noted at each place (`BlankTokens.likeliest`).
    """
    ids = tokenizer.special_ids
    ends = {ids.eop, ids.eos}
    forbidden = tokenizer.textless_ids - ends
    stop = StopStrings(tokenizer, settings.stop)
    return TokenChooser(
        settings, sorted(forbidden), sorted(ends), len(tokenizer), stop, num_likeliest
    )


def _requests(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str | Prompt],
    settings: DecodingSettings,
    constraints: Sequence[Constraints] | None,
    negative_prompts: Sequence[str | Prompt | None] | None,
) -> list[Request]:
    """Returns a request for each text, with a constraint (or None) for each of its blanks."""
    positions, chooser = _positions(model), make_chooser(model, tokenizer, settings)
    limits = _for_each(texts, constraints, "constraints")
    others = _for_each(texts, negative_prompts, "negative_prompts")
    requests = []
    for text, limit, other in zip(texts, limits, others, strict=True):
        prompt = build_prompt(tokenizer, text, positions)
        against = None if other is None else build_prompt(tokenizer, other, positions)
        guidance = guidance_of(prompt, against, settings)
        blanks = per_blank(limit, len(prompt.mask_indices))
        requests.append(Request(prompt, chooser, blanks, guidance=guidance))
    return requests


def _for_each(texts: Sequence[Any], given: Sequence[Any] | None, name: str) -> list[Any]:
    some = [None] * len(texts) if given is None else list(given)
    if len(some) != len(texts):
        raise GenerationError(
            f"{name}: there are {len(texts)} texts and {name} for {len(some)}; give one (or None) for each text"
        )
    return some


def blank_text(tokenizer: Any, blank: BlankTokens) -> str:
    """Returns the contents of a blank, also of one that is still being written."""
    if blank.text is not None:
        return blank.text
    return tokenizer.decode(blank.tokens, skip_special_tokens=True)


def filled(tokenizer: Any, prompt: Prompt, blanks: Sequence[BlankTokens]) -> Filled:
    """Returns a prompt's text with these contents in its blanks."""
    texts = [blank_text(tokenizer, blank) for blank in blanks]
    return Filled(
        text=prompt.assemble(texts),
        blanks=[text.strip() for text in texts],
        scores=[sum(blank.log_probabilities) for blank in blanks],
        finished=[blank.finished for blank in blanks],
    )


def _fill_n_best(model: Any, tokenizer: Any, request: Request, n: int) -> Filled:
    """Returns the likeliest filling, with the n likeliest as candidates; the same text counts once."""
    prompt, sop = request.prompt, tokenizer.special_ids.sop
    ways = nbest.search(make_runner(model), request, sop, _positions(model), n + SPARE_WAYS)
    together: dict[tuple[str, ...], float] = {}
    single: list[dict[str, float]] = [{} for _ in prompt.mask_indices]
    for way in ways:
        texts = tuple(blank_text(tokenizer, BlankTokens(list(blank))) for blank in way.blanks)
        together[texts] = float(np.logaddexp(together.get(texts, -np.inf), way.score))
        for place, text in enumerate(texts):
            known = single[place].get(text.strip(), -np.inf)
            single[place][text.strip()] = float(np.logaddexp(known, way.score))
    candidates = [
        Candidate(prompt.assemble(list(texts)), [one.strip() for one in texts], score, exp(score))
        for texts, score in sorted(together.items(), key=lambda item: -item[1])[:n]
    ]
    return Filled(
        text=candidates[0].text,
        blanks=candidates[0].blanks,
        scores=list(ways[0].scores),
        alternatives=[sorted(some.items(), key=lambda item: -item[1])[:n] for some in single],
        finished=[True] * len(single),
        candidates=candidates,
    )


def _fill_with_beams(model: Any, tokenizer: Any, request: Request) -> Filled:
    """Returns the filling that beams find, with the other contents of each blank as alternatives."""
    sop = tokenizer.special_ids.sop
    found = beams.search(make_runner(model), request, sop, _positions(model))
    alternatives = [
        [(blank_text(tokenizer, one).strip(), sum(one.log_probabilities)) for one in some]
        for some in found
    ]
    best = filled(tokenizer, request.prompt, [some[0] for some in found])
    return replace(best, alternatives=alternatives)

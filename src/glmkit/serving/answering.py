"""What the engine wrote -> what the client gets: choices, log-probabilities, usage, and chunks of a stream.

In: the blanks of a job, done or growing. Out: `schemas`. The pieces of a stream join to the text that comes without one. Knows no HTTP.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any, Literal

from glmkit.generation.decoding import BlankTokens
from glmkit.generation.infill import blank_text
from glmkit.generation.pieces import TextPieces
from glmkit.generation.request import Request
from glmkit.generation.results import Filled
from glmkit.serving import schemas
from glmkit.serving.scheduler import Job, num_written

LEAST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON does not have (OpenAI's number for it)."""


class Answering:
    """Writes the answers of OpenAI's two endpoints for one request of a client.

    Args:
        tokenizer: The model's `GLMTokenizer`.
        name: What clients call the model.
        chat: Whether it is a chat.
        logprobs: Whether log-probabilities are wanted.
        echo: Whether a completion has its prompt.
    """

    def __init__(
        self, tokenizer: Any, name: str, *, chat: bool, logprobs: bool = False, echo: bool = False
    ):
        self._tokenizer, self._name, self._chat = tokenizer, name, chat
        self._logprobs, self._echo = logprobs, echo
        self._id = ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex
        self._created = int(time.time())

    def whole(self, job: Job) -> schemas.Completion | schemas.ChatCompletion:
        """Returns the answer of a job that is done."""
        choices: list[Any] = []
        for request, samples in zip(job.requests, job.samples, strict=True):
            for [blank] in samples:
                text = self.text(request, blank)
                reason: Literal["stop", "length"] = "stop" if blank.finished else "length"
                if self._chat:
                    choices.append(
                        schemas.ChatChoice(
                            index=len(choices),
                            message=schemas.Reply(content=text),
                            finish_reason=reason,
                            logprobs=self._chat_logprobs(blank) if self._logprobs else None,
                        )
                    )
                else:
                    choices.append(
                        schemas.CompletionChoice(
                            index=len(choices),
                            text=text,
                            finish_reason=reason,
                            logprobs=self._text_logprobs(blank) if self._logprobs else None,
                        )
                    )
        kind = schemas.ChatCompletion if self._chat else schemas.Completion
        return kind(
            id=self._id, created=self._created, model=self._name, choices=choices, usage=usage(job)
        )

    def text(self, request: Request, blank: BlankTokens) -> str:
        """Returns the text of a choice."""
        content = blank_text(self._tokenizer, blank)
        return request.prompt.assemble([content]) if self._echo else content.strip()

    async def chunks(
        self, job: Job, longest: Sequence[int], with_usage: bool
    ) -> AsyncIterator[schemas.Body]:
        """Yields the chunks of a stream while the job is written.

        Args:
            job: A live job.
            longest: For each of its requests the most tokens of a blank.
            with_usage: Whether a last chunk has the usage.
        """
        first = [0, *accumulate(len(request.seeds) for request in job.requests)]
        pieces: dict[int, TextPieces] = {}
        told: dict[int, int] = {}
        async for update in job.updates():
            index, blank = first[update.request] + update.sample, update.tokens
            if index not in pieces:
                stop = job.requests[update.request].chooser.stop
                pieces[index], told[index] = TextPieces(stop, strip=True), 0
                if self._chat:
                    yield self._chunk(index, {"role": "assistant", "content": ""})
            written = blank_text(self._tokenizer, blank)
            over = blank.finished or len(blank.tokens) >= longest[update.request]
            piece = pieces[index].add(written, blank.finished)
            if over:
                piece += pieces[index].rest(written)
            if piece or over:
                logprobs = self._logprobs_since(blank, told[index]) if self._logprobs else None
                told[index] = len(blank.tokens)
                if piece or logprobs:
                    yield self._chunk(
                        index, {"content": piece} if self._chat else piece, logprobs=logprobs
                    )
            if over:
                reason = "stop" if blank.finished else "length"
                yield self._chunk(index, {} if self._chat else "", reason=reason)
        if with_usage:
            yield {**self._head(), "choices": [], "usage": usage(job).model_dump()}

    def _head(self) -> schemas.Body:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._name,
        }

    def _chunk(
        self, index: int, new: Any, *, reason: str | None = None, logprobs: Any = None
    ) -> schemas.Body:
        choice = {
            "index": index,
            "delta" if self._chat else "text": new,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        return {**self._head(), "choices": [choice]}

    def _logprobs_since(self, blank: BlankTokens, start: int) -> schemas.Body | None:
        if start >= len(blank.tokens):
            return None
        found = self._chat_logprobs if self._chat else self._text_logprobs
        return found(blank, start).model_dump()

    def _text_logprobs(self, blank: BlankTokens, start: int = 0) -> schemas.TextLogprobs:
        values = blank.log_probabilities[start:]
        pieces = token_pieces(self._tokenizer, blank.tokens, start)[: len(values)]
        best = [
            {self._token(token): _finite(value) for token, value in some}
            for some in blank.likeliest[start : start + len(pieces)]
        ]
        return schemas.TextLogprobs(
            tokens=[text for text, _ in pieces],
            token_logprobs=list(map(_finite, values)),
            top_logprobs=best or None,
            text_offset=[offset for _, offset in pieces],
        )

    def _chat_logprobs(self, blank: BlankTokens, start: int = 0) -> schemas.ChatLogprobs:
        content = []
        pieces = token_pieces(self._tokenizer, blank.tokens, start)
        for place, ((text, _), value) in enumerate(
            zip(pieces, blank.log_probabilities[start:], strict=False), start
        ):
            best = blank.likeliest[place] if place < len(blank.likeliest) else []
            content.append(
                schemas.TokenLogprob(
                    token=text,
                    logprob=_finite(value),
                    bytes=_bytes(text),
                    top_logprobs=[
                        schemas.TopLogprob(
                            token=self._token(token),
                            logprob=_finite(other),
                            bytes=_bytes(self._token(token)),
                        )
                        for token, other in best
                    ],
                )
            )
        return schemas.ChatLogprobs(content=content)

    def _token(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))


def usage(job: Job) -> schemas.Usage:
    """Returns how many tokens a job read and wrote; part A counts once, whatever the number of samples."""
    read = sum(len(request.prompt.ids) for request in job.requests)
    written = sum(map(num_written, job.tickets))
    return schemas.Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def filled_text(one: Filled) -> schemas.FilledText:
    """Returns what `glm.fill` gives as the client gets it."""
    return schemas.FilledText(
        text=one.text,
        blanks=one.blanks,
        scores=list(map(_finite, one.scores)),
        finished=one.finished,
        candidates=[schemas.FilledCandidate(**asdict(each)) for each in one.candidates],
    )


def token_pieces(tokenizer: Any, tokens: Sequence[int], start: int = 0) -> list[tuple[str, int]]:
    """Returns what each token from `start` on adds to the text, and where in it that begins.

    A character of several tokens belongs to the last of them.
    """

    def ready(count: int) -> str:
        text = str(tokenizer.decode(list(tokens[:count]), skip_special_tokens=True)).lstrip()
        return text if count == len(tokens) else text.rstrip("�")

    pieces, told = [], len(ready(start))
    for count in range(start + 1, len(tokens) + 1):
        text = ready(count)
        pieces.append((text[told:], told))
        told = max(told, len(text))
    return pieces


def _bytes(text: str) -> list[int] | None:
    return None if "�" in text else list(text.encode())


def _finite(value: float) -> float:
    return max(LEAST, value)

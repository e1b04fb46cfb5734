"""What a client asked -> what the engine is asked: decoding settings, prompts, seeds.

In: checked requests (`schemas`), a model and its tokenizer. Out: `generation` requests. The settings are those that `glm.generate`,
`glm.chat` and `glm.fill` have with the same arguments. Knows no HTTP; runs in a thread, because a long text takes long to encode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glmkit.applications import dialogue
from glmkit.applications.labels import as_records
from glmkit.applications.prompts import media_prompt
from glmkit.errors import GenerationError
from glmkit.generation.constraints import Constraint
from glmkit.generation.guidance import guidance_of
from glmkit.generation.infill import make_chooser
from glmkit.generation.prompts import Prompt, build_prompt, split_at_blanks
from glmkit.generation.request import Request
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.media import Medium
from glmkit.serving import controlling
from glmkit.serving.explanations import ExplainRequest
from glmkit.serving.failures import Failure
from glmkit.serving.media import Received, characters, listed
from glmkit.serving.schemas import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    Decoding,
    FillRequest,
    Led,
    WithMedia,
)
from glmkit.serving.settings import ServingSettings
from glmkit.tasks.encoding import rows_of
from glmkit.tasks.rendering import media_of, text_of
from glmkit.tasks.task import Task

SAME_NAMES = ("top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size", "guidance_scale")

Blanks = tuple[Prompt, list[Constraint | None]]
"""A prompt, and what each of its blanks may contain."""

UNCUT = 1 << 30
"""More positions than any text has."""


class Asking:
    """Makes requests for one model.

    Args:
        model: A `GLMForConditionalGeneration` or what stands in its place.
        tokenizer: Its `GLMTokenizer`.
        settings: The server's limits.
        reader: What reads media (`multimodal.reader.MediaReader`), or None.

    Attributes:
        most_tokens: Most tokens of a blank that may be asked for.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: ServingSettings, reader: Any = None):
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._reader = reader
        self._positions = model.config.max_sequence_length
        self.most_tokens = min(settings.max_new_tokens or self._positions - 1, self._positions - 1)

    def completion(self, asked: CompletionRequest) -> list[Request]:
        """Returns one request for each prompt, of `n` samples.

        Raises:
            Failure: It is beyond a limit.
            GenerationError: Impossible settings, or a prompt with several blanks.
        """
        texts = self.texts(asked.prompt)
        for text in texts:
            if len(split_at_blanks(self._tokenizer, text)) > 3:
                raise GenerationError(
                    "a completion fills one blank, but the prompt has several; POST /v1/fill fills all of them"
                )
        settings = self._decoding(asked, asked.max_tokens, asked.n)
        constraint = controlling.of_answer(self._tokenizer, asked)
        prompts = self.prompts(asked.prompt, asked)
        blanks: list[Blanks] = [(prompt, [constraint]) for prompt in prompts]
        return self._requests(blanks, settings, asked, asked.logprobs or 0)

    def chat(self, asked: ChatRequest) -> list[Request]:
        """Returns the request for a conversation's next reply; the earliest turns give way where they do not fit.

        Raises:
            Failure, GenerationError: As `completion`; roles out of order.
            MediaError: Media that cannot be read, or that others than the user send.
        """
        self._check_characters(characters(one.content) for one in asked.messages)
        received = Received(self._settings)
        messages = [
            {
                "role": "system" if one.role == "developer" else one.role,
                "content": received.content(one.content, f"messages[{number}].content"),
            }
            for number, one in enumerate(asked.messages)
        ]
        limits = {asked.max_tokens, asked.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise GenerationError("max_tokens and max_completion_tokens differ; give one of them")
        if asked.top_logprobs and not asked.logprobs:
            raise GenerationError("top_logprobs needs logprobs=true")
        most = limits.pop() if limits else None
        constraint = controlling.of_answer(self._tokenizer, asked)
        settings = self._decoding(asked, most, asked.n, dialogue.usual_settings(constraint))
        [prompt], chosen = dialogue.prepare(
            self._model, self._tokenizer, [messages], settings, constraint, self._reader
        )
        return self._requests([(prompt, [constraint])], chosen, asked, asked.top_logprobs or 0)

    def fill(self, asked: FillRequest) -> list[Request]:
        """Returns one request for each text.

        Raises:
            Failure, GenerationError: As `completion`.
        """
        return self._requests(self.blanks(asked), self.fill_settings(asked), asked, 0)

    def blanks(self, asked: FillRequest) -> list[Blanks]:
        """Returns each text's prompt, with what each of its blanks may contain."""
        prompts = self.prompts(asked.texts, asked)
        counts = [len(prompt.mask_indices) for prompt in prompts]
        limits = controlling.of_blanks(self._tokenizer, asked, counts)
        return list(zip(prompts, limits, strict=True))

    def fill_settings(self, asked: FillRequest) -> DecodingSettings:
        """Returns how blanks are filled, also by a search for the n likeliest."""
        return self._decoding(asked, asked.max_tokens, 1)

    def texts(self, given: str | Sequence[str]) -> list[str]:
        """Returns a list of texts within the server's limits.

        Raises:
            Failure: Too many, or too long together.
        """
        texts = [given] if isinstance(given, str) else list(given)
        if len(texts) > self._settings.max_texts:
            raise Failure(
                400,
                f"the request has {len(texts)} texts; at most {self._settings.max_texts} at a time",
                "too_many_texts",
            )
        self._check_characters(map(len, texts))
        return texts

    def prompts(self, given: str | Sequence[str], asked: WithMedia) -> list[Prompt]:
        """Returns the prompts of texts with their media.

        Raises:
            Failure: As `texts` and `prompt`; media beyond a limit.
            MediaError: Media that cannot be read, or do not belong to the texts.
        """
        media = Received(self._settings).of_texts(asked, given)
        return [
            self.prompt(text, some) for text, some in zip(self.texts(given), media, strict=True)
        ]

    def records(self, asked: ClassifyRequest | ExplainRequest, task: Task) -> list[Any]:
        """Returns the records of a task that a request has: its own, or texts with the media beside them.

        Raises:
            Failure: Too many, or too long together; media beyond a limit, or that are none; fields that the task does not have.
            DataError: A text alone for a task of several fields.
            MediaError: Media that do not belong to the texts or to the task.
        """
        received = Received(self._settings)
        read = [
            received.record(task, one, f"texts[{number}]") if isinstance(one, dict) else one
            for number, one in enumerate(listed(asked.texts))
        ]
        self.texts([one if isinstance(one, str) else _words(task, one) for one in read])
        return as_records(task, read, received.of_texts(asked, asked.texts))

    def size(self, task: Task, record: Mapping[str, Any]) -> int:
        """Returns how long a record is: characters, and rows of media.

        Raises:
            MediaError: Media that cannot be read, or that the model does not read.
        """
        media = media_of(task, record, "the record")
        return len(_words(task, record)) + sum(rows_of(media, self._reader and self._reader.count_rows))  # fmt: skip

    def longest(self, request: Request) -> int:
        """Returns the most tokens of a blank."""
        return request.longest(self._positions)

    def _decoding(
        self,
        asked: Decoding,
        max_tokens: int | None,
        n: int,
        usual: dict[str, Any] = {},  # noqa: B006 - read alone
    ) -> DecodingSettings:
        self.check_tokens(max_tokens)
        if n > min(self._settings.max_samples, self._settings.max_batch):
            most = min(self._settings.max_samples, self._settings.max_batch)
            raise Failure(
                400, f"n={n} is more than {most}; ask several times", "n_too_large", param="n"
            )
        given = {name: getattr(asked, name, None) for name in SAME_NAMES}
        wants_draws = (asked.temperature, asked.top_k, asked.top_p) != (None, None, None) or n > 1
        draws = wants_draws and asked.temperature != 0
        arguments = dict(usual) | {
            name: value for name, value in given.items() if value is not None
        }
        if draws:
            arguments["temperature"] = 1.0 if asked.temperature is None else asked.temperature
        else:
            arguments = {
                name: value for name, value in arguments.items() if name not in ("top_k", "top_p")
            }
        if max_tokens is not None:
            arguments["max_new_tokens"] = max_tokens
        arguments.setdefault("max_new_tokens", DecodingSettings.max_new_tokens)
        arguments["max_new_tokens"] = min(arguments["max_new_tokens"], self.most_tokens)
        if asked.min_tokens is not None:
            arguments["min_new_tokens"] = asked.min_tokens
        stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
        return DecodingSettings.from_arguments(
            do_sample=draws, seed=asked.seed, stop=stop, **arguments
        )

    def _requests(
        self,
        blanks: Iterable[Blanks],
        settings: DecodingSettings,
        asked: Decoding,
        num_likeliest: int,
    ) -> list[Request]:
        chooser = make_chooser(self._model, self._tokenizer, settings, num_likeliest=num_likeliest)
        n = getattr(asked, "n", None) if not isinstance(asked, FillRequest) else None
        seeds = [None if asked.seed is None else asked.seed + one for one in range(n or 1)]
        several = list(blanks)
        others = self.negative_prompts(asked, len(several))
        return [
            Request(prompt, chooser, limits, seeds, guidance_of(prompt, other, settings))
            for (prompt, limits), other in zip(several, others, strict=True)
        ]

    def negative_prompts(self, asked: Decoding, count: int) -> list[Prompt | None]:
        """Returns for each of `count` prompts the one that it is led away from, or None.

        Raises:
            Failure: As `texts` and `prompt`.
            GenerationError: Another number of them.
        """
        given = asked.negative_prompt if isinstance(asked, Led) else None
        if given is None:
            return [None] * count
        texts = self.texts(given) * (count if isinstance(given, str) else 1)
        if len(texts) != count:
            raise GenerationError(
                f"there are {count} texts and {len(texts)} negative prompts; give one for all, or one for each"
            )
        return [self.prompt(text) for text in texts]

    def prompt(self, text: str, media: Sequence[Medium] = ()) -> Prompt:
        """Returns a text's prompt; unlike the library a server does not cut it: the client shall know.

        Raises:
            Failure: It is longer than the model reads.
            MediaError: Media that cannot be read, that the text does not name so, or that the model does not read.
        """
        if media:
            try:
                return media_prompt(self._tokenizer, text, media, self._reader, self._positions)
            except GenerationError as error:
                raise Failure(400, str(error), "context_length_exceeded") from error
        prompt = build_prompt(self._tokenizer, text, UNCUT)
        if len(prompt.ids) > self._positions:
            raise Failure(
                400,
                f"the text has {len(prompt.ids)} tokens, the model reads {self._positions}; shorten it",
                "context_length_exceeded",
            )
        return prompt

    def check_tokens(self, max_tokens: int | None) -> None:
        """Refuses more tokens than a blank may have here."""
        if max_tokens is not None and max_tokens > self.most_tokens:
            raise Failure(
                400,
                f"max_tokens={max_tokens} is more than the {self.most_tokens} that a blank may have here; ask for less",
                "max_tokens_too_large",
                param="max_tokens",
            )

    def _check_characters(self, lengths: Iterable[int]) -> None:
        together, most = sum(lengths), self._settings.max_characters
        if together > most:
            raise Failure(
                400,
                f"the texts have {together} characters together; at most {most} at a time",
                "too_many_characters",
            )


def _words(task: Task, record: Mapping[str, Any]) -> str:
    """Returns all texts of a record."""
    return "".join(text_of(one) for name, one in record.items() if name not in task.media)

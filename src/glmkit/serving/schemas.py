"""What clients send and get: pydantic models, from which the OpenAPI page is made.

In: JSON. Out: checked values, with the limits that hold for every server (those of one server are in `settings`). As with OpenAI an
unknown field is refused, with its name. OpenAI's fields that change nothing about the text (`user`, `metadata`, `store`,
`service_tier`) are ignored; those that would, and that GLM does not do (penalties by frequency, biases), may have their neutral
value alone. Fields beyond OpenAI's have transformers' or vLLM's names, and what a text may contain is said in those of `generation.control`.
Images, sounds and clips come as `data:` URLs or base64; what else such a string may say is refused (`serving.media`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glmkit.multimodal.media import Kind

Text = Annotated[str, Field(max_length=1 << 20)]
Texts = Text | Annotated[list[Text], Field(min_length=1)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
Stop = StopString | Annotated[list[StopString], Field(max_length=16)] | None
Word = Annotated[str, Field(min_length=1, max_length=1000)]
Words = Annotated[list[Word], Field(min_length=1, max_length=100)]
Length = Annotated[int, Field(ge=0, le=1_000_000)]
Probability = Annotated[float, Field(gt=0, le=1)]
Sent = Annotated[str, Field(min_length=1)]
Record = Annotated[
    dict[Annotated[str, Field(max_length=200)], str | Annotated[list[str], Field(max_length=1000)]],
    Field(max_length=100),
]
"""Of a task: field -> its text, or its medium (a `data:` URL, or the file's bytes in base64); or a list of either."""
TextsOrRecords = Text | Record | Annotated[list[Text | Record], Field(min_length=1)]
Media = Sent | Annotated[list[Sent | Annotated[list[Sent], Field(max_length=1000)] | None], Field(max_length=1000)]  # fmt: skip
"""For one text a medium or a list of them, for a list of texts a list with one item (a medium, a list of them, or null) for each."""


class Strict(BaseModel):
    """An object without unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Controlled(Strict):
    """What is written must be so; everything given is kept at once."""

    choices: (
        Annotated[
            list[Annotated[str, Field(max_length=2000)]], Field(min_length=1, max_length=1000)
        ]
        | None
    ) = Field(None, description="It is one of these.")
    regex: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description="All of it matches, in the syntax of Rust's regex."
    )
    json_schema: dict[str, Any] | bool | None = Field(None, description="It is JSON of the schema.")
    grammar: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description="It is a sentence of the grammar (Lark, as llguidance has it)."
    )
    include: Words | None = Field(None, description="It holds all of these words.")
    exclude: Words | None = Field(None, description="It holds none of these words.")
    min_characters: Length | None = None
    max_characters: Length | None = None
    min_lines: Length | None = None
    max_lines: Length | None = None


class Decoding(Controlled):
    """How text is chosen; in place of what is not given `glm.generate`'s defaults hold.

    The likeliest token is taken where none of `temperature`, `top_p` and `top_k` is given; with `n` above 1 tokens are drawn.
    """

    temperature: float | None = Field(None, ge=0, le=10, description="0 takes the likeliest token.")
    top_p: Probability | None = None
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    seed: int | None = Field(
        None, ge=-(2**62), le=2**62, description="Sample i draws with seed + i."
    )
    stop: Stop = None
    min_tokens: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=100)


class Led(Strict):
    """What the text is led away from."""

    negative_prompt: Texts | None = Field(
        None, description="A text with as many blanks: one for all prompts, or one for each."
    )
    guidance_scale: float | None = Field(
        None, gt=0, le=20, description="How far; 1 is not at all, 1.5 is usual."
    )


class MediaRequest(Strict):
    """What may have images, sounds and clips, so that it may be much larger than texts."""


class WithMedia(MediaRequest):
    """What is seen and heard with the texts, where the model reads such: `data:` URLs, or the files' bytes in base64.

    For one text a medium or a list of them; for a list of texts a list with one item (or null) for each. They stand where the text
    says `<|image|>`, `<|audio|>`, `<|video|>`, or before it.
    """

    images: Media | None = Field(None, description="PNG, JPEG, WebP, GIF, BMP, TIFF …")
    audios: Media | None = Field(None, description="WAV, FLAC, MP3, AAC, Opus …")
    videos: Media | None = Field(None, description="MP4, WebM, MKV, AVI …")


class OpenAIRequest(Decoding):
    """What both of OpenAI's endpoints take."""

    model: str = Field(max_length=256)
    max_tokens: int | None = Field(None, ge=1, description="Most tokens that are written.")
    n: int = Field(1, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = Field(
        None, description="JSON, perhaps of a schema; kept at every token, whether `strict` or not."
    )
    presence_penalty: Literal[0] | None = Field(None, description="Only 0.")
    frequency_penalty: Literal[0] | None = Field(None, description="Only 0.")
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(
        None, description="Only empty."
    )
    user: str | None = Field(None, description="Ignored.")
    metadata: dict[str, str] | None = Field(None, description="Ignored.")
    store: bool | None = Field(None, description="Ignored.")
    service_tier: str | None = Field(None, description="Ignored.")


class StreamOptions(Strict):
    include_usage: bool = Field(False, description="A last chunk has the usage.")
    include_obfuscation: bool | None = Field(None, description="Ignored.")


class NamedSchema(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="Of no effect.")
    description: str | None = Field(None, description="Ignored: the model does not read it.")
    schema_: dict[str, Any] | bool | None = Field(
        None, alias="schema", description="By default any JSON object."
    )
    strict: bool | None = Field(None, description="Ignored: it is always kept.")


class ResponseFormat(Strict):
    """What the answer's text is."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(None, description="With the type json_schema.")


class CompletionRequest(OpenAIRequest, Led, WithMedia):
    """Goes on with each prompt, or fills its only blank ([MASK], [sMASK] or [gMASK])."""

    prompt: Texts
    echo: bool = Field(False, description="The prompt, its blank filled, in place of what is new.")
    logprobs: int | None = Field(
        None, ge=0, le=5, description="So many likeliest tokens at each place."
    )
    best_of: Literal[1] | None = Field(None, description="Only 1.")


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class Link(Strict):
    url: Sent = Field(description="A data: URL; no address is fetched.")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="Ignored.")


class _LinkedPart(Strict):
    """A part whose field of the name of its type is a link, or its URL alone."""

    type: str

    @property
    def sent(self) -> tuple[Kind, str]:
        """What kind of medium was sent, and the medium."""
        given = getattr(self, self.type)
        kind: Any = self.type.removesuffix("_url")
        return kind, given if isinstance(given, str) else given.url


class ImagePart(_LinkedPart):
    type: Literal["image_url"]
    image_url: Link | Sent


class AudioLinkPart(_LinkedPart):
    type: Literal["audio_url"]
    audio_url: Link | Sent


class VideoPart(_LinkedPart):
    type: Literal["video_url"]
    video_url: Link | Sent


class Sound(Strict):
    data: Sent = Field(description="The file's bytes in base64.")
    format: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Such as wav or mp3; of no effect: the file says it."
    )


class AudioPart(Strict):
    type: Literal["input_audio"]
    input_audio: Sound

    @property
    def sent(self) -> tuple[Kind, str]:
        """What kind of medium was sent, and the medium."""
        return "audio", self.input_audio.data


Part = Annotated[
    TextPart | ImagePart | AudioPart | AudioLinkPart | VideoPart, Field(discriminator="type")
]


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part] = Field(
        description="A text, or parts: texts, and of what the user says images, sounds and clips."
    )
    name: str | None = Field(None, description="Ignored.")


class ChatRequest(OpenAIRequest, MediaRequest):
    """The next reply of a conversation: perhaps a system message, then user and assistant in turn, the user last."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="Another name of max_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class FillRequest(Decoding, Led, WithMedia):
    """Fills every blank of each text: a few words ([MASK]), a sentence ([sMASK]), to the end ([gMASK])."""

    model: str | None = Field(None, max_length=256)
    texts: Texts
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of each blank.")
    n: int | None = Field(
        None,
        ge=1,
        le=20,
        description="Search for the n likeliest ways to fill all blanks together.",
    )
    constraints: Annotated[list[Controlled | None], Field(min_length=1, max_length=1000)] | None = (
        Field(
            None,
            description="What each blank of every text must be, in their order (null: anything), "
            "beside what the other fields say of all blanks.",
        )
    )


class ClassifyRequest(WithMedia):
    """Says which label each text or record has: of a task of the catalog or of the model, or of labels of one's own."""

    model: str | None = Field(None, max_length=256)
    texts: TextsOrRecords
    labels: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=2, max_length=100
    )
    task: str | None = Field(None, max_length=200, description="Such as topics or sentiment.")
    template: str | None = Field(
        None, max_length=2000, description="With labels: how to ask, with {text} and [MASK]."
    )
    language: Literal["zh", "en"] | None = None
    long_texts: Literal["shorten", "windows"] = "shorten"


class ScoreRequest(Strict):
    """The log-probability of each text, read left to right."""

    model: str | None = Field(None, max_length=256)
    texts: Texts


class EmbeddingsRequest(Strict):
    """A vector for each text: the mean of the final hidden states of its tokens, of length 1."""

    model: str = Field(max_length=256)
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(None, description="Ignored.")


class Usage(BaseModel):
    """Tokens read (part A, its markers included) and written (end markers included)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: TextLogprobs | None = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Reply(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: Reply
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "glmkit"
    input_modalities: list[Literal["text", "image", "audio", "video"]] = Field(
        ["text"], description="What the model reads."
    )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class FilledCandidate(BaseModel):
    text: str
    blanks: list[str]
    score: float
    probability: float


class FilledText(BaseModel):
    text: str
    blanks: list[str]
    scores: list[float]
    finished: list[bool]
    candidates: list[FilledCandidate] = []


class FillResponse(BaseModel):
    model: str
    data: list[FilledText]
    usage: Usage | None = Field(None, description="Absent with n: a search counts no tokens.")


class Labelled(BaseModel):
    label: str
    probabilities: dict[str, float]


class ClassifyResponse(BaseModel):
    model: str
    data: list[Labelled]


class Scored(BaseModel):
    log_probability: float
    perplexity: float
    tokens: list[str]
    token_log_probabilities: list[float]


class ScoreResponse(BaseModel):
    model: str
    data: list[Scored]


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: ErrorBody


Body = dict[str, Any]

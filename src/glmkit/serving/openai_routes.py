"""OpenAI's endpoints: models, completions, chat, embeddings.

In: FastAPI's application, a `Server`. Out: the application with the paths. The bodies are `schemas`.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from glmkit.serving import schemas
from glmkit.serving.answering import Answering
from glmkit.serving.failures import Failure
from glmkit.serving.server import Server
from glmkit.tokens.blanked import encode_plain

EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "A chunk as JSON, or [DONE]."}},
    "required": ["data"],
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}
}
"""What the schema says of an answer in pieces."""


def add_openai(app: FastAPI, server: Server) -> None:
    """Adds the endpoints."""

    def card() -> schemas.ModelCard:
        kinds = () if server.glm.media is None else server.glm.media.kinds
        return schemas.ModelCard(
            id=server.settings.name, created=server.created, input_modalities=["text", *kinds]
        )

    @app.get("/v1/models", tags=["OpenAI"])
    async def models() -> schemas.ModelList:
        """The model that this server has."""
        return schemas.ModelList(data=[card()])

    @app.get("/v1/models/{name}", tags=["OpenAI"])
    async def model(name: str) -> schemas.ModelCard:
        """The model of a name."""
        server.check_model(name)
        return card()

    @app.post(
        "/v1/completions", tags=["OpenAI"], response_model=schemas.Completion, responses=STREAMED
    )
    async def completions(asked: schemas.CompletionRequest, request: Request) -> Response:
        """Goes on with a text, or fills its only blank."""
        name, wants = server.check_model(asked.model), asked.logprobs is not None
        if asked.echo and (asked.stream or wants):
            raise Failure(
                400,
                "echo goes with neither stream nor logprobs: GLM reads a prompt in both directions, and scores none of it; "
                "POST /v1/score scores a text",
                "invalid_value",
                param="echo",
            )
        answering = Answering(
            server.glm.vocabulary, name, chat=False, logprobs=wants, echo=asked.echo
        )
        make = functools.partial(server.asking.completion, asked)
        return await server.openai(request, asked, make, answering)

    @app.post(
        "/v1/chat/completions",
        tags=["OpenAI"],
        response_model=schemas.ChatCompletion,
        responses=STREAMED,
    )
    async def chat(asked: schemas.ChatRequest, request: Request) -> Response:
        """Writes the next reply of a conversation."""
        name, wants = server.check_model(asked.model), bool(asked.logprobs)
        answering = Answering(server.glm.vocabulary, name, chat=True, logprobs=wants)
        make = functools.partial(server.asking.chat, asked)
        return await server.openai(request, asked, make, answering)

    @app.post("/v1/embeddings", tags=["OpenAI"])
    async def embeddings(asked: schemas.EmbeddingsRequest, request: Request) -> schemas.Embeddings:
        """A vector for each text."""
        name, texts = server.check_model(asked.model), server.asking.texts(asked.input)
        server.log(request, "asked", texts)

        def body() -> tuple[Any, int]:
            tokens = sum(len(encode_plain(server.glm.vocabulary, text)) for text in texts)
            return server.glm.embed(texts), tokens

        vectors, tokens = await server.work(request, body)
        return schemas.Embeddings(
            model=name,
            data=[
                schemas.Embedding(index=index, embedding=_vector(one, asked.encoding_format))
                for index, one in enumerate(vectors)
            ],
            usage=schemas.EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )


def _vector(values: np.ndarray, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return values.tolist()

"""GLM's own endpoints, for what OpenAI has no word for: blanks, labels, scores.

In: FastAPI's application, a `Server`. Out: the application with the paths. The bodies are `schemas`; what they give is what the methods
of `GLM` give.
"""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from glmkit.errors import nearest
from glmkit.generation.infill import filled
from glmkit.generation.results import Classification, Filled
from glmkit.serving import schemas
from glmkit.serving.answering import filled_text, usage
from glmkit.serving.explanations import ExplainRequest, ExplainResponse
from glmkit.serving.failures import Failure
from glmkit.serving.media import has_media, listed
from glmkit.serving.server import Server
from glmkit.serving.waiting import unless_gone
from glmkit.tasks.task import Task, catalog

WRITTEN_TOKENS = 16
"""Of a blank that is filled to be explained, unless the client says another number."""

MAPPED_CHARACTERS = 200
"""Longest text, its rows of media among it, whose attention maps are sent; they grow with the square of its length."""


def add_own(app: FastAPI, server: Server) -> None:
    """Adds the endpoints."""
    _add_fill(app, server)
    _add_classify_and_score(app, server)
    _add_explain(app, server)


def _add_fill(app: FastAPI, server: Server) -> None:
    glm = server.glm

    @app.post("/v1/fill", tags=["GLM"], response_model=schemas.FillResponse)
    async def fill(asked: schemas.FillRequest, request: Request) -> Response:
        """Fills every blank of each text, or finds the n likeliest ways to fill them together."""
        name = server.check_model(asked.model)
        server.log(request, "asked", asked.model_dump(exclude_none=True))
        if asked.n is not None:
            settings = server.asking.fill_settings(asked)

            def search() -> list[Filled]:
                prompts, limits = zip(*server.asking.blanks(asked), strict=True)
                others = server.asking.negative_prompts(asked, len(prompts))
                options = {"constraints": limits, "negative_prompt": others, **asdict(settings)}
                return glm.fill(prompts, n=asked.n, **options)

            found = await server.work(request, search)
            data = [filled_text(one) for one in found]
            answer = schemas.FillResponse(model=name, data=data, usage=None)
        else:

            async def whole() -> schemas.FillResponse:
                make = functools.partial(server.asking.fill, asked)
                job = await server.ask(request, make, media=has_media(asked))
                samples = await job.written()
                texts = [
                    filled_text(filled(glm.vocabulary, one.prompt, blanks))
                    for one, [blanks] in zip(job.requests, samples, strict=True)
                ]
                return schemas.FillResponse(model=name, data=texts, usage=usage(job))

            answer = await unless_gone(request.receive, whole())
        server.log(request, "got", [one.text for one in answer.data])
        return JSONResponse(answer.model_dump())


def _add_classify_and_score(app: FastAPI, server: Server) -> None:
    glm = server.glm

    @app.post("/v1/classify", tags=["GLM"])
    async def classify(
        asked: schemas.ClassifyRequest, request: Request
    ) -> schemas.ClassifyResponse:
        """Says which label each text or record has."""
        name, task = server.check_model(asked.model), _task(server, asked)

        def label() -> list[Classification]:
            records = server.asking.records(asked, task)
            server.log(request, "asked", asked.model_dump(exclude_none=True), task.media)
            return glm.classify(
                records,
                task,
                contextual=asked.labels is not None,
                language=asked.language,
                long_texts=asked.long_texts,
            )

        found = await server.work(request, label, media=has_media(asked, task))
        data = [schemas.Labelled(**asdict(one)) for one in found]
        return schemas.ClassifyResponse(model=name, data=data)

    @app.post("/v1/score", tags=["GLM"])
    async def score(asked: schemas.ScoreRequest, request: Request) -> schemas.ScoreResponse:
        """The log-probability of each text."""
        name, texts = server.check_model(asked.model), server.asking.texts(asked.texts)
        server.log(request, "asked", texts)
        found = await server.work(request, lambda: glm.score(texts))
        data = [
            schemas.Scored(**{field: getattr(one, field) for field in schemas.Scored.model_fields})
            for one in found
        ]
        return schemas.ScoreResponse(model=name, data=data)


def _add_explain(app: FastAPI, server: Server) -> None:
    glm = server.glm

    @app.post("/v1/explain", tags=["GLM"], response_model=ExplainResponse)
    async def explain(asked: ExplainRequest, request: Request) -> Response:
        """Says which words made the model fill a blank so, or choose a label, and what else it might have written."""
        name = server.check_model(asked.model)
        of_label = asked.task is not None or asked.labels is not None
        task = _task(server, asked) if of_label else None
        pool = server.viewers if has_media(asked, task) else server.encoders
        reading = pool.run(lambda: _explained(server, asked, task), request.state.deadline)
        texts, settings = await unless_gone(request.receive, reading)
        media = () if task is None else task.media
        server.log(request, "asked", asked.model_dump(exclude_none=True), media)
        explaining = server.explain(
            request.state.deadline,
            lambda progress: glm.explain(texts, **settings, progress=progress),
        )
        found = await unless_gone(request.receive, explaining)
        data = [
            {**one.to_dict(attention=asked.attention), "facts": {**one.facts, "model": name}}
            for one in found
        ]
        # Encoding many numbers takes long, too.
        body = await asyncio.to_thread(_json, {"model": name, "data": data})
        return Response(body, media_type="application/json")


def _explained(
    server: Server, asked: ExplainRequest, task: Task | None
) -> tuple[list[Any], dict[str, Any]]:
    """Returns what is to be explained (of blanks texts, and prompts with media; of a task records), within the server's limits, and how.

    Raises:
        Failure: Too many blanks or texts, too long ones, a record without a task.
    """
    settings = asked.model_dump(include={"methods", "baseline", "unit", "top_k", "attention"})
    blanks = asked.blanks if isinstance(asked.texts, list) or asked.blanks is None else [asked.blanks]  # fmt: skip
    given: dict[str, Any] = {"label": asked.label, "template": asked.template, "language": asked.language, "blanks": blanks}  # fmt: skip
    read: list[Any]
    given_texts: Any = asked.texts
    if task is not None:
        read = server.asking.records(asked, task)
        count, sizes = len(read), [server.asking.size(task, one) for one in read]
        given |= {"task": None if asked.labels else task, "labels": asked.labels}
    elif any(isinstance(one, dict) for one in listed(given_texts)):
        raise Failure(
            400,
            "a record is of a classification: give its task with it, or a text with blanks",
            "invalid_value",
            param="texts",
        )
    else:
        texts = server.asking.texts(given_texts)
        prompts = server.asking.prompts(given_texts, asked)
        count = sum(len(prompt.mask_indices) for prompt in prompts)
        read = [one if one.media else text for text, one in zip(texts, prompts, strict=True)]
        sizes = [len(text) + sum(run.length for run in one.media) for text, one in zip(texts, prompts, strict=True)]  # fmt: skip
    server.asking.check_tokens(asked.max_tokens)
    if asked.max_tokens is not None:
        given["max_new_tokens"] = asked.max_tokens
    elif task is None and blanks is None:
        given["max_new_tokens"] = WRITTEN_TOKENS
    if count > server.settings.max_explained:
        raise Failure(
            400,
            f"the texts have {count} blanks (or labels) to explain; at most {server.settings.max_explained} at a time",
            "too_many_explained",
        )
    if asked.attention and max(sizes) > MAPPED_CHARACTERS:
        raise Failure(
            400,
            f"attention maps of a text of more than {MAPPED_CHARACTERS} characters (and rows of media) are too many numbers to send; "
            "ask without them, or use the library",
            "too_many_characters",
            param="attention",
        )
    return read, {**settings, **given}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _task(server: Server, asked: schemas.ClassifyRequest | ExplainRequest) -> Task:
    """Returns the task that is meant: of labels, or one of the catalog or of the model by its name, never a file.

    Raises:
        Failure: No such task.
        ConfigError: As `glm.classify`.
    """
    own = server.glm.tasks
    known = [*own, *catalog()]
    if asked.task is not None and asked.task not in known:
        raise Failure(
            400,
            f"there is no task {asked.task!r:.80}{nearest(asked.task, known) or '.'} There are {', '.join(known)}",
            "task_not_found",
            param="task",
        )
    usual = None if own or asked.labels else "topics"
    return server.glm.task_of(asked.task or usual, asked.labels, asked.template)

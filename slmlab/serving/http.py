"""The HTTP face of an engine: the part of OpenAI's API that completes text.

Routes: /v1/models, /v1/models/{id}, /v1/completions, /v1/chat/completions, /health. There is no
authentication. Two checks keep a web page from using a server on the loopback: bodies must be sent
as application/json, which a page of another origin cannot do without asking first, and nobody
answers it; and a page that was made to look like the same origin (DNS rebinding) still sends its
own name as the host.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from slmlab.models.fields import check_whole
from slmlab.serving import errors
from slmlab.serving.answers import Answer, ChatAnswer, CompletionAnswer
from slmlab.serving.calls import Call, answer_whole, check_choices, client_left, start
from slmlab.serving.engine import Engine
from slmlab.serving.errors import ApiError, JsonResponse
from slmlab.serving.prompts import chat_ids, completion_ids
from slmlab.serving.schemas import ChatRequest, CompletionRequest
from slmlab.serving.streaming import EventStream
from slmlab.serving.token_bytes import TokenBytes
from slmlab.serving.worker import ServerClosing, Worker

MAX_BODY_BYTES = 1 << 20
B = TypeVar("B", bound=BaseModel)


def create_app(
    engine: Engine,
    model_name: str = "tiny",
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """An ASGI app that serves ``engine`` under ``model_name``.

    From the start to the end of the app's lifespan a thread owns the engine: use it nowhere else
    meanwhile. ``app.state.worker`` is that ``Worker``. hosts: names that a request may call this
    server by, without a port; None for any.

    Raises:
        ValueError, TypeError: no Engine, no name, a limit below 1.
    """
    if not isinstance(engine, Engine):
        raise TypeError(f"engine must be a slmlab.serving.Engine, not {type(engine).__name__}")
    if not isinstance(model_name, str):
        raise TypeError(f"model_name must be a str, not {model_name!r}")
    if not model_name:
        raise ValueError("model_name is empty: clients ask for the model by it")
    check_whole("max_body_bytes", max_body_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = app.state.worker = Worker(engine)
        try:
            yield
        finally:
            worker.close()
            await worker.join()

    # The pages of /docs load scripts from the network, and bodies are read below, past FastAPI.
    app = FastAPI(title="slmlab serve", lifespan=lifespan, openapi_url=None)
    errors.install(app)
    if hosts is not None:
        app.add_middleware(HostCheck, hosts=frozenset(hosts))
    card = {"id": model_name, "object": "model", "created": int(time.time()), "owned_by": "slmlab"}
    tokens = TokenBytes(engine.lm.tokenizer)
    # The first call switches off a truncation that the tokenizer's file may ask for. Later calls
    # change nothing, so that threads can encode while the engine decodes.
    engine.lm.encode("a")

    def check_model(name: str) -> None:
        if name != model_name:
            raise ApiError(
                404,
                f"The model '{name}' does not exist. This server has '{model_name}'.",
                param="model",
                code="model_not_found",
            )

    @app.get("/v1/models")
    async def models() -> Response:
        return JsonResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        check_model(name)
        return JsonResponse(card)

    @app.get("/health")
    async def health(request: Request) -> Response:
        worker: Worker = request.app.state.worker
        status = "ok" if worker.healthy else "error"
        stats: dict[str, Any] | None = None
        try:
            stats = await worker.stats()
        except ServerClosing:
            status = "closing"
        if not worker.alive:
            status = "stopped"
        report = {
            "status": status,
            "model": model_name,
            "failed_steps": worker.failed_steps,
            "last_error": worker.last_error,
            "stats": stats,
        }
        return JsonResponse(report, 200 if status == "ok" else 503)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await read_body(request, CompletionRequest, max_body_bytes)
        check_model(body.model)
        check_choices(engine, body, len(body.prompts), "prompt")
        prompts = await completion_ids(engine.lm, body)
        call = Call.of(engine, body, prompts, prompt_field="prompt", default_new_tokens=16)
        return await respond(request, call, CompletionAnswer(model_name, tokens))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body = await read_body(request, ChatRequest, max_body_bytes)
        check_model(body.model)
        check_choices(engine, body, 1, "messages")
        prompts = await chat_ids(engine.lm, body, model_name)
        call = Call.of(engine, body, prompts, prompt_field="messages", default_new_tokens=None)
        return await respond(request, call, ChatAnswer(model_name, tokens))

    return app


class HostCheck:
    """Answers 421 to a request that calls this server by a name it does not have."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # "localhost:8000", "127.0.0.1", "[::1]:8000"
            name = re.sub(r":[0-9]+$", "", Headers(scope=scope).get("host", "")).lower()
            if name not in self.hosts:
                error = ApiError(421, f"This server is not '{name}': use {min(self.hosts)}.")
                await JsonResponse(error.body(), error.status)(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def respond(request: Request, call: Call, answer: Answer) -> Response:
    """Start ``call`` and answer it, whole or as a stream."""
    worker: Worker = request.app.state.worker
    job = await start(worker, call)
    if call.stream:
        return EventStream(worker, job, call, answer)
    return await answer_whole(request, worker, job, call, answer)


async def read_body(request: Request, schema: type[B], most: int) -> B:
    """The JSON body, checked.

    Raises:
        ApiError: 400 malformed or out of range, 413 too large, 415 no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "Send the body as JSON, with the header Content-Type: application/json."
        )
    body = bytearray()
    async with client_left():
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise ApiError(
                    413,
                    f"The body is larger than {most} bytes: send a shorter prompt.",
                    code="request_too_large",
                    # What is left of the body is not read, so the connection cannot be used again.
                    headers={"Connection": "close"},
                )
    try:
        return schema.model_validate_json(bytes(body))
    except ValidationError as error:
        raise errors.invalid_request(error) from None

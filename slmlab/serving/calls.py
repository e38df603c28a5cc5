"""One call of the API: what it asks of the engine, and its whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from slmlab.serving.answers import Answer, usage
from slmlab.serving.engine import Engine, QueueFull
from slmlab.serving.errors import ApiError, JsonResponse
from slmlab.serving.request import Completion
from slmlab.serving.schemas import MOST_CHOICES, ChatRequest, CompletionRequest
from slmlab.serving.worker import EngineFailed, Job, ServerClosing, Worker

NOBODY_READS_THIS = 499  # nginx's status for a client that went away


@dataclass(frozen=True)
class Call:
    """``requests``: arguments of ``Engine.submit``, ``n`` for each prompt, prompt by prompt."""

    requests: list[dict[str, Any]]
    n: int
    prompt_field: str
    stream: bool
    include_usage: bool

    @classmethod
    def of(
        cls,
        engine: Engine,
        body: CompletionRequest | ChatRequest,
        prompts: list[list[int]],
        *,
        prompt_field: str,
        default_new_tokens: int | None,
    ) -> Call:
        """What ``body`` asks for ``prompts``.

        Args:
            default_new_tokens: where the body sets no limit; None for all that fits.

        Raises:
            ApiError: 400, more than the model's positions, the pool, or the queue can hold.
        """
        n = body.n or 1
        requests = []
        for ids in prompts:
            limit = _new_tokens(engine, body, len(ids), prompt_field, default_new_tokens)
            for i in range(n):
                requests.append(
                    {
                        "prompt": ids,
                        "max_new_tokens": limit,
                        "temperature": 1.0 if body.temperature is None else body.temperature,
                        "top_k": body.top_k,
                        "top_p": body.top_p,
                        # Choices of one prompt and one seed would all be the same.
                        "seed": None if body.seed is None else body.seed + i,
                        "stop": body.stop,
                        "logprobs": body.alternatives,
                    }
                )
        return cls(requests, n, prompt_field, bool(body.stream), body.include_usage)

    def usage(self, completions: list[Completion]) -> dict[str, Any]:
        return usage(completions, range(0, len(completions), self.n))


def check_choices(
    engine: Engine, body: CompletionRequest | ChatRequest, prompts: int, prompt_field: str
) -> None:
    """Raise ApiError (400) for more answers than one call may ask for; before any text is encoded."""
    n = body.n or 1
    most = MOST_CHOICES if engine.max_waiting is None else min(engine.max_waiting, MOST_CHOICES)
    if prompts * n > most:
        raise ApiError(
            400,
            f"{prompts} prompt(s) with n={n} are {prompts * n} choices; this server takes at most "
            f"{most} in one call.",
            param="n" if n > 1 else prompt_field,
            code="invalid_value",
        )


def _new_tokens(
    engine: Engine,
    body: CompletionRequest | ChatRequest,
    prompt: int,
    prompt_field: str,
    default: int | None,
) -> int:
    """How many tokens to generate behind a prompt of so many."""
    positions = engine.model.config.max_position_embeddings
    # The last generated token is never an input: its keys are not stored.
    slots = engine.pool.num_blocks * engine.pool.block_size + 1
    asked, room = body.new_tokens, min(positions, slots) - prompt
    wanted = asked if asked is not None else max(min(room, default or room), 1)
    if wanted <= room:
        return wanted
    field = prompt_field if room < 1 or asked is None else body.limit_field
    request = (
        f"{prompt + wanted} tokens ({prompt} in the {prompt_field}, {wanted} to generate): shorten "
        f"the {prompt_field}" + ("" if room < 1 else f", or lower {body.limit_field} to {room}")
    )
    if prompt + wanted > positions:
        message = (
            f"This model's maximum context length is {positions} tokens; you asked for {request}."
        )
        raise ApiError(400, message, param=field, code="context_length_exceeded")
    message = (
        f"This server's KV pool holds {slots - 1} tokens ({engine.pool.num_blocks} blocks of "
        f"{engine.pool.block_size}); you asked for {request}."
    )
    raise ApiError(400, message, param=field, code="kv_pool_exceeded")


async def start(worker: Worker, call: Call) -> Job:
    """Queue the call's requests.

    Raises:
        ApiError: 400 for a prompt that the engine refuses, 429 queue full, 503 no engine.
    """
    try:
        return await worker.submit(call.requests, call.stream)
    except QueueFull as error:
        raise ApiError(
            429,
            f"The queue is full: {error}.",
            code="rate_limit_exceeded",
            headers={"Retry-After": "1"},
        ) from None
    except (ValueError, TypeError) as error:
        # The schemas have checked the settings: what is left is an empty prompt, or ids that are
        # outside the vocabulary.
        field = call.prompt_field
        raise ApiError(400, f"{field}: {error}", param=field, code="invalid_value") from None
    except (EngineFailed, ServerClosing) as error:
        raise failure(error) from None


def failure(error: EngineFailed | ServerClosing) -> ApiError:
    """What a client hears when the engine, not its request, is at fault."""
    if isinstance(error, ServerClosing):
        return ApiError(503, "The server is shutting down.", code="server_closing")
    return ApiError(500, f"{error}"[:1].upper() + f"{error}"[1:], code="engine_error")


def check_ended_well(completion: Completion) -> None:
    """Raise EngineFailed for an end that is no answer."""
    if completion.finish_reason == "error":
        raise EngineFailed(
            "the model's logits are NaN or infinite: its weights are damaged, or its dtype overflows"
        )


async def answer_whole(
    request: Request, worker: Worker, job: Job, call: Call, answer: Answer
) -> Response:
    """Wait for the whole answer; a client that goes away meanwhile frees its blocks.

    Raises:
        ApiError: 500, 503.
    """
    collecting = asyncio.create_task(_collect(job, len(call.requests)))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=NOBODY_READS_THIS)
        completions = collecting.result()
    except (EngineFailed, ServerClosing) as error:
        raise failure(error) from None
    finally:
        collecting.cancel()
        leaving.cancel()
        worker.cancel(job)
    return JsonResponse(answer.whole(completions, call.usage(completions)))


async def _collect(job: Job, requests: int) -> list[Completion]:
    done: dict[int, Completion] = {}
    async for event in job.events(requests):
        if event.completion is not None:
            check_ended_well(event.completion)
            done[event.index] = event.completion
    return [done[i] for i in range(requests)]


async def _disconnected(request: Request) -> None:
    """Return when the client is gone. The body has been read: nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def client_left() -> AsyncIterator[None]:
    """Turn a client that leaves while it sends into an answer that nobody reads."""
    try:
        yield
    except ClientDisconnect:
        raise ApiError(NOBODY_READS_THIS, "The client went away.") from None

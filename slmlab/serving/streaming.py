"""A call answered as server-sent events, the way OpenAI sends them.

Each event is one line ``data: JSON`` and an empty line; the last one is ``data: [DONE]``. An error
behind the first byte cannot change the status any more: it comes as an event with ``error``.
Source: the HTML standard, "Server-sent events"; the OpenAI API reference, "Streaming".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from slmlab.serving.answers import Answer
from slmlab.serving.calls import Call, check_ended_well, failure
from slmlab.serving.errors import to_json
from slmlab.serving.request import Completion
from slmlab.serving.worker import EngineFailed, Job, ServerClosing, Worker


class EventStream(StreamingResponse):
    """Sends a job's events; ends the job when the client goes away."""

    def __init__(self, worker: Worker, job: Job, call: Call, answer: Answer) -> None:
        super().__init__(
            _events(job, call, answer),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._worker = worker
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # However it ended. Of a job that is complete nothing is left to cancel.
            self._worker.cancel(self._job)


def _event(content: Any) -> str:
    return f"data: {to_json(content)}\n\n"


async def _events(job: Job, call: Call, answer: Answer) -> AsyncIterator[str]:
    def chunk(choice: dict[str, Any]) -> str:
        content = answer.chunk([choice])
        return _event({**content, "usage": None} if call.include_usage else content)

    count = len(call.requests)
    done: dict[int, Completion] = {}
    try:
        for index in range(count):
            opening = answer.opening(index)
            if opening is not None:
                yield chunk(opening)
        async for event in job.events(count):
            if event.completion is not None:
                check_ended_well(event.completion)
            if event.output.text or event.output.logprob is not None:
                yield chunk(answer.piece(event.index, event.output))
            if event.completion is not None:
                done[event.index] = event.completion
                yield chunk(answer.ending(event.index, event.completion.finish_reason))
        if call.include_usage:
            counts = call.usage([done[i] for i in range(count)])
            yield _event({**answer.chunk([]), "usage": counts})
    except (EngineFailed, ServerClosing) as error:
        yield _event(failure(error).body())
    yield "data: [DONE]\n\n"

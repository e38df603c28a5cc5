"""The thread that owns the engine: the event loop asks, the thread answers between two steps.

An engine is not safe to touch from two threads, and a forward pass would block an event loop. So
one thread steps it and nothing else touches it. What the event loop wants of it (submit, cancel,
stats) goes through an inbox and comes back in a future; what the requests generate goes to the
asyncio queue of their job.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from slmlab.serving.engine import Engine
from slmlab.serving.request import Completion, Output

T = TypeVar("T")
_log = logging.getLogger(__name__)


class EngineFailed(RuntimeError):
    """A step raised, or the model's logits were NaN: the request ended without an answer."""


class ServerClosing(RuntimeError):
    """The worker is shutting down and takes nothing more."""


@dataclass(frozen=True)
class Event:
    """What a step did for one request of a job.

    index: which of the job's requests. completion: set on the request's last event.
    """

    index: int
    output: Output
    completion: Completion | None


class Job:
    """The requests of one call, and the queue on which their events arrive.

    Args:
        stream: deliver every output; otherwise only the last one of each request.
    """

    def __init__(self, stream: bool) -> None:
        self.stream = stream
        self.ids: list[int] = []  # written and read by the worker's thread only
        self.queue: asyncio.Queue[Event | Exception] = asyncio.Queue()

    async def events(self, requests: int) -> AsyncIterator[Event]:
        """Events in the order they happened, until each of ``requests`` requests has ended.

        Raises:
            EngineFailed, ServerClosing: instead of the rest.
        """
        while requests:
            item = await self.queue.get()
            if isinstance(item, Exception):
                raise item
            requests -= item.completion is not None
            yield item


class Worker:
    """Steps ``engine`` in a thread of its own while there is something to do.

    Make it, call its methods and read its queues in one running event loop.

    Attributes:
        failed_steps: steps that raised, since the start.
        last_error: what the latest of them said.
        healthy: the latest step went well.
    """

    def __init__(self, engine: Engine) -> None:
        self.failed_steps = 0
        self.last_error: str | None = None
        self.healthy = True
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closing = False
        self._lock = threading.Lock()  # nothing enters the inbox behind the last word
        self._jobs: dict[int, tuple[Job, int]] = {}  # by request id
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="slmlab-engine", daemon=True)
        self._thread.start()

    # Called in the event loop.

    async def submit(self, requests: Sequence[dict[str, Any]], stream: bool) -> Job:
        """Queue all of ``requests`` (arguments of ``Engine.submit``) or none of them.

        Raises:
            ValueError, TypeError, QueueFull: as ``Engine.submit``.
            EngineFailed: an earlier failure left the engine unusable.
            ServerClosing: after ``close``.
        """
        job = Job(stream)
        try:
            await asyncio.wrap_future(self._call(lambda: self._submit(job, requests)))
        except asyncio.CancelledError:
            self.cancel(job)
            raise
        return job

    def cancel(self, job: Job) -> None:
        """End what still waits or runs of ``job``, without waiting for it: before the next step."""
        with suppress(ServerClosing):  # closing ends every request
            self._call(lambda: self._end(job))

    async def stats(self) -> dict[str, Any]:
        """``Engine.stats``.

        Raises:
            ServerClosing: after ``close``.
        """
        return await asyncio.wrap_future(self._call(lambda: self._engine.stats))

    def close(self) -> None:
        """Take nothing more and end every request with ``ServerClosing``, after the current step."""
        with self._lock:
            if not self._closing:
                self._closing = True
                self._inbox.put(None)

    async def join(self) -> None:
        """Wait until the thread has ended."""
        await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        """The thread runs and the engine can be used."""
        return self._thread.is_alive() and not self._broken

    def _call(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def command() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        with self._lock:
            if self._closing:
                raise ServerClosing("the server is shutting down")
            self._inbox.put(command)
        return future

    # Called in the worker's thread.

    def _run(self) -> None:
        try:
            while self._obey():
                if not self._engine.idle and not self._broken:
                    self._step()
        except Exception as error:  # a bug of this file: the server must not hang on it
            _log.exception("the engine's thread ends")
            self._fail(error)
            self._broken = True
            while self._obey():
                pass
        self._end_all(ServerClosing("the server is shutting down"))

    def _obey(self) -> bool:
        """Run the commands that wait, or wait for one if there is no work; False ends the thread."""
        wait = self._engine.idle or self._broken
        while True:
            try:
                command = self._inbox.get(block=wait)
            except Empty:
                return True
            if command is None:
                return False
            command()
            wait = False

    def _submit(self, job: Job, requests: Sequence[dict[str, Any]]) -> None:
        if self._broken:
            raise EngineFailed(f"the engine stopped after an error: {self.last_error}")
        try:
            for index, settings in enumerate(requests):
                request_id = self._engine.submit(**settings)
                job.ids.append(request_id)
                self._jobs[request_id] = (job, index)
        except Exception:
            self._end(job)
            raise

    def _step(self) -> None:
        try:
            outputs = self._engine.step()
        except Exception as error:
            _log.exception("a step of the engine failed")
            self._fail(error)
            return
        self.healthy = True
        events: list[tuple[Job, Event | Exception]] = []
        try:
            for output in outputs:
                job, index = self._jobs[output.request_id]
                completion = None
                if output.finish_reason is not None:
                    # Taken out at once: the engine keeps a result until somebody does.
                    completion = self._engine.result(output.request_id)
                    del self._jobs[output.request_id]
                if job.stream or completion is not None:
                    events.append((job, Event(index, output, completion)))
        finally:
            self._deliver(events)

    def _fail(self, error: Exception) -> None:
        """End every request with an error; the engine goes on if that leaves it empty."""
        self.healthy = False
        self.failed_steps += 1
        # Text, not the exception: its traceback would keep the step's tensors alive.
        self.last_error = f"{type(error).__name__}: {error}"[:500]
        try:
            self._end_all(EngineFailed(f"the engine failed: {self.last_error}"))
            self._broken = not self._engine.idle or self._engine.pool.num_used > 0
        except Exception:
            _log.exception("the engine cannot be used any more")
            self._broken = True

    def _end_all(self, why: Exception) -> None:
        jobs = list({id(job): job for job, _ in self._jobs.values()}.values())
        # Told before anything is freed: whatever fails there, nobody waits for ever.
        self._deliver([(job, why) for job in jobs])
        for job in jobs:
            self._end(job)

    def _end(self, job: Job) -> None:
        """Free what ``job`` holds, and drop its results."""
        for request_id in job.ids:
            if self._jobs.pop(request_id, None) is None:
                continue
            with suppress(ValueError):  # it ended within a step that failed later
                self._engine.cancel(request_id)
            self._engine.result(request_id)

    def _deliver(self, items: list[tuple[Job, Event | Exception]]) -> None:
        """Wake the event loop once for a whole step."""

        def put() -> None:
            for job, item in items:
                job.queue.put_nowait(item)

        if items:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for an answer
                self._loop.call_soon_threadsafe(put)

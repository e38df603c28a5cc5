"""One run of one child: the request goes in, messages come out, and limits are kept."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from io import FileIO
from typing import Literal

from slmlab.grading.inside.frames import FrameError, FrameReader, TooMuchOutput
from slmlab.grading.records import Ended, Limits
from slmlab.grading.sandbox.cgroup import ControlGroup
from slmlab.grading.sandbox.errors import SandboxUnavailable, ServerLost
from slmlab.grading.sandbox.fork_server import ForkServer
from slmlab.grading.sandbox.received import Received
from slmlab.grading.sandbox.watchdog import POLL_SECONDS, Watchdog

GRACE_SECONDS = 2.0  # for a cell to end by itself, after its time, by the alarm inside
MIB = 1 << 20
Stop = Literal["stuck", "time", "cpu", "memory", "output", "protocol"]


@dataclass
class Attempt:
    """What one child did; `stop` is what we ended it for, None where it ended by itself."""

    received: Received
    stop: Stop | None
    detail: str
    status: int
    cpu_seconds: float
    peak_mb: float
    killed_for_memory: bool
    grouped: bool = False  # the kernel took it into the control group

    def ended(self, limits: Limits) -> tuple[Ended, str]:
        """How the run ended, with the sentence of the report."""
        times = f"{limits.cpu_seconds:g} s of CPU time"
        reasons: dict[str, str] = {
            "time": f"It ran for more than {limits.submission_seconds:g} s in all.",
            "cpu": f"It used more than {times}.",
            "memory": f"It used more than {limits.memory_mb} MiB of memory.",
            "output": f"It sent back more than {limits.output_mb} MiB.",
            "protocol": f"It sent something that is no answer: {self.detail}",
        }
        if self.stop in reasons:
            return self.stop, reasons[self.stop]  # type: ignore[return-value]
        if self.received.complete and self.status == 0:
            return "finished", ""
        if self.killed_for_memory:
            return "memory", reasons["memory"]
        if self.status == -signal.SIGKILL and self.cpu_seconds >= limits.cpu_seconds:
            return "cpu", reasons["cpu"]
        place = self.received.place()
        if self.status < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-self.status).name
                return "exited", f"Its process was ended by {name}{place}."
        return "exited", f"Its process ended itself{place} (exit status {self.status})."


def attempt(
    server: ForkServer,
    number: int,
    request: bytes,
    received: Received,
    limits: Limits,
    *,
    skip: tuple[int, ...],
    uid: int | None,
    group: ControlGroup | None,
    deadline: float,
) -> Attempt:
    """Runs one child to its end.

    request    the encoded message of the request, with its length in front
    skip       places of cells that the child leaves out
    deadline   time.monotonic() at which the submission's time is over

    Raises ServerLost where the server does not answer, SandboxUnavailable where the kernel refuses
    the isolation.
    """
    with contextlib.ExitStack() as stack:
        request_out, request_in = _pipe(stack)
        answers_out, answers_in = _pipe(stack)
        server.run(number, limits, skip, uid, (request_out.fileno(), answers_in.fileno()))
        request_out.close()
        answers_in.close()
        first = server.receive()
        if "refused" in first.content:
            raise SandboxUnavailable(f"The kernel refuses a step: {first.content.get('why')}.")
        if group is not None and (first.sender is None or not group.add(first.sender)):
            group = None
        watchdog = Watchdog(first.sender, limits, group) if first.sender else None
        if watchdog is not None:
            watchdog.look()  # before the request: what the child holds now is torch's, not its own
        loop = _Loop(server, request_in, answers_out, request, received, limits, deadline, watchdog)
        stop, detail = loop.run()
        if stop is not None:
            server.kill(number)
        last = server.receive().content
        if last.get("ended") != number:
            raise ServerLost("The sandbox's server lost count.")
    seen = watchdog or Watchdog(0, limits)
    return Attempt(
        received,
        stop,
        detail,
        int(last["status"]),
        max(float(last["cpu_seconds"]), seen.cpu_seconds),
        max(float(last["peak_mb"]), seen.peak_mb),
        group is not None and group.killed(),
        group is not None,
    )


def _pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """The two ends, as objects that close once; the stack closes what is still open."""
    out, into = os.pipe()
    return stack.enter_context(FileIO(out, "rb")), stack.enter_context(FileIO(into, "wb"))


class _Loop:
    """Waits for the child's messages until the pipe ends or something must be ended."""

    def __init__(
        self,
        server: ForkServer,
        request_in: FileIO,
        answers_out: FileIO,
        request: bytes,
        received: Received,
        limits: Limits,
        deadline: float,
        watchdog: Watchdog | None,
    ) -> None:
        self.server, self.received, self.limits = server, received, limits
        self.deadline, self.watchdog = deadline, watchdog
        self.request_in, self.answers_out = request_in, answers_out
        self.rest = memoryview(request)
        most = limits.output_mb * MIB
        self.more = False  # the reader may hold a further message
        self.reader = FrameReader(answers_out.fileno(), max_frame=most, max_total=most)
        for descriptor in (request_in, answers_out):
            os.set_blocking(descriptor.fileno(), False)

    def run(self) -> tuple[Stop | None, str]:
        """What to end the child for, None where it has ended or has closed its pipe."""
        reading, writing = self.answers_out.fileno(), self.request_in.fileno()
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        poll.register(writing, select.POLLOUT)
        poll.register(self.server.fileno(), select.POLLIN)
        next_look = time.monotonic()
        is_open = True
        try:
            while True:
                ready = {
                    descriptor
                    for descriptor, _ in poll.poll(0 if self.more else POLL_SECONDS * 1000)
                }
                if writing in ready and not self._write():
                    poll.unregister(writing)
                    self.request_in.close()
                dead = self.server.fileno() in ready or self.server.has_waiting
                if is_open and (reading in ready or self.more or dead) and not self._read():
                    poll.unregister(reading)
                    is_open = False
                if dead and not self.more:
                    return None, ""
                now = time.monotonic()
                if now >= self.deadline:
                    return "time", ""
                if dead:
                    continue  # only what is still in the pipe
                if self.received.running_for(now) > self.limits.cell_seconds + GRACE_SECONDS:
                    return "stuck", ""
                if now >= next_look:
                    next_look = now + POLL_SECONDS
                    passed = self.watchdog.look() if self.watchdog is not None else None
                    if passed is not None:
                        return passed, ""
        except TooMuchOutput:
            return "output", ""
        except ValueError as error:
            return "protocol", str(error)

    def _write(self) -> bool:
        """Sends more of the request; False when there is nothing left or nobody to read it."""
        try:
            sent = self.request_in.write(self.rest[: 1 << 16])
        except OSError:
            return False
        self.rest = self.rest[sent or 0 :]
        return bool(self.rest)

    def _read(self) -> bool:
        """Takes one message where one is whole, so that clocks and limits are looked at before the
        next; False at the end of the pipe."""
        self.more = False
        try:
            frame = self.reader.read(timeout=0)
        except TimeoutError:
            return True
        except TooMuchOutput:
            raise
        except FrameError:
            return False  # it died while it was writing
        if frame is None:
            return False
        self.received.take(frame, time.monotonic())
        self.more = True
        return True

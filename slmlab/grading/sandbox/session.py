"""A sandbox that runs one request after another.

A cell that does not end by itself is killed with its process, and the submission is run again from
the start without it, within the submission's time. A process that ends itself scores what it had
returned: its second run would end in the same place.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from slmlab.grading.records import Limits, Request, Transcript
from slmlab.grading.sandbox.attempt import Attempt, attempt
from slmlab.grading.sandbox.cgroup import ControlGroup
from slmlab.grading.sandbox.errors import SandboxUnavailable, ServerLost
from slmlab.grading.sandbox.fork_server import ForkServer
from slmlab.grading.sandbox.received import Received, encode

FIRST_UID, UIDS = 1_879_048_192, 1 << 24  # far above what systems give to people and containers


class Sandbox:
    """One fork server, restarted where it is lost; not for two threads at a time.

    start    starts a server
    kind     "bubblewrap" or "none"
    uids     True where each child becomes an unprivileged user of its own

    A child's user is new for each run: a limit on a user's processes counts those of other
    sandboxes on this machine too where they share it.
    """

    def __init__(
        self,
        start: Callable[[], ForkServer],
        limits: Limits,
        description: dict[str, Any],
        *,
        uids: bool,
        group: ControlGroup | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._start, self._limits, self._description = start, limits, description
        self._uids, self._group, self._on_close = uids, group, on_close
        self._numbers = itertools.count(1)
        self._server: ForkServer | None = None
        self._closed = False

    @property
    def description(self) -> dict[str, Any]:
        """Plain data for the audit: kind, version, cgroup, uid, and the versions inside."""
        inside = self._server.versions if self._server is not None else {}
        return {**self._description, "cgroup": self._group is not None, "inside": dict(inside)}

    def run(self, request: Request, limits: Limits | None = None) -> Transcript:
        """Runs a submission's cells and cases; limits are the sandbox's where not given.

        Whatever the submission does comes back as a Transcript. Raises TypeError for what is no
        Request, ValueError after close(), SandboxUnavailable where the kernel refuses the isolation
        or the server cannot be started again.
        """
        if not isinstance(request, Request):
            raise TypeError(f"run(request): pass a Request, not a {type(request).__name__}.")
        if self._closed:
            raise ValueError("This sandbox is closed; open another with open_sandbox().")
        limits = limits or self._limits
        begin = time.monotonic()
        deadline = begin + limits.submission_seconds
        skipped: dict[int, Received] = {}
        tries: list[Attempt] = []
        lost = 0
        while True:
            try:
                last = self._attempt(request, limits, tuple(skipped), deadline)
            except ServerLost as error:
                self._drop_server()
                lost += 1
                if lost < 2:
                    continue
                return _lost(tries, time.monotonic() - begin, str(error))
            tries.append(last)
            if not last.grouped:
                self._drop_group()
            stuck = last.received.current
            if last.stop != "stuck" or stuck is None or stuck in skipped:
                break
            skipped[stuck] = last.received
            if time.monotonic() >= deadline:
                break
        return _transcript(tries, skipped, limits, time.monotonic() - begin)

    def close(self) -> None:
        """Ends the server, everything in it, and the control group."""
        if self._closed:
            return
        self._closed = True
        self._drop_server()
        self._drop_group()
        if self._on_close is not None:
            self._on_close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def warm(self) -> None:
        """Starts the server now. Raises SandboxUnavailable where it does not come up."""
        if self._server is None:
            self._server = self._start()

    def _attempt(
        self, request: Request, limits: Limits, skip: tuple[int, ...], deadline: float
    ) -> Attempt:
        self.warm()
        assert self._server is not None
        number = next(self._numbers)
        uid = FIRST_UID + (os.getpid() * 1024 + number % 1024) % UIDS if self._uids else None
        group = self._group
        if group is not None and not group.limit(limits):
            group = None
        try:
            return attempt(
                self._server,
                number,
                encode(request),
                Received(request, skip),
                limits,
                skip=skip,
                uid=uid,
                group=group,
                deadline=deadline,
            )
        except ServerLost:
            raise
        except BaseException:
            # A child may still be running: nobody must find it in the next run.
            self._drop_server()
            raise

    def _drop_group(self) -> None:
        """A group that the kernel does not let us use is not named in an audit."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _transcript(
    tries: list[Attempt], skipped: dict[int, Received], limits: Limits, seconds: float
) -> Transcript:
    # A later run knows more, unless time ended it before it came as far as an earlier one.
    best = max(tries, key=lambda item: (item.received.executions, tries.index(item)))
    last = tries[-1]
    if last.stop == "stuck":
        ended, reason = "time", f"It ran for more than {limits.submission_seconds:g} s in all."
    else:
        ended, reason = last.ended(limits)
    return Transcript(
        answers=best.received.answers(),
        cells=best.received.cell_runs(tuple(skipped), limits.cell_seconds),
        ended=ended,  # type: ignore[arg-type]
        reason=reason,
        seconds=seconds,
        cpu_seconds=sum(item.cpu_seconds for item in tries),
        peak_mb=max(item.peak_mb for item in tries),
    )


def _lost(tries: list[Attempt], seconds: float, why: str) -> Transcript:
    found = max((item.received for item in tries), key=lambda item: item.executions, default=None)
    return Transcript(
        answers=found.answers() if found else {},
        cells=found.cell_runs((), 0) if found else (),
        ended="exited",
        reason=f"The sandbox was lost twice while it ran. {why}",
        seconds=seconds,
    )


__all__ = ["Sandbox", "SandboxUnavailable"]

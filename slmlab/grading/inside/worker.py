"""What a child of the fork server does: run a learner's cells, answer the cases, report.

A cell runs in the namespace that all share, as in a notebook. When it is over, the cases of each
exercise that it has defined are run, and what each call did is sent at once, so that a process that
dies has lost nothing that it had returned. The cell's clock goes on until then.

Whoever reads what is sent does not trust it. Private names, and putting back the builtins, are for
the later cells of the same learner, which an earlier one should not spoil.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import frames, seeds
from .absent import Absent
from .alarm import Alarm
from .cells import Cells, describe_error, where
from .messages import MAX_ITEMS, Messages, Work
from .pristine import Pristine

MAX_REQUEST = 1 << 30
MAX_DEFINITIONS = 20  # in one cell
SMALL_ITEMS = 100  # the same of items
SMALL_ANSWER = 1 << 14  # bytes that an answer may always have
STUB = Path(__file__).parent / "stub"

_answering = importlib.import_module(".answering.execution", __package__)
_failures = importlib.import_module(".answering.failure", __package__)
_send, _now, _getpid, _exit = frames.send, time.monotonic, os.getpid, os._exit
_collect = gc.collect
_kill = os.kill
# What a notebook's output says of itself.
_answering.BoundedText.encoding = "utf-8"


def main(read_fd: int, write_fd: int, limits: dict[str, Any]) -> None:
    """Reads one request, runs it, and returns when the last cell has ended.

    limits: cell_seconds; output_mb, MiB that may be sent (32 where absent); `skip`, the places of
    cells that are left out (none where absent).
    Raises ValueError where the request is none, OSError where nobody reads the answers.
    """
    messages = Messages(_answering)
    content = frames.FrameReader(read_fd, MAX_REQUEST).read()
    os.close(read_fd)
    if content is None:
        raise ValueError("read_fd: there is no request.")
    _Worker(messages, messages.read_request(content), write_fd, limits).run()


class _Worker:
    def __init__(
        self, messages: Messages, work: Work, write_fd: int, limits: dict[str, Any]
    ) -> None:
        self.messages = messages
        self.work = work
        self.write_fd = write_fd
        self.seconds = float(limits["cell_seconds"])
        self.skip = frozenset(limits.get("skip", ()))
        self.room = int(limits.get("output_mb", 32)) << 20
        self.items = MAX_ITEMS * 4 // 5  # the rest: for answers that come when these are used up
        self.alarm = Alarm()
        self.defined: list[tuple[str, Callable[..., Any]]] = []
        self.process = _getpid()
        self.execute = _answering.execute
        self.execution = _answering.Execution
        self.describe = _failures.describe
        self.bounded_text = _answering.BoundedText

    def run(self) -> None:
        """All cells, one after the other."""
        seeds.sow(self.work.seed)
        stub = _open_stub(self.define)
        cells = Cells()
        self.absent = Absent(stub, cells.module.__dict__)
        pristine = Pristine()
        for place, source in enumerate(self.work.cells):
            if place not in self.skip:
                self.cell(cells, pristine, place, source)

    def define(self, exercise_id: Any, function: Any) -> None:
        """What the stub's @exercise calls. Never raises: what cannot be an answer is ignored."""
        known = type(exercise_id) is str and exercise_id in self.work.cases
        if known and callable(function) and not isinstance(function, type):
            self.defined.append((exercise_id, function))

    def cell(self, cells: Cells, pristine: Pristine, place: int, source: str) -> None:
        """One cell, then the cases of what it has defined, also where it raised further down."""
        self.send(self.messages.start(place))
        self.defined = []
        printed = self.bounded_text()
        sys.stdout = sys.stderr = printed
        began = _now()
        self.alarm.start(self.seconds)
        _, error = self.alarm.attempt(cells.run, place, source)
        pristine.restore()
        sys.stdout = sys.stderr = printed
        lacking = self.absent.forget()
        if self.alarm.expired:
            place_late = None if error is None else where(error.__traceback__)
        else:
            place_late = self.answer_all(place)
        if self.alarm.expired:
            state, message = "timeout", self.late(place_late)
        elif error is None:
            state, message = "ran", lacking
        else:
            state, message = "raised", self.told(error)
        self.alarm.stop()
        pristine.restore()
        error = None
        _collect()  # an exception in a cycle may hold all the memory that the next cell needs
        self.end_others()
        self.send(self.messages.end(place, state, message, printed.getvalue(), _now() - began))

    def answer_all(self, place: int) -> str | None:
        """Runs and sends the cases; gives the line at which the time ended, where it did."""
        # The learner's functions may define more, without end.
        for exercise_id, function in tuple(self.defined[-MAX_DEFINITIONS:]):
            for number, case in enumerate(self.work.cases[exercise_id]):
                executions, error = self.alarm.attempt(self.execute, function, (case,))
                if self.alarm.expired:
                    failure = executions[0].failure if executions else None
                    if failure is None or failure.line is None:
                        return None if error is None else where(error.__traceback__)
                    return f"line {failure.line} of {failure.function}: `{failure.code}`"
                if executions is None:
                    executions = (self.failed(error, function),)
                error = None  # its frames may hold all the memory that the next case needs
                self.send_answer(exercise_id, place, number, executions[0])
        return None

    def send_answer(self, exercise_id: str, place: int, number: int, execution: Any) -> None:
        """A giant output takes at most a quarter of the room that is left for all later ones, and at
        most half of the items."""
        most = max(self.room // 4, SMALL_ANSWER)
        items = max(self.items // 2, SMALL_ITEMS)
        content = self.messages.answer(exercise_id, place, number, execution, most, items)
        self.room -= len(content)
        self.items -= self.messages.codec.items
        self.send(content)

    def failed(self, error: BaseException, function: Callable[..., Any]) -> Any:
        """A KeyboardInterrupt ends a check in the notebook; here it ends the call of one case."""
        failure, _ = self.alarm.attempt(self.describe, error, function)
        return self.execution(failure=failure or _failures.Failure(type(error).__name__, ""))

    def end_others(self) -> None:
        """Ends what the cell has started and left running, which would slow down later cells.

        Process 1 of a namespace reaches all others in it and no more. Without a namespace this
        process is not 1, and they stay until the submission ends.
        """
        if self.process == 1 == _getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _kill(-1, signal.SIGKILL)

    def told(self, error: BaseException) -> str:
        """One line about what a cell raised; its own __str__ may do anything."""
        message, _ = self.alarm.attempt(describe_error, error, self.describe)
        return type(error).__name__ if message is None else message

    def late(self, place: str | None) -> str:
        """What to say of a cell whose time ended."""
        at = "" if place is None else f" (it was at {place})"
        return f"The cell did not end within {self.seconds:g} s{at}."

    def send(self, content: bytes) -> None:
        """Sends one message, unless this is a copy of the worker that a learner's fork() made."""
        if _getpid() != self.process:
            _exit(0)
        _send(self.write_fd, content)


def _open_stub(define: Callable[[Any, Any], None]) -> Any:
    """Makes `import slmlab` give the stub, and lets cells import from the working folder.

    The stub comes first: without a sandbox the working folder may be that of slmlab itself.
    """
    sys.path.insert(0, str(STUB))
    stub: Any = importlib.import_module("slmlab")
    stub.register = define
    sys.path.insert(0, "")
    return stub

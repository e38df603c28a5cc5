"""What limits the work of judging an output that nobody vouches for.

An answer is data by now, but hostile data: a text of a million letters, an integer of a million
digits, a number that makes an exercise's own check count to it. So its size is bounded before it is
compared, and the comparison's time and memory while it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from slmlab.checking import Execution
from slmlab.checking.failure import Failure
from slmlab.checking.values import Opaque, as_array, is_array, plain, type_name

MAX_ELEMENTS = 4_000_000  # numbers in all arrays of one answer
MAX_LETTERS = 100_000  # in all texts of one answer
MAX_BITS = 4_096  # of one integer
MAX_ITEMS = 100_000
MAX_DEPTH = 20
MAX_SENTENCE = 600
MAX_FIELD = 300  # letters of a failure's message or line of code
MAX_PRINTED = 2_000

REPEAT_SECONDS = 1.0
MIB = 2**20


class TooMuchWork(BaseException):
    """Judging one answer took longer than it may.

    No Exception, so that an `except Exception` in a comparison or an exercise does not take it for
    an error of its own.
    """


class _TooLarge(Exception):
    """An answer is larger than any exercise asks for."""


def bounded(execution: Execution, arguments: tuple[str, ...]) -> Execution:
    """The same execution with everything in it cut to a size that is safe to compare and to show.

    arguments: the names that the case really has; `changed` may hold no other.
    """
    failure = execution.failure
    return replace(
        execution,
        output=bounded_output(execution.output),
        failure=None if failure is None else _bounded_failure(failure),
        changed=tuple(name for name in arguments if name in execution.changed),
        printed=str(execution.printed)[:MAX_PRINTED],
    )


def bounded_output(value: Any) -> Any:
    """A copy made of trusted types; :class:`Opaque` stands for an answer that is too large."""
    try:
        _measure(value)
        return plain(value)
    except _TooLarge as found:
        return Opaque(f"{type_name(value)} {found}")


def bounded_sentence(text: str) -> str:
    """One line of at most MAX_SENTENCE letters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 3] + "..."


def _measure(value: Any) -> None:
    items = elements = letters = 0
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        items += 1
        if items > MAX_ITEMS:
            raise _TooLarge(f"of more than {MAX_ITEMS:,} items")
        if depth > MAX_DEPTH:
            raise _TooLarge(f"nested deeper than {MAX_DEPTH}")
        if isinstance(item, dict):
            inner = [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            inner = list(item)
        else:
            inner = []
        if len(inner) > MAX_ITEMS:
            raise _TooLarge(f"of more than {MAX_ITEMS:,} items")
        waiting.extend((deeper, depth + 1) for deeper in inner)
        if isinstance(item, (str, bytes)):
            letters += len(item)
        elif isinstance(item, int) and item.bit_length() > MAX_BITS:
            raise _TooLarge(f"with an integer of {item.bit_length():,} bits")
        elif is_array(item):
            elements += int(as_array(item).size)
        if letters > MAX_LETTERS:
            raise _TooLarge(f"with more than {MAX_LETTERS:,} letters")
        if elements > MAX_ELEMENTS:
            raise _TooLarge(f"with more than {MAX_ELEMENTS:,} numbers")


def _bounded_failure(failure: Failure) -> Failure:
    def cut(text: object) -> str | None:
        return None if text is None else str(text)[:MAX_FIELD]

    return Failure(
        cut(failure.type_name) or "Exception",
        cut(failure.message) or "",
        cut(failure.function),
        failure.line if isinstance(failure.line, int) and 0 <= failure.line < 10**6 else None,
        cut(failure.code),
    )


@contextlib.contextmanager
def limited(cpu_seconds: float, wall_seconds: float, extra_mb: int) -> Iterator[None]:
    """Inside the block, work that lasts longer raises TooMuchWork and memory beyond what is held
    now raises MemoryError.

    The limit that matters is CPU time: how busy the machine is must not decide a grade. The larger
    one in wall time ends a block that waits. The signal comes again every second, for code that
    swallows the exception. Only the main thread of a POSIX process meets signals; elsewhere the
    block is not limited, and the deadline that the pool keeps over its job processes holds alone.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        seconds = cpu_seconds if number == signal.SIGPROF else wall_seconds
        raise TooMuchWork(f"it took longer than {seconds:g} s")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, cpu_seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, wall_seconds),
    )
    before = [(number, signal.signal(number, stop)) for _, number, _ in timers]

    def end() -> None:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)

    with _limited_memory(extra_mb):
        try:
            for timer, _, seconds in timers:
                signal.setitimer(timer, seconds, REPEAT_SECONDS)
            yield
        finally:
            # A signal of each timer may arrive in here; the next one is a second away.
            try:
                end()
            finally:
                try:
                    end()
                finally:
                    end()
                    for number, handler in before:
                        signal.signal(number, handler)


@contextlib.contextmanager
def _limited_memory(extra_mb: int) -> Iterator[None]:
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * os.sysconf("SC_PAGE_SIZE") + extra_mb * MIB
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

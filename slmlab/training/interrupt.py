"""Ctrl-C and a polite kill wait where half of a change would be worse than none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Inside the block SIGTERM, which batch systems and `kill` send, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back inside the block and deliver them at its end.

    Python runs signal handlers in the main thread only; elsewhere there is nothing to hold back.
    """
    previous = {stop: signal.getsignal(stop) for stop in STOPS}
    # None: a handler that was not installed from Python, which Python cannot put back.
    if threading.current_thread() is not threading.main_thread() or None in previous.values():
        yield
        return
    waiting: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    # An ignored signal stays ignored: a shell does so for what it starts in the background.
    held = [stop for stop in STOPS if previous[stop] != signal.SIG_IGN]
    for stop in held:
        signal.signal(stop, remember)
    try:
        yield
    finally:
        for stop in held:
            signal.signal(stop, previous[stop])
        if waiting:
            signal.raise_signal(waiting[0])

"""Ctrl-C and a polite kill wait while weights and optimizer state change together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back inside the block and deliver them at its end.

    Only the main thread meets signals, and only handlers installed from Python can be put back.
    """
    stops = [
        stop
        for stop in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(stop) not in (None, signal.SIG_IGN)
    ]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    previous = {stop: signal.signal(stop, remember) for stop in stops}
    try:
        yield
    finally:
        for stop, handler in previous.items():
            signal.signal(stop, handler)
        if waiting:
            signal.raise_signal(waiting[0])

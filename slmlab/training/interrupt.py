"""Ctrl-C waits where half of a change would be worse than none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT back inside the block and deliver it at its end.

    Python runs signal handlers in the main thread only; elsewhere there is nothing to hold back.
    """
    previous = signal.getsignal(signal.SIGINT)
    # None: a handler that was not installed from Python, which Python cannot put back.
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield
        return
    waiting = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        waiting = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if waiting:
            signal.raise_signal(signal.SIGINT)

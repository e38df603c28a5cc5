"""The clock of one cell: when its time is over, a :class:`Timeout` is raised in the learner's code,
and again every second, for code that swallows the first.

Code that sets signals for itself, or that stays in C, is not ended by this; the trusted side kills
the process then.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
REPEAT_SECONDS = 1.0
_signal, _setitimer, _mask, _now = (
    signal.signal,
    signal.setitimer,
    signal.pthread_sigmask,
    time.monotonic,
)
_ALARM = {signal.SIGALRM}


class Timeout(BaseException):
    """The time of a cell is over. No Exception, so that `except Exception` lets it through."""


class Alarm:
    """The worker's own code is never interrupted: the exception is raised inside attempt() only."""

    def __init__(self) -> None:
        self._inside = False
        self._deadline = 0.0
        self._late = False
        # Not by their names in the module: a cell may have put something else there.
        self._settrace, self._setprofile = sys.settrace, sys.setprofile

    @property
    def expired(self) -> bool:
        """Whether the time is over, also where the learner's code has stopped the clock."""
        return self._late or _now() > self._deadline

    def start(self, seconds: float) -> None:
        """Starts the clock. What an earlier cell did to the signal is undone."""
        self._late = False
        self._deadline = _now() + seconds
        _signal(signal.SIGALRM, self._ring)
        _mask(signal.SIG_UNBLOCK, _ALARM)
        _setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)

    def stop(self) -> None:
        """Stops the clock."""
        _setitimer(signal.ITIMER_REAL, 0)

    def attempt(self, action: Callable[..., T], *arguments: Any) -> tuple[T | None, Any]:
        """(what the call returned, None), or (None, the exception that it raised)."""
        try:
            self._inside = True
            return action(*arguments), None
        except BaseException as error:
            # SystemExit, KeyboardInterrupt and GeneratorExit are like any other here.
            return None, error
        finally:
            self._inside = False
            # The learner's trace function would be called for the worker's own code.
            try:
                self._setprofile(None)
                self._settrace(None)
            except BaseException:
                # It raised itself, at these very calls; Python has removed it for that.
                self._setprofile(None)
                self._settrace(None)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if _now() < self._deadline:
            return  # a timer of the learner's own
        self._late = True
        # In the frame of attempt() itself nothing may be raised: it would leave by another way.
        if self._inside and (frame is None or frame.f_code is not _ATTEMPT):
            raise Timeout


_ATTEMPT = Alarm.attempt.__code__

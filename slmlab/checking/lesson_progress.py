"""Progress as a lesson uses it: trouble with the file is told and never stops a cell."""

from __future__ import annotations

import os
from collections.abc import Callable

from slmlab.checking.logbook import Logbook
from slmlab.checking.progress_file import (
    ENVIRONMENT,
    CorruptProgress,
    ProgressError,
    ProgressFile,
)

# What could not be stored, for each value of SLMLAB_PROGRESS: a prediction made in this kernel can
# still be scored in it, and the next write that works stores it.
_kept: dict[str, Logbook] = {}


class LessonProgress(ProgressFile):
    """The learner's progress file, whose read() and update() raise no ProgressError.

    After a call `trouble` says what went wrong, one sentence or more; it is empty where all went
    well. A damaged file has been moved aside by then, and a second try has gone to a fresh one.
    """

    def __init__(self) -> None:
        self._place = os.environ.get(ENVIRONMENT, "")
        self._troubles: list[str] = []
        self._usable = True
        try:
            super().__init__()
        except ProgressError as error:
            self._usable = False
            self._troubles.append(str(error))

    @property
    def trouble(self) -> str:
        """What a lesson shows beside its own words, or nothing."""
        return f"Progress: {' '.join(self._troubles)}" if self._troubles else ""

    def read(self) -> Logbook:
        """What is stored, and what could not be."""
        kept = _kept.get(self._place, Logbook())
        stored = self._tried(super().read)
        return kept if stored is None else stored.merged(kept)

    def update(self, change: Callable[[Logbook], Logbook]) -> Logbook:
        """Stores a change, or keeps it for as long as this process runs."""
        kept = _kept.get(self._place, Logbook())
        store = super().update
        stored = self._tried(lambda: store(lambda logbook: change(logbook.merged(kept))))
        if stored is not None:
            _kept.pop(self._place, None)
            return stored
        _kept[self._place] = change(self._as_it_lies().merged(kept))
        note = "It is remembered only until this kernel stops."
        if note not in self._troubles:
            self._troubles.append(note)
        return _kept[self._place]

    def _tried(self, action: Callable[[], Logbook]) -> Logbook | None:
        for _ in range(2 if self._usable else 0):
            try:
                return action()
            except ProgressError as error:
                if str(error) not in self._troubles:
                    self._troubles.append(str(error))
                if not isinstance(error, CorruptProgress):
                    return None
        return None

    def _as_it_lies(self) -> Logbook:
        try:
            return self.peek() if self._usable else Logbook()
        except ProgressError:
            return Logbook()

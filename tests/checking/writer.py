"""Run as a process of its own by test_progress.py: writes progress, or dies while writing it."""

import os
import signal
import sys
from pathlib import Path

from slmlab.checking.progress_file import ProgressFile


def write_many(path: str, topic: str, count: int) -> None:
    """Records `count` exercises, their hints, and `count` attempts at one shared exercise."""
    for index in range(count):
        store = ProgressFile(path)
        store.record_outcome(f"{topic}.e{index}", "passed", 1.0)
        store.record_outcome("shared.one", "wrong", 0.5)
        store.record_hint(f"{topic}.e{index}", 1 + index % 3)


def die_before_replacing(path: str) -> None:
    """Writes the temporary file in full, then is killed in place of moving it."""
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    ProgressFile(path).record_outcome("dying.one", "passed", 1.0)


def write_until_killed(path: str) -> None:
    """Counts upwards and says each number after it has been stored."""
    store = ProgressFile(path)
    index = 0
    while True:
        store.record_outcome("busy.one", "wrong", 0.0)
        index += 1
        Path(f"{path}.told").write_text(str(index))


if __name__ == "__main__":
    what, target, *rest = sys.argv[1:]
    if what == "many":
        write_many(target, rest[0], int(rest[1]))
    elif what == "die":
        die_before_replacing(target)
    else:
        write_until_killed(target)

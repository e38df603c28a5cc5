"""What all processes of one submission use together, read from /proc on the trusted side."""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat: its own CPU seconds, those of children it waited for, MiB."""

    pid: int
    cpu_seconds: float
    waited_cpu_seconds: float
    resident_mb: float


def tree(root: int) -> list[Process]:
    """The process and all below it, those still there."""
    found = []
    waiting = [root]
    seen = {root}
    while waiting:
        pid = waiting.pop()
        process = _read(pid)
        if process is not None:
            found.append(process)
        for child in _children(pid):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return found


def proportional_mb(pid: int) -> float | None:
    """MiB where a page that n processes share counts 1/n each; None where it cannot be read.

    0 for a process that has ended since.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        now = _read(pid)
        # One that nobody has waited for still stands there, without memory.
        return 0.0 if now is None or now.resident_mb == 0 else None
    except (OSError, ValueError):
        return None
    return 0.0  # a zombie has no memory


def _read(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in brackets and may hold anything, brackets too.
            fields = file.read().rpartition(b")")[2].split()
        return Process(
            pid,
            (int(fields[11]) + int(fields[12])) / _TICKS,
            (int(fields[13]) + int(fields[14])) / _TICKS,
            int(fields[21]) * _PAGE / MIB,
        )
    except (OSError, IndexError, ValueError):
        return None


def _children(pid: int) -> list[int]:
    """Children of every thread: one that a second thread starts is listed under that thread."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(child) for child in file.read().split()]
        except (OSError, ValueError):
            continue
    return found

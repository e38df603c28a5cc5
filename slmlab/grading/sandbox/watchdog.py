"""Ends a submission that uses more than it may: CPU time and memory of all its processes together.

What one process may use is limited inside by the kernel (RLIMIT_AS, RLIMIT_CPU, ...). Their sum is
watched here, every POLL_SECONDS; where a cgroup is writable the kernel watches it too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Literal

from slmlab.grading.records import Limits
from slmlab.grading.sandbox import processes
from slmlab.grading.sandbox.cgroup import ControlGroup

POLL_SECONDS = 0.05


@dataclass
class Watchdog:
    """Watches the process `pid` and all below it."""

    pid: int
    limits: Limits
    group: ControlGroup | None = None
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    _base_mb: float | None = None
    _seen: dict[int, float] = field(default_factory=dict)

    def look(self) -> Literal["cpu", "memory"] | None:
        """Which limit is passed, None where none is."""
        if not sys.platform.startswith("linux"):
            return None
        found = processes.tree(self.pid)
        if not found:
            return None
        for process in found:
            self._seen[process.pid] = max(process.cpu_seconds, self._seen.get(process.pid, 0.0))
        # A process that nobody waited for is in the first sum only, one that came and went between
        # two looks in the second only.
        waited = sum(process.cpu_seconds + process.waited_cpu_seconds for process in found)
        self.cpu_seconds = max(self.cpu_seconds, waited, sum(self._seen.values()))
        if self.cpu_seconds > self.limits.cpu_seconds:
            return "cpu"
        return "memory" if self._memory_passed(found) else None

    def _memory_passed(self, found: list[processes.Process]) -> bool:
        resident = sum(process.resident_mb for process in found)
        if self._base_mb is None:
            self._base_mb = resident  # before the request is sent: torch and the interpreter
        if self.group is not None:
            # The kernel keeps the limit, by ending one process; the others end with it.
            self.peak_mb = max(self.peak_mb, self.group.used_mb() + self._base_mb)
            return self.group.killed()
        limit = self.limits.memory_mb + self._base_mb
        if resident > limit and len(found) > 1:
            # Forked processes share most of their pages; the exact sum is slow to read.
            resident = sum(_exact_mb(process) for process in found)
        self.peak_mb = max(self.peak_mb, min(resident, limit))
        return resident > limit


def _exact_mb(process: processes.Process) -> float:
    exact = processes.proportional_mb(process.pid)
    return process.resident_mb if exact is None else exact

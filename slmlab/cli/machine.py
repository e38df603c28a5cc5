"""What this process may use of the machine: memory, cores, disk. A container's limits count."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None  # absent, or "max"


def _inactive_file_bytes(path: Path) -> int:
    # File cache counts as used in a cgroup, yet the kernel gives it back on demand.
    try:
        fields = dict(line.split()[:2] for line in path.read_text().splitlines())
        return int(fields.get("inactive_file", fields.get("total_inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def cgroup_available_bytes(root: Path = _CGROUP) -> int | None:
    """Bytes left under the memory limit of this container; None where there is no limit.

    `root` holds cgroup v2 files, or v1's under memory/ (kernel documentation, cgroup-v2.rst).
    """
    for folder, limit_name, used_name in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and used is not None and limit < 1 << 60:
            return max(0, limit - used + _inactive_file_bytes(folder / "memory.stat"))
    return None


def available_memory_bytes() -> int:
    """Bytes that a new program can use now, without swap."""
    free = int(psutil.virtual_memory().available)
    limited = cgroup_available_bytes()
    return free if limited is None else min(free, limited)


def usable_cores(root: Path = _CGROUP) -> float:
    """Cores this process may use: its affinity, lowered by a container's CPU quota (cgroup v2)."""
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    else:
        cores = float(os.cpu_count() or 1)
    try:
        quota, period = (root / "cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # absent, or "max 100000": no quota
    return cores


def free_disk_bytes(folder: Path) -> int:
    """Bytes free where `folder` is, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free

"""A control group for the processes of a submission, where this user may make one.

With it the kernel itself ends what takes too much memory, at the moment it does, and counts every
process. Without it the limits of each process and the watchdog hold. Version 2 is tried first, then
version 1 (memory and pids). Source: Documentation/admin-guide/cgroup-v1, cgroup-v2.rst of Linux.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from slmlab.grading.records import Limits

MIB = 1 << 20
HEADROOM_MB = 64
PREFIX = "slmlab-"
ROOT = Path("/sys/fs/cgroup")


class ControlGroup:
    """The folders of one session's group: one for version 2, one a controller for version 1."""

    def __init__(self, version: int, memory: Path, pids: Path) -> None:
        self.version = version
        self._memory = memory
        self._pids = pids
        self._kills = 0

    @classmethod
    def create(cls) -> ControlGroup | None:
        """A new group, None where none can be made here."""
        name = f"{PREFIX}{os.getpid()}-{uuid4().hex[:8]}"
        for make in (_create_v2, _create_v1):
            with contextlib.suppress(OSError, ValueError):
                group = make(name)
                if group is not None:
                    return group
        return None

    def limit(self, limits: Limits) -> bool:
        """Sets the limits for the next submission; False where the kernel refuses.

        Pages that a child shares with the server are counted at the server's until it writes to
        them; HEADROOM_MB is for those, and files in /tmp are memory here.
        """
        memory = str((limits.memory_mb + limits.tmp_mb + HEADROOM_MB) * MIB)
        try:
            if self.version == 2:
                _write(self._memory / "memory.max", memory)
                for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                    with contextlib.suppress(OSError):
                        _write(self._memory / name, value)
            else:
                _write(self._memory / "memory.limit_in_bytes", memory)
            _write(self._pids / "pids.max", str(limits.processes))
        except OSError:
            return False
        self._kills = self._count_kills()
        return True

    def add(self, pid: int) -> bool:
        """Moves a process, and so all that it will start; False where the kernel refuses."""
        try:
            for folder in self.folders:
                _write(folder / "cgroup.procs", str(pid))
        except OSError:
            return False
        return True

    def killed(self) -> bool:
        """True where memory ended a process since limit()."""
        return self._count_kills() > self._kills

    def used_mb(self) -> float:
        """MiB that the group holds now; 0 where it cannot be read."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        try:
            return int((self._memory / name).read_text()) / MIB
        except (OSError, ValueError):
            return 0.0

    @property
    def folders(self) -> set[Path]:
        """The group's folders."""
        return {self._memory, self._pids}

    def close(self) -> None:
        """Removes the folders; the kernel needs a moment after the last process."""
        for folder in self.folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break

    def _count_kills(self) -> int:
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            for line in (self._memory / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0


def _write(path: Path, text: str) -> None:
    # Unbuffered: the kernel's refusal must arrive here, not when a file object is collected.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _create_v2(name: str) -> ControlGroup | None:
    for parent in _own_folders(""):
        controllers = (parent / "cgroup.subtree_control").read_text().split()
        if {"memory", "pids"} <= set(controllers) and os.access(parent, os.W_OK):
            folder = parent / name
            folder.mkdir()
            _sweep(parent)
            return ControlGroup(2, folder, folder)
    return None


def _create_v1(name: str) -> ControlGroup | None:
    made: list[Path] = []
    for controller in ("memory", "pids"):
        for parent in _own_folders(controller):
            if os.access(parent, os.W_OK):
                with contextlib.suppress(OSError):
                    (parent / name).mkdir()
                    made.append(parent / name)
                    _sweep(parent)
                    break
        else:
            for folder in made:
                folder.rmdir()
            return None
    return ControlGroup(1, *made)


def _sweep(parent: Path) -> None:
    """Removes groups of graders that were killed; the kernel keeps those that hold a process."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _membership() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()


def _own_folders(controller: str) -> Iterator[Path]:
    """The folder of this process in a hierarchy and those above it; "" is version 2's."""
    base = ROOT / controller if controller else ROOT
    if not controller and not (base / "cgroup.controllers").exists():
        return
    for line in _membership():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        folder = base / path.lstrip("/")
        # A path with .. points outside what this cgroup namespace shows.
        while ".." not in folder.parts and folder.is_relative_to(base):
            if folder.is_dir():
                yield folder
            folder = folder.parent

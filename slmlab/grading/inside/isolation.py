"""What a forked child gives up before it reads a line of a learner's code.

Order matters: mounts need a capability, so they come before the capabilities go; the filter comes
last because it refuses what the earlier steps do. Sources: unshare(2), pid_namespaces(7), mount(2),
capabilities(7), prctl(2), getrlimit(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
from typing import Any

from . import seccomp

NEW_MOUNTS, NEW_IPC, NEW_PIDS = 0x00020000, 0x08000000, 0x20000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_PRIVATE_RECURSIVE = 0x4000 | 0x40000
_LAST_CAPABILITY = 63  # the kernel answers EINVAL above its own last one
_CAPABILITY_VERSION_3 = 0x20080522
_PDEATHSIG, _DUMPABLE, _BOUNDING_DROP, _NO_NEW_PRIVS, _AMBIENT = 1, 4, 24, 38, 47
_AMBIENT_CLEAR_ALL = 4
FOREIGN_PROCESSES = 4096
MIB = 1 << 20

libc = ctypes.CDLL(None, use_errno=True)


class PidNamespaces:
    """Gives each fork a process namespace of its own, without a process between.

    unshare(NEW_PIDS) concerns the next fork only, and the kernel refuses a second one; setns() to
    the caller's own namespace takes the first one back.

    Raises OSError where the kernel refuses.
    """

    def __init__(self) -> None:
        try:
            self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._own = os.pidfd_open(os.getpid())  # setns() takes one since Linux 5.8

    def fork(self) -> int:
        """os.fork(), where the child is process 1 of a new namespace."""
        _checked(libc.unshare(NEW_PIDS), "unshare of process ids")
        try:
            return os.fork()
        finally:
            # In the child too, where it is refused and changes nothing.
            libc.setns(self._own, NEW_PIDS)

    def may_return(self) -> bool:
        """Whether setns() works: the namespace must belong to the caller's user namespace."""
        return libc.setns(self._own, NEW_PIDS) == 0

    def close(self) -> None:
        """Closes the descriptor; a child does it before the learner's code."""
        os.close(self._own)


def confine(limits: dict[str, Any], uid: int | None) -> None:
    """Makes the calling process, alone in a new process namespace, safe for a stranger's code.

    limits   the fields of slmlab.grading.Limits
    uid      user and group to become, None to stay (where the user namespace has mapped them)

    Raises OSError where the kernel refuses a step.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory ends, this one goes first and never the server
    mapped = _address_space()  # before /proc changes
    os.setsid()
    _checked(libc.unshare(NEW_MOUNTS | NEW_IPC), "unshare of mounts and IPC")
    _mount(b"none", b"/", None, _PRIVATE_RECURSIVE, None)
    _private_folders(limits)
    os.chdir("/tmp")
    os.umask(0o077)
    # In a user namespace bubblewrap's own process and the server's two count as this user's too.
    set_resource_limits(limits, mapped, others=0 if uid is not None else 3)
    _drop_bounding_set()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _drop_capabilities()
    # A change of user makes /proc/self unreadable to its own process; nobody else is here to read.
    _prctl(_DUMPABLE, 1)
    die_with_parent()
    _prctl(_NO_NEW_PRIVS, 1)
    seccomp.load(libc)


def restrain(limits: dict[str, Any]) -> None:
    """The little that holds without a sandbox: a process group of its own, and limits."""
    os.setsid()
    os.umask(0o077)
    # All of this user's processes count, the browser's too: a limit there would stop honest work.
    set_resource_limits(limits, _address_space(), others=FOREIGN_PROCESSES)
    die_with_parent()


def die_with_parent() -> None:
    """SIGKILL for this process when its parent is gone; does nothing off Linux."""
    if hasattr(libc, "prctl"):
        _prctl(_PDEATHSIG, signal.SIGKILL)


def set_resource_limits(limits: dict[str, Any], mapped: int, others: int = 0) -> None:
    """The limits of one process; those of all together are watched from outside.

    mapped   bytes of address space that it has already, with torch's libraries
    others   processes of the same user that are not the submission's
    """
    cpu = math.ceil(limits["cpu_seconds"]) + 1
    wanted = {
        resource.RLIMIT_AS: mapped + limits["memory_mb"] * MIB,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_NPROC: limits["processes"] + others,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_FSIZE: limits["tmp_mb"] * MIB,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name in ("RLIMIT_MSGQUEUE", "RLIMIT_RTPRIO"):
        if hasattr(resource, name):
            wanted[getattr(resource, name)] = 0
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    """Bytes mapped before any of the learner's code: torch's libraries, most of it never touched."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 8 << 30


def _private_folders(limits: dict[str, Any]) -> None:
    options = f"size={limits['tmp_mb']}m,nr_inodes={256 * limits['tmp_mb']},mode=1777"
    _mount(b"tmpfs", b"/tmp", b"tmpfs", _NO_SUID | _NO_DEVICES, options.encode())
    flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
    # subset=pid (Linux 5.8) shows processes and nothing of the machine.
    for kind, options in (("proc", "subset=pid"), ("proc", ""), ("tmpfs", "size=4k,mode=555")):
        try:
            return _mount(kind.encode(), b"/proc", kind.encode(), flags, options.encode())
        except OSError as error:
            refused = error
    raise refused


def _drop_bounding_set() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_BOUNDING_DROP, ctypes.c_ulong(capability), 0, 0, 0)


def _drop_capabilities() -> None:
    libc.prctl(_AMBIENT, ctypes.c_ulong(_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(libc.capset(header, bytes(24)), "dropping capabilities")


def _prctl(option: int, value: int) -> None:
    _checked(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _mount(
    source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None
) -> None:
    result = libc.mount(source, target, kind, ctypes.c_ulong(flags), data)
    _checked(result, f"mount on {target.decode()}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

"""Chooses the sandbox of this machine, and says what to do where there is none."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from slmlab.grading.records import Limits, Request
from slmlab.grading.sandbox import bubblewrap, unsandboxed
from slmlab.grading.sandbox.cgroup import ControlGroup
from slmlab.grading.sandbox.errors import SandboxUnavailable
from slmlab.grading.sandbox.fork_server import ForkServer
from slmlab.grading.sandbox.session import FIRST_UID, UIDS, Sandbox

UNSAFE_HINT = (
    "--unsafe-no-sandbox (unsafe=True) runs the code with your own rights; it can read your files."
)
INSTALL = (
    "Install bubblewrap: `apt install bubblewrap` (Debian, Ubuntu) or `dnf install bubblewrap`."
)
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
USER_NAMESPACES = (
    "This machine does not let an ordinary user make namespaces. On Ubuntu 24.04 AppArmor does "
    "this: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` ends it until the next start, "
    "or grade as root. A container needs `docker run --cap-add SYS_ADMIN --security-opt "
    "seccomp=unconfined --security-opt apparmor=unconfined`."
)


def open_sandbox(
    limits: Limits | None = None,
    unsafe: bool = False,
    *,
    user_namespace: bool | None = None,
    inside: Path | None = None,
    preload: bool = True,
) -> Sandbox:
    """A running sandbox, tried out on an empty submission.

    Open it in a thread that lives as long as the sandbox: bubblewrap ends with the thread that
    started it, so that nothing outlives a grader that was killed.

    limits   what each submission may use, where run() is not told otherwise
    unsafe   True runs without isolation (POSIX); the description then says kind "none"
    user_namespace   True where one is needed for the others: everywhere but for root, by default
    inside   another folder of the files that run inside, for tests
    preload  False leaves torch to the submissions: a quick start, for tests

    Raises SandboxUnavailable with the mend where this machine has no usable sandbox, TypeError where
    limits is no Limits.
    """
    limits = limits or Limits()
    if not isinstance(limits, Limits):
        raise TypeError(f"open_sandbox(limits): pass a Limits, not a {type(limits).__name__}.")
    if unsafe:
        sandbox = _unsafe(limits, inside, preload)
    else:
        sandbox = _confined(limits, inside, preload, user_namespace)
    try:
        sandbox.warm()
        trial = sandbox.run(Request(cells=(), cases={}, seed=0))
        if trial.ended != "finished":
            raise SandboxUnavailable(f"An empty submission did not finish in it: {trial.reason}")
    except SandboxUnavailable as error:
        sandbox.close()
        if unsafe:
            raise
        raise SandboxUnavailable(f"No sandbox can be made here. {_mend(str(error))}") from None
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def _confined(
    limits: Limits, inside: Path | None, preload: bool, user_namespace: bool | None
) -> Sandbox:
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable(
            "The sandbox needs Linux. Grade on a Linux machine, in WSL 2 (Windows) or in a Docker "
            f"container with bubblewrap. {UNSAFE_HINT}"
        )
    layout = bubblewrap.find(inside, preload)
    if layout is None:
        raise SandboxUnavailable(f"The sandbox needs bubblewrap. {INSTALL} {UNSAFE_HINT}")
    as_root = _is_full_root() if user_namespace is None else not user_namespace

    def start() -> ForkServer:
        def command(end: int, proc: bool = True) -> list[str]:
            return bubblewrap.command(layout, end, as_root, proc)

        try:
            return ForkServer(command, bubblewrap.ENVIRONMENT)
        except SandboxUnavailable as error:
            if "proc" not in str(error):
                raise
            # Some containers allow namespaces and refuse a fresh /proc.
            return ForkServer(partial(command, proc=False), bubblewrap.ENVIRONMENT)

    description = {
        "kind": "bubblewrap",
        "version": layout.version,
        "uid": "a new one for each submission" if as_root else bubblewrap.NOBODY,
        "user_namespace": not as_root,
    }
    return Sandbox(start, limits, description, uids=as_root, group=ControlGroup.create())


def _unsafe(limits: Limits, inside: Path | None, preload: bool) -> Sandbox:
    if not _has_fork():
        raise SandboxUnavailable(
            "Grading needs fork(), which Windows does not have, with a sandbox or without. Use WSL 2."
        )
    folder = unsandboxed.Folder(inside, preload)
    description = {"kind": unsandboxed.KIND, "version": "", "uid": os.getuid()}
    return Sandbox(
        lambda: ForkServer(folder.command, bubblewrap.ENVIRONMENT, folder=str(folder.path)),
        limits,
        description,
        uids=False,
        on_close=folder.close,
    )


def _is_full_root() -> bool:
    """Root who may become any user; root of a container of an ordinary user has few to become."""
    if os.geteuid() != 0:
        return False
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True
    ranges = [tuple(int(word) for word in line.split()) for line in lines]
    return any(
        first <= FIRST_UID and first + count >= FIRST_UID + UIDS for first, _, count in ranges
    )


def _has_fork() -> bool:
    return hasattr(os, "fork")


def _mend(said: str) -> str:
    denied = any(
        word in said for word in ("ermission denied", "not permitted", "setting up uid map")
    )
    mend = f" {USER_NAMESPACES}" if denied else ""
    return f"It said: {said}{mend} {UNSAFE_HINT}"

"""The fork server: imports torch once, then forks one confined child a submission.

It is started inside the sandbox and speaks with the trusted side over one socket (channel.py). A
child's request and answers go through pipes of their own, which the server hands on and never
reads: nothing that a submission writes is parsed here.

    in   {"run": n, "limits": {...}, "uid": u or null}, with two descriptors: request, answers
         {"kill": n}
    out  {"up": {"python": ..., "torch": ...}}
         {"ready": n}               sent by the child itself, so that the kernel vouches for its id
         {"refused": n, "why": ""}  the kernel refused a step of the isolation; nothing was run
         {"ended": n, "status": s, "cpu_seconds": c, "peak_mb": m}    s < 0: minus a signal's number

The end of the socket ends the server, and with it everything that it started.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from . import isolation
from .channel import Channel, Closed, Message

ENVIRONMENT = {
    "HOME": "/tmp",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "learner",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
Fork = Callable[[], int]


def main(control: Channel, confined: bool, preload: bool = True) -> NoReturn:
    """Serves until the socket ends.

    confined   False: without namespaces and filter, for --unsafe-no-sandbox
    preload    False leaves torch to the submissions: a quick start, for tests
    """
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    fork = _namespaced_fork() if confined else os.fork
    versions = _warm_up(preload)
    # What is alive now is never collected again, so that a child does not copy it by counting.
    gc.collect()
    gc.freeze()
    control.send({"up": versions})
    while True:
        message = control.receive()
        if "run" in message.content:  # else a kill that crossed the end of its run
            _serve(control, fork, message, confined)


def _namespaced_fork() -> Fork:
    """fork() into a new process namespace a call."""
    namespaces = isolation.PidNamespaces()
    if namespaces.may_return():
        return namespaces.fork
    # bubblewrap made a second user namespace on top of the one that owns our process namespace. One
    # level down, this process owns its own.
    child = namespaces.fork()
    if child != 0:
        os._exit(_exit_status(os.waitpid(child, 0)[1]) & 0xFF)
    isolation.die_with_parent()
    namespaces.close()
    return isolation.PidNamespaces().fork


def _warm_up(preload: bool) -> dict[str, str]:
    """Imports what submissions need, with one operation so that lazy parts are there as well."""
    from . import worker  # noqa: F401

    versions = {"python": platform.python_version()}
    if preload:
        import numpy
        import torch

        torch.set_num_threads(1)
        # numpy loads its random module on first use, torch builds its seeding then.
        numpy.random.seed(0)
        torch.manual_seed(0)
        _ = torch.randn(4, 4) @ torch.randn(4, 4)
        versions |= {"torch": torch.__version__, "numpy": numpy.__version__}
    return versions


def _serve(control: Channel, fork: Fork, message: Message, confined: bool) -> None:
    """One submission, from its fork to the report of its end."""
    number = message.content["run"]
    try:
        child = fork()
    except OSError as error:
        for descriptor in message.descriptors:
            os.close(descriptor)
        return control.send({"refused": number, "why": f"fork: {error.strerror}"})
    if child == 0:
        _child(control, message, confined)
    for descriptor in message.descriptors:
        os.close(descriptor)
    _wait_or_kill(control, child, confined)
    _, status, usage = os.wait4(child, 0)
    ended = {
        "ended": number,
        "status": _exit_status(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    control.send(ended)


def _wait_or_kill(control: Channel, child: int, confined: bool) -> None:
    """Returns when the child is dead and not yet reaped, so its number cannot be another's."""
    watched = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    poll = select.poll()
    poll.register(control, select.POLLIN)
    if watched is not None:
        poll.register(watched, select.POLLIN)
    try:
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(None if watched else 20)}
            if control.fileno() in ready:
                try:
                    control.receive()
                finally:
                    _kill(child, confined)
            if watched in ready or (watched is None and _is_dead(child)):
                return
    finally:
        # The others of its group outlive it where there is no namespace.
        _kill(child, confined)
        if watched is not None:
            os.close(watched)


def _is_dead(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: int, confined: bool) -> None:
    """Process 1 of a namespace takes all others along; without one, its process group goes."""
    if not confined:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)


def _child(control: Channel, message: Message, confined: bool) -> NoReturn:
    """Never returns: what follows in the server must not run twice."""
    status = 1
    try:
        try:
            request, answers = message.descriptors
            _only_these(control.fileno(), request, answers)
            if confined:
                isolation.confine(message.content["limits"], message.content["uid"])
            else:
                isolation.restrain(message.content["limits"])
        except BaseException as error:
            control.send(
                {"refused": message.content["run"], "why": f"{type(error).__name__}: {error}"}
            )
            os._exit(1)
        control.send({"ready": message.content["run"]})
        control.close()
        from . import worker

        worker.main(request, answers, message.content["limits"])
        status = 0
    except SystemExit:
        status = 0
    except BaseException:
        status = 1
    finally:
        os._exit(status)


def _only_these(*kept: int) -> None:
    """Closes every other descriptor; standard input, output and error are nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    below = 3
    for descriptor in sorted(kept):
        os.closerange(below, descriptor)
        below = descriptor + 1
    os.closerange(below, os.sysconf("SC_OPEN_MAX"))


def _exit_status(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def start(descriptor: int, confined: bool, preload: bool = True) -> NoReturn:
    """What the command line calls: the control socket stands at `descriptor`; ends with it."""
    sys.dont_write_bytecode = True
    with contextlib.suppress(Closed):
        main(Channel(socket.socket(fileno=descriptor)), confined, preload)
    os._exit(0)

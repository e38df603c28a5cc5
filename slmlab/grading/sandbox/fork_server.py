"""The trusted side's hold on one fork server: start it, hand it pipes, end it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from slmlab.grading.inside import channel
from slmlab.grading.records import Limits
from slmlab.grading.sandbox.errors import SandboxUnavailable, ServerLost

START_SECONDS = 120.0  # import torch on a cold disk
ANSWER_SECONDS = 15.0  # what the server itself may take for a fork, or to report an end
MAX_COMPLAINT = 1 << 16  # bytes of standard error that are read


class ForkServer:
    """A running server.

    command       descriptor of the control socket -> the command line
    environment   all variables that it starts with

    Raises SandboxUnavailable where it does not come up, with what it said.
    """

    def __init__(
        self,
        command: Callable[[int], list[str]],
        environment: dict[str, str],
        folder: str = "/",
    ) -> None:
        ours, theirs = channel.pair()
        with tempfile.TemporaryFile() as complaints:
            try:
                self._process = subprocess.Popen(
                    command(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    cwd=folder,
                )
            except OSError as error:
                ours.close()
                raise SandboxUnavailable(f"The sandbox does not start: {error}.") from None
            finally:
                theirs.close()
            self._channel = channel.Channel(ours, credentials=True)
            try:
                self.versions: dict[str, Any] = self.receive(START_SECONDS).content["up"]
            except (ServerLost, KeyError):
                self.close()
                complaints.seek(0)
                said = complaints.read(MAX_COMPLAINT).decode(errors="replace").strip()
                # Of a traceback the last line says it.
                last = said.splitlines()[-1] if said else "It ended without a word."
                raise SandboxUnavailable(last) from None
            except BaseException:
                self.close()
                raise

    @property
    def pid(self) -> int:
        """Of the process that we started: bubblewrap's, or the server's own."""
        return self._process.pid

    def fileno(self) -> int:
        """The control socket, for select."""
        return self._channel.fileno()

    @property
    def has_waiting(self) -> bool:
        """True where a message is here already."""
        return self._channel.has_waiting

    def run(
        self,
        number: int,
        limits: Limits,
        skip: tuple[int, ...],
        uid: int | None,
        pipes: tuple[int, int],
    ) -> None:
        """Asks for a child that reads its request from pipes[0] and answers to pipes[1]."""
        told = {**limits.to_json(), "skip": list(skip)}
        self._send({"run": number, "limits": told, "uid": uid}, pipes)

    def kill(self, number: int) -> None:
        """Asks for the end of the child and of all that it started."""
        self._send({"kill": number})

    def receive(self, seconds: float = ANSWER_SECONDS) -> channel.Message:
        """The next message; ServerLost where none comes in time."""
        deadline = time.monotonic() + seconds
        try:
            while not self._channel.has_waiting:
                poll = select.poll()
                poll.register(self._channel.fileno(), select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise ServerLost(f"The sandbox's server did not answer in {seconds:g} s.")
                break
            message = self._channel.receive()
        except (channel.Closed, OSError, ValueError):
            raise ServerLost("The sandbox's server ended.") from None
        for descriptor in message.descriptors:
            os.close(descriptor)
        return message

    def close(self) -> None:
        """Ends the server and everything in it, and waits for it."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # The server ends with its socket; a kill from here is for one that hangs.
            self._process.wait(timeout=2)
        self._process.kill()
        self._process.wait()

    def _send(self, content: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(content, descriptors)
        except (channel.Closed, ValueError):
            raise ServerLost("The sandbox's server ended.") from None

"""The control socket between the fork server and the trusted side: one JSON object a line.

Both ends are ours: no submission ever holds this socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 4096
MAX_DESCRIPTORS = 4
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True)
class Message:
    """What was received: the object, the descriptors with it, the sender's process id or None.

    The id is the kernel's word, in the receiver's own numbers.
    """

    content: dict[str, Any]
    descriptors: tuple[int, ...] = ()
    sender: int | None = None


class Closed(Exception):
    """The other end is gone."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends. Messages keep their bounds on Linux; elsewhere the lines part them."""
    kind = getattr(socket, "SOCK_SEQPACKET", None) if hasattr(socket, "SO_PASSCRED") else None
    return socket.socketpair(socket.AF_UNIX, kind or socket.SOCK_STREAM)


class Channel:
    """One end. `credentials` asks the kernel who sent each message (Linux)."""

    def __init__(self, end: socket.socket, credentials: bool = False) -> None:
        self._socket = end
        self._rest = b""
        self._waiting: deque[Message] = deque()
        if credentials and hasattr(socket, "SO_PASSCRED"):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        """The descriptor, for select."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()

    def send(self, content: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Sends one message; Closed where nobody listens any more."""
        line = json.dumps(content).encode()[: MAX_MESSAGE - 1] + b"\n"
        try:
            socket.send_fds(self._socket, [line], list(descriptors))
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self) -> Message:
        """The next message, in order; Closed at the end or where one cannot be read."""
        while not self._waiting:
            self._read()
        return self._waiting.popleft()

    @property
    def has_waiting(self) -> bool:
        """True where receive() returns without asking the socket."""
        return bool(self._waiting)

    def _read(self) -> None:
        space = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS) + socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            content, ancillary, _, _ = self._socket.recvmsg(MAX_MESSAGE, space)
        except OSError as error:
            raise Closed(str(error)) from None
        descriptors, sender = _ancillary(ancillary)
        if not content:
            raise Closed("the socket ended")
        *lines, self._rest = (self._rest + content).split(b"\n")
        for index, line in enumerate(lines):
            try:
                self._waiting.append(Message(json.loads(line), descriptors, sender))
            except ValueError:
                raise Closed("a message is no JSON") from None
            descriptors = () if index == 0 else descriptors


def _ancillary(items: list[tuple[int, int, bytes]]) -> tuple[tuple[int, ...], int | None]:
    descriptors: list[int] = []
    sender = None
    for level, kind, data in items:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % 4
            descriptors += struct.unpack(f"{whole // 4}i", data[:whole])
        elif kind == getattr(socket, "SCM_CREDENTIALS", None) and len(data) >= _CREDENTIALS.size:
            sender = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return tuple(descriptors), sender or None

"""Messages on a pipe: four bytes of length, most significant first, then that many bytes.

The reader trusts nobody: a message longer than allowed, more bytes in all than allowed, and a pipe
that ends inside a message each have their own exception, all of them ValueErrors.
"""

from __future__ import annotations

import os
import select
import struct
import time

HEADER = struct.Struct(">I")
LONGEST = 2**32 - 1
_CHUNK = 1 << 16
# Private names: the learner's code may put its own into these modules.
_write, _pack, _poll, _now = os.write, HEADER.pack, select.poll, time.monotonic


class FrameError(ValueError):
    """What came is not a sequence of whole messages."""


class TooMuchOutput(FrameError):
    """A message, or all of them together, are longer than the reader allows."""


def send(descriptor: int, content: bytes) -> None:
    """Writes one message, however many writes that takes.

    Raises ValueError where it is too long to have a length, OSError (BrokenPipeError) where nobody
    reads any more.
    """
    if len(content) > LONGEST:
        raise ValueError(f"content: {len(content):,} bytes; a message has at most {LONGEST:,}.")
    rest = memoryview(_pack(len(content)) + content)
    while rest:
        try:
            rest = rest[_write(descriptor, rest) :]
        except BlockingIOError:
            # The learner's code has set the pipe to non-blocking.
            waiting = _poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll(1000)


class FrameReader:
    """Reads messages from a descriptor, which may block or not and is not closed here.

    max_frame   bytes of one message
    max_total   bytes in all, None for no limit
    """

    def __init__(self, descriptor: int, max_frame: int, max_total: int | None = None) -> None:
        self.descriptor = descriptor
        self.max_frame = max_frame
        self.max_total = max_total
        self.received = 0
        self._buffer = bytearray()
        self._ended = False

    def read(self, timeout: float | None = None) -> bytes | None:
        """The next message; None at the end of the pipe.

        timeout: seconds to wait for the whole of it, None for ever, 0 to take only what is there.
        Raises TimeoutError where the message is not complete by then (what has come is kept, so the
        call may be repeated), TooMuchOutput and FrameError as the class says.
        """
        deadline = None if timeout is None else _now() + timeout
        while True:
            message = self._complete()
            if message is not None:
                return message
            if self._ended:
                if self._buffer:
                    raise FrameError(
                        f"The pipe ended inside a message ({len(self._buffer)} bytes)."
                    )
                return None
            self._receive(deadline)

    def _complete(self) -> bytes | None:
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if length > self.max_frame:
            raise TooMuchOutput(f"A message of {length:,} bytes; at most {self.max_frame:,}.")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        message = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return message

    def _receive(self, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        wait = None if deadline is None else max(0.0, deadline - _now()) * 1000
        if not poll.poll(wait):
            raise TimeoutError("No whole message came in time.")
        try:
            chunk = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""
        self._ended = not chunk
        self.received += len(chunk)
        if self.max_total is not None and self.received > self.max_total:
            raise TooMuchOutput(f"More than {self.max_total:,} bytes came in all.")
        self._buffer += chunk

"""A notebook's bytes without its outputs, read in pieces: 200 MB of outputs cost no memory.

Only quotes and brackets are looked at (RFC 8259: section 7 for strings): the value of every key
"outputs", "attachments" and "widgets" becomes an empty list on the way. The json module reads what
is left, so what is no JSON stays none.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import BinaryIO

PIECE = 1 << 20
MAX_KEPT = 8 << 20  # bytes of a notebook without its outputs
MAX_READ = 1 << 30  # bytes of a notebook with them
MAX_BRACKETS = 5_000_000  # in what is dropped: bounds the time (about 4 s)

_DROPPED = frozenset({b"outputs", b"attachments", b"widgets"})

# Possessive throughout: what was matched is never looked at again, so that time stays linear.
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_TO_VALUE_END = re.compile(rb'[^"\[\]{},]*+')
_SPACES = re.compile(rb"[ \t\r\n]*+")


class TooLarge(ValueError):
    """What is too large, as a clause without subject."""


@dataclass(frozen=True)
class Trimmed:
    """What is left of the bytes, and the SHA-256 and the number of all of them."""

    data: bytes
    sha256: str
    size: int


def without_outputs(stream: BinaryIO, limit: int = MAX_READ) -> Trimmed:
    """Read `stream` to its end.

    Raises TooLarge where more than MAX_KEPT bytes are left or more than `limit` are there, and
    what `stream` raises.
    """
    scanner = _Scanner(stream, limit)
    scanner.run()
    return Trimmed(b"".join(scanner.kept), scanner.digest.hexdigest(), scanner.size)


@dataclass
class _Scanner:
    """`buffer[place:]` was read and not yet looked at."""

    stream: BinaryIO
    limit: int
    buffer: bytes = b""
    place: int = 0
    size: int = 0
    kept: list[bytes] = field(default_factory=list)
    kept_size: int = 0
    brackets: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()

    def more(self) -> bool:
        """Read another piece; False at the end."""
        piece = self.stream.read(PIECE)
        self.digest.update(piece)
        self.size += len(piece)
        if self.size > self.limit:
            raise TooLarge(f"is too large, alone or with the others (over {MAX_READ >> 20:,} MB)")
        self.buffer = self.buffer[self.place :] + piece
        self.place = 0
        return bool(piece)

    def keep(self, data: bytes) -> None:
        self.kept_size += len(data)
        if self.kept_size > MAX_KEPT:
            raise TooLarge(f"holds more than {MAX_KEPT >> 20} MB besides its outputs")
        self.kept.append(data)

    def run(self) -> None:
        """Copy what is outside of strings, string by string."""
        while True:
            quote = self.buffer.find(b'"', self.place)
            end = len(self.buffer) if quote < 0 else quote
            self.keep(self.buffer[self.place : end])
            self.place = end
            if quote < 0:
                if not self.more():
                    return
                continue
            self.place += 1
            text = self.string(keep=True)
            if text in _DROPPED and self.next_is(b":"):
                self.place += 1
                self.keep(b": []")
                self.skip_value()

    def string(self, keep: bool) -> bytes:
        """Go past a string whose opening quote is behind; its text between the quotes."""
        pieces: list[bytes] = []
        if keep:
            self.keep(b'"')
        while True:
            match = _IN_STRING.match(self.buffer, self.place)
            assert match is not None  # it matches nothing, too
            self.place = match.end()
            if keep:
                pieces.append(match.group())
                self.keep(match.group())
            # it stops at a quote, at the end, or at a backslash that is the last byte
            if self.buffer[self.place : self.place + 1] == b'"':
                self.place += 1
                if keep:
                    self.keep(b'"')
                return b"".join(pieces)
            if not self.more():
                self.place = len(self.buffer)
                return b"".join(pieces)

    def next_is(self, wanted: bytes) -> bool:
        """Is `wanted` the next byte that is no white space? Then the place is there."""
        while True:
            match = _SPACES.match(self.buffer, self.place)
            assert match is not None
            if match.end() < len(self.buffer):
                if self.buffer[match.end() : match.end() + 1] != wanted:
                    return False
                self.place = match.end()
                return True
            if not self.more():
                return False

    def skip_value(self) -> None:
        """Go to the comma or bracket that ends the value that begins here."""
        depth = 0
        while True:
            match = (_INSIDE if depth else _TO_VALUE_END).match(self.buffer, self.place)
            assert match is not None
            self.place = match.end()
            mark = self.buffer[self.place : self.place + 1]
            if not mark:
                if not self.more():
                    return
                continue
            if not depth and mark in b",]}":
                return
            self.place += 1
            self.brackets += 1
            if self.brackets > MAX_BRACKETS:
                raise TooLarge(f"has more than {MAX_BRACKETS:,} brackets in its outputs")
            if mark == b'"':
                self.string(keep=False)
            else:
                depth += 1 if mark in b"[{" else -1

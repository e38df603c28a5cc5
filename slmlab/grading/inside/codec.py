"""Plain data (see slmlab/checking/values.py) <-> bytes, exactly, and with no pickle."""

from __future__ import annotations

from typing import Any

from .decoding import Reader
from .encoding import Writer


class Codec:
    """Encodes and decodes plain data; `opaque` is the class Opaque of the values.py in use."""

    def __init__(self, opaque: type) -> None:
        self.opaque = opaque
        self.items = 0  # in the last message that was encoded or decoded

    def encode(self, value: Any) -> bytes:
        """The bytes of a plain value.

        Raises TypeError where it holds something that is not plain data, ValueError where it is
        larger or deeper than decode() accepts.
        """
        writer = Writer(self.opaque)
        content = writer.message(value)
        self.items = writer.items
        return content

    def decode(self, content: bytes) -> Any:
        """The value that encode() was given.

        Raises ValueError for any other bytes, and nothing else.
        """
        reader = Reader(self.opaque)
        try:
            value = reader.message(content)
            self.items = reader.items
            return value
        except RecursionError:
            raise ValueError("The message is nested too deeply.") from None

"""Plain data (see slmlab/checking/values.py) <-> bytes, exactly, and with no pickle."""

from __future__ import annotations

from typing import Any

from .decoding import Reader
from .encoding import Writer


class Codec:
    """Encodes and decodes plain data; `opaque` is the class Opaque of the values.py in use."""

    def __init__(self, opaque: type) -> None:
        self.opaque = opaque

    def encode(self, value: Any) -> bytes:
        """The bytes of a plain value.

        Raises TypeError where it holds something that is not plain data, ValueError where it is
        larger or deeper than decode() accepts.
        """
        return Writer(self.opaque).message(value)

    def decode(self, content: bytes) -> Any:
        """The value that encode() was given.

        Raises ValueError for any other bytes, and nothing else.
        """
        try:
            return Reader(self.opaque).message(content)
        except RecursionError:
            raise ValueError("The message is nested too deeply.") from None

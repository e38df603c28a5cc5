"""The bytes that one token stands for, which its decoded text may not show.

A byte-level token may hold a part of a character. Logprobs are reported per token, so they need
the bytes themselves (OpenAI API reference, "logprobs.content[].bytes").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_level_alphabet() -> dict[str, int]:
    """Which byte each letter of a byte-level vocabulary means.

    GPT-2's table (Radford et al. 2019): printable Latin-1 characters mean themselves, the other
    68 bytes are numbered from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return letters


class TokenBytes:
    """``bytes_of(token)`` for one tokenizer: byte-level, or SentencePiece style with byte fallback."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._added = {i: str(t.content) for i, t in tokenizer.added_tokens_decoder.items()}
        decoder = tokenizer.backend_tokenizer.decoder
        state = b"" if decoder is None else decoder.__getstate__()
        self._alphabet = byte_level_alphabet() if b"ByteLevel" in bytes(state) else None

    def bytes_of(self, token: int) -> bytes:
        """What ``token`` adds to a text; of an id that the tokenizer does not have, nothing."""
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        if self._alphabet is not None:
            alphabet = self._alphabet
            return b"".join(bytes([alphabet[c]]) if c in alphabet else c.encode() for c in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("\u2581", " ").encode()

    def text_of(self, token: int) -> str:
        """Its text for people; broken characters show as U+FFFD."""
        return self.bytes_of(token).decode("utf-8", errors="replace")

    def is_special(self, token: int) -> bool:
        """The token is left out of texts."""
        return token in self._special

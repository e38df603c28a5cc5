"""Which block holds which text: the index that lets requests share a prompt.

A full block is named by a hash over its parent's name and its own tokens, so equal names mean equal
text from the first token on. SHA-256 makes a chance collision, which would hand one user another
user's keys and values, as unlikely as a broken signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

ROOT = b""  # the parent of a sequence's first block


def block_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Name of a full block: 32 bytes over the parent's name and the block's token ids."""
    return sha256(parent + np.asarray(tokens, dtype="<i8").tobytes()).digest()


def block_hashes(tokens: Sequence[int], block_size: int) -> list[bytes]:
    """Names of the full blocks of a text, first to last; a last block that is not full has none."""
    names: list[bytes] = []
    parent = ROOT
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = block_hash(parent, tokens[start : start + block_size])
        names.append(parent)
    return names


class PrefixIndex:
    """Name -> block and back. One block has at most one name, one name at most one block."""

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}

    def add(self, block: int, name: bytes) -> bool:
        """Let ``name`` lead to ``block``; False where another block already answers to it."""
        if name in self._block_of:
            return self._block_of[name] == block
        self.forget(block)
        self._block_of[name], self._name_of[block] = block, name
        return True

    def forget(self, block: int) -> None:
        """Drop a block's name, as its content is about to change. A block without one is fine."""
        name = self._name_of.pop(block, None)
        if name is not None:
            del self._block_of[name]

    def block(self, name: bytes) -> int | None:
        return self._block_of.get(name)

    def __contains__(self, block: int) -> bool:
        return block in self._name_of

    def __len__(self) -> int:
        return len(self._name_of)

    def longest(self, tokens: Sequence[int], block_size: int) -> list[int]:
        """Blocks that hold the longest indexed prefix of ``tokens``, in full blocks."""
        blocks: list[int] = []
        parent = ROOT
        for start in range(0, len(tokens) - block_size + 1, block_size):
            parent = block_hash(parent, tokens[start : start + block_size])
            block = self._block_of.get(parent)
            if block is None:
                break
            blocks.append(block)
        return blocks

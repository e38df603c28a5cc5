"""The part of a quantised cache that is in few bits: whole groups of tokens, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.kv.minmax import MinMaxGrid


class QuantizedBlocks:
    """One layer's keys or values, ``group_size`` consecutive tokens a block.

    ``per="channel"``: a group is one channel of the block's tokens, so an outlying channel has a
    scale of its own. ``per="token"``: a group is ``group_size`` channels of one token (the last
    one of a token is shorter where ``group_size`` does not divide ``head_dim``).
    """

    def __init__(
        self,
        per: str,
        bits: int,
        group_size: int,
        heads: tuple[int, int],
        head_dim: int,
        device: torch.device,
    ) -> None:
        self.per_channel = per == "channel"
        self.group_size = group_size
        self.head_dim = head_dim
        self.rows = head_dim if self.per_channel else group_size
        self.grid = MinMaxGrid(bits, group_size, group_size if self.per_channel else head_dim)
        # (batch, kv_heads, blocks, rows, ...): empty now, one block more at each `add`
        self.parts = [
            torch.empty((*heads, 0, self.rows, width), dtype=dtype, device=device)
            for dtype, width in self.grid.layout
        ]

    @property
    def tokens(self) -> int:
        """Tokens held."""
        return self.parts[0].shape[2] * self.group_size

    @property
    def nbytes(self) -> int:
        """Bytes of codes and metadata."""
        return sum(part.nbytes for part in self.parts)

    @property
    def bits_per_value(self) -> float:
        """Bits that one stored number takes, metadata and padding included."""
        return 8 * self.rows * self.grid.row_bytes / (self.group_size * self.head_dim)

    def add(self, x: Tensor) -> None:
        """Quantise (batch, kv_heads, T, head_dim), where T is a multiple of ``group_size``."""
        blocks = x.unflatten(
            2, (-1, self.group_size)
        )  # (batch, kv_heads, blocks, tokens, channels)
        if self.per_channel:
            blocks = blocks.transpose(-1, -2)
        stored = self.grid.quantize(blocks.reshape(-1, self.grid.columns))
        leading = blocks.shape[:-1]
        self.parts = [
            torch.cat([part, new.view(*leading, -1)], dim=2)
            for part, new in zip(self.parts, stored, strict=True)
        ]

    def dequantize(self, first_block: int = 0) -> Tensor:
        """(batch, kv_heads, tokens, head_dim) float32, from block ``first_block`` on."""
        parts = [part[:, :, first_block:] for part in self.parts]
        leading = parts[0].shape[:-1]
        flat = self.grid.dequantize(*(part.flatten(0, -2) for part in parts))
        blocks = flat.view(*leading, self.grid.columns)
        if self.per_channel:
            blocks = blocks.transpose(-1, -2)
        return blocks.flatten(2, 3)

    def keep(self, blocks: int) -> None:
        """Drop all blocks behind the first ``blocks``, and their memory with them."""
        self.parts = [part[:, :, :blocks].clone() for part in self.parts]

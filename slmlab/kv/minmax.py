"""Rows of numbers in few bits, each group between its own minimum and maximum.

    code = round((x - minimum) / scale),   scale = (maximum - minimum) / (2**bits - 1)

This is the asymmetric grid of KIVI (Liu et al. 2024, arXiv:2402.02750, section 3). Weights are
quantised around 0, which stays exact there; a key channel may lie far from 0, and a grid that had
to reach 0 would waste its codes. So the minimum is taken off first, and the rest goes through the
"-asym" arithmetic of :mod:`slmlab.quant.grid`, whose zero point is then its lowest code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.quant.grid import from_codes, scales_and_zero_points, to_codes
from slmlab.quant.packing import pack_codes, packed_columns, unpack_codes
from slmlab.quant.scheme import Scheme


@dataclass(frozen=True)
class MinMaxGrid:
    """How rows of ``columns`` numbers are stored; a short last group has a scale of its own."""

    bits: int
    group_size: int
    columns: int

    @property
    def scheme(self) -> Scheme:
        """The arithmetic of slmlab.quant. Its zero point is the same in every group: not stored."""
        name = f"int{self.bits}-g{self.group_size}-asym"
        return Scheme(name, self.bits, self.group_size, scale_bits=16, zero_point_bits=self.bits)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return -(-self.columns // self.group_size)

    @property
    def layout(self) -> tuple[tuple[torch.dtype, int], ...]:
        """dtype and width of what a row is stored as: packed codes, scales, minima."""
        metadata = (torch.float16, self.groups)
        return (torch.uint8, packed_columns(self.columns, self.bits)), metadata, metadata

    @property
    def row_bytes(self) -> int:
        """Bytes of a row: codes, padded to whole bytes, and metadata."""
        return sum(dtype.itemsize * width for dtype, width in self.layout)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes and metadata of ``x``; each value is off by half a step and fp16 rounding at most.

        Args:
            x: (rows, columns) float, within fp16's range.

        Returns:
            packed: (rows, ceil(columns * bits / 8)) uint8.
            scales, minima: (rows, groups) fp16.
        """
        x = x.float()
        # Edge values fill the last group up: they change no minimum.
        filled = functional.pad(x[:, None], (0, -self.columns % self.group_size), mode="replicate")
        minima = filled[:, 0].unflatten(1, (self.groups, -1)).amin(-1).half()
        # fp16 may round a minimum up; what then lies below it belongs on the lowest code.
        above = (x - self._spread(minima)).clamp_(min=0)
        scales, _ = scales_and_zero_points(above, self.scheme)
        codes = to_codes(above, scales, self._zero_point(x), self.scheme)
        return pack_codes(codes, self.bits), scales.half(), minima

    def dequantize(self, packed: Tensor, scales: Tensor, minima: Tensor) -> Tensor:
        """What `quantize` stored, back as (rows, columns) float32."""
        codes = unpack_codes(packed, self.bits, self.columns)
        above = from_codes(codes, scales, self._zero_point(codes), self.scheme)
        return above.add_(self._spread(minima))

    def _spread(self, minima: Tensor) -> Tensor:
        """(rows, groups) -> (rows, columns) float32."""
        each = minima.float().repeat_interleave(self.group_size, dim=1)
        return each[:, : self.columns]

    def _zero_point(self, like: Tensor) -> Tensor:
        lowest, _ = self.scheme.code_range
        return torch.full((1, 1), lowest, dtype=torch.int8, device=like.device)

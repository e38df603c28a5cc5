"""Double quantisation: the absmax of each group of weights, itself kept in 8 bits.

Dettmers et al. 2023, arXiv:2305.14314, section 3: at groups of 64 an fp32 absmax costs half a bit a
weight; in 8 bits, with one fp32 for each 256 of them, 0.127.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.quant.grid import SMALLEST_ABSMAX
from slmlab.quant.scheme import DOUBLE_QUANT_BLOCK


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor]:
    """absmax (out, groups) in steps of 1/255 of the largest of 256: uint8, and those largest.

    The paper subtracts the mean first and uses a signed 8-bit float; absmax is never negative, so
    an unsigned integer uses all its codes without one. A group that is not zero keeps code 1 at
    least, so that it does not vanish beside a much larger one.
    """
    flat = absmax.flatten()
    blocks = functional.pad(flat, (0, -flat.numel() % DOUBLE_QUANT_BLOCK))
    blocks = blocks.view(-1, DOUBLE_QUANT_BLOCK)
    largest = blocks.amax(1)
    ratio = blocks / largest.clamp(min=SMALLEST_ABSMAX)[:, None]
    codes = (255 * ratio).round().clamp(min=1).mul(blocks > 0).to(torch.uint8)
    return codes.flatten()[: flat.numel()].view(absmax.shape), largest


def dequantize_absmax(codes: Tensor, largest: Tensor) -> Tensor:
    """(out, groups) float32, of what `quantize_absmax` gave."""
    each = largest.repeat_interleave(DOUBLE_QUANT_BLOCK)[: codes.numel()]
    return codes.float() * (each.view(codes.shape) / 255)

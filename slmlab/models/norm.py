"""RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale each vector to a root mean square of one, then by ``weight``.

    Args:
        x: (..., D), any float dtype.
        weight: (D,), one gain a channel.
        eps: added to the mean square, so that a zero vector stays zero.

    Returns:
        (..., D), x's dtype. The mean square is taken in float32, as every engine does:
        squares of 16-bit activations overflow or lose their low bits.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype)


class RMSNorm(nn.Module):
    """``rms_norm`` with its weight, through torch's fused kernel (tests hold the two equal)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)

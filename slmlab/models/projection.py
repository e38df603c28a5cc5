"""The products with the weights, and the one place that chooses how they are computed.

Decoding one sequence multiplies a single row by every matrix, so its time is that of reading the
weights. A library's matrix-vector product is only as fast as it reads, and that depends on how the
matrix lies in memory:

- float32 on a CPU: the columns of ``weight`` lie together, and one row goes through the BLAS that
  numpy brings, which then reads at close to the speed of memory.
- 16 bits, and every other device: the rows lie together, as checkpoints store them, and torch's
  own product reads them well.

More than one row (prefill, training, a batch) goes through torch; float16 in float32, where the
CPU has no float16 matrix product of its own and torch's stand-in is several times slower than the
conversion. Who multiplies a few rows again and again (a batch of requests, the verification of a
draft) calls :meth:`Projection.pack` first. ``benchmarks/products.py`` measures the choices against
each other.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.packed import MOST_ROWS, PackedWeight, can_pack

_FEW_ROWS = 3  # up to here torch's float16 product, a dot product at a time, is as fast


class Projection(nn.Linear):
    """``nn.Linear`` that multiplies a single row by the fastest library at hand.

    ``weight`` is (out, in) as ever; :meth:`lay_out` changes only the order in memory, and a
    Projection whose weight was never laid out computes as ``nn.Linear`` does.
    """

    laid_out = False
    _packed: PackedWeight | None = None

    def lay_out(self) -> Self:
        """Put ``weight`` in the order in memory that suits its dtype and device, now and after
        every ``.to()``."""
        self.laid_out = True
        by_column = self.weight.dtype == torch.float32 and self.weight.device.type == "cpu"
        with torch.no_grad():
            data = self.weight.data
            self.weight.data = data.t().contiguous().t() if by_column else data.contiguous()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What ``.to()`` and its kin call: they keep the order in memory."""
        packed, self._packed = self._packed, None
        super()._apply(fn, recurse)
        if self.laid_out:
            self.lay_out()
        return self if packed is None else self.pack()

    def pack(self) -> Self:
        """Keep a second copy of a float32 weight on a CPU, laid out for products of 2 to
        ``MOST_ROWS`` rows without gradients: twice the bytes, about half the time."""
        if self._packed is None or not self._packed.of(self.weight):
            self._packed = PackedWeight(self.weight) if can_pack(self.weight) else None
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copy.deepcopy copies: all but the packed weight, which is derived and opaque."""
        return {**self.__dict__, "_packed": None}

    def forward(self, x: Tensor) -> Tensor:
        if (
            x.numel() == self.in_features
            and _by_column(self.weight)
            and not torch.is_grad_enabled()
            and x.dtype == torch.float32
            and not torch.compiler.is_compiling()
        ):
            product = row_times_columns(x, self.weight)
            return product if self.bias is None else product + self.bias
        if (
            self._packed is not None
            and x.numel() <= MOST_ROWS * self.in_features
            and x.dtype == torch.float32
            and not torch.is_grad_enabled()
            and self._packed.of(self.weight)
        ):
            return self._packed.product(x, self.bias)
        if x.numel() > _FEW_ROWS * self.in_features and _lacks_half_products(self.weight):
            bias = None if self.bias is None else self.bias.float()
            return functional.linear(x.float(), self.weight.float(), bias).to(x.dtype)
        return functional.linear(x, self.weight, self.bias)


def row_times_columns(x: Tensor, weight: Tensor) -> Tensor:
    """One row times a matrix whose columns lie together, by numpy's BLAS.

    Args:
        x: (..., in) float32 on the CPU, one row in all.
        weight: (out, in) float32 with stride (1, out).

    Returns:
        (..., out). It uses as many threads as torch does.
    """
    _match_threads(torch.get_num_threads())
    product = np.dot(x.detach().reshape(-1).numpy(), weight.detach().t().numpy())
    return torch.from_numpy(product).view(*x.shape[:-1], weight.shape[0])


def _by_column(weight: Tensor) -> bool:
    return weight.stride() == (1, weight.shape[0]) and weight.shape[1] > 1


def _lacks_half_products(weight: Tensor) -> bool:
    """Whether a float16 product is better computed in float32: never where gradients are kept."""
    return (
        weight.dtype == torch.float16
        and weight.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    )


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


_matched = 0


def _match_threads(count: int) -> None:
    """numpy's BLAS keeps a thread count of its own, set when it is imported."""
    global _matched
    if count != _matched:
        _blas().limit(limits=count)
        _matched = count

"""float32 products of a few rows, on a weight that oneDNN has laid out for them.

Serving a batch and verifying a draft multiply 2 to about 64 rows by every matrix. torch's own
float32 product is made for many rows and costs twice as much as it has to here; on a weight that
was reordered once, oneDNN's costs little more than reading it. ``benchmarks/products.py`` measures
the choices against each other.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MOST_ROWS = 64  # beyond, torch's product on the plain weight is as fast


class PackedWeight:
    """A copy of a float32 weight (out, in) in the processor's own layout; as many bytes again.

    ``of(weight)`` tells whether the copy still is this weight's: training changes the weight in
    place, and a stale copy would silently compute with the old one.
    """

    def __init__(self, weight: Tensor) -> None:
        self._state = _state(weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 8)

    def of(self, weight: Tensor) -> bool:
        return self._state == _state(weight)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN takes this weight here."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and _works()


def _state(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


@cache
def _works() -> bool:
    """The operators are torch's own but not public: one small product is compared."""
    try:
        weight, x = torch.randn(48, 32), torch.randn(4, 32)
        product = PackedWeight(weight).product(x, None)
    except Exception:  # a build without oneDNN fails in its own way
        return False
    return torch.allclose(product, x @ weight.T, atol=1e-4)

"""The levels of NF4 and FP4, and the nearest of them.

Both are tables of sixteen values in -1 .. 1; a weight is stored as the index of the level nearest
to weight / absmax of its group.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BOOKS = ("nf4", "fp4")


def nf4_levels() -> Tensor:
    """NormalFloat4 (Dettmers et al. 2023, arXiv:2305.14314, section 3): (16,) float32, rising.

    Quantiles of the standard normal, so that each level is used about equally often by weights
    that are normally distributed. Eight positive and seven negative ones are taken at even
    distances of probability between 1/2 and ``tail``, zero is put between them so that it is
    exact, and all are divided by the largest. Probabilities are rounded to float32 on the way and
    ``tail`` to seven digits, as where the published table was computed: it comes out to the bit.
    """
    tail = 0.9677083  # 1 - (1/32 + 1/30) / 2: half of what 16 and 15 levels leave beyond the last

    def quantiles(count: int) -> Tensor:
        # dtype and device are given: a user's defaults may be others
        steps = torch.linspace(tail, 0.5, count + 1, dtype=torch.float32, device="cpu")
        return torch.special.ndtri(steps[:-1].double())

    positive, negative = quantiles(8).flip(0), -quantiles(7)
    rising = torch.cat((negative, positive.new_zeros(1), positive)).float()
    return rising / rising[-1]


def fp4_levels() -> Tensor:
    """bitsandbytes' FP4: (16,) float32 in the order of the codes, sign in the top bit.

    Below the sign lie two bits of exponent and one of mantissa. Exponents 1, 2, 3 mean 8, 4, 2
    and the mantissa adds a half of that; exponent 0 holds zero and one small level. All are
    divided by the largest, 12. There are two zeros, codes 0 and 8.
    """
    levels = []
    for code in range(8):
        exponent, mantissa = code >> 1, code & 1
        size = 2.0 ** (4 - exponent) * (1 + mantissa / 2) if exponent else mantissa / 16
        levels.append(size / 12)
    positive = torch.tensor(levels, dtype=torch.float64, device="cpu")
    return torch.cat((positive, -positive)).float()


@cache
def levels(book: str) -> Tensor:
    """The levels of "nf4" or "fp4" by code, (16,) float32. Do not write to it."""
    if book not in BOOKS:
        raise ValueError(f"code book {book!r} is unknown; use one of {', '.join(BOOKS)}")
    return nf4_levels() if book == "nf4" else fp4_levels()


@cache
def _sorted(book: str) -> tuple[Tensor, Tensor]:
    """Midpoints between neighbouring levels (15,), and the code of each level in rising order."""
    table = levels(book)
    order = torch.argsort(table, stable=True)
    rising = table[order]
    return (rising[:-1] + rising[1:]) / 2, order.to(torch.int8)


def nearest_codes(x: Tensor, book: str) -> Tensor:
    """Code of the level nearest to each value; the lower level where two are equally near.

    Args:
        x: float32 of any shape, in -1 .. 1; values outside get the outermost level.

    Returns:
        int8 of x's shape, 0 .. 15.
    """
    midpoints, order = _sorted(book)
    position = torch.zeros(x.shape, dtype=torch.int8, device=x.device)
    for midpoint in midpoints.tolist():  # fifteen comparisons are faster than a search
        position += x > midpoint
    if book == "nf4":
        return position
    return order.to(x.device).index_select(0, position.flatten().int()).view(x.shape)

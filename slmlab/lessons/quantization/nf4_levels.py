"""quantization.nf4_levels: sixteen levels from the quantiles of the normal distribution.

Dettmers et al. 2023, arXiv:2305.14314, section 3.
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.codebooks import nf4_levels

TAIL = 0.9677083


def cases(seed: int) -> list[Case]:
    """One case without arguments: there is one such table, so there is nothing to vary."""
    return [Case({})]


def reference() -> Tensor:
    """The package's table, a copy: (16,) float32, rising."""
    return nf4_levels().clone()


def _quantiles(tail: float, count: int) -> Tensor:
    """Normal quantiles at ``count`` even steps of probability from ``tail`` down to 1/2, falling."""
    return torch.special.ndtri(torch.linspace(tail, 0.5, count + 1)[:-1])


def _joined(negative: int, positive: int) -> Tensor:
    halves = (-_quantiles(TAIL, negative), torch.zeros(1), _quantiles(TAIL, positive).flip(0))
    return torch.cat(halves)


def _not_divided() -> Tensor:
    return _joined(7, 8)


def _other_side() -> Tensor:
    levels = _joined(8, 7)
    return levels / levels.abs().max()


def _no_zero() -> Tensor:
    levels = torch.special.ndtri(torch.linspace(1 - TAIL, TAIL, 16))
    return levels / levels.max()


def _two_zeros() -> Tensor:
    half = torch.special.ndtri(torch.linspace(TAIL, 0.5, 8))
    levels = torch.cat((-half, half.flip(0)))
    return levels / levels.max()


def _evenly_spaced() -> Tensor:
    return torch.linspace(-1.0, 1.0, 16)


def _falling() -> Tensor:
    return nf4_levels().flip(0)


def _by_statistics() -> Tensor:
    normal = NormalDist()

    def quantiles(count: int) -> list[float]:
        step = (TAIL - 0.5) / count
        return [normal.inv_cdf(0.5 + step * k) for k in range(1, count + 1)]

    positive = quantiles(8)
    levels = [-x for x in reversed(quantiles(7))] + [0.0] + positive
    return torch.tensor(levels) / positive[-1]


NF4_LEVELS = Exercise(
    id="quantization.nf4_levels",
    title="The NF4 code book",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "not divided by the largest",
            "Your levels are all 1.848 times too large: they are still quantiles. The largest level "
            "must be 1, because absmax / absmax is. What do you divide by?",
            _not_divided,
        ),
        Mistake(
            "eight negative levels",
            "You have eight negative levels and seven positive ones: the table is the other way "
            "round. Which side of zero gets the finer steps?",
            _other_side,
        ),
        Mistake(
            "no zero",
            "No level is 0: sixteen quantiles in one even row leave it out, and every pruned or "
            "padded weight comes back wrong. How do you make zero one of the sixteen?",
            _no_zero,
        ),
        Mistake(
            "two zeros",
            "Your table has two zeros and so only fifteen different levels: both halves end at the "
            "probability 1/2. From which half do you leave nothing out but the zero?",
            _two_zeros,
        ),
        Mistake(
            "evenly spaced",
            "Your levels are evenly spaced: that is an integer grid, and most weights lie near zero, "
            "where it is no finer than at the ends. Which spacing gives each level an equal share?",
            _evenly_spaced,
        ),
        Mistake(
            "largest first",
            "The sixteen levels are right and in falling order: the code is the place in a rising "
            "table. Which level has the code 0?",
            _falling,
        ),
    ),
    hints=(
        "Sixteen different levels, rising, from -1 to 1, with an exact 0; neighbours lie closer "
        "near 0 than at the ends. Which of these fails for yours?",
        "A smaller book, two positive levels, one negative, tail 0.9. Positive: probabilities 0.9 "
        "and 0.7, quantiles 1.2816 and 0.5244. Negative: 0.9, so -1.2816. Divided by 1.2816: "
        "[-1.0, 0.0, 0.4092, 1.0].",
        "positive = quantile of 8 probabilities, tail, ..., evenly down towards 1/2, without 1/2\n"
        "negative = minus the quantile of 7 probabilities made in the same way\n"
        "rising = negative, 0, positive in rising order\n"
        "return rising / largest",
    ),
    compare=Close(rtol=0.0, atol=2e-5),
    alternatives=(_by_statistics,),
)

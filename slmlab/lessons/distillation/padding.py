"""distillation.padding: which predictions of a padded batch count, and what the sum is divided by."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake


def cases(seed: int) -> list[Case]:
    """One row padded behind, before, not at all; rows of several lengths; all of it together."""
    draw = random.Random(seed)

    def case(time: int, *spans: tuple[int, int]) -> Case:
        """A row's real tokens lie from start to stop. No two divergences are equal."""
        rows = len(spans)
        numbers = draw.sample(range(1, 40), rows * time)
        divergence = torch.tensor(numbers, dtype=torch.float32).view(rows, time) / 10
        at = torch.arange(time)
        real = torch.stack([(at >= start) & (at < stop) for start, stop in spans])
        return Case({"divergence": divergence, "real": real})

    lengths = draw.sample(range(2, 7), 3)
    return [
        case(3, (0, 2)),
        case(3, (0, 3)),
        case(4, (2, 4)),
        case(4, (0, 4), (0, 2)),
        case(6, *((0, length) for length in lengths)),
        case(6, *((6 - length, 6) for length in lengths)),
        case(7, (0, 7), (draw.randint(2, 3), 7), (0, draw.randint(3, 4)), (1, 5)),
    ]


def counted(real: Tensor) -> Tensor:
    """(rows, time) bool: the token and the one that it predicts are both real."""
    both = torch.zeros_like(real)
    both[:, :-1] = real[:, :-1] & real[:, 1:]
    return both


def reference(divergence: Tensor, real: Tensor) -> Tensor:
    """A mean over what the package's ``mask`` would be."""
    return divergence[counted(real)].mean()


Answer = Callable[[Tensor, Tensor], Tensor]


def _mean(
    mask: Callable[[Tensor], Tensor] = counted,
    share: Callable[[Tensor, Tensor], Tensor | int] = lambda mask, real: mask.sum(),
) -> Answer:
    def answer(divergence: Tensor, real: Tensor) -> Tensor:
        kept = mask(real)
        return (divergence * kept).sum() / share(kept, real)

    return answer


def _all_but_the_last(real: Tensor) -> Tensor:
    kept = torch.ones_like(real)
    kept[:, -1] = False
    return kept


def _target_real(real: Tensor) -> Tensor:
    kept = torch.zeros_like(real)
    kept[:, :-1] = real[:, 1:]
    return kept


def _shifted_the_other_way(real: Tensor) -> Tensor:
    kept = torch.zeros_like(real)
    kept[:, 1:] = real[:, :-1]
    return kept


def _row_means(divergence: Tensor, real: Tensor) -> Tensor:
    kept = counted(real)
    return ((divergence * kept).sum(1) / kept.sum(1)).mean()


def _one_by_one(divergence: Tensor, real: Tensor) -> Tensor:
    total, count = 0.0, 0
    for values, flags in zip(divergence.tolist(), real.tolist(), strict=True):
        for at in range(len(values) - 1):
            if flags[at] and flags[at + 1]:
                total, count = total + values[at], count + 1
    return torch.tensor(total / count)


PADDING = Exercise(
    id="distillation.padding",
    title="Which positions count",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "padding not masked",
            "Padding is in your mean: what a model says about padding teaches nothing, and longer "
            "padding must not change the loss. Where do you use real?",
            _mean(_all_but_the_last),
            (_mean(torch.ones_like),),
        ),
        Mistake(
            "divided by all positions",
            "The sum is right and the divisor is not: you divide by positions that are not in the "
            "sum. What happens to the loss if two more columns of padding come along?",
            _mean(share=lambda mask, real: mask.numel()),
            (_mean(share=lambda mask, real: mask[:, 1:].numel()),),
        ),
        Mistake(
            "mask not shifted",
            "You keep every real token, or the mask went one place to the right: position t is judged "
            "by token t + 1. What does the last real token of a row predict?",
            _mean(lambda real: real),
            (_mean(_shifted_the_other_way),),
        ),
        Mistake(
            "predictions made from padding",
            "Right where padding stands behind the text; where it stands before, one prediction a row "
            "is made from padding. Which two tokens belong to position t?",
            _mean(_target_real),
        ),
        Mistake(
            "mean of row means",
            "You average the rows' means: a token in a short row then weighs more than one in a long "
            "row. Over what is the mean?",
            _row_means,
        ),
        Mistake(
            "divided by the rows or the tokens",
            "The sum is right: you divide by the rows of the batch, or by the real tokens. How many "
            "terms does the sum have?",
            _mean(share=lambda mask, real: len(real)),
            (_mean(share=lambda mask, real: real.sum()),),
        ),
    ),
    hints=(
        "Change a number at padding, or append a column of padding: the mean must stay as it is. And "
        "every prediction that counts weighs the same.",
        "divergence [0.5, 1.0, 2.0], real [yes, yes, no]. Position 0: made from token 0, judged by "
        "token 1, both real. Position 1 is judged by padding, position 2 by nothing. Mean: 0.5.",
        "position t counts if real[t] and real[t + 1]; the last column never does\n"
        "total = sum of divergence where it counts\n"
        "return total / number of those positions",
    ),
    compare=Close(rtol=1e-4, atol=1e-6),
    alternatives=(_one_by_one,),
)

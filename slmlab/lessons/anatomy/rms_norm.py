"""anatomy.rms_norm: the normalisation of every Llama-like layer, by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.models.norm import rms_norm


def cases(seed: int) -> list[Case]:
    """One vector, then weights, a zero vector, a tiny one, two tokens, a matrix."""
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=random)).round(decimals=1)

    pair = torch.cat((between(1.0, 2.0, 1, 1), between(-4.0, -3.0, 1, 1)), dim=1)
    gains = torch.cat((between(1.5, 2.0, 1), between(0.2, 0.6, 1)))
    ones, eps = torch.ones(2), 1e-5
    two_tokens = torch.cat((pair, between(5.0, 8.0, 1, 2)))
    return [
        Case({"x": pair, "weight": ones, "eps": eps}),
        Case({"x": pair, "weight": gains, "eps": eps}),
        Case({"x": torch.zeros(1, 2), "weight": ones, "eps": eps}),
        # The mean square lies below eps: its place in the formula decides.
        Case({"x": pair / 1000, "weight": ones, "eps": eps}),
        Case({"x": two_tokens, "weight": ones, "eps": eps}),
        Case(
            {
                "x": 2 * torch.randn(3, 8, generator=random) + 1,
                "weight": torch.rand(8, generator=random) + 0.5,
                "eps": 1e-6,
            }
        ),
    ]


def _mean_square(x: Tensor, axis: int = -1) -> Tensor:
    return (x * x).mean(dim=axis, keepdim=True)


def _mean_subtracted(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return weight * centred / (_mean_square(centred) + eps).sqrt()


def _eps_outside(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (_mean_square(x).sqrt() + eps)


def _over_tokens(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (_mean_square(x, axis=0) + eps).sqrt()


def _standard_deviation(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (x.std(dim=-1, keepdim=True) ** 2 + eps).sqrt()


def _gain_first(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(x * weight, torch.ones_like(weight), eps)


def _sum_for_mean(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / ((x * x).sum(dim=-1, keepdim=True) + eps).sqrt()


def _token_by_token(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = []
    for row in x:
        root = (sum(value.item() ** 2 for value in row) / len(row) + eps) ** 0.5
        rows.append(row / root * weight)
    return torch.stack(rows)


def _by_torch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


RMS_NORM = Exercise(
    id="anatomy.rms_norm",
    title="RMSNorm by hand",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=rms_norm,
    mistakes=(
        Mistake(
            "mean subtracted",
            "You compute LayerNorm: the mean of each vector is taken away first. RMSNorm only "
            "scales. Which step of yours moves a vector that is constant, such as [2, 2]?",
            _mean_subtracted,
        ),
        Mistake(
            "standard deviation for root mean square",
            "You divide by the standard deviation: torch's std and var subtract the mean before "
            "they square, and divide by one less than the number of channels. What is the mean of "
            "x*x itself?",
            _standard_deviation,
        ),
        Mistake(
            "eps outside the root",
            "Ordinary vectors are right, tiny ones come out too long: eps is added to the root. "
            "It guards the mean square. On which side of the root does it belong?",
            _eps_outside,
        ),
        Mistake(
            "mean over the token axis",
            "The mean runs over the tokens: one token's values change another's result. Each token "
            "is normalised alone. Which axis holds the channels?",
            _over_tokens,
        ),
        Mistake(
            "gain before the norm",
            "Right where the weight is 1, off elsewhere: you multiply by the gain first, so the "
            "norm measures the scaled vector and takes part of the gain away. Which comes last?",
            _gain_first,
        ),
        Mistake(
            "sum instead of mean",
            "Every vector comes out too short, by the root of its width: squares are summed and "
            "never divided by their number. What should the mean square of your result be?",
            _sum_for_mean,
        ),
    ),
    hints=(
        "With weight 1, the mean of the squares of each output vector is 1, and its direction is "
        "that of the input. Which of the two does your result break?",
        "x = [3.0, 0.0, -4.0], weight 1: squares [9, 0, 16], mean 25/3 = 8.3333, root 2.8868, "
        "answer [1.0392, 0.0, -1.3856]. Its squares are [1.08, 0, 1.92], and their mean is 1.",
        "mean_square = mean of x*x over the last axis, axis kept\n"
        "scaled = x / sqrt(mean_square + eps)\n"
        "return scaled * weight",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_token_by_token, _by_torch),
)

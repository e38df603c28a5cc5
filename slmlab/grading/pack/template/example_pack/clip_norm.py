"""example_pack.clip_norm: a gradient made no longer than a limit."""

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake


def cases(seed: int) -> list[Case]:
    """One that is too long, one that is short enough, a longer one."""
    random = torch.Generator().manual_seed(seed)
    stretch = 1 + torch.rand(1, generator=random).item()
    gradients = (
        (torch.tensor([3.0, -4.0]) * stretch, 2.5),
        (torch.tensor([0.3, 0.4]) * stretch, 2.5),
        (torch.randn(6, generator=random) * 5, 1.5),
    )
    return [Case({"gradient": g, "max_norm": limit}) for g, limit in gradients]


def reference(gradient: Tensor, max_norm: float) -> Tensor:
    """(n,) -> (n,): the right answer (Pascanu et al. 2013, algorithm 1)."""
    return gradient * min(1.0, max_norm / float(gradient.norm()))


def _always(gradient: Tensor, max_norm: float) -> Tensor:
    return gradient * max_norm / gradient.norm()


def _each_value(gradient: Tensor, max_norm: float) -> Tensor:
    return gradient.clamp(-max_norm, max_norm)


def _largest(gradient: Tensor, max_norm: float) -> Tensor:
    return gradient * min(1.0, max_norm / float(gradient.abs().max()))


def _by_squares(gradient: Tensor, max_norm: float) -> Tensor:
    length = sum(value * value for value in gradient.tolist()) ** 0.5
    return gradient if length <= max_norm else gradient / length * max_norm


CLIP_NORM = Exercise(
    id="example_pack.clip_norm",
    title="Clip a gradient by its norm",
    points=3,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "short gradients stretched",
            "A gradient that was short enough comes back longer: you scale without asking whether "
            "it is over the limit. What is the factor where nothing has to be done?",
            _always,
        ),
        Mistake(
            "each value clipped",
            "You clip each value by itself, so the direction changes. One factor for all of them "
            "keeps it. Which one?",
            _each_value,
        ),
        Mistake(
            "largest value instead of the norm",
            "Your result is still too long: the limit is on the root of the sum of squares, and "
            "you used the largest value. What is the norm of [3, -4]?",
            _largest,
        ),
    ),
    hints=(
        "The result points the same way, and its norm is at most max_norm. Which factor does both?",
        "[3, -4] has norm 5. With max_norm 2.5 the factor is 0.5: [1.5, -2].",
        "factor = max_norm / norm, at most 1\nreturn factor * gradient",
    ),
    compare=Close(rtol=1e-5, atol=1e-6),
    alternatives=(_by_squares,),
)

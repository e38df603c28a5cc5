"""speculative.residual: what replaces a rejected token is drawn from what p has more than q."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.lessons.speculative_decoding.draws import distribution, pair
from slmlab.speculative import residual_distribution


def cases(seed: int) -> list[Case]:
    """Two tokens; three with one excess; four with two; equal ones; a larger vocabulary, twice."""
    draw = random.Random(seed)

    def excess(size: int, above: int) -> tuple[Tensor, Tensor]:
        """Two distributions where ``above`` tokens have more in p than in q."""
        while True:
            p, q = pair(draw, size)
            if int((p > q).sum()) == above:
                return p, q

    same = distribution(draw, 3)
    drawn = (
        excess(2, 1),
        excess(3, 2),
        excess(4, 2),
        (same, same.clone()),
        excess(6, 3),
        excess(8, 5),
    )
    return [Case({"p": p, "q": q}) for p, q in drawn]


def reference(p: Tensor, q: Tensor) -> Tensor:
    """The package's, with its arguments in this order."""
    return residual_distribution(q, p)


def _or_p(found: Tensor, p: Tensor) -> Tensor:
    """A rule's answer, and p where there is nothing left."""
    return found if bool(found.isfinite().all()) and float(found.abs().sum()) > 0 else p


def _unnormalised(p: Tensor, q: Tensor) -> Tensor:
    return _or_p((p - q).clamp(min=0.0), p)


def _unnormalised_zero(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0.0)


def _not_clamped(p: Tensor, q: Tensor) -> Tensor:
    return _or_p((p - q) / (p - q).clamp(min=0.0).sum(), p)


def _difference(p: Tensor, q: Tensor) -> Tensor:
    return p - q


def _absolute(p: Tensor, q: Tensor) -> Tensor:
    return _or_p((p - q).abs() / (p - q).abs().sum(), p)


def _swapped(p: Tensor, q: Tensor) -> Tensor:
    return residual_distribution(p, q)


def _target(p: Tensor, q: Tensor) -> Tensor:
    return p.clone()


def _nothing_left(p: Tensor, q: Tensor) -> Tensor:
    excess = (p - q).clamp(min=0.0)
    return excess / excess.sum()


def _from_the_overlap(p: Tensor, q: Tensor) -> Tensor:
    left = p - torch.minimum(p, q)
    missing = 1 - float(torch.minimum(p, q).sum())
    return p.clone() if missing < 1e-6 else left / missing


RESIDUAL = Exercise(
    id="speculative.residual",
    title="The residual: what replaces a rejected token",
    points=3,
    minutes=7,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "left unnormalised",
            "Your numbers have the right proportions and do not sum to 1: a token will be drawn from "
            "them, so they must. What do they sum to, and what is that in words?",
            _unnormalised,
            (_unnormalised_zero,),
        ),
        Mistake(
            "not clamped at zero",
            "Some of your numbers are negative: a token that the draft overrates has had more than "
            "its share already. How often should it be drawn again?",
            _not_clamped,
            (_difference,),
        ),
        Mistake(
            "absolute difference",
            "You draw what the draft overrates as well as what it underrates: only p's surplus is "
            "still missing. Which tokens have less in q than in p?",
            _absolute,
        ),
        Mistake(
            "p and q swapped",
            "You draw what the draft has too much of: the sides are swapped. Which of the two has "
            "been served by the proposals, and which is still owed?",
            _swapped,
        ),
        Mistake(
            "the target itself",
            "You replace a rejected token by a draw from p: what was accepted has given p most of "
            "its mass already, so its favourites come out too often. What is still missing?",
            _target,
        ),
        Mistake(
            "zero over zero",
            "Where both are equal you divide 0 by 0: nothing can be rejected there, and rounding may "
            "ask all the same. Which distribution is then a safe answer?",
            _nothing_left,
        ),
    ),
    hints=(
        "min(p, q) + (share rejected) * residual = p, token by token, and the residual is a "
        "distribution. Which of your numbers breaks that sum?",
        "p = [0.7, 0.2, 0.1], q = [0.5, 0.4, 0.1]. p - q = [0.2, -0.2, 0.0]; of that only 0.2 is "
        "owed. It sums to 0.2, the share rejected. Residual: [1, 0, 0].",
        "excess = p - q, negative entries set to 0\n"
        "total = sum of excess\n"
        "return p where total is 0, else excess / total",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_from_the_overlap,),
)

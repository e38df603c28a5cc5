"""speculative.sampler_repair: a bonus from the wrong position, found by its probabilities."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.lessons.speculative_decoding.draws import distribution, pair
from slmlab.speculative import residual_distribution


def cases(seed: int) -> list[Case]:
    """One proposal from two tokens, from three; two and three proposals; a larger vocabulary."""
    draw = random.Random(seed)

    def case(count: int, size: int) -> Case:
        rows = [pair(draw, size, apart=0.2) for _ in range(count)]
        while True:
            bonus = distribution(draw, size)
            if all(float((bonus - row).abs().max()) > 0.1 for row in (*rows[-1], rows[0][0])):
                break
        p = torch.stack([*(target for target, _ in rows), bonus])
        return Case({"q": torch.stack([draft for _, draft in rows]), "p": p})

    return [case(1, 2), case(1, 3), case(2, 2), case(2, 4), case(3, 5)]


def _outcomes(
    keep: Callable[[Tensor, Tensor], Tensor] = lambda p, q: (p / q).clamp(max=1.0),
    replacement: Callable[[Tensor, Tensor], Tensor] = lambda p, q: residual_distribution(q, p),
    bonus: Callable[[Tensor, Tensor], Tensor] = lambda q, p: p[-1],
    weighed: bool = True,
) -> Callable[[Tensor, Tensor], Tensor]:
    def answer(q: Tensor, p: Tensor) -> Tensor:
        out, reached = torch.zeros_like(p), torch.tensor(1.0)
        for i, draft in enumerate(q):
            kept = (draft * keep(p[i], draft)).sum()
            out[i] = reached * (1 - kept) * replacement(p[i], draft)
            reached = reached * kept
        out[-1] = (reached if weighed else 1.0) * bonus(q, p)
        return out

    return answer


def reference(q: Tensor, p: Tensor) -> Tensor:
    """Every place of the first rejection, with the package's residual."""
    return _outcomes()(q, p)


def _excess(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0.0)


def _what_is_missing(q: Tensor, p: Tensor) -> Tensor:
    """Rejected and replaced by x is max(0, p - q) as it stands: nothing is divided."""
    overlap = torch.minimum(p[:-1], q).sum(-1)
    reached = torch.cat((torch.ones(1), overlap.cumprod(0)))
    last = torch.cat(((p[:-1] - q).clamp(min=0.0), p[-1:]))
    return reached[:, None] * last


SAMPLER_REPAIR = Exercise(
    id="speculative.sampler_repair",
    title="Repair this: a biased sampler",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: after the loop, i is the place of the last proposal, and the "
            "bonus is drawn from the distribution before it. Which row stands behind it?",
            _outcomes(bonus=lambda q, p: p[-2]),
        ),
        Mistake(
            "bonus not from the target",
            "Your last row is the draft's, or what p has more than q: nothing was rejected, and "
            "nobody checks the bonus. Which distribution must it follow as it stands?",
            _outcomes(bonus=lambda q, p: q[-1]),
            (_outcomes(bonus=lambda q, p: residual_distribution(q[-1], p[-1])),),
        ),
        Mistake(
            "last row not weighed",
            "The last row must be weighed by the chance that all stay: the answer sums to more than "
            "1. Which number in the loop holds that chance at its end?",
            _outcomes(weighed=False),
        ),
        Mistake(
            "residual left unnormalised",
            "Your numbers sum to less than 1: in the rows of a rejection the share rejected is "
            "multiplied twice. Which of the two factors is in p - q already?",
            _outcomes(replacement=_excess),
        ),
        Mistake(
            "rejected tokens from the target",
            "The bonus is right and the replacements are not: they follow p, and with the accepted "
            "tokens the favourites come too often. What is still missing from p?",
            _outcomes(replacement=lambda p, q: p),
        ),
        Mistake(
            "q over p",
            "You keep with q / p: the given code had that right. Which token should go more often, "
            "one that the draft overrates or one that it underrates?",
            _outcomes(keep=lambda p, q: (q / p).clamp(max=1.0)),
        ),
    ),
    hints=(
        "Given that all were accepted, the last token follows the last row of p, and nothing else. "
        "Divide the last row of your answer by its sum and compare.",
        "q = [[0.5, 0.5]], p = [[0.8, 0.2], [0.1, 0.9]]. Kept: 0.5 * 1 + 0.5 * 0.4 = 0.7. Row 0: "
        "rejected 0.3, always replaced by id 0: [0.3, 0]. Row 1: 0.7 * [0.1, 0.9] = [0.07, 0.63]. "
        "Sum 1.",
        "reached = 1\n"
        "for i, proposal: kept = sum of min(p[i], q[i])\n"
        "    row i = reached * (1 - kept) * residual(p[i], q[i]); reached *= kept\n"
        "last row = reached * p[number of proposals]",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_what_is_missing,),
)

"""speculative.one_round: accept, reject, replace; the random numbers arrive as arguments."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.lessons.speculative_decoding.draws import distribution, tokens
from slmlab.speculative import acceptance_probabilities, residual_distribution

MARGIN = 0.02  # no draw is this close to a border: rounding must decide nothing


def cases(seed: int) -> list[Case]:
    """One token rejected, one kept; two of which none, one, all stay; longer rounds; a token that
    the target never says, at a draw of 0."""
    draw = random.Random(seed)

    def case(count: int, size: int, accepted: int, never: bool = False) -> Case:
        """never: the target gives the first proposal no chance, and its draw is 0."""
        while True:
            q = torch.stack([distribution(draw, size) for _ in range(count)])
            p = torch.stack([distribution(draw, size) for _ in range(count + 1)])
            proposed = tokens(draw, q)
            last = draw.randint(1, 98) / 100
            if never:
                p[0, proposed[0]] = 0.0
                p[0] /= p[0].sum()
            ratios = [float(p[i, x] / q[i, x]) for i, x in enumerate(proposed)]
            draws = [0.0] if never else _draws(draw, ratios, accepted)
            if draws is None or not _clear(q, p, last):
                continue
            if accepted < count:
                # A replacement from the target shows itself,
                p_row, q_row = p[accepted], q[accepted]
                right, wrong = pick(residual_distribution(q_row, p_row), last), [pick(p_row, last)]
                # as one that does not sum to 1 does, where there are two tokens,
                if size == 2:
                    wrong.append(pick(_excess(p_row, q_row), last))
            else:
                # and so does a bonus from the draft or from the wrong row.
                right, *wrong = (pick(row, last) for row in (p[-1], p[-2], q[-1]))
            if right not in wrong and len({right, *wrong}) >= min(size, 2 + (accepted == count)):
                return Case({"tokens": proposed, "q": q, "p": p, "draws": draws, "last": last})

    small = [case(1, 2, n) for n in (0, 1, 0, 1)]
    middle = [case(2, 3, n) for n in (0, 1, 2, 2)]
    long = [case(4, 5, n) for n in (4, 0, 1, 2, 3, 4)]
    return [*small, *middle, *long, case(1, 3, 0, never=True)]


def _excess(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0.0)


def _draws(draw: random.Random, ratios: list[float], accepted: int) -> list[float] | None:
    """Hundredths that keep the first ``accepted`` tokens and not the next; None where none do."""
    hundredths = range(1, 99)
    draws = []
    for place, ratio in enumerate(ratios):
        clear = [n / 100 for n in hundredths if abs(n / 100 - ratio) > MARGIN]
        fitting = [
            x
            for x in clear
            if abs(x - 1 / ratio) > MARGIN
            and (place > accepted or (x < ratio) == (place < accepted))
        ]
        if not fitting:
            return None
        draws.append(draw.choice(fitting))
    return draws


def _clear(q: Tensor, p: Tensor, last: float) -> bool:
    """``last`` is near no border of any row that somebody could draw from."""
    rows = torch.cat((p, q, residual_distribution(q, p[:-1]), _excess(p[:-1], q)))
    return bool(((rows.cumsum(-1) - last).abs() > MARGIN / 4).all())


def pick(row: Tensor, draw: float) -> int:
    """The first id whose cumulative probability lies above ``draw``."""
    return min(int((row.cumsum(-1) <= draw).sum()), row.shape[0] - 1)


def reference(
    tokens: list[int], q: Tensor, p: Tensor, draws: list[float], last: float
) -> list[int]:
    """The package's rule, with these numbers in place of a generator."""
    keep = acceptance_probabilities(torch.tensor(tokens), q, p[:-1])
    accepted = int((torch.tensor(draws) < keep).long().cumprod(-1).sum())
    if accepted == len(tokens):
        return [*tokens, pick(p[-1], last)]
    return [*tokens[:accepted], pick(residual_distribution(q[accepted], p[accepted]), last)]


def _round(
    keep: Callable[[float, float], float] = lambda p, q: p / q,
    replacement: Callable[[Tensor, Tensor], Tensor] = lambda p, q: residual_distribution(q, p),
    bonus: Callable[[Tensor, Tensor], Tensor] = lambda p, q: p[-1],
    goes_on: bool = False,
    choose: Callable[[Tensor, float], int] = pick,
) -> Callable[..., list[int]]:
    def answer(
        tokens: list[int], q: Tensor, p: Tensor, draws: list[float], last: float
    ) -> list[int]:
        out = []
        for i, token in enumerate(tokens):
            if draws[i] < keep(float(p[i, token]), float(q[i, token])):
                out.append(token)
                continue
            out.append(choose(replacement(p[i], q[i]), last))
            if not goes_on:
                return out
        return [*out, pick(bonus(p, q), last)]

    return answer


def _pick_beyond(row: Tensor, draw: float) -> int:
    """As `pick`, without a limit: an id that is none where the row sums to less than the draw."""
    return int((row.cumsum(-1) <= draw).sum())


def _without_bonus(
    tokens: list[int], q: Tensor, p: Tensor, draws: list[float], last: float
) -> list[int]:
    return reference(tokens, q, p, draws, last)[: len(tokens)]


def _by_subtraction(
    tokens: list[int], q: Tensor, p: Tensor, draws: list[float], last: float
) -> list[int]:
    """No function of the package, and the ratio multiplied out."""
    out: list[int] = []
    row = p[len(tokens)].tolist()
    for token, target, draft, draw in zip(tokens, p.tolist(), q.tolist(), draws, strict=False):
        if draw * draft[token] >= target[token]:
            left = [max(a - b, 0.0) for a, b in zip(target, draft, strict=True)]
            row = [x / sum(left) for x in left]
            break
        out.append(token)
    total = 0.0
    for token, share in enumerate(row):
        total += share
        if total > last:
            return [*out, token]
    return [*out, len(row) - 1]


ONE_ROUND = Exercise(
    id="speculative.one_round",
    title="One round: accept, reject, replace",
    points=5,
    minutes=15,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "draw against q over p",
            "You compare the draw with q / p: then what the draft overrates stays, and what the "
            "target wants goes. Which of the two should be large for a token to stay?",
            _round(keep=lambda p, q: q / p if p else math.inf),
        ),
        Mistake(
            "rejected token from the target",
            "A rejected token is replaced by a draw from p: the accepted ones have served p in part "
            "already. Which distribution holds what is still missing?",
            _round(replacement=lambda p, q: p),
        ),
        Mistake(
            "goes on after a rejection",
            "You go on after a rejected token: what follows was proposed, and judged, behind a text "
            "that does not exist any more. When is the round over?",
            _round(goes_on=True),
        ),
        Mistake(
            "residual not normalised",
            "The residual does not sum to 1, so `last` may lie above all of it, and the id that you "
            "return is none that was owed. What must max(0, p - q) be divided by?",
            _round(replacement=_excess),
            (_round(replacement=_excess, choose=_pick_beyond),),
        ),
        Mistake(
            "bonus from the wrong row",
            "All tokens were accepted and your last one comes from a row before the last proposal, "
            "the draft's or the target's: wanted is what follows it. Which of the two has one row "
            "more than there are proposals?",
            _round(bonus=lambda p, q: p[-2]),
            (_round(bonus=lambda p, q: q[-1]),),
        ),
        Mistake(
            "no bonus",
            "Right where something is rejected, one token short where all stay: the pass that "
            "checked them has computed one distribution more. What can you do with it?",
            _without_bonus,
        ),
    ),
    hints=(
        "A round gives the accepted tokens and exactly one more, always. Count yours where all were "
        "accepted, and where the first was rejected.",
        "p = [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]], q = [[0.5, 0.4, 0.1]], token 1, draw 0.6, last "
        "0.4. p / q = 0.2 / 0.4 = 0.5, and 0.6 is not below it: rejected. Residual [1, 0, 0], "
        "cumulative 1 > 0.4 at id 0. Answer [0]. With draw 0.3: accepted, then row 1 of p: 0.2, "
        "0.5 > 0.4 at id 1. Answer [1, 1].",
        "for i, token: if draws[i] < p[i, token] / q[i, token]: keep it, go on\n"
        "    else: row = max(0, p[i] - q[i]) over its sum; return kept + [pick(row, last)]\n"
        "return all tokens + [pick(p[-1], last)]\n"
        "pick: the first id whose cumulative probability lies above last",
    ),
    compare=Exact(),
    alternatives=(_by_subtraction,),
)

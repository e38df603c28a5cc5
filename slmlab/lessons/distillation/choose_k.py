"""distillation.choose_k: how many of a teacher's logits to store, between two bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.distill import top_k_logits

VALUE, INDEX, REST = 2, 4, 4  # bytes: an fp16 logit, an int32 id, an fp32 rest
CLEAR = 0.1  # in the cases the lost mass stays away from the bound by this share of it
MUCH = 24  # bytes of room: four logits more
FAR = 5  # more logits than these do not fit into one's bytes, whatever is left out of the sum


def cases(seed: int) -> list[Case]:
    """One that fits; one that misses by the rest's bytes, one by far; sure and unsure positions at a
    high temperature, with little room and with much."""
    draw = random.Random(seed)

    def case(
        positions: int,
        size: int,
        temperature: float,
        room: int | None,
        unlike: tuple[Measure, ...] = (),
    ) -> Case:
        """room: bytes over what the least k takes, None for one logit's. unlike: measures that must
        ask for another k, and each for a different one."""
        for _ in range(20_000):
            logits = _teacher(draw, positions, size)
            lost = draw.choice((0.05, 0.1, 0.15, 0.2))
            shares = _mean(logits, temperature)
            k = _enough(shares, lost)
            if not (1 if room is not None else FAR) < k < size:
                continue
            if any(abs(share - lost) < CLEAR * lost for share in shares):
                continue
            others = [_enough(measure(logits, temperature), lost) for measure in unlike]
            if room == MUCH and _bytes(k) + MUCH > _bytes(size):
                continue
            if len({k, *others}) == 1 + len(others):
                return Case(
                    {
                        "teacher_logits": logits,
                        "temperature": temperature,
                        "most_lost": lost,
                        "most_bytes": _bytes(1 if room is None else k) + (room or 0),
                    }
                )
        raise RuntimeError(f"seed {seed}: no teacher of {positions} positions found")

    hot = draw.choice((2.0, 2.5))
    return [
        case(1, 4, 1.0, room=draw.randint(0, 5)),
        case(1, 5, 1.0, room=-draw.randint(1, 4)),
        case(2, 10, 1.0, room=None),
        case(4, 12, hot, draw.randint(0, 5), (_at_one, _worst, _of_the_mean)),
        case(4, 12, hot, MUCH, (_at_one, _worst, _of_the_mean)),
        case(6, 16, 2.0, draw.randint(12, 17), (_at_one,)),
    ]


def _teacher(draw: random.Random, positions: int, size: int) -> Tensor:
    """Logits in steps of 0.1; some positions are sure of their token, some are not."""
    rows = []
    for _ in range(positions):
        row = [draw.randint(-20, 20) / 10 for _ in range(size)]
        row[draw.randrange(size)] += draw.choice((0.0, 3.0, 6.0))
        rows.append(row)
    return torch.tensor(rows)


def lost_mass(logits: Tensor, temperature: float, k: int) -> float:
    """Mean share of the rest bucket that the package stores beside k logits."""
    kept = top_k_logits(logits, k, temperature)
    return float((kept.rest - (logits / temperature).logsumexp(-1)).exp().mean())


def _bytes(k: int) -> int:
    return k * (VALUE + INDEX) + REST


def _fits_both(arguments: dict[str, Any]) -> list[int]:
    """Every k that keeps both bounds."""
    logits, temperature, most_lost, most_bytes = arguments.values()
    return [
        k
        for k in range(1, logits.shape[-1] + 1)
        if _bytes(k) <= most_bytes and lost_mass(logits, temperature, k) <= most_lost
    ]


def keeps_both(arguments: dict[str, Any], output: Any) -> str | None:
    """None for a k that keeps both bounds, or for 0 where none does."""
    logits, temperature, most_lost, most_bytes = arguments.values()
    size = logits.shape[-1]
    if type(output) is not int or not 0 <= output <= size:
        return f"Return a number of logits: an int from 1 to {size}, or 0 where no k keeps both."
    right = _fits_both(arguments)
    if output == 0:
        return "You store nothing, but there is a k that keeps both bounds." if right else None
    if _bytes(output) > most_bytes:
        return f"k = {output} takes {_bytes(output)} bytes a position of {most_bytes}."
    lost = lost_mass(logits, temperature, output)
    if lost > most_lost:
        return f"k = {output} loses {lost:.3g} of the mass on average; allowed is {most_lost:g}."
    return None


Measure = Callable[[Tensor, float], list[float]]
Answer = Callable[[Tensor, float, float, int], int]


def _sorted_mass(logits: Tensor, temperature: float) -> Tensor:
    """(positions, V) mass behind the k largest, k = 1 .. V."""
    p = (logits / temperature).softmax(-1).sort(descending=True).values
    return 1 - p.cumsum(-1)


def _mean(logits: Tensor, temperature: float) -> list[float]:
    lost: list[float] = _sorted_mass(logits, temperature).mean(0).tolist()
    return lost


def _at_one(logits: Tensor, temperature: float) -> list[float]:
    return _mean(logits, 1.0)


def _worst(logits: Tensor, temperature: float) -> list[float]:
    lost: list[float] = _sorted_mass(logits, temperature).amax(0).tolist()
    return lost


def _of_the_mean(logits: Tensor, temperature: float) -> list[float]:
    p = (logits / temperature).softmax(-1).mean(0).sort(descending=True).values
    lost: list[float] = (1 - p.cumsum(-1)).tolist()
    return lost


def _enough(lost: list[float], most: float) -> int:
    """The least k; the last mass is 0 but for rounding."""
    return next((k for k, share in enumerate(lost, 1) if share <= most), len(lost))


def _least(
    measure: Measure = _mean,
    size: Callable[[int], int] = _bytes,
    says_no: bool = True,
    less: int = 0,
) -> Answer:
    """The least k that loses little enough, 0 where it does not fit."""

    def answer(
        teacher_logits: Tensor, temperature: float, most_lost: float, most_bytes: int
    ) -> int:
        k = _enough(measure(teacher_logits, temperature), most_lost) - less
        return k if size(k) <= most_bytes or not says_no else 0

    return answer


def reference(teacher_logits: Tensor, temperature: float, most_lost: float, most_bytes: int) -> int:
    """The least of those that keep both bounds, by the package's rest."""
    names = ("teacher_logits", "temperature", "most_lost", "most_bytes")
    values = (teacher_logits, temperature, most_lost, most_bytes)
    right = _fits_both(dict(zip(names, values, strict=True)))
    return right[0] if right else 0


def _all_that_fits(
    teacher_logits: Tensor, temperature: float, most_lost: float, most_bytes: int
) -> int:
    return (most_bytes - REST) // (VALUE + INDEX)


def _most_that_fits(
    teacher_logits: Tensor, temperature: float, most_lost: float, most_bytes: int
) -> int:
    """Spends the budget, then looks at what is lost."""
    k = min((most_bytes - 4) // 6, teacher_logits.shape[-1])
    if k < 1:
        return 0
    p = (teacher_logits / temperature).softmax(-1)
    kept = sum(float(row.topk(k).values.sum()) for row in p) / len(p)
    return k if 1 - kept <= most_lost else 0


CHOOSE_K = Exercise(
    id="distillation.choose_k",
    title="Decide: how many logits to store",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "mass at temperature 1",
            "You measure the mass at T = 1: the loss softens the teacher first, and that moves mass "
            "into the tail. Which distribution will the student see?",
            _least(_at_one),
        ),
        Mistake(
            "bytes miscounted",
            "Your k is one that does not fit: a position takes k logits, k ids and one rest. Which of "
            "the three is missing in your sum?",
            _least(size=lambda k: k * (VALUE + INDEX)),
            (_least(size=lambda k: k * VALUE + REST), _least(size=lambda k: k * VALUE)),
        ),
        Mistake(
            "one bound only",
            "You look at one bound alone, so you never answer 0: sometimes no k keeps both. What is "
            "the other bound?",
            _least(says_no=False),
            (_all_that_fits,),
        ),
        Mistake(
            "the worst position",
            "You ask every position to lose little: the bound is on their mean, and a sure position "
            "makes up for an unsure one. Over what do you average?",
            _least(_worst),
        ),
        Mistake(
            "top k of the mean distribution",
            "You average the distributions first and sort then: each position keeps its own k tokens. "
            "What is the mean of many sure positions that disagree?",
            _least(_of_the_mean),
        ),
        Mistake(
            "one too few",
            "Your k is one short of the bound: entry 0 of a running sum is what one token keeps. "
            "What does the first index that is good enough stand for?",
            _least(less=1),
        ),
    ),
    hints=(
        "Take your k and measure: bytes a position, then the mass outside the k largest at the given "
        "T, averaged over positions. Which bound breaks, and does k - 1 or k + 1 keep both?",
        "Probabilities at T: [0.6, 0.3, 0.1] and [0.8, 0.1, 0.1]. k = 1 loses 0.4 and 0.2, mean 0.3; "
        "k = 2 loses 0.1 and 0.1, mean 0.1. Allowed 0.15 and 16 bytes: k = 2 takes 2 * 6 + 4 = 16. "
        "Answer 2. With 15 bytes: 0.",
        "p = softmax(teacher_logits / T), each row sorted, largest first\n"
        "for k = 1 .. V: lost = 1 - mean over rows of the first k summed\n"
        "    if lost <= most_lost and 6 * k + 4 <= most_bytes: return k\n"
        "return 0",
    ),
    compare=Invariant(keeps_both, match=Exact()),
    alternatives=(_most_that_fits,),
    unit="logits",
)

"""speculative.expected_tokens: tokens a round gives, where each position has its own rate."""

from __future__ import annotations

import random

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.speculative import expected_tokens


def cases(seed: int) -> list[Case]:
    """One proposal, two, equal rates, rates that differ, none certain and all certain."""
    draw = random.Random(seed)

    def rates(count: int) -> list[float]:
        return [draw.randint(30, 95) / 100 for _ in range(count)]

    return [
        Case({"rates": rates(1)}),
        Case({"rates": [draw.randint(20, 45) / 100, draw.randint(70, 95) / 100]}),
        Case({"rates": [draw.randint(70, 95) / 100, draw.randint(20, 45) / 100]}),
        Case({"rates": [draw.randint(4, 9) / 10] * 4}),
        Case({"rates": [1.0, 1.0, 1.0]}),
        Case({"rates": [0.0, *rates(3)]}),
        Case({"rates": rates(8)}),
    ]


def reference(rates: list[float]) -> float:
    """1 + the chance that the first stays + that the first two stay + ... (the package's formula
    has one rate for all)."""
    if len(set(rates)) == 1:
        return expected_tokens(rates[0], len(rates))
    total = reached = 1.0
    for rate in rates:
        reached *= rate
        total += reached
    return total


def _no_bonus(rates: list[float]) -> float:
    return reference(rates) - 1


def _sum(rates: list[float]) -> float:
    return 1 + sum(rates)


def _mean_rate(rates: list[float]) -> float:
    return expected_tokens(sum(rates) / len(rates), len(rates))


def _all_or_nothing(rates: list[float]) -> float:
    product = 1.0
    for rate in rates:
        product *= rate
    return 1 + len(rates) * product


def _last_left_out(rates: list[float]) -> float:
    return reference(rates[:-1]) if len(rates) > 1 else 1.0


def _outcome_by_outcome(rates: list[float]) -> float:
    """Every way a round can end, times what it gives."""
    total, reached = 0.0, 1.0
    for accepted, rate in enumerate(rates):
        total += reached * (1 - rate) * (accepted + 1)
        reached *= rate
    return total + reached * (len(rates) + 1)


EXPECTED_TOKENS = Exercise(
    id="speculative.expected_tokens",
    title="Tokens a round gives on average",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the extra token not counted",
            "One too few: a round ends with a token of the target, whatever was rejected. What does "
            "a round give in which nothing is accepted?",
            _no_bonus,
        ),
        Mistake(
            "each position for itself",
            "You add the rates up: the third token counts only while the first two stayed. With what "
            "chance does a round get that far?",
            _sum,
        ),
        Mistake(
            "the mean rate",
            "Right where all rates are equal: you put their mean into the formula. A bad first "
            "position and a good second one are not the same as the other way round. Why?",
            _mean_rate,
        ),
        Mistake(
            "all or nothing",
            "You count a round that accepts all and one that accepts none, and nothing between: what "
            "does a round give that rejects its third token?",
            _all_or_nothing,
        ),
        Mistake(
            "the last proposal left out",
            "Your sum stops one short: with gamma proposals it has gamma + 1 terms, from none "
            "accepted to all. What does the last of them add?",
            _last_left_out,
        ),
    ),
    hints=(
        "With rates of 0 a round gives exactly 1 token, with n rates of 1 exactly n + 1. Try both.",
        "Rates [0.8, 0.5, 0.5]: the target's own token always comes: 1. The first proposal stays "
        "with 0.8, the first two with 0.8 * 0.5 = 0.4, all three with 0.2. Together 2.4.",
        "total = reached = 1\nfor rate in rates: reached *= rate; total += reached\nreturn total",
    ),
    compare=Close(rtol=1e-6, atol=1e-9),
    alternatives=(_outcome_by_outcome,),
    unit="tokens",
)

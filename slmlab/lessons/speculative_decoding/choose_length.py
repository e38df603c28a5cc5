"""speculative.choose_length: the draft length that finishes a recorded text soonest."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.speculative import expected_speedup

CLOSE = 1.01  # lengths whose times differ by less are equally good
CLEAR = 1.04  # in the cases the best one is ahead of the rest by this


def cases(seed: int) -> list[Case]:
    """No draft pays; one token pays; guesses that hold in stretches; even ones; dear long passes."""
    draw = random.Random(seed)

    def drawn(size: int, best: Sequence[int], stretches: bool = False, steep: float = 0.03) -> Case:
        """A record whose best length is one of ``best``, ahead of every length that is not as good."""
        for _ in range(5000):
            agreed = _record(draw, size, stretches)
            draft_cost = draw.choice((5, 10, 15, 20, 30, 40)) / 100
            most = 3 if size < 12 else 8
            verify = [1.0] + [
                round(1.05 + steep * n * n / 2 + steep * n, 2) for n in range(1, most + 1)
            ]
            arguments: dict[str, Any] = {
                "agreed": agreed,
                "draft_cost": draft_cost,
                "verify_cost": verify,
            }
            times = _times(**arguments)
            order = sorted(range(len(times)), key=lambda n: times[n])
            if order[0] in best and times[order[1]] > CLEAR * times[order[0]]:
                return Case(arguments)
        raise RuntimeError(f"seed {seed}: no clear record with a best length in {best}")

    return [
        drawn(6, (0,)),
        drawn(6, (1,)),
        drawn(8, (2, 3)),
        drawn(40, (2, 3, 4, 5), stretches=True),
        drawn(40, (2, 3)),
        drawn(60, (4, 5, 6), steep=0.08),
        drawn(60, (0,)),
        drawn(60, (1, 2), stretches=True),
    ]


def _record(draw: random.Random, size: int, stretches: bool) -> list[bool]:
    """Guesses right or wrong, at random or in stretches of easy and hard text."""
    if not stretches:
        rate = draw.uniform(0.1, 0.98)
        return [draw.random() < rate for _ in range(size)]
    agreed: list[bool] = []
    while len(agreed) < size:
        rate = draw.choice((0.0, 0.1, 0.97, 1.0))
        agreed += [draw.random() < rate for _ in range(draw.randint(4, 12))]
    return agreed[:size]


def rounds(agreed: Sequence[bool], length: int) -> int:
    """Rounds until every position of the record is written."""
    at = count = 0
    while at < len(agreed):
        accepted = 0
        while accepted < length and at + accepted < len(agreed) and agreed[at + accepted]:
            accepted += 1
        at += accepted + 1
        count += 1
    return count


def _times(agreed: Sequence[bool], draft_cost: float, verify_cost: Sequence[float]) -> list[float]:
    return [
        rounds(agreed, length) * (length * draft_cost + verify)
        for length, verify in enumerate(verify_cost)
    ]


def close_to_the_best(arguments: dict[str, Any], output: Any) -> str | None:
    """None where no other length finishes the record clearly sooner."""
    times = _times(**arguments)
    if type(output) is not int or not 0 <= output < len(times):
        return f"Return a draft length: an int from 0 to {len(times) - 1}."
    best = min(range(len(times)), key=lambda n: times[n])
    if times[output] > CLOSE * times[best]:
        count = rounds(arguments["agreed"], output)
        return (
            f"With length {output} the text takes {count} rounds and {times[output]:.3g} steps, with "
            f"{best} it takes {times[best]:.3g}."
        )
    return None


def _soonest(times: Sequence[float]) -> int:
    return min(range(len(times)), key=lambda n: times[n])


def reference(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    """Every length, tried."""
    return _soonest(_times(agreed, draft_cost, verify_cost))


def _fewest_rounds(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    return _soonest([rounds(agreed, length) for length in range(len(verify_cost))])


def _verify_free(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    return _soonest(_times(agreed, draft_cost, [1.0] * len(verify_cost)))


def _draft_free(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    return _soonest(_times(agreed, 0.0, verify_cost))


def _one_draft_step(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    return _soonest(
        [
            rounds(agreed, length) * (min(length, 1) * draft_cost + verify)
            for length, verify in enumerate(verify_cost)
        ]
    )


def _without_extra(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    """A round moves by its accepted tokens, by one where there are none."""
    times = []
    for length, verify in enumerate(verify_cost):
        at = count = 0
        while at < len(agreed):
            accepted = 0
            while accepted < length and at + accepted < len(agreed) and agreed[at + accepted]:
                accepted += 1
            at += max(1, accepted)
            count += 1
        times.append(count * (length * draft_cost + verify))
    return _soonest(times)


def _always_a_draft(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    return 1 + _soonest(_times(agreed, draft_cost, verify_cost)[1:])


def _mean_rate(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    rate = sum(agreed) / len(agreed)
    return _soonest(
        [
            -expected_speedup(rate, length, draft_cost, verify)
            for length, verify in enumerate(verify_cost)
        ]
    )


def _position_by_position(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    best, least = 0, math.inf
    for length, verify in enumerate(verify_cost):
        spent, left = 0.0, 0
        for right in agreed:
            if left == 0:  # a new round begins here
                spent += length * draft_cost + verify
                left = length + 1
            # The last place of a round is the target's own token.
            left = left - 1 if right and left > 1 else 0
        if spent < least - 1e-9:
            best, least = length, spent
    return best


CHOOSE_LENGTH = Exercise(
    id="speculative.choose_length",
    title="Decide: a draft length for a recorded text",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "fewest rounds",
            "You minimise the number of rounds, and so always take the longest draft: a round with a "
            "longer draft also takes longer. What is the time of one?",
            _fewest_rounds,
        ),
        Mistake(
            "verification as one step",
            "You count every pass of the target as one step: the table says what a pass over that "
            "many tokens takes. Which entry belongs to your length?",
            _verify_free,
        ),
        Mistake(
            "too few draft steps",
            "You count one step of the draft a round, or none: each proposed token needs the one "
            "before it, accepted or not. How many steps are that for a length of 4?",
            _one_draft_step,
            (_draft_free,),
        ),
        Mistake(
            "the extra token forgotten",
            "You start the next round right behind the accepted tokens: a round also writes one "
            "token of the target's own. Where does the next one start?",
            _without_extra,
        ),
        Mistake(
            "always a draft",
            "Right where a draft pays: where none does, the best length is 0, plain decoding. Is it "
            "among those you try?",
            _always_a_draft,
        ),
        Mistake(
            "the mean rate",
            "You put the record's mean rate into the formula: it takes every position for equally "
            "hard, and this text is right in stretches. What do the rounds of the record itself say?",
            _mean_rate,
        ),
    ),
    hints=(
        "Write the record out round by round for your length and for its neighbours; none of them "
        "may finish sooner. Is 0 among the neighbours?",
        "Record [yes, yes, no], draft 0.2 a token, passes [1.0, 1.1, 1.2]. Length 0: 3 rounds of 1: "
        "3.0. Length 1: yes and the target's own token; then no, replaced: 2 rounds of 1.3: 2.6. "
        "Length 2: yes, yes, the target's own: 1 round of 1.6. Choose 2.",
        "for length, verify in enumerate(verify_cost):\n"
        "    at = rounds = 0\n"
        "    while at < len(agreed): accepted = yes in a row from at, at most length\n"
        "        at += accepted + 1; rounds += 1\n"
        "    time = rounds * (length * draft_cost + verify)\n"
        "return the length with the least time",
    ),
    compare=Invariant(close_to_the_best, match=Exact()),
    alternatives=(_position_by_position,),
    unit="tokens",
)

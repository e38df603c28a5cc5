"""speculative.speedup: the speed-up that a pair of models can give, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.speculative import expected_speedup, expected_tokens

# What the exercise prints.
STEP_MS, DRAFT_MS, VERIFY_MS, REST_MS = 40.0, 3.0, 46.0, 4.0
ALPHA, GAMMA = 0.8, 5
TOLERANCE = 0.02
SAME_MISTAKE = 0.005


def cases(seed: int) -> list[Case]:
    """There is one table: nothing to vary."""
    return [Case({})]


def reference() -> float:
    """The package's, with the costs in steps of the target."""
    return expected_speedup(
        ALPHA, GAMMA, DRAFT_MS / STEP_MS, VERIFY_MS / STEP_MS, REST_MS / STEP_MS
    )


def _speed(
    tokens: float = expected_tokens(ALPHA, GAMMA),
    drafts: int = GAMMA,
    verify: float = VERIFY_MS,
    rest: float = REST_MS,
) -> float:
    return tokens * STEP_MS / (drafts * DRAFT_MS + verify + rest)


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 2% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, how many times as fast: a float such as 1.5."
    if output <= 0:
        return "A speed-up is above 0: 1 is as fast as plain decoding, below 1 slower."
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    way = "high" if ratio > 1 else "low"
    return (
        f"Your speed-up is {max(ratio, 1 / ratio):.3g} times too {way}. Write down the tokens of a "
        "round and its milliseconds: which of the two is off?"
    )


def _mistaken(**changes: Any) -> Callable[[], float]:
    return lambda: _speed(**changes)


def _upside_down() -> float:
    return 1 / _speed()


def _term_by_term() -> float:
    tokens = 1 + 0.8 + 0.8**2 + 0.8**3 + 0.8**4 + 0.8**5
    return tokens / (5 * 3 + 46 + 4) * 40


def _rounded_on_paper() -> float:
    return 3.7 / 65 * 40


SPEEDUP = Exercise(
    id="speculative.speedup",
    title="On paper: what this pair can give",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "verification as one step",
            "You count the pass over six tokens as one step: the table has a line for it. What does "
            "it take?",
            _mistaken(verify=STEP_MS),
        ),
        Mistake(
            "draft steps miscounted",
            "Your draft's time is off: it runs once for each token that it proposes, and the "
            "target's own token is none of them. How many steps is that, in milliseconds?",
            _mistaken(drafts=1),
            (_mistaken(drafts=0), _mistaken(drafts=GAMMA + 1)),
        ),
        Mistake(
            "one term too few",
            "Your tokens end one term too soon: a round that keeps every guess gives six. What is "
            "the chance of that one?",
            _mistaken(tokens=expected_tokens(ALPHA, GAMMA - 1)),
        ),
        Mistake(
            "the target's own token not counted",
            "You count the accepted tokens alone: every round ends with one from the target. What "
            "does a round give in which nothing is accepted?",
            _mistaken(tokens=expected_tokens(ALPHA, GAMMA) - 1),
        ),
        Mistake(
            "each position for itself",
            "You take 5 * 0.8 of the proposals as accepted: the first rejection ends the round. With "
            "what chance does a round reach the third?",
            _mistaken(tokens=1 + GAMMA * ALPHA),
        ),
        Mistake(
            "upside down",
            "You return the time over plain decoding's: asked is how many times as fast. Is the pair "
            "faster or slower?",
            _upside_down,
        ),
    ),
    hints=(
        "Speed is tokens over time. A plain step gives 1 token in 40 ms; how many tokens does a "
        "round give, and in how many?",
        "A smaller one: rate 0.5, 3 proposals, step 10 ms, draft 1 ms, pass 12 ms, rest 1 ms. Tokens: "
        "1 + 0.5 + 0.25 + 0.125 = 1.875. Round: 3 + 12 + 1 = 16 ms. 1.875 / 16 * 10 = 1.17.",
        "tokens = 1 + a + a^2 + ... + a^gamma\n"
        "round = gamma * draft + pass + rest\n"
        "return tokens / round * step",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_term_by_term, _rounded_on_paper),
    unit="times",
)

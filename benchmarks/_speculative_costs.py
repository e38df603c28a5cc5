"""What a round costs and accepts here, and the speed-up that the formula makes of it.

Seconds inside a call are the clock's. Another program on the core takes the same share of every
phase, so they are scaled by the processor's share of the call: what is reported is processor time.
A call's first round is left out: in it the draft reads the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks._speculative_rounds import Laps
from slmlab.speculative import (
    Round,
    acceptance_interval,
    best_gamma,
    expected_speedup,
    expected_tokens,
)


def step_ms(plain: Laps) -> float:
    """Processor milliseconds of one step of plain decoding, the prompt's pass left out."""
    steps = [answer.step_seconds for answer in plain.answers]
    mean = sum(step for step in steps if step is not None) / len(steps)
    return 1e3 * mean * plain.processor_share


def acceptance(laps: Laps) -> dict[str, Any]:
    """alpha with its interval, and tokens a round; alpha is None where nothing was proposed."""
    stats = [answer.stats for answer in laps.answers if answer.stats is not None]
    accepted, checked = sum(s.accepted for s in stats), sum(s.checked for s in stats)
    rounds = sum(len(s.rounds) for s in stats)
    low, high = acceptance_interval(accepted, checked) if checked else (None, None)
    return {
        "alpha": accepted / checked if checked else None,
        "alpha_low": low,
        "alpha_high": high,
        "checked": checked,
        "rounds": rounds,
        "tokens_per_round": (accepted + rounds) / rounds,
        "proposed_per_round": sum(s.proposed for s in stats) / rounds,
    }


def costs(laps: Laps, step: float) -> dict[str, float | None]:
    """c (a draft step), verify (the target's pass over gamma + 1 tokens) and overhead, in steps of
    plain decoding; step: milliseconds of one. verify counts full rounds only. None where an answer
    was over before such a round."""
    later = [r for a in laps.answers if a.stats is not None for r in a.stats.rounds[1:]]
    drafted = [r for r in later if r.proposed]
    longest = max((len(r.proposed) for r in drafted), default=0)
    full = [r for r in drafted if len(r.proposed) == longest]
    scale = 1e3 * laps.processor_share / step

    def per(seconds: float, count: int) -> float | None:
        return scale * seconds / count if count else None

    return {
        "c": per(sum(r.draft_seconds for r in drafted), sum(len(r.proposed) for r in drafted)),
        "verify": per(sum(r.verify_seconds for r in full), len(full)),
        "overhead": per(_overhead(later), len(later)),
    }


def _overhead(rounds: Sequence[Round]) -> float:
    return sum(r.overhead_seconds for r in rounds)


def speedup_in_rounds(laps: Laps, gamma: int, step: float) -> float | None:
    """Tokens a second in full rounds over plain decoding's steps: what the formula speaks of, with
    neither the prompt's passes nor the shorter rounds that end an answer."""
    full = [
        r
        for answer in laps.answers
        if answer.stats is not None
        for r in answer.stats.rounds[1:]
        if len(r.proposed) == gamma
    ]
    seconds = sum(r.draft_seconds + r.verify_seconds for r in full) + _overhead(full)
    if not seconds:
        return None
    return sum(r.accepted + 1 for r in full) * step / (1e3 * laps.processor_share * seconds)


def predict(
    gamma: int,
    accepted: dict[str, Any],
    cost: dict[str, float | None],
    measured: float,
    in_rounds: float | None,
) -> dict[str, Any] | None:
    """The formula's speed-up beside the measured one; None where a cost is not known.

    formula: with a verification as cheap as a step and no overhead, as published. with_costs: with
    both as measured. deviation: of with_costs, relative to ``measured``, the speed-up of whole
    calls by processor time; in_rounds stands beside it, and says what prompts and ends account for.
    """
    alpha, c, verify, overhead = accepted["alpha"], cost["c"], cost["verify"], cost["overhead"]
    if alpha is None or c is None or verify is None or overhead is None:
        return None
    with_costs = expected_speedup(alpha, gamma, c, verify, overhead)
    return {
        "gamma": gamma,
        "expected_tokens": expected_tokens(alpha, gamma),
        "formula": expected_speedup(alpha, gamma, c),
        "with_costs": with_costs,
        "measured": measured,
        "in_rounds": in_rounds,
        "deviation": with_costs / measured - 1,
        "best_gamma": best_gamma(alpha, c),
    }


def chosen(ways: dict[str, dict[str, Any]]) -> str:
    """The draft length that the formula would take, measured costs in it: the aims are judged on
    this one, which is not chosen by its own speed. Raises ValueError where none is predicted."""
    known = {
        name: row["prediction"]["with_costs"]
        for name, row in ways.items()
        if name.startswith("draft") and row.get("prediction")
    }
    if not known:
        raise ValueError("no draft length has a prediction: give longer answers")
    return max(known, key=lambda name: known[name])

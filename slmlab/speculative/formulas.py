"""How much speculation can give: the formulas of Leviathan et al. 2023 (arXiv:2211.17192)."""

from __future__ import annotations

import math
from statistics import NormalDist

from slmlab.models.fields import check_whole

LONGEST = 64  # draft lengths that best_gamma looks at


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens that one round gives on average: (1 - alpha**(gamma + 1)) / (1 - alpha) (equation 1).

    Args:
        alpha: acceptance rate, the chance that a proposed token is accepted, 0 .. 1, the same at
            every position.
        gamma: tokens proposed a round, 0 or more.

    Raises:
        ValueError, TypeError: out of range.
    """
    _check_share("alpha", alpha)
    check_whole("gamma", gamma, at_least=0)
    # The sum itself: the quotient loses digits as alpha nears 1, where it is 0 / 0.
    return math.fsum(alpha**i for i in range(gamma + 1))


def expected_speedup(
    alpha: float, gamma: int, c: float, verify: float = 1.0, overhead: float = 0.0
) -> float:
    """Tokens a second over plain decoding's: theorem 3.8, with what it leaves out.

    A round costs ``gamma * c + verify + overhead`` steps of plain decoding; the paper takes
    ``verify`` = 1 and ``overhead`` = 0.

    Args:
        c: time of one draft step, in steps of the target.
        verify: time of one pass of the target over gamma + 1 tokens, in its steps of one token.
        overhead: everything else in a round (sampling, rollback), in the same unit.

    Raises:
        ValueError, TypeError: out of range.
    """
    check_cost("c", c)
    check_cost("overhead", overhead)
    if not check_cost("verify", verify):
        raise ValueError("verify=0 must be above 0: the target has to run")
    return expected_tokens(alpha, gamma) / (gamma * c + verify + overhead)


def best_gamma(alpha: float, c: float, most: int = LONGEST) -> int:
    """The draft length, 0 to ``most``, with the largest expected speed-up; the shortest on a tie.

    0 means that no draft pays, which is so where alpha <= c (corollary 3.9).

    Raises:
        ValueError, TypeError: out of range.
    """
    check_whole("most", most, at_least=0)
    return max(range(most + 1), key=lambda gamma: expected_speedup(alpha, gamma, c))


def acceptance_interval(
    accepted: int, checked: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Wilson's score interval of an acceptance rate (Wilson 1927, JASA 22(158)).

    Args:
        accepted: tokens accepted.
        checked: tokens that were compared; what follows a rejection in a round was not.

    Raises:
        ValueError, TypeError: accepted above checked, no token checked, confidence outside (0, 1).
    """
    check_whole("checked", checked)
    check_whole("accepted", accepted, at_least=0)
    if accepted > checked:
        raise ValueError(f"accepted={accepted} must be at most checked={checked}")
    if not 0.0 < _check_share("confidence", confidence) < 1.0:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, spread = accepted / checked, z * z / checked
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _check_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def _check_share(name: str, value: object) -> float:
    number = _check_number(name, value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name}={number} must lie between 0 and 1")
    return number


def check_cost(name: str, value: object) -> float:
    """``value`` as a float, if it is a finite number of at least 0; ValueError, TypeError."""
    number = _check_number(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name}={number} must be 0 or more, and finite")
    return number

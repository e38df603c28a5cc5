"""One check each for whole and for positive numbers, shared by configs, caches and counts."""

from __future__ import annotations

import math
from typing import Any


def check_whole(name: str, value: Any, at_least: int = 1) -> int:
    """``value``, if it is an int of at least ``at_least``.

    Raises:
        TypeError: no int; True and False are none here.
        ValueError: too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < at_least:
        raise ValueError(f"{name}={value} must be at least {at_least}")
    return value


def check_positive(name: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number above 0.

    Raises:
        TypeError: no number; True and False are none here.
        ValueError: 0, negative, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name}={number} must be positive and finite")
    return number

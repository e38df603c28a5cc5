"""Checks of the records' fields; each names the record, the field and the mend."""

from __future__ import annotations

import math
from typing import Any, get_args


def text(owner: str, name: str, value: object) -> None:
    """Raises TypeError where the value is not text."""
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be text, not {type(value).__name__}.")


def number(owner: str, name: str, value: object, above: float | None = None) -> None:
    """Raises TypeError or ValueError where the value is no finite number in range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {name} must be a number, not {type(value).__name__}.")
    low_enough = value > above if above is not None else value >= 0
    if not (math.isfinite(value) and low_enough):
        wanted = f"above {above}" if above is not None else "0 or more"
        raise ValueError(f"{owner}: {name} is {value}; give a finite number {wanted}.")


def integer(owner: str, name: str, value: object, least: int) -> None:
    """Raises TypeError or ValueError where the value is no integer of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an integer, not {type(value).__name__}.")
    if value < least:
        raise ValueError(f"{owner}: {name} is {value}; give {least} or more.")


def one_of(owner: str, name: str, value: object, choices: Any) -> None:
    """Raises ValueError where the value is none of a Literal's choices."""
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise ValueError(f"{owner}: {name} is {value!r}; it must be one of: {known}.")


def tuple_of(owner: str, name: str, value: object, kind: type) -> None:
    """Raises TypeError where the value is no tuple of `kind`."""
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise TypeError(f"{owner}: {name} must be a tuple of {kind.__name__}.")

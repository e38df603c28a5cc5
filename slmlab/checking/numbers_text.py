"""Prints numbers to the precision that matters, and never more than six of them at once."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from slmlab.checking.values import (
    Opaque,
    as_array,
    count_numbers,
    dtype_name,
    is_array,
    is_number,
    leaves,
)

MAX_NUMBERS = 6
MAX_TEXT = 60
DIGITS = (3, 4, 5, 6, 7, 8, 9, 12, 17)


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits; a float keeps its point."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return _integer(int(value))
    if isinstance(value, (complex, np.complexfloating)):
        return f"{complex(value):.{digits}g}"
    text = f"{float(value):.{digits}g}"
    if re.fullmatch(r"-?\d+", text):
        return text + ".0"
    if "e+" in text and abs(float(value)) < 1e12:
        # 1.35e+08 hides what a reader counts in; 135000000.0 of a rounded number would lie.
        whole = f"{float(value):.1f}"
        return whole if float(whole) == float(value) else text
    return text


def quantity(value: float, digits: int = 4) -> str:
    """A number above 0 for prose, to `digits` significant digits: 320, 0.04, 12,000,000."""
    if not 1e-4 <= value < 1e12:
        return f"{value:.{digits}g}"
    decimals = digits - 1 - math.floor(math.log10(value))
    text = f"{round(value, decimals):,.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _integer(value: int) -> str:
    try:
        text = str(value)
    except ValueError:
        return "an integer too long to print"
    return text if len(text) <= MAX_TEXT else f"{text[:6]}... ({len(text)} digits)"


def digits_between(wanted: Any, yours: Any) -> int:
    """The fewest significant digits at which every pair of differing numbers looks different."""
    pairs = _pairs(wanted, yours)
    for digits in DIGITS:
        if all(number(w, digits) != number(y, digits) for w, y in pairs):
            return digits
    return DIGITS[-1]


def _pairs(wanted: Any, yours: Any) -> list[tuple[Any, Any]]:
    """Differing numbers at equal places of two values of one structure."""
    left, right = leaves(wanted), leaves(yours)
    if len(left) != len(right):
        return []
    return [pair for (_, w), (_, y) in zip(left, right, strict=True) for pair in _leaf_pairs(w, y)]


def _leaf_pairs(wanted: Any, yours: Any) -> list[tuple[Any, Any]]:
    if is_array(wanted) and is_array(yours):
        left, right = as_array(wanted), as_array(yours)
        if left.shape != right.shape:
            return []
        off = ~np.isclose(left, right, rtol=1e-9, atol=0.0, equal_nan=True)
        return list(zip(left[off][:100].tolist(), right[off][:100].tolist(), strict=True))
    if is_number(wanted) and is_number(yours) and wanted != yours:
        return [(wanted, yours)] if wanted == wanted or yours == yours else []
    return []


def shown(value: Any, digits: int = 3) -> str:
    """A plain value as text with at most six numbers; a larger one is cropped and says so."""
    return _Printer(digits).value(value)


class _Printer:
    """Spends a budget of six numbers while it walks through a value."""

    def __init__(self, digits: int) -> None:
        self.digits = digits
        self.left = MAX_NUMBERS

    def value(self, value: Any) -> str:
        if isinstance(value, Opaque):
            return f"<{value.type_name}>"
        if isinstance(value, (str, bytes)):
            text = repr(value)
            return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
        if is_array(value):
            return self._array(value)
        if isinstance(value, dict):
            return self._items(value, "{}", lambda k: f"{k!r}: {self.value(value[k])}")
        if isinstance(value, tuple):
            return self._items(value, "()", self.value)
        if isinstance(value, list):
            return self._items(value, "[]", self.value)
        if isinstance(value, frozenset):
            return self._items(sorted(value, key=repr), "{}", self.value)
        self.left -= 1
        return "None" if value is None else number(value, self.digits)

    def _array(self, value: Any) -> str:
        array = as_array(value)
        if array.size <= self.left:
            self.left -= array.size
            return self._nested(array.tolist())
        take = max(min(3, self.left), 0)
        self.left -= take
        start = ", ".join(number(x, self.digits) for x in array.flatten()[:take].tolist())
        what = f"{dtype_name(value)} of shape {tuple(array.shape)}"
        return f"<{what}: {start}, ...>" if start else f"<{what}>"

    def _nested(self, value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(self._nested(item) for item in value)}]"
        return number(value, self.digits)

    def _items(self, items: Any, brackets: str, show: Any) -> str:
        parts: list[str] = []
        for position, item in enumerate(items):
            if self.left <= 0 and count_numbers(item) > 0:
                parts.append(f"... {len(items) - position} more")
                break
            parts.append(show(item))
        return brackets[0] + ", ".join(parts) + brackets[1]

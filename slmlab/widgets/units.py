"""Amounts as text with the unit that a reader would choose: three digits, then kB, MB or GB."""

from __future__ import annotations

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def digits(value: float, significant: int = 3) -> str:
    """At most ``significant`` digits, never in exponent form: 0.0312, 5.05, 32.7, 2,600."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant}g}")
    if abs(rounded) >= 10 ** (significant - 1) or (abs(rounded) >= 1000 and rounded % 1 == 0):
        return f"{rounded:,.0f}"
    if abs(rounded) < 1e-6:
        return f"{rounded:.{significant}g}"
    text = f"{rounded:.{significant + 6}f}".rstrip("0")
    return text.rstrip(".") if text.endswith(".") else text


def _scaled(value: float, unit: str) -> str:
    # 999,999 bytes round to 1,000 kB: choose the unit after rounding.
    rounded = float(f"{value:.3g}")
    for size, prefix in _STEPS:
        if abs(rounded) >= size:
            return f"{digits(value / size)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def bytes_text(count: float) -> str:
    """Bytes in steps of 1000: "640 kB", "6.9 MB", "1.07 GB"."""
    return _scaled(count, "B")


def count_text(count: float) -> str:
    """A number of things: "9.84 M", "1.24 B" (billion, as models are named); below a thousand as it is."""
    return _scaled(count, "").strip().replace(" G", " B")


def seconds_text(seconds: float) -> str:
    """Seconds as s, ms or µs."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if float(f"{seconds:.3g}") >= size:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds * 1e6)} µs"

"""quantization.file_size: megabytes of a quantised checkpoint, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.checking.numbers_text import quantity
from slmlab.quant.scheme import parse_scheme

# What the exercise prints. SmolLM2-135M's counts, rounded: linear layers, and one tied table.
LINEAR_WEIGHTS, TABLE_WEIGHTS = 106.2e6, 28.3e6
GROUP_SIZE, CODE_BITS = 16, 4
TOLERANCE = 0.01
SAME_MISTAKE = 0.002
IN_MEBIBYTES = (
    "That is the size in units of 2**20 bytes, and the question counts MB of 10**6. By what do you "
    "divide the bytes?"
)
# How many times too large the right size is in another unit.
OTHER_UNITS = {
    8e6: "That is in bits: a byte has 8 of them, an MB 10**6 bytes.",
    1e6: "That is in bytes: an MB has 10**6 of them.",
    8.0: "That is in millions of bits: a byte has 8 of them.",
    1e-3: "That is in GB: one has 1,000 MB.",
}


def cases(seed: int) -> list[Case]:
    """One case without arguments: the numbers are fixed, so there is nothing to vary."""
    return [Case({})]


def reference() -> float:
    """The scheme's own bits a weight for the layers, 16 bits for the table."""
    bits = parse_scheme(f"int{CODE_BITS}-g{GROUP_SIZE}-asym").bits_per_weight(1024, 1024)
    return (LINEAR_WEIGHTS * bits + TABLE_WEIGHTS * 16) / 8 / 1e6


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 1% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, in MB of 10**6 bytes: a float such as 12.3."
    if output <= 0:
        return "A size is positive: bits of codes, scales, zero points and the table."
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    if _near(output, _mebibytes()):
        return IN_MEBIBYTES
    for factor, sentence in OTHER_UNITS.items():
        if abs(ratio / factor - 1) <= TOLERANCE:
            return sentence
    way = "large" if ratio > 1 else "small"
    how_far = f"Your estimate is {quantity(max(ratio, 1 / ratio), 3)} times too {way}."
    if any(_near(output, mistake.implementation()) for mistake in MISTAKES):
        return how_far  # The mistake's own question stands before it.
    return f"{how_far} Write the bits of one linear weight as a sum: which term is off?"


def _near(output: float, other: float) -> bool:
    """The same number but for rounding on paper."""
    return abs(output / other - 1) <= SAME_MISTAKE


def _megabytes(
    scale: float = 16 / GROUP_SIZE,
    zero_point: float = CODE_BITS / GROUP_SIZE,
    table_bits: float = 16,
    tables: int = 1,
) -> float:
    linear_bits = LINEAR_WEIGHTS * (CODE_BITS + scale + zero_point)
    return (linear_bits + tables * TABLE_WEIGHTS * table_bits) / 8e6


def _mistaken(**changes: Any) -> Callable[[], float]:
    return lambda: _megabytes(**changes)


def _mebibytes() -> float:
    return reference() * 1e6 / 2**20


def _counted_by_hand() -> float:
    codes = 106.2e6 * 4 / 8
    groups = 106.2e6 / 16
    scales, zero_points = groups * 2, groups / 2
    return (codes + scales + zero_points + 28.3e6 * 2) / 1e6


def _rounded_on_paper() -> float:
    return 53 + 13.3 + 3.3 + 56.6


MISTAKES = (
    Mistake(
        "metadata forgotten",
        "You count the codes and not what gives them their size: each group stores a scale and "
        "a zero point. How many groups are there?",
        _mistaken(scale=0, zero_point=0),
    ),
    Mistake(
        "metadata counted twice",
        "Your metadata is twice what it should be: 5.25 bits a weight have the scales and the "
        "zero points in them already. Which of your terms is a part of another?",
        _mistaken(scale=32 / GROUP_SIZE, zero_point=2 * CODE_BITS / GROUP_SIZE),
    ),
    Mistake(
        "zero points forgotten",
        "Nearly: codes and scales are there. The scheme is asymmetric. What else does each "
        "group store, in how many bits?",
        _mistaken(zero_point=0),
    ),
    Mistake(
        "table in four bits",
        "You put the embedding table into the layers' scheme: the file keeps it in 16 bits. "
        "What share of the file is it?",
        _mistaken(table_bits=CODE_BITS + 16 / GROUP_SIZE + CODE_BITS / GROUP_SIZE),
    ),
    Mistake(
        "tied table counted twice",
        "You store the table twice: embedding and head are tied, one table serves both. How "
        "often does it lie in the file?",
        _mistaken(tables=2),
    ),
    Mistake("MiB for MB", IN_MEBIBYTES, _mebibytes),
)

FILE_SIZE = Exercise(
    id="quantization.file_size",
    title="On paper: the size of a 4-bit file",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=MISTAKES,
    hints=(
        "The file is a sum of four parts: codes, scales, zero points, table. Each is a number of "
        "things times bits a thing. Which part have you left out, or put in twice?",
        "A smaller one: 1,000,000 linear weights in 2-bit codes, groups of 50 with a 16-bit scale "
        "and a 2-bit zero point; a 16-bit table of 10,000. Three sums: 2 + 16/50 + 2/50 = 2.36 "
        "bits; 2,360,000 + 160,000 bits; / 8 = 315,000 bytes = 0.315 MB.",
        "bits a linear weight = code bits + 16 / group + zero-point bits / group\n"
        "bits = linear weights * that + table weights * 16, once\n"
        "return bits / 8 / 10**6",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_counted_by_hand, _rounded_on_paper),
    unit="MB",
)

"""Sums of numbers below 100, several lines a document: `37+48=85`.

Held out: a hashed 5% of the unordered operand pairs. If 37+48 is held out, then so is 48+37,
because a model could answer the one from the other. Training never shows a held-out pair; in the
evaluation split the last line of every document is one.
"""

from __future__ import annotations

import math
from functools import cache

from slmlab.data.grammar.chooser import EVALUATION, TRAINING, Chooser, is_held_out

OPERANDS = 100
LINES = (4, 12)

Pair = tuple[int, int]


@cache
def pairs(split: str, operands: int = OPERANDS) -> tuple[Pair, ...]:
    """All ordered pairs (a, b) with a, b < operands that belong to `split`."""
    wanted = split == EVALUATION
    return tuple(
        (a, b)
        for a in range(operands)
        for b in range(operands)
        if is_held_out("sums", min(a, b), max(a, b)) == wanted
    )


def generate(
    chooser: Chooser,
    split: str = TRAINING,
    operands: int = OPERANDS,
    lines: tuple[int, int] = LINES,
) -> tuple[str, str]:
    """(prompt, answer) of one document.

    One derivation a text: the number of lines and both operands of every line can be read off it.
    """
    count = chooser.between(*lines)
    shown = [chooser.pick(pairs(TRAINING, operands)) for _ in range(count - 1)]
    a, b = chooser.pick(pairs(split, operands))
    context = "".join(f"{left}+{right}={left + right}\n" for left, right in shown)
    return f"{context}{a}+{b}=", str(a + b)


def entropy(
    split: str = TRAINING, operands: int = OPERANDS, lines: tuple[int, int] = LINES
) -> float:
    """Mean bits of a document: its length, then one uniform pair a line."""
    low, high = lines
    context_lines = (low + high) / 2 - 1
    return (
        math.log2(high - low + 1)
        + context_lines * math.log2(len(pairs(TRAINING, operands)))
        + math.log2(len(pairs(split, operands)))
    )

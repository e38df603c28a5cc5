"""Regularities in a wrong answer that no named mistake explains: a factor, a sign, a transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slmlab.checking.comparison import Comparison, difference_sentence
from slmlab.checking.counterexample import paired_numbers
from slmlab.checking.numbers_text import number
from slmlab.checking.runner import CaseResult
from slmlab.checking.values import as_array, is_array

Pairs = list[tuple[np.ndarray, np.ndarray]]


def describe(failing: tuple[CaseResult, ...], rule: Comparison, any_passed: bool) -> str:
    """One sentence about cases that returned a wrong answer.

    A pattern is only named where every failing case shows it; otherwise the sentence says what is
    wrong in the first of them.
    """
    first = failing[0]
    answers = [(result.wanted, result.execution.output) for result in failing]
    loose = rule.ignoring_dtype()
    found = loose.difference(*answers[0]) or rule.difference(*answers[0])
    if found is None:
        return first.problem or "The answer differs."
    if found.kind != "value":
        return first.problem or difference_sentence(found)
    paired = [paired_numbers(wanted, yours) for wanted, yours in answers]
    pairs: Pairs = [pair for pair in paired if pair is not None]
    if len(pairs) < len(answers):
        return difference_sentence(found)
    every = "In the cases that fail, every answer is" if any_passed else "Every answer is"
    for notice in (_not_a_number, _transposed, _sign, _factor, _offset, _whole, _order, _rows):
        sentence = notice(answers, pairs, loose, every)
        if sentence is not None:
            return sentence
    return _how_far(pairs, loose)


def _all_agree(pairs: Pairs, rule: Comparison, change: Callable[[np.ndarray], np.ndarray]) -> bool:
    return all(bool(rule.agrees(change(wanted), yours).all()) for wanted, yours in pairs)


def _not_a_number(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    wanted, yours = pairs[0]
    for what, test in (("NaN", np.isnan), ("infinite", np.isinf)):
        bad = test(yours) & ~test(wanted)
        if bad.any():
            share = f"{int(bad.sum())} of {bad.size} numbers" if bad.size > 1 else "the number"
            verb = "is" if int(bad.sum()) == 1 else "are"
            return f"In your answer {share} {verb} {what}: is something divided by zero?"
    return None


def _transposed(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    for wanted, yours in answers:
        if not (is_array(wanted) and is_array(yours) and as_array(wanted).ndim == 2):
            return None
        turned = as_array(wanted).T
        if turned.shape != as_array(yours).shape or not rule.agrees(turned, as_array(yours)).all():
            return None
    return "Your answer is transposed: rows and columns are swapped."


def _sign(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    if _all_agree(pairs, rule, np.negative):
        return f"{every} right but for the sign: is a minus missing or too much?"
    flipped = total = 0
    for wanted, yours in pairs:
        if not rule.agrees(np.abs(wanted), np.abs(yours)).all():
            return None
        flipped += int((~rule.agrees(wanted, yours)).sum())
        total += wanted.size
    return f"The magnitudes are right; the sign is wrong in {flipped} of {total} numbers."


def _factor(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    factors = [_one_factor(wanted, yours, rule) for wanted, yours in pairs]
    known = [factor for factor in factors if factor is not None]
    if len(known) < len(pairs) or sum(wanted.size for wanted, _ in pairs) < 2:
        return None
    factor = known[0]
    if np.allclose(known, factor, rtol=1e-4, atol=0.0):
        if factor < 0:
            return f"{every} off by exactly a factor of {_factor_text(factor)}."
        size, way = (factor, "large") if factor > 1 else (1 / factor, "small")
        text = _factor_text(size)
        return f"{every} off by exactly a factor of {text}: {text} times too {way}."
    if all(wanted.size > 1 for wanted, _ in pairs):
        steps = " and ".join(_factor_text(value) for value in known[:2])
        return (
            "Within each case all numbers are off by one factor, and it changes with the input "
            f"({steps} in the first two): which size of the input has these values?"
        )
    return None


def _one_factor(wanted: np.ndarray, yours: np.ndarray, rule: Comparison) -> float | None:
    """f with yours = f * wanted throughout, None where there is none."""
    usable = np.isfinite(wanted) & np.isfinite(yours) & (wanted != 0)
    if not usable.all() and not np.array_equal(wanted[~usable], yours[~usable], equal_nan=True):
        return None
    if not usable.any():
        return None
    with np.errstate(all="ignore"):
        ratios = yours[usable] / wanted[usable]
    # The largest element has the smallest relative rounding error.
    factor = float(ratios[np.argmax(np.abs(wanted[usable]))])
    # A quotient beyond float's range, or whose inverse is, says nothing.
    if factor == 0 or not (np.isfinite(factor) and np.isfinite(1 / factor)):
        return None
    if abs(factor - 1) < 1e-6:
        return None
    return factor if np.allclose(ratios, factor, rtol=1e-4, atol=0.0) else None


def _factor_text(factor: float) -> str:
    if not np.isfinite(factor):
        return number(factor, 4)
    nearest = round(factor)
    if nearest != 0 and abs(factor - nearest) <= 1e-4 * abs(nearest):
        return str(nearest)
    return number(factor, 4)


def _offset(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    if sum(wanted.size for wanted, _ in pairs) < 3:
        return None
    with np.errstate(all="ignore"):
        offsets = np.concatenate([yours - wanted for wanted, yours in pairs])
    offset = float(offsets[0])
    if not np.isfinite(offset) or not _all_agree(pairs, rule, lambda wanted: wanted + offset):
        return None
    way = "large" if offset > 0 else "small"
    return f"{every} too {way} by exactly {_factor_text(abs(offset))}."


def _whole(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    cut = all(
        bool((yours == np.floor(wanted)).all() or (yours == np.trunc(wanted)).all())
        for wanted, yours in pairs
    )
    if not cut:
        return None
    return f"{every} cut to a whole number: was // or int() used where a fraction is meant?"


def _order(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    if any(wanted.size < 2 for wanted, _ in pairs):
        return None
    if all(rule.agrees(np.sort(wanted), np.sort(yours)).all() for wanted, yours in pairs):
        return "The numbers are right, their order is not."
    return None


def _rows(answers: Any, pairs: Pairs, rule: Comparison, every: str) -> str | None:
    wanted, yours = answers[0]
    if not is_array(wanted) or as_array(wanted).ndim != 2:
        return None
    good = rule.agrees(as_array(wanted), as_array(yours))
    for axis, what in ((1, "row"), (0, "column")):
        right = good.all(axis=axis)
        if right.any() and not right.all() and not (good & ~np.expand_dims(right, axis)).any():
            names = ", ".join(str(i) for i in np.flatnonzero(right)[:3])
            plural = "s" if int(right.sum()) > 1 else ""
            verb = "are" if plural else "is"
            who = f"{what.capitalize()}{plural} {names} {verb} right in the smallest case"
            return f"{who}, the others are off."
    return None


def _how_far(pairs: Pairs, rule: Comparison) -> str:
    wanted, yours = pairs[0]
    off = ~rule.agrees(wanted, yours)
    if off.size == 1:
        size = abs(float(yours[0]))
        base = abs(float(wanted[0]))
        if float(yours[0]) < 0 < float(wanted[0]):
            return "The number is below 0, the right one above."
        if float(wanted[0]) < 0 < float(yours[0]):
            return "The number is above 0, the right one below."
        if base and size and np.isfinite(size):
            ratio = max(size / base, base / size)
            if ratio >= 1.01:
                way = "large" if size > base else "small"
                return f"The number is {number(ratio)} times too {way}."
        return "The number differs."
    with np.errstate(all="ignore"):
        worst = float(np.nanmax(np.abs(yours - wanted)))
    return f"{int(off.sum())} of {off.size} numbers differ, by {number(worst)} at most."

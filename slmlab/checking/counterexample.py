"""The smallest case that shows a mistake, as three short texts: given, yours, wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from slmlab.checking.comparison import Comparison, Invariant
from slmlab.checking.numbers_text import MAX_NUMBERS, digits_between, shown
from slmlab.checking.runner import CaseResult, Run
from slmlab.checking.spec import Exercise
from slmlab.checking.values import as_array, count_numbers, is_array, is_number, leaves, plain


@dataclass(frozen=True)
class Counterexample:
    """`given` are (name, text) pairs. `yours` is None where nothing was returned to show, `wanted`
    where more than one answer is right. No text holds more than six numbers."""

    given: tuple[tuple[str, str], ...]
    yours: str | None
    wanted: str | None

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """(name, text) of everything there is to show, in reading order."""
        answers = (("your answer", self.yours), ("wanted", self.wanted))
        return (*self.given, *((name, text) for name, text in answers if text is not None))

    @property
    def sentence(self) -> str:
        """The counterexample as one line, empty where there is nothing to show.

        An exercise without arguments has one answer and no smallest case.
        """
        if not self.given:
            text = "; ".join(f"{name}: {text}" for name, text in self.rows)
            return f"{text[0].upper()}{text[1:]}." if text else ""
        given = [f"{name} = {text}" for name, text in self.given]
        answers = [f"{name} {text}" for name, text in self.rows[len(given) :]]
        return f"Smallest case: {', '.join(given + answers)}."


def smallest(run: Run) -> CaseResult | None:
    """The failing case with the fewest numbers in and out; the first among equals.

    Where some cases raise, only those count: the sentence is about them.
    """
    failing = run.failing
    if run.outcome == "error":
        failing = tuple(result for result in failing if result.outcome == "error") or failing
    return min(failing, key=_size, default=None)


def _size(result: CaseResult) -> int:
    return count_numbers(plain(result.case.arguments)) + count_numbers(result.wanted)


def build(exercise: Exercise, result: CaseResult) -> Counterexample:
    """The texts for one failing case."""
    given = tuple((name, shown(plain(value), 4)) for name, value in result.case.arguments.items())
    answered = result.outcome == "wrong"
    unit = f" {exercise.unit}" if exercise.unit else ""
    if not answered:
        return Counterexample(given, None, None)
    wanted, yours = result.wanted, result.execution.output
    if isinstance(exercise.compare, Invariant):
        return Counterexample(given, shown(yours, 4) + (unit if is_number(yours) else ""), None)
    wanted, yours, where = _narrow(wanted, yours, exercise.compare)
    digits = digits_between(wanted, yours)
    if _needs_excerpt(wanted, yours):
        your_text, wanted_text = _excerpt(wanted, yours, exercise.compare, digits)
    else:
        your_text, wanted_text = shown(yours, digits), shown(wanted, digits)
    at = f"{where} = " if where else ""
    return Counterexample(given, f"{at}{your_text}{unit}", f"{wanted_text}{unit}")


def _narrow(wanted: Any, yours: Any, rule: Comparison) -> tuple[Any, Any, str]:
    """The first leaf that differs, where the whole is too large to show."""
    if count_numbers(wanted) <= MAX_NUMBERS and count_numbers(yours) <= MAX_NUMBERS:
        return wanted, yours, ""
    found = rule.ignoring_dtype().difference(wanted, yours) or rule.difference(wanted, yours)
    return (wanted, yours, "") if found is None else (found.wanted, found.yours, found.path)


def _needs_excerpt(wanted: Any, yours: Any) -> bool:
    return (
        is_array(wanted)
        and is_array(yours)
        and tuple(wanted.shape) == tuple(yours.shape)
        and count_numbers(wanted) > MAX_NUMBERS
    )


def _excerpt(wanted: Any, yours: Any, rule: Comparison, digits: int) -> tuple[str, str]:
    """Up to three differing elements with their positions: [1, 3]: 13."""
    left, right = as_array(wanted), as_array(yours)
    positions = np.argwhere(~rule.agrees(left, right))[:3].tolist()
    if not positions:
        return shown(yours, digits), shown(wanted, digits)

    def picked(array: np.ndarray) -> str:
        return "; ".join(f"{p}: {shown(array[tuple(p)].item(), digits)}" for p in positions)

    return f"at {picked(right)}", f"at {picked(left)}"


def paired_numbers(wanted: Any, yours: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """All numbers of two answers of one structure as two flat arrays, else None."""
    left, right = leaves(wanted), leaves(yours)
    if [path for path, _ in left] != [path for path, _ in right]:
        return None
    flat: list[tuple[np.ndarray, np.ndarray]] = []
    for (_, w), (_, y) in zip(left, right, strict=True):
        if not (_numeric(w) and _numeric(y)) or as_array(w).shape != as_array(y).shape:
            return None
        try:
            flat.append((as_array(w).astype(float).ravel(), as_array(y).astype(float).ravel()))
        except OverflowError:
            # An int beyond float's range has no place in an array of numbers.
            return None
    if not flat:
        return None
    return np.concatenate([w for w, _ in flat]), np.concatenate([y for _, y in flat])


def _numeric(value: Any) -> bool:
    if is_array(value):
        return as_array(value).dtype.kind in "iuf"
    return type(value) in (int, float)

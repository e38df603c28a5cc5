"""Predictions: commit to a number before measuring, and see by how much it was off.

Numbers are compared by ratio, shares (unit "%") in percentage points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from slmlab.checking.lesson_progress import LessonProgress
from slmlab.checking.logbook import Guess, Logbook, PredictionRecord, now
from slmlab.checking.numbers_text import number, quantity
from slmlab.checking.render import message
from slmlab.checking.values import count_numbers, is_array, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Far enough inside the range of a float that the axes of the plot and every ratio are finite.
LEAST, LARGEST = 1e-100, 1e100
# Percentage points: as near as "within 5%" is for other units.
NEAR_POINTS = 5.0


@dataclass(frozen=True)
class Prediction:
    """What predict() and measured() return: `value` is the prediction that counts (None where there
    is none), `ratio` is max(value / measured, measured / value), 1.0 for a perfect one, inf where only one of them is 0."""

    name: str
    value: float | None
    unit: str = ""
    measured: float | None = None
    sentence: str = field(default="", compare=False)

    @property
    def ratio(self) -> float | None:
        """How many times too large or too small, at least 1; None until both numbers are known."""
        if self.value is None or self.measured is None:
            return None
        return _ratio(self.value, self.measured)

    def _ipython_display_(self) -> None:
        """Shows nothing: the sentence has been shown by the call that made this object."""


def predict(name: str, value: float | None, unit: str = "") -> Prediction:
    """Stores a prediction for `name` and shows what was stored; None shows "not predicted yet".

    Before the measurement a new value replaces the old one. After it a new value is recorded, and
    the earlier one still counts. Raises ValueError for a value that is not finite and above 0
    (predictions are scored by ratio) or not between 1e-100 and 1e100, with unit "%" for one that
    is not between 0 and 100, TypeError for a wrong type.
    Trouble with the progress file becomes a note; the prediction is then kept in memory.
    """
    _check_text("predict", "name", name)
    if not name.strip():
        raise ValueError("predict(name) is empty: say what is predicted.")
    _check_text("predict", "unit", unit)
    store = LessonProgress()
    if value is None:
        record = store.read().prediction(name)
        if record.counted is None:
            sentence = f"{name}: not predicted yet. Replace None by your number" + (
                f" in {unit}." if unit else "."
            )
            return _show(Prediction(name, None, unit, sentence=sentence), store)
        return _show(_standing(name, record, f"{name}: you predicted {_counted(record)}."), store)
    guess = Guess(now(), _scorable("predict", value, unit), unit)

    def change(logbook: Logbook) -> Logbook:
        old = logbook.prediction(name)
        if old.counted is not None and _same(old.guesses[-1], guess):
            return logbook
        return logbook.with_prediction(name, replace(old, guesses=(*old.guesses, guess)))

    record = store.update(change).prediction(name)
    return _show(_standing(name, record, _stored_sentence(name, record, guess)), store)


def measured(name: str, value: float) -> Prediction:
    """Scores the stored prediction for `name` against a measurement, and shows how far off it was.

    Without a prediction it says "not predicted yet" and stores nothing, so that a later prediction
    can still count. The unit is that of the prediction. Raises ValueError and TypeError for a value
    as predict() does. Trouble with the progress file becomes a note.
    """
    _check_text("measured", "name", name)
    store = LessonProgress()
    logbook = store.read()
    standing = logbook.prediction(name).counted
    result = _scorable("measured", value, standing.unit if standing else "")

    def change(logbook: Logbook) -> Logbook:
        old = logbook.prediction(name)
        if not old.guesses:
            return logbook
        at = max(now(), old.guesses[-1].at)  # A clock set back must not undo the order.
        first = old.first_measured_at or at
        new = replace(old, first_measured_at=first, measured_at=at, measured=result)
        return logbook.with_prediction(name, new)

    if logbook.prediction(name).guesses:
        logbook = store.update(change)
    record = logbook.prediction(name)
    if record.counted is None:
        sentence = f"{name}: measured {quantity(result)}, not predicted yet."
        return _show(Prediction(name, None, measured=result, sentence=sentence), store)
    unit = f" {record.counted.unit}" if record.counted.unit else ""
    sentence = (
        f"{name}: you predicted {_counted(record)}, measured {quantity(result)}{unit}: "
        f"{_verdict(record.counted, result)}."
    )
    return _show(_standing(name, record, sentence), store)


def scored(logbook: Logbook) -> tuple[Prediction, ...]:
    """All predictions of a logbook that have been measured, in order of their measurement.

    A share of 0 has no ratio, and a file may hold numbers that predict() and measured() refuse by
    now; those are left out.
    """
    done = [
        (record.first_measured_at or "", name, record)
        for name, record in logbook.predictions.items()
        if record.counted is not None
        and record.measured is not None
        and all(LEAST <= value <= LARGEST for value in (record.counted.value, record.measured))
    ]
    return tuple(_standing(name, record) for _, name, record in sorted(done, key=lambda d: d[:2]))


def calibration_plot() -> Figure:
    """A figure of all stored predictions against their measurements, on log axes."""
    from slmlab.checking.calibration import draw

    store = LessonProgress()
    logbook = store.read()
    if store.trouble:
        message(store.trouble).show()
    waiting = sum(
        record.counted is not None and record.measured is None
        for record in logbook.predictions.values()
    )
    return draw(scored(logbook), waiting)


def _standing(name: str, record: PredictionRecord, sentence: str = "") -> Prediction:
    counted = record.counted
    assert counted is not None
    return Prediction(name, counted.value, counted.unit, record.measured, sentence)


def _stored_sentence(name: str, record: PredictionRecord, guess: Guess) -> str:
    counted = record.counted
    assert counted is not None
    if record.first_measured_at is None:
        return f"{name}: your prediction is {_counted(record)}."
    if _same(counted, guess):
        return f"{name}: your prediction of {_counted(record)} stands; it has been measured."
    unit = f" {guess.unit}" if guess.unit else ""
    return (
        f"{name}: {quantity(guess.value)}{unit} is recorded, but it came after the measurement. "
        f"Your prediction from before it counts: {_counted(record)}."
    )


def _counted(record: PredictionRecord) -> str:
    counted = record.counted
    assert counted is not None
    return quantity(counted.value) + (f" {counted.unit}" if counted.unit else "")


def _same(left: Guess, right: Guess) -> bool:
    return (left.value, left.unit) == (right.value, right.unit)


def _ratio(value: float, result: float) -> float:
    if value == result:
        return 1.0
    return max(value / result, result / value) if value and result else math.inf


def _is_share(unit: str) -> bool:
    return unit.strip() == "%"


def _verdict(guess: Guess, result: float) -> str:
    value, ratio = guess.value, _ratio(guess.value, result)
    way = "high" if value > result else "low"
    if _is_share(guess.unit):
        # A distance of 5 must not become 5.000000000000007 by being computed.
        points = round(abs(value - result), 9)
        near = points <= NEAR_POINTS
        return (
            f"within {NEAR_POINTS:g} points" if near else f"{quantity(points, 3)} points too {way}"
        )
    if ratio < 1.05:
        return "within 5%"
    if ratio <= 2:
        return f"a factor of {quantity(ratio, 3)} too {way}, within a factor of 2"
    if ratio <= 10:
        return f"a factor of {quantity(ratio, 3)} too {way}, the right order of magnitude"
    return f"a factor of {quantity(ratio, 3)} too {way}"


def _check_text(call: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{call}({name}) must be text, not {type(value).__name__}.")


def _scorable(call: str, value: Any, unit: str) -> float:
    result = plain(value)
    if is_array(result) and count_numbers(result) == 1:
        result = result.item()
    if type(result) not in (int, float):
        raise TypeError(f"{call}(value) must be a number, not {type(value).__name__}.")
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"{call}(value={result}) must be finite.")
    if _is_share(unit):
        if not 0 <= result <= 100:
            mend = (
                "write 25 for a quarter."
                if call == "predict"
                else "give a share of 100, or predict again in the unit of the measurement."
            )
            raise ValueError(
                f"{call}(value={number(result)}) must be between 0 and 100, as the unit is %: {mend}"
            )
        return float(result)
    if not LEAST <= result <= LARGEST:
        raise ValueError(
            f"{call}(value={number(result)}) must be above 0, between {LEAST:g} and {LARGEST:g}: "
            "predictions are scored by ratio."
        )
    return float(result)


def _show(prediction: Prediction, store: LessonProgress) -> Prediction:
    panel = message(prediction.sentence)
    if store.trouble:
        panel = panel.above(message(store.trouble))
    panel.show()
    return prediction

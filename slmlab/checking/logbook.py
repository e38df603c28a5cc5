"""The contents of a progress file, and how two of them are merged.

Every field merges by a maximum, a minimum or a union, so merging is commutative, associative and
idempotent: importing a file twice, or two files in either order, gives the same logbook, and no
field ever gets worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from slmlab.checking.runner import OUTCOMES, Outcome

SCHEMA = 1
MAX_COUNT = 10**9


def now() -> str:
    """The time in UTC as ISO text of fixed width, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class ExerciseRecord:
    """Best outcome and credit so far, checks of a started body, highest hint rung shown (0..3)."""

    outcome: Outcome = "unattempted"
    credit: float = 0.0
    attempts: int = 0
    hint_rung: int = 0
    passed_at: str | None = None

    def merged(self, other: ExerciseRecord) -> ExerciseRecord:
        """The better of both in every field; the earlier passed_at."""
        passed = [at for at in (self.passed_at, other.passed_at) if at is not None]
        return ExerciseRecord(
            outcome=max(self.outcome, other.outcome, key=OUTCOMES.index),
            credit=max(self.credit, other.credit),
            attempts=max(self.attempts, other.attempts),
            hint_rung=max(self.hint_rung, other.hint_rung),
            passed_at=min(passed, default=None),
        )


@dataclass(frozen=True, order=True)
class Guess:
    """One prediction, at the time it was made."""

    at: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class PredictionRecord:
    """Guesses in time order, the time of the first measurement, and the latest measurement."""

    guesses: tuple[Guess, ...] = ()
    first_measured_at: str | None = None
    measured_at: str | None = None
    measured: float | None = None

    @property
    def counted(self) -> Guess | None:
        """The guess that is scored: the last one made before the first measurement."""
        if not self.guesses:
            return None
        if self.first_measured_at is None:
            return self.guesses[-1]
        before = [guess for guess in self.guesses if guess.at <= self.first_measured_at]
        return before[-1] if before else self.guesses[0]

    def merged(self, other: PredictionRecord) -> PredictionRecord:
        """All guesses, the earliest first measurement, the latest measurement."""
        firsts = [a for a in (self.first_measured_at, other.first_measured_at) if a is not None]
        lasts = [
            (record.measured_at, record.measured)
            for record in (self, other)
            if record.measured_at is not None and record.measured is not None
        ]
        at, value = max(lasts) if lasts else (None, None)
        return PredictionRecord(
            tuple(sorted({*self.guesses, *other.guesses})), min(firsts, default=None), at, value
        )


@dataclass(frozen=True)
class Logbook:
    """All records by exercise id and by prediction name."""

    exercises: Mapping[str, ExerciseRecord] = field(default_factory=dict)
    predictions: Mapping[str, PredictionRecord] = field(default_factory=dict)

    def exercise(self, exercise_id: str) -> ExerciseRecord:
        """The record of an exercise, an empty one where there is none."""
        return self.exercises.get(exercise_id, ExerciseRecord())

    def prediction(self, name: str) -> PredictionRecord:
        """The record of a prediction, an empty one where there is none."""
        return self.predictions.get(name, PredictionRecord())

    def with_exercise(self, exercise_id: str, record: ExerciseRecord) -> Logbook:
        """A copy with one exercise's record replaced."""
        return replace(self, exercises={**self.exercises, exercise_id: record})

    def with_prediction(self, name: str, record: PredictionRecord) -> Logbook:
        """A copy with one prediction's record replaced."""
        return replace(self, predictions={**self.predictions, name: record})

    def merged(self, other: Logbook) -> Logbook:
        """Both logbooks in one, record by record."""
        exercises = {
            key: self.exercise(key).merged(other.exercise(key))
            for key in {*self.exercises, *other.exercises}
        }
        predictions = {
            key: self.prediction(key).merged(other.prediction(key))
            for key in {*self.predictions, *other.predictions}
        }
        return Logbook(exercises, predictions)

    def to_json(self) -> dict[str, Any]:
        """Plain data for json.dump, sorted by key."""
        return {
            "schema": SCHEMA,
            "exercises": {key: vars(self.exercises[key]) for key in sorted(self.exercises)},
            "predictions": {
                key: {**vars(record), "guesses": [vars(guess) for guess in record.guesses]}
                for key, record in sorted(self.predictions.items())
            },
        }


class NewerSchema(ValueError):
    """The file is sound but written by a newer slmlab."""


def from_json(data: Any) -> Logbook:
    """Validates plain data and makes a Logbook of it.

    Raises ValueError naming the field that is wrong, NewerSchema for a schema above SCHEMA.
    """
    _mapping("the file", data)
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise ValueError(f"schema is {schema!r}, wanted {SCHEMA}")
    if schema > SCHEMA:
        raise NewerSchema(f"schema is {schema}, and this slmlab knows up to {SCHEMA}")
    _keys("the file", data, {"schema", "exercises", "predictions"})
    return Logbook(
        {
            key: _record(f"exercises[{key!r}]", item, ExerciseRecord, EXERCISE_FIELDS)
            for key, item in _mapping("exercises", data["exercises"]).items()
        },
        {
            key: _prediction(f"predictions[{key!r}]", item)
            for key, item in _mapping("predictions", data["predictions"]).items()
        },
    )


def _prediction(where: str, data: Any) -> PredictionRecord:
    record: PredictionRecord = _record(where, data, PredictionRecord, PREDICTION_FIELDS)
    guesses = tuple(
        _record(f"{where}.guesses[{i}]", item, Guess, GUESS_FIELDS)
        for i, item in enumerate(record.guesses)
    )
    times = (record.first_measured_at, record.measured_at)
    if len({item is None for item in (*times, record.measured)}) > 1:
        raise ValueError(f"{where} holds a measurement without its times, or the reverse")
    return replace(record, guesses=tuple(sorted(set(guesses))))


def _record(where: str, data: Any, make: Callable[..., Any], fields: Mapping[str, Any]) -> Any:
    _mapping(where, data)
    _keys(where, data, set(fields))
    for name, test in fields.items():
        if not test(data[name]):
            raise ValueError(f"{where}.{name} is {str(data[name])[:40]!r}, which it cannot be")
    return make(**data)


def _mapping(where: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not an object")
    return data


def _keys(where: str, data: dict[str, Any], wanted: set[str]) -> None:
    for key in sorted(wanted ^ set(data)):
        raise ValueError(f"{where} {'lacks' if key in wanted else 'has the unknown key'} {key!r}")


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and value == datetime.fromisoformat(value).astimezone(
            UTC
        ).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _is_real(value: Any) -> bool:
    # The bound keeps ints in float's range, where a ratio of two of them is defined.
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _optional(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


EXERCISE_FIELDS = {
    "outcome": lambda value: isinstance(value, str) and value in OUTCOMES,
    "credit": lambda value: _is_real(value) and 0 <= value <= 1,
    "attempts": _is_count,
    "hint_rung": lambda value: _is_count(value) and value <= 3,
    "passed_at": _optional(_is_time),
}
GUESS_FIELDS = {
    "at": _is_time,
    "value": lambda value: _is_real(value) and value >= 0,
    "unit": lambda value: isinstance(value, str),
}
PREDICTION_FIELDS = {
    "guesses": lambda value: isinstance(value, list),
    "first_measured_at": _optional(_is_time),
    "measured_at": _optional(_is_time),
    "measured": _optional(lambda value: _is_real(value) and value >= 0),
}

"""What an exercise is: data and functions, used by the notebook, by CI and by grading alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slmlab.checking.comparison import Close, Comparison, Exact, Invariant
from slmlab.checking.execution import Case

__all__ = ["Case", "Close", "Comparison", "Exact", "Exercise", "Invariant", "Mistake"]

ID_PATTERN = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Mistake:
    """A named wrong implementation and the sentence that a learner who wrote it needs.

    variants: the same mistake where it comes out in other numbers, such as a code that wraps around
    in one spelling and is clamped in another; they get the same sentence.
    """

    name: str
    sentence: str
    implementation: Callable[..., Any]
    variants: tuple[Callable[..., Any], ...] = ()

    def __post_init__(self) -> None:
        _text("Mistake", "name", self.name)
        _text("Mistake", "sentence", self.sentence)
        _function("Mistake", "implementation", self.implementation)
        if not isinstance(self.variants, tuple):
            raise TypeError("Mistake: variants must be a tuple (is a comma missing?).")
        for variant in self.variants:
            _function("Mistake", "variants", variant)

    @property
    def implementations(self) -> tuple[Callable[..., Any], ...]:
        """All of them, the plain one first."""
        return (self.implementation, *self.variants)


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    id           "topic.name", for example "anatomy.parameter_count"
    points       at least 1
    minutes      what a learner needs, at least 1
    difficulty   1, 2 or 3
    cases        seed -> cases, the smallest first; the same seed gives the same cases
    reference    the right implementation (the package's own function)
    mistakes     three to six wrong ones, each distinguishable by its outputs
    hints        the invariant, a worked example with three elements, pseudocode
    compare      Close, Exact or Invariant
    alternatives differently written right answers, at least one
    unit         of the answer, for estimates: "GB", "tok/s"

    Raises ValueError or TypeError where a field is out of range.
    """

    id: str
    title: str
    points: int
    minutes: int
    difficulty: int
    cases: Callable[[int], Sequence[Case]]
    reference: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    compare: Comparison
    alternatives: tuple[Callable[..., Any], ...]
    unit: str = ""

    def __post_init__(self) -> None:
        _text("Exercise", "id", self.id)
        if not ID_PATTERN.fullmatch(self.id):
            raise ValueError(
                f"Exercise(id={self.id!r}): write topic.name in lower-case letters, digits and _."
            )
        where = f"Exercise {self.id!r}"
        _text(where, "title", self.title)
        for name, low, high in (("points", 1, 100), ("minutes", 1, 120), ("difficulty", 1, 3)):
            value = getattr(self, name)
            if type(value) is not int:
                raise TypeError(f"{where}: {name} must be an int, not {type(value).__name__}.")
            if not low <= value <= high:
                raise ValueError(f"{where}: {name}={value} must lie between {low} and {high}.")
        _function(where, "cases", self.cases)
        _function(where, "reference", self.reference)
        if not isinstance(self.compare, Comparison):
            raise TypeError(f"{where}: compare must be Close(...), Exact() or Invariant(...).")
        self._check_tuples(where)
        if not isinstance(self.unit, str):
            raise TypeError(f'{where}: unit must be text, for example "GB".')

    def _check_tuples(self, where: str) -> None:
        for name in ("mistakes", "hints", "alternatives"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"{where}: {name} must be a tuple (is a comma missing?).")
        if not 3 <= len(self.mistakes) <= 6:
            raise ValueError(f"{where}: {len(self.mistakes)} mistakes; give three to six.")
        for mistake in self.mistakes:
            if not isinstance(mistake, Mistake):
                raise TypeError(f"{where}: every item of mistakes must be a Mistake.")
        for what in ("name", "sentence"):
            if len({getattr(mistake, what) for mistake in self.mistakes}) < len(self.mistakes):
                raise ValueError(f"{where}: two mistakes share one {what}.")
        if len(self.hints) != 3:
            raise ValueError(f"{where}: {len(self.hints)} hints; give three rungs.")
        for hint in self.hints:
            _text(where, "hints", hint)
        if not self.alternatives:
            raise ValueError(
                f"{where}: alternatives is empty; give one differently written right answer."
            )
        for alternative in self.alternatives:
            _function(where, "alternatives", alternative)

    @property
    def topic(self) -> str:
        """The part of the id before the dot."""
        return self.id.split(".", 1)[0]


def _text(where: str, name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{where}: {name} must be text, not {type(value).__name__}.")
    if not value.strip():
        raise ValueError(f"{where}: {name} is empty.")


def _function(where: str, name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{where}: {name} must be a function, not {type(value).__name__}.")

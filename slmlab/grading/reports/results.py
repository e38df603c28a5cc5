"""What every report is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmlab.grading.overrides import Overrides, total_of
from slmlab.grading.plan import Plan
from slmlab.grading.records import Grade

UNSAFE = (
    "Graded without a sandbox (--unsafe-no-sandbox): the submitted code ran with the grader's own "
    "rights and could read or change whatever the grader can, other submissions and these grades "
    "included."
)
UNSAFE_SHORT = "graded without a sandbox (--unsafe-no-sandbox)"


@dataclass(frozen=True)
class Results:
    """The grades of one run, by name of the student, and the decisions made by hand."""

    plan: Plan
    grades: tuple[Grade, ...]
    overrides: Overrides = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = sorted(self.grades, key=lambda grade: (grade.student.casefold(), grade.student))
        object.__setattr__(self, "grades", tuple(ordered))

    @property
    def unsafe(self) -> bool:
        """Whether any submission was run without a sandbox."""
        return self.plan.unsafe or any(is_unsafe(grade) for grade in self.grades)

    def total(self, grade: Grade) -> float:
        """The points that count, decisions by hand included."""
        return total_of(grade, self.overrides)


def is_unsafe(grade: Grade) -> bool:
    """Whether a submission was run without a sandbox."""
    sandbox = grade.audit.get("sandbox")
    return isinstance(sandbox, dict) and sandbox.get("kind") == "none"


def points_text(value: float) -> str:
    """Points with at most two decimals and no zeros at the end."""
    return f"{value:.2f}".rstrip("0").rstrip(".")

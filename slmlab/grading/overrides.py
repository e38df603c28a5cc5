"""Points that an instructor sets by hand. They stay in a file of their own, which the grader reads
and never changes, and every report shows them as what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slmlab.grading.records import ExerciseGrade, Grade
from slmlab.grading.tables_in import bare, number, rows

NAME = "overrides.csv"
COLUMNS = ("student", "exercise", "points", "reason", "who")
HEADER = ",".join(COLUMNS) + "\n"


@dataclass(frozen=True)
class Override:
    """One decision: the points that count, why, and who decided."""

    student: str
    exercise_id: str
    points: float
    reason: str
    who: str

    @property
    def sentence(self) -> str:
        """The decision in words."""
        why = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"Set by hand to {self.points:g} points by {self.who}{why}."


Overrides = Mapping[tuple[str, str], Override]


def read_overrides(
    path: Path, students: Collection[str], maxima: Mapping[str, float]
) -> dict[tuple[str, str], Override]:
    """The decisions by (student, exercise id); none where there is no file.

    students: of this run; maxima: exercise id -> points at most. Raises ValueError naming the line
    and the mend for an unknown student or exercise, points out of range, a decision without a name,
    and two decisions about one thing.
    """
    if not path.exists():
        return {}
    found: dict[tuple[str, str], Override] = {}
    for line, row in rows(path, COLUMNS):
        where = f"{path}, line {line}"
        student = row["student"] if row["student"] in students else bare(row["student"])
        if student not in students:
            raise ValueError(
                f"{where}: there is no student {row['student']!r} in this run; write the name as "
                "in the column `student` of grades.csv, or take the line out."
            )
        exercise = row["exercise"]
        if exercise not in maxima:
            raise ValueError(
                f"{where}: {exercise!r} is no exercise of this run ({', '.join(maxima)})."
            )
        points = number(path, line, "points", row["points"])
        if not 0 <= points <= maxima[exercise]:
            raise ValueError(
                f"{where}: points are {points:g}; {exercise} has 0 to {maxima[exercise]:g}."
            )
        if not row["who"]:
            raise ValueError(f"{where}: who is empty; write who decided.")
        if (student, exercise) in found:
            raise ValueError(f"{where}: {exercise} of {student!r} stands twice; keep one line.")
        found[student, exercise] = Override(student, exercise, points, row["reason"], row["who"])
    return found


def points_of(grade: Grade, item: ExerciseGrade, overrides: Overrides) -> float:
    """The points that count for one exercise."""
    override = overrides.get((grade.student, item.exercise_id))
    return item.points if override is None else override.points


def total_of(grade: Grade, overrides: Overrides) -> float:
    """The points that count for a submission."""
    return round(sum(points_of(grade, item, overrides) for item in grade.exercises), 2)


def of_student(student: str, overrides: Overrides) -> dict[str, Override]:
    """The decisions about one student, by exercise id."""
    return {exercise: item for (who, exercise), item in overrides.items() if who == student}


def in_order(overrides: Overrides) -> Iterable[Override]:
    """All decisions, by student and exercise."""
    return [overrides[key] for key in sorted(overrides)]

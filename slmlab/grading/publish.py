"""Makes the reports of a folder from its grades and its overrides."""

from __future__ import annotations

from collections.abc import Iterable

from slmlab.grading import overrides
from slmlab.grading.choose import specs
from slmlab.grading.plan import Plan
from slmlab.grading.reports import (
    Results,
    class_html,
    feedback_html,
    grades_csv,
    summary_json,
)
from slmlab.grading.store import Store, write_atomic, write_if_different

CSV, CLASS, JSON = "grades.csv", "class.html", "grades.json"


def read_overrides(store: Store, plan: Plan, students: Iterable[str]) -> overrides.Overrides:
    """The decisions by hand in a folder; an empty file with the columns is put there first.

    Raises ValueError naming the line where one cannot hold.
    """
    path = store.folder / overrides.NAME
    if not path.exists():
        write_atomic(path, overrides.HEADER)
    maxima = {item.id: float(item.points) for item in specs(plan.exercises)}
    return overrides.read_overrides(path, set(students), maxima)


def publish(store: Store, results: Results, pages: bool = True) -> None:
    """Writes grades.csv, class.html and grades.json, and with `pages` every student's page.

    A file that would not change is left alone.
    """
    if pages:
        for grade in results.grades:
            store.write_feedback(grade.student, feedback_html(grade, results))
    write_if_different(store.folder / JSON, summary_json(results))
    write_if_different(store.folder / CLASS, class_html(results))
    write_if_different(store.folder / CSV, grades_csv(results))


def stored_results(store: Store, plan: Plan, students: Iterable[str]) -> Results:
    """What the folder holds about these students."""
    students = list(students)
    grades = [grade for name in students if (grade := store.grade(name, plan)) is not None]
    return Results(plan, tuple(grades), read_overrides(store, plan, students))

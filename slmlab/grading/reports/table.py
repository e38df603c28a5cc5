"""grades.csv: one row a student, ready for the import of a learning management system."""

from __future__ import annotations

import csv
import io

from slmlab.grading.overrides import of_student, points_of
from slmlab.grading.records import Grade
from slmlab.grading.reports.results import UNSAFE_SHORT, Results, is_unsafe, points_text
from slmlab.grading.tables_in import guarded


def grades_csv(results: Results) -> str:
    """Columns student, one per exercise id, total, max, status, reason. Comma, UTF-8, LF.

    Every field is quoted. What a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    ids = results.plan.exercises
    writer.writerow(["student", *ids, "total", "max", "status", "reason"])
    for grade in results.grades:
        points = {e.exercise_id: points_of(grade, e, results.overrides) for e in grade.exercises}
        writer.writerow(
            [
                guarded(grade.student),
                *(points_text(points[name]) if name in points else "" for name in ids),
                points_text(results.total(grade)),
                points_text(grade.max_total),
                grade.status,
                guarded(_reason(grade, results)),
            ]
        )
    return text.getvalue()


def _reason(grade: Grade, results: Results) -> str:
    parts = [grade.reason.rstrip(".")] if grade.reason else []
    by_hand = sorted(of_student(grade.student, results.overrides))
    if by_hand:
        parts.append(f"set by hand: {', '.join(by_hand)}")
    if is_unsafe(grade):
        parts.append(UNSAFE_SHORT)
    return "; ".join(parts)

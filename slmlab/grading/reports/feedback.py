"""The page that a student gets."""

from __future__ import annotations

from typing import Any

from slmlab.grading.overrides import Override, of_student, points_of
from slmlab.grading.records import Grade
from slmlab.grading.reports.pages import page
from slmlab.grading.reports.results import UNSAFE, Results, is_unsafe

MAX_ROWS, MAX_NOTES, MAX_PRINTED, MAX_CELLS = 8, 3, 2000, 30


def feedback_html(grade: Grade, results: Results) -> str:
    """One student's page: no other student's name, and nothing that varies from run to run."""
    by_hand = of_student(grade.student, results.overrides)
    total = results.total(grade)
    return page(
        "feedback.html",
        grade=grade,
        exercises=[_exercise(grade, item, by_hand, results) for item in grade.exercises],
        total=total,
        share=total / grade.max_total if grade.max_total else 0.0,
        stumbles=_stumbles(grade),
        unsafe=UNSAFE if is_unsafe(grade) else "",
    )


def _exercise(
    grade: Grade, item: Any, by_hand: dict[str, Override], results: Results
) -> dict[str, Any]:
    detail = _detail(grade, item.exercise_id)
    return {
        "grade": item,
        "points": points_of(grade, item, results.overrides),
        "override": by_hand.get(item.exercise_id),
        "example": [row for row in detail.get("example", []) if len(row) == 2][:MAX_ROWS],
        "notes": detail.get("notes", [])[:MAX_NOTES],
        "printed": detail.get("printed", "")[:MAX_PRINTED],
    }


def _detail(grade: Grade, exercise_id: str) -> dict[str, Any]:
    details = grade.audit.get("details")
    found = details.get(exercise_id) if isinstance(details, dict) else None
    return found if isinstance(found, dict) else {}


def _stumbles(grade: Grade) -> list[dict[str, Any]]:
    """The cells that raised or did not end in time."""
    cells = grade.audit.get("cells", [])
    return [cell for cell in cells if cell["status"] != "ran"][:MAX_CELLS]

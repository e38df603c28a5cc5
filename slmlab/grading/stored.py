"""A grade as the text of grade.json, which notices damage: an edit, a cut, a bad disk.

The text carries a hash of its own content. It tells damage, not a forger: who can write here can
compute it too.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from slmlab.grading.choose import specs
from slmlab.grading.plan import Plan
from slmlab.grading.records import ExerciseGrade, Grade

HASH = "content_sha256"


def stored_text(grade: Grade) -> str:
    """The grade as JSON with the hash of its content."""
    content = json.loads(grade.to_json())
    return json.dumps(content | {HASH: _hash(content)}, indent=1) + "\n"


def grade_of(text: str) -> Grade:
    """The grade that :func:`stored_text` wrote; ValueError where it is damaged or none."""
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop(HASH, None) != _hash(content):
        raise ValueError("the stored grade is damaged.")
    grade = Grade.from_json(json.dumps(content))
    if not (_adds_up(grade) and _audit_holds(grade.audit)):
        raise ValueError("the stored grade contradicts itself.")
    return grade


def fits(grade: Grade, plan: Plan) -> bool:
    """Whether its exercises are those of the plan as they are registered now."""
    wanted = [(item.id, item.title, item.points) for item in specs(plan.exercises)]
    return wanted == [(e.exercise_id, e.title, e.max_points) for e in grade.exercises]


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _adds_up(grade: Grade) -> bool:
    def in_range(item: ExerciseGrade) -> bool:
        return item.points <= item.max_points and item.total > 0

    return (
        all(map(in_range, grade.exercises))
        and math.isclose(grade.total, sum(item.points for item in grade.exercises), abs_tol=0.01)
        and math.isclose(grade.max_total, sum(item.max_points for item in grade.exercises))
    )


def _audit_holds(audit: dict[str, Any]) -> bool:
    """Whether what the reports read in it has the shapes that they expect."""
    cells, details = audit.get("cells", []), audit.get("details", {})
    marks = audit.get("regraded", [])
    return (
        _is_list_of(cells, _is_cell)
        and isinstance(details, dict)
        and all(map(_is_detail, details.values()))
        and _is_list_of(marks, lambda mark: isinstance(mark, dict))
    )


def _is_list_of(value: Any, holds: Any) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_cell(value: Any) -> bool:
    texts = ("notebook", "status", "message", "printed")
    return (
        isinstance(value, dict)
        and all(_is_text(value.get(name)) for name in texts)
        and isinstance(value.get("cell"), int)
    )


def _is_detail(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_list_of(value.get("example", []), lambda row: _is_list_of(row, _is_text))
        and _is_list_of(value.get("notes", []), _is_text)
        and _is_text(value.get("printed", ""))
    )

"""grades.json: everything for an audit that does not vary from run to run.

Timings and the cells' statuses stand in submissions/NAME/grade.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from slmlab.grading.audit import versions
from slmlab.grading.overrides import in_order, points_of
from slmlab.grading.records import Grade
from slmlab.grading.reports.results import UNSAFE, Results, is_unsafe

FORMAT = 1


def summary_json(results: Results) -> str:
    """The run and its grades as JSON text."""
    content = {
        "format": FORMAT,
        "plan": results.plan.to_json(),
        "versions": versions(),
        "sandbox": UNSAFE if results.unsafe else "bubblewrap",
        "students": [_student(grade, results) for grade in results.grades],
        "overrides": [asdict(item) for item in in_order(results.overrides)],
    }
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def _student(grade: Grade, results: Results) -> dict[str, Any]:
    audit = grade.audit
    return {
        "student": grade.student,
        "source": grade.source,
        "sha256": grade.sha256,
        "status": grade.status,
        "reason": grade.reason,
        "flags": list(grade.flags),
        "total": results.total(grade),
        "max": grade.max_total,
        "seed": audit.get("seed"),
        "limits": audit.get("limits"),
        "versions": audit.get("versions"),
        "unsafe": is_unsafe(grade),
        "exercises": [
            {
                "id": item.exercise_id,
                "points": points_of(grade, item, results.overrides),
                "points_of_the_check": item.points,
                "max": item.max_points,
                "outcome": item.outcome,
                "passed": item.passed,
                "total": item.total,
                "sentence": item.sentence,
                "mistake": item.mistake,
                "flags": list(item.flags),
            }
            for item in grade.exercises
        ],
    }

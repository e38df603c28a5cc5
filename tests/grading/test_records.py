"""The records check their fields, and a grade survives its file."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking import Case, Execution
from slmlab.grading import (
    Answered,
    Cell,
    CellRun,
    ExerciseGrade,
    Grade,
    Limits,
    Request,
    Submission,
    Transcript,
)

EXERCISE = ExerciseGrade("t.one", "One", 1.5, 3.0, "wrong", 0.5, 2, 4, "Half of it.")
numbers = st.floats(0, 1e6, allow_nan=False)
texts = st.text(max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
exercises = st.builds(
    ExerciseGrade,
    exercise_id=texts,
    title=texts,
    points=numbers,
    max_points=numbers,
    outcome=st.sampled_from(["unattempted", "error", "wrong", "passed", "missing", "not returned"]),
    credit=st.floats(0, 1),
    passed=st.integers(0, 5),
    total=st.integers(5, 9),
    sentence=texts,
    mistake=texts,
    flags=st.lists(texts, max_size=2).map(tuple),
)
grades = st.builds(
    Grade,
    student=texts | st.just("ünï\udcff"),  # a folder's name may be no UTF-8
    source=texts,
    sha256=texts,
    exercises=st.lists(exercises, max_size=2).map(tuple),
    total=numbers,
    max_total=numbers,
    status=st.sampled_from(["graded", "stopped", "unreadable", "error"]),
    reason=texts,
    flags=st.lists(texts, max_size=2).map(tuple),
    audit=st.dictionaries(texts, plain, max_size=3),
)


@given(grades)
def test_a_grade_survives_its_file(grade: Grade) -> None:
    stored = grade.to_json().encode("utf-8")
    assert Grade.from_json(stored.decode("utf-8")) == grade


@pytest.mark.parametrize("audit", [{"a": (1, 2)}, {1: "a"}, {"a": math.nan}, {"a": {1}}])
def test_an_audit_that_would_change_is_refused(audit: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match="audit"):
        Grade("a", "b", "c", (), 0, 0, "graded", audit=audit).to_json()


@pytest.mark.parametrize("stored", ["", "[]", "{}", '{"exercises": 3}', "null", '"text"'])
def test_a_text_that_is_no_grade(stored: str) -> None:
    with pytest.raises(ValueError, match="not a stored grade"):
        Grade.from_json(stored)


def test_scaled_limits() -> None:
    limits = Limits(cell_seconds=2, memory_mb=100)
    longer = limits.scaled(1.5)
    assert (longer.cell_seconds, longer.submission_seconds, longer.cpu_seconds) == (3, 90, 90)
    assert (
        dataclasses.replace(longer, cell_seconds=2, submission_seconds=60, cpu_seconds=60) == limits
    )
    for multiplier in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="multiplier"):
            limits.scaled(multiplier)
    assert Limits(**limits.to_json()) == limits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Limits(cell_seconds=0), "cell_seconds"),
        (lambda: Limits(cpu_seconds=math.nan), "cpu_seconds"),
        (lambda: Limits(processes=0), "processes"),
        (lambda: Limits(memory_mb=1.5), "memory_mb"),  # type: ignore[arg-type]
        (lambda: Limits(open_files=True), "open_files"),
        (lambda: Cell("a", -1, ""), "number"),
        (lambda: Cell("a", 0, None), "source"),  # type: ignore[arg-type]
        (lambda: Submission("", "a", (), "0"), "student"),
        (lambda: Submission("a", "a", [], "0"), "cells"),  # type: ignore[arg-type]
        (lambda: Submission("a", "a", (Cell("a", 0, ""),), "0", problem="bad"), "problem"),
        (lambda: Request((), {"a": [Case({})]}, 0), "cases"),  # type: ignore[dict-item]
        (lambda: Request(("x", 3), {}, 0), "cells"),  # type: ignore[arg-type]
        (lambda: Request((), {}, -1), "seed"),
        (lambda: Answered(0, [Execution()]), "executions"),  # type: ignore[arg-type]
        (lambda: CellRun(0, "late"), "status"),  # type: ignore[arg-type]
        (lambda: CellRun(0, "ran", seconds=-1), "seconds"),
        (lambda: Transcript({}, (), "time"), "reason"),
        (lambda: Transcript({}, (), "finished", "why"), "reason"),
        (lambda: Transcript({"a": 3}, ()), "answers"),  # type: ignore[dict-item]
        (lambda: dataclasses.replace(EXERCISE, credit=1.1), "credit"),
        (lambda: dataclasses.replace(EXERCISE, passed=5), "total"),
        (lambda: dataclasses.replace(EXERCISE, outcome="fine"), "outcome"),
        (lambda: Grade("a", "b", "c", (3,), 0, 0, "graded"), "exercises"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_field_is_named(make: Any, word: str) -> None:
    with pytest.raises((TypeError, ValueError), match=word):
        make()

"""An honest class of thirty, from its folder to its tables, against the checks in the notebook."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass

import pytest

from slmlab.checking.registry import exercises
from slmlab.grading.collect import collect
from slmlab.grading.driver import grade
from slmlab.grading.plan import Plan
from slmlab.grading.pool import local_grades
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox
from slmlab.grading.store import Store
from tests.grading.class_of import BLANKS, SOLUTIONS, code_cells, hand_in
from tests.grading.in_notebook import in_the_notebook, replayed

SEED, STUDENTS, NOTEBOOK = 30, 30, "02_quantization.ipynb"
ROOMY = Limits(submission_seconds=300, cpu_seconds=300, cell_seconds=60)


@dataclass(frozen=True)
class Expected:
    """What the notebook says of one answer."""

    outcome: str
    credit: float
    sentence: str


def answers_of(exercise, draw: random.Random) -> tuple[str, Expected]:
    """A student's cell, solved, blank or wrong in a named way, and the notebook's word on it."""
    solved, blank = (
        next(c for c in code_cells(folder / NOTEBOOK) if f'"{exercise.id}")' in c)
        for folder in (SOLUTIONS, BLANKS)
    )
    imports = code_cells(SOLUTIONS / NOTEBOOK)[0]
    source = draw.choices((solved, blank, ""), (5, 1, 3))[0]
    if not source:
        mistake = draw.choice(exercise.mistakes)
        source = replayed(exercise, draw.choice(mistake.implementations), SEED) or blank
    report = in_the_notebook(exercise, source, SEED, imports)
    sentence = "" if report.diagnosis is None else report.diagnosis.sentence
    return source, Expected(report.outcome, report.credit, sentence)


def test_thirty_students_get_what_the_notebook_says(tmp_path):
    try:
        open_sandbox(limits=ROOMY, preload=False).close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    draw, wanted = random.Random(SEED), {}
    imports, specs = code_cells(BLANKS / NOTEBOOK)[0], exercises("quantization")
    for number in range(STUDENTS):
        student = f"student{number:02}"
        pairs = [answers_of(item, draw) for item in specs]
        wanted[student] = dict(zip((item.id for item in specs), (e for _, e in pairs)))
        hand_in(tmp_path / "class", student, [imports, *(source for source, _ in pairs)])
    ids = tuple(item.id for item in specs)
    plan, store = Plan(ids, SEED, ROOMY), Store(tmp_path / "out")
    submissions = collect(tmp_path / "class", ids)
    outcome = grade(
        submissions, store, plan, lambda p, s: local_grades(p, s, 1), source=tmp_path / "class"
    )
    assert {one.student for one in outcome.results.grades} == set(wanted)
    for one in outcome.results.grades:
        assert (one.status, one.flags) == ("graded", ()), one.student
        for item in one.exercises:
            found = Expected(item.outcome, item.credit, item.sentence)
            assert found == wanted[one.student][item.exercise_id], (one.student, item.exercise_id)
    points = {item.id: item.points for item in specs}
    with open(tmp_path / "out" / "grades.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            right = sum(points[k] * e.credit for k, e in wanted[row["student"]].items())
            assert float(row["total"]) == pytest.approx(right, abs=0.005 * len(specs))
    outcomes = [e.outcome for answers in wanted.values() for e in answers.values()]
    assert {"passed", "wrong", "unattempted"} <= set(outcomes)  # the class holds all of them

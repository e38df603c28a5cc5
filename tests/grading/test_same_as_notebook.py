"""An honest notebook gets in the sandbox what the checks in the notebook say, word for word."""

from __future__ import annotations

import pytest

from slmlab.checking import all_exercises, check
from slmlab.grading.grader import Grader
from slmlab.grading.plan import Plan
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox
from tests.grading.class_of import BLANKS, SOLUTIONS, code_cells, submission
from tests.grading.in_notebook import in_the_notebook, replayed

SEED = 20_261
ROOMY = Limits(submission_seconds=300, cpu_seconds=300, cell_seconds=60)


@pytest.fixture(scope="module")
def grader():
    exercises = tuple(item.id for item in all_exercises() if _has_notebook(item.id))
    try:
        with open_sandbox(limits=ROOMY) as sandbox:
            yield Grader(Plan(exercises, SEED, ROOMY), sandbox)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def _notebooks(folder) -> list[list[str]]:
    found = [code_cells(path) for path in sorted(folder.glob("[0-9]*.ipynb"))]
    return [cells for cells in found if any("@exercise(" in cell for cell in cells)]


def _has_notebook(exercise_id: str) -> bool:
    return any(f'"{exercise_id}"' in cell for cells in _notebooks(SOLUTIONS) for cell in cells)


def _all_cells(folder) -> list[str]:
    return [cell for cells in _notebooks(folder) for cell in cells]


def test_every_solution_gets_all_points(grader):
    grade = grader.grade(submission("solved", _all_cells(SOLUTIONS)))
    assert [e.exercise_id for e in grade.exercises if e.outcome != "passed"] == []
    assert (grade.total, grade.status, grade.flags) == (grade.max_total, "graded", ())


def test_every_blank_is_not_started(grader):
    def not_written(**arguments):
        raise NotImplementedError

    grade = grader.grade(submission("blank", _all_cells(BLANKS)))
    for item, exercise in zip(grade.exercises, grader.exercises, strict=True):
        report = check(exercise, not_written, SEED)
        assert report.diagnosis is not None
        assert (item.outcome, item.sentence) == ("unattempted", report.diagnosis.sentence)
    assert grade.total == 0


@pytest.mark.parametrize("which", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_mistakes_get_the_notebook_s_words(grader, which):
    sources = {
        item.id: text
        for item in grader.exercises
        if (text := replayed(item, item.mistakes[which].implementation, SEED)) is not None
    }
    assert len(sources) > 0.9 * len(grader.exercises)
    grade = grader.grade(submission("mistaken", list(sources.values())))
    for item, exercise in zip(grade.exercises, grader.exercises, strict=True):
        if exercise.id not in sources:
            continue
        report = in_the_notebook(exercise, sources[exercise.id], SEED)
        assert report.diagnosis is not None
        mistake = report.diagnosis.mistake.name if report.diagnosis.mistake else ""
        assert (item.outcome, item.credit, item.sentence, item.mistake) == (
            report.outcome,
            report.credit,
            report.diagnosis.sentence,
            mistake,
        ), exercise.id
    assert sum(bool(item.mistake) for item in grade.exercises) > 0.8 * len(grade.exercises)

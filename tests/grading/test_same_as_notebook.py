"""An honest notebook gets in the sandbox what the checks in the notebook say, word for word."""

from __future__ import annotations

import linecache
import math
from typing import Any

import numpy as np
import pytest
import torch

from slmlab.checking import all_exercises, check, execute, make_cases
from slmlab.checking.failure import Failure
from slmlab.grading.grader import Grader
from slmlab.grading.plan import Plan
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox
from tests.grading.class_of import BLANKS, SOLUTIONS, code_cells, submission

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


def literal(value: Any) -> str:
    """Python text of a plain value, exact to the last bit."""
    if isinstance(value, torch.Tensor):
        wide = value.to(torch.float32) if value.dtype in (torch.bfloat16, torch.float16) else value
        numbers = literal(wide.flatten().tolist())
        return f"torch.tensor({numbers}, dtype={value.dtype}).reshape({tuple(value.shape)})"
    if isinstance(value, np.ndarray):
        numbers = literal(value.flatten().tolist())
        return f"np.array({numbers}, dtype='{value.dtype}').reshape({value.shape})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        inside = "".join(f"{literal(item)}, " for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(type(value).__name__)


def _source(exercise, implementation) -> str | None:
    """A cell that behaves as an implementation does on this seed's cases; None for no data."""
    cases = make_cases(exercise, SEED)
    lines = ["import numpy as np, torch", "from slmlab import exercise", "calls = []"]
    lines += [f"@exercise({exercise.id!r})"]
    lines += [f"def answer({', '.join(cases[0].arguments)}):", "    calls.append(0)"]
    for place, execution in enumerate(execute(implementation, cases)):
        if isinstance(execution.failure, Failure):
            act = f"raise {_builtin(execution.failure.type_name)}({execution.failure.message!r})"
        else:
            try:
                act = f"return {literal(execution.output)}"
            except TypeError:
                return None
        lines.append(f"    if len(calls) == {place + 1}: {act}")
    return "\n".join(lines)


def _builtin(name: str) -> str:
    return name if name in dir(__import__("builtins")) else "RuntimeError"


def _in_the_notebook(exercise, source: str):
    """What `check` says of the same cell run in this process."""
    found: dict[str, Any] = {}

    def register(name):
        def keep(function):
            found[name] = function
            return function

        return keep

    text = source.replace("from slmlab import exercise", "")
    name = f"<{exercise.id}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {"exercise": register, "__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    return check(exercise, found[exercise.id], SEED)


@pytest.mark.parametrize("which", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_mistakes_get_the_notebook_s_words(grader, which):
    sources = {
        item.id: text
        for item in grader.exercises
        if (text := _source(item, item.mistakes[which].implementation)) is not None
    }
    assert len(sources) > 0.9 * len(grader.exercises)
    grade = grader.grade(submission("mistaken", list(sources.values())))
    for item, exercise in zip(grade.exercises, grader.exercises, strict=True):
        if exercise.id not in sources:
            continue
        report = _in_the_notebook(exercise, sources[exercise.id])
        assert report.diagnosis is not None
        mistake = report.diagnosis.mistake.name if report.diagnosis.mistake else ""
        assert (item.outcome, item.credit, item.sentence, item.mistake) == (
            report.outcome,
            report.credit,
            report.diagnosis.sentence,
            mistake,
        ), exercise.id
    assert sum(bool(item.mistake) for item in grade.exercises) > 0.8 * len(grade.exercises)

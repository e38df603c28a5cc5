"""Blank exercises fail where they should, and the notebooks hold what the exercise packs offer."""

import ast
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from authoring.assignments import BLANK_BODY
from authoring.execution import execute
from tests.notebooks.repository import EXERCISES, ROOT, code_cells, exercise_cells, read

each_notebook = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


def test_there_are_exercises() -> None:
    assert EXERCISES


@each_notebook
def test_a_blank_fails_strict_checking_at_every_exercise_and_only_as_unattempted(
    path: Path,
) -> None:
    notebook = read(path)
    exercises = exercise_cells(notebook)
    assert exercises
    execute(notebook, path.parent, allow_errors=True)
    for identifier, cell in exercises.items():
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert [error.ename for error in errors] == ["CheckFailed"], f"{identifier}: {errors}"
        assert "not started" in errors[0].evalue.lower(), f"{identifier}: {errors[0].evalue}"


@each_notebook
def test_a_blank_gives_nothing_away(path: Path) -> None:
    for identifier, cell in exercise_cells(read(path)).items():
        assert cell.source.count(BLANK_BODY) == 1, identifier
        assert not cell.outputs, identifier
        ast.parse(cell.source)
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text
    assert "HIDDEN TESTS" not in text


@each_notebook
def test_blank_and_solution_differ_in_the_exercise_cells_alone(path: Path) -> None:
    blank, solved = read(path), read(ROOT / "solutions" / path.name)
    assert [cell.id for cell in blank.cells] == [cell.id for cell in solved.cells]
    blank_cells, solved_cells = code_cells(blank), code_cells(solved)
    different = {key for key in blank_cells if blank_cells[key].source != solved_cells[key].source}
    assert different == {cell.id for cell in exercise_cells(blank).values()}


def test_every_offered_exercise_has_its_cell() -> None:
    in_notebooks = [key for path in EXERCISES for key in exercise_cells(read(path))]
    assert len(in_notebooks) == len(set(in_notebooks))
    packs = entry_points(group="slmlab.exercises")
    offered = {
        exercise.id
        for pack in packs
        if pack.dist is not None and pack.dist.name == "slmlab"
        for exercise in pack.load()
    }
    assert set(in_notebooks) == offered

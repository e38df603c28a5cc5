"""Three graders behind one interface: `slmlab grade`, `nbgrader autograde`, `otter run`.

Each works in a folder of its own: prepare() writes what an instructor has before grading, run()
grades it in a process of its own, scores() reads what came out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks._grading_class import (
    Handed,
    bare,
    blanked,
    exercise_of,
    function_of,
    lesson_cells,
    notebook_of,
)
from benchmarks._grading_process import call
from benchmarks._grading_tests import asserts_of
from slmlab.checking import Exercise, registry

ASSIGNMENT = "hw"
Scores = dict[str, dict[str, bool]]


class Way:
    """A grader. version: None where it is not here, with the reason in `left_out`."""

    name = ""
    version: str | None = None
    left_out = ""

    def __init__(self, exercises: Sequence[Exercise], seed: int, cell_seconds: float) -> None:
        self.exercises, self.seed, self.cell_seconds = tuple(exercises), seed, cell_seconds

    def prepare(self, folder: Path, handed: Sequence[Handed]) -> None:
        """Writes the submissions and what is needed to grade them."""
        raise NotImplementedError

    def run(self, folder: Path, seconds: float = 3600, only: str | None = None) -> None:
        """Grades all that prepare() wrote there, or one student; may be called again."""
        raise NotImplementedError

    def scores(self, folder: Path) -> Scores:
        """{student: {exercise: passed}}; a student without a grade is absent."""
        raise NotImplementedError


class Slmlab(Way):
    """Ours, with the default limits but for the time of a cell."""

    name = "slmlab"

    def __init__(self, exercises: Sequence[Exercise], seed: int, cell_seconds: float) -> None:
        super().__init__(exercises, seed, cell_seconds)
        self.version = version("slmlab")

    def prepare(self, folder: Path, handed: Sequence[Handed]) -> None:
        for one in handed:
            place = folder / "submissions" / one.name
            place.mkdir(parents=True)
            (place / "02_quantization.ipynb").write_text(notebook_of(one.cells), encoding="utf-8")

    def run(self, folder: Path, seconds: float = 3600, only: str | None = None) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        given = "submissions"
        if only is not None:
            given = "one"
            shutil.rmtree(folder / given, ignore_errors=True)
            shutil.copytree(folder / "submissions" / only, folder / given / only)
        command = [sys.executable, "-m", "slmlab.cli", "grade", given, "--out", "out"]
        command += ["--exercises", ",".join(item.id for item in self.exercises)]
        command += ["--seed", str(self.seed), "--jobs", "1"]
        said = call([*command, "--cell-seconds", str(self.cell_seconds)], folder, seconds)
        if not (folder / "out" / "class.html").exists():
            raise RuntimeError(f"slmlab grade: {said[-500:]}")

    def scores(self, folder: Path) -> Scores:
        found = {}
        for path in (folder / "out" / "submissions").glob("*/grade.json"):
            grade = json.loads(path.read_text(encoding="utf-8"))
            found[grade["student"]] = {
                item["exercise_id"]: item["outcome"] == "passed" for item in grade["exercises"]
            }
        return found


class Nbgrader(Way):
    """A course with one assignment: after each answer a locked test cell with one assert a case."""

    name = "nbgrader"

    def __init__(self, exercises: Sequence[Exercise], seed: int, cell_seconds: float) -> None:
        super().__init__(exercises, seed, cell_seconds)
        try:
            self.version = version("nbgrader")
        except PackageNotFoundError:
            self.left_out = "nbgrader is not installed"

    def prepare(self, folder: Path, handed: Sequence[Handed]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "c = get_config()",
            'c.CourseDirectory.course_id = "race"',
            f"c.Execute.timeout = {max(1, round(self.cell_seconds))}",
        ]
        (folder / "nbgrader_config.py").write_text("\n".join(lines), encoding="utf-8")
        solved = lesson_cells()
        self._write(folder / "source" / ASSIGNMENT, solved, blank=False)
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", ASSIGNMENT]
        said = call(command, folder, 600)
        if not (folder / "release" / ASSIGNMENT / "02.ipynb").exists():
            raise RuntimeError(f"nbgrader generate_assignment made no release: {said[-500:]}")
        for one in handed:
            place = folder / "submitted" / one.name / ASSIGNMENT
            self._write(place, one.cells, blank=False, repeats=one.repeats_tests)

    def run(self, folder: Path, seconds: float = 3600, only: str | None = None) -> None:
        command = [sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT, "--force"]
        call([*command, *([f"--student={only}"] if only else [])], folder, seconds)

    def scores(self, folder: Path) -> Scores:
        from nbgrader.api import Gradebook, MissingEntry

        found: Scores = {}
        with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "race") as book:
            for place in sorted((folder / "submitted").iterdir()):
                # nbgrader takes the result of a student away where it could not grade it.
                if not (folder / "autograded" / place.name / ASSIGNMENT / "02.ipynb").exists():
                    continue
                try:
                    notebook = book.find_submission_notebook("02", ASSIGNMENT, place.name)
                except MissingEntry:
                    continue
                scores = {grade.name: grade.score for grade in notebook.grades}
                found[place.name] = {
                    item.id: scores.get(f"test-{_slug(item.id)}", 0) == item.points
                    for item in self.exercises
                }
        return found

    def _write(
        self, place: Path, cells: Sequence[str], *, blank: bool, repeats: bool = False
    ) -> None:
        sources: list[str] = []
        metadata: dict[int, Any] = {}
        last = {name: at for at, cell in enumerate(cells) if (name := exercise_of(cell))}
        first = {exercise_of(cell): at for at, cell in reversed(list(enumerate(cells)))}
        for at, cell in enumerate(cells):
            name = exercise_of(cell)
            if name is not None and first[name] == at:
                metadata[len(sources)] = {"nbgrader": _fields(name, solution=True)}
            sources.append(bare(blanked(cell) if blank and name else cell))
            if name is not None and last[name] == at:
                exercise = next(item for item in self.exercises if item.id == name)
                for _ in range(2 if repeats else 1):
                    metadata[len(sources)] = {"nbgrader": _fields(name, points=exercise.points)}
                    sources.append(asserts_of(exercise, function_of(_solved(name)), self.seed))
        place.mkdir(parents=True)
        (place / "02.ipynb").write_text(notebook_of(sources, metadata), encoding="utf-8")


def _slug(exercise_id: str) -> str:
    return exercise_id.replace(".", "-")


def _fields(exercise_id: str, *, solution: bool = False, points: float = 0) -> dict[str, Any]:
    fields: dict[str, Any] = {"schema_version": 3, "task": False, "locked": not solution}
    if solution:
        return fields | {"grade": False, "solution": True, "grade_id": _slug(exercise_id)}
    grade_id = f"test-{_slug(exercise_id)}"
    return fields | {"grade": True, "solution": False, "grade_id": grade_id, "points": points}


def _solved(exercise_id: str) -> str:
    return next(cell for cell in lesson_cells() if exercise_of(cell) == exercise_id)


class Otter(Way):
    """`otter run`, a process a submission, with one test file an exercise.

    It is this Python's where otter-grader is installed there, else that of the environment variable
    SLMLAB_OTTER: a python that has otter-grader and torch.
    """

    name = "otter"

    def __init__(self, exercises: Sequence[Exercise], seed: int, cell_seconds: float) -> None:
        super().__init__(exercises, seed, cell_seconds)
        self.python = os.environ.get("SLMLAB_OTTER", sys.executable)
        asked = "import importlib.metadata as m, torch; print(m.version('otter-grader'))"
        answer = subprocess.run([self.python, "-c", asked], capture_output=True, text=True)
        if answer.returncode == 0:
            self.version = answer.stdout.strip()
        else:
            self.left_out = (
                "otter-grader is not installed here, and SLMLAB_OTTER names no python that has it"
            )

    def prepare(self, folder: Path, handed: Sequence[Handed]) -> None:
        tests = folder / "tests"
        tests.mkdir(parents=True)
        for exercise in self.exercises:
            function = function_of(_solved(exercise.id))
            body = asserts_of(exercise, function, self.seed).replace("\n", "\n    ")
            lines = [
                "from otter.test_files import test_case",
                "OK_FORMAT = False",
                f"name = {_slug(exercise.id)!r}",
                f"points = {exercise.points}",
                f"@test_case(points={exercise.points})",
                f"def test_all({function}):",
                f"    {body}",
            ]
            (tests / f"{_slug(exercise.id)}.py").write_text("\n".join(lines), encoding="utf-8")
        command = [self.python, "-m", "otter", "generate", "-t", "tests", "-o", "autograder.zip"]
        call([*command, "--no-requirements", "--no-environment", "--no-config"], folder, 600)
        for one in handed:
            place = folder / "submitted" / one.name
            place.mkdir(parents=True)
            text = notebook_of([bare(cell) for cell in one.cells])
            (place / "02.ipynb").write_text(text, encoding="utf-8")

    def run(self, folder: Path, seconds: float = 3600, only: str | None = None) -> None:
        for place in sorted((folder / "submitted").glob(only or "*")):
            (place / "results.json").unlink(missing_ok=True)
            command = [self.python, "-m", "otter", "run", "-a", str(folder / "autograder.zip")]
            call([*command, "-o", str(place), "--no-logo", "02.ipynb"], place, seconds)

    def scores(self, folder: Path) -> Scores:
        found: Scores = {}
        for path in (folder / "submitted").glob("*/results.json"):
            tests = json.loads(path.read_text(encoding="utf-8")).get("tests", [])
            passed = {
                item.get("name", "").split(" ")[0]: item.get("score") == item.get("max_score")
                for item in tests
                if item.get("max_score")
            }
            if passed:
                found[path.parent.name] = {
                    item.id: passed.get(_slug(item.id), False) for item in self.exercises
                }
        return found


def quantization_exercises() -> tuple[Exercise, ...]:
    """Lesson 02's, in the order of the notebook."""
    ids = [name for cell in lesson_cells() if (name := exercise_of(cell))]
    return tuple(registry.get(name) for name in ids)

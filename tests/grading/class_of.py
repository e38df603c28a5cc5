"""Submissions made from solutions, blanks and mistakes, and a sandbox that is none."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slmlab.checking import Execution, execute
from slmlab.grading.records import Answered, Cell, CellRun, Limits, Request, Submission, Transcript

SOLUTIONS = Path(__file__).parents[2] / "solutions"
BLANKS = Path(__file__).parents[2] / "exercises"


def code_cells(notebook: Path) -> list[str]:
    """Sources of the code cells of a notebook."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]


def submission(student: str, sources: list[str], **fields: Any) -> Submission:
    """A submission of one notebook."""
    cells = tuple(Cell("homework.ipynb", place, text) for place, text in enumerate(sources))
    digest = hashlib.sha256("\n".join(sources).encode()).hexdigest()
    return Submission(student, f"{student}/homework.ipynb", cells, digest, **fields)


def notebook_text(sources: list[str]) -> str:
    """An .ipynb with these code cells."""
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{place}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for place, text in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def hand_in(folder: Path, student: str, sources: list[str]) -> None:
    """A student's folder with one notebook."""
    place = folder / student
    place.mkdir(parents=True)
    (place / "homework.ipynb").write_text(notebook_text(sources), encoding="utf-8")


_ONE_AT_A_TIME = threading.Lock()


class FakeSandbox:
    """Runs cells in this process: the protocol of a sandbox, and none of its protection."""

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "fake"}

    def run(self, request: Request, limits: Limits | None = None) -> Transcript:
        # The stub stands in for slmlab in the whole process: two threads would swap each other's.
        with _ONE_AT_A_TIME:
            return self._run(request)

    def _run(self, request: Request) -> Transcript:
        answers: dict[str, list[Answered]] = {}
        runs = []
        place = 0

        def exercise(name: str) -> Callable[[Any], Any]:
            def register(function: Any) -> Any:
                if name in request.cases:
                    found = execute(function, request.cases[name])
                    answers.setdefault(name, []).append(Answered(place, found))
                return function

            return register

        stub = types.ModuleType("slmlab")
        stub.__dict__.update(exercise=exercise, hint=print, predict=lambda *_: None)
        space: dict[str, Any] = {"__name__": "__main__"}
        real = sys.modules["slmlab"]
        sys.modules["slmlab"] = stub
        try:
            for place, source in enumerate(request.cells):
                try:
                    exec(compile(source, f"<cell {place}>", "exec"), space)
                    runs.append(CellRun(place, "ran"))
                except Exception as error:
                    runs.append(CellRun(place, "raised", f"{type(error).__name__}: {error}"))
        finally:
            sys.modules["slmlab"] = real
        kept = {name: tuple(found) for name, found in answers.items()}
        return Transcript(kept, tuple(runs))


def answered(cell: int, *outputs: Any) -> Answered:
    """A definition that returned these outputs."""
    return Answered(cell, tuple(Execution(output=value) for value in outputs))


def source_of(function: Callable[..., Any]) -> str:
    """The text of a test's function, as a cell."""
    return inspect.cleandoc(inspect.getsource(function))

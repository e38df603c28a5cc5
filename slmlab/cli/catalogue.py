"""`slmlab list`: the lessons, and the exercises with what the learner has done of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from slmlab.checking import registry
from slmlab.checking.logbook import Logbook
from slmlab.checking.render import LOOKS
from slmlab.cli.workbook import Workbook


@dataclass(frozen=True)
class Lesson:
    """A lesson notebook: its file name without suffix, and the first heading in it."""

    name: str
    title: str


@dataclass(frozen=True)
class ExerciseRow:
    """One exercise as listed; `state` is passed, wrong, error or not started."""

    id: str
    title: str
    points: int
    minutes: int
    difficulty: int
    state: str
    hints: int


def lessons(workbook: Workbook) -> list[Lesson]:
    """The lessons of `workbook`, in order. A notebook without a heading shows its name."""
    found = []
    for name, path in workbook.files().items():
        if name.startswith("notebooks/") and path.suffix == ".ipynb":
            found.append(Lesson(path.stem, _heading(path.read_bytes()) or path.stem))
    return found


def _heading(data: bytes) -> str:
    try:
        for cell in json.loads(data)["cells"]:
            for line in "".join(cell["source"]).splitlines():
                if cell["cell_type"] == "markdown" and line.startswith("# "):
                    return line.removeprefix("# ").strip()
    except (ValueError, KeyError, TypeError):
        pass  # a damaged notebook is still listed, by its file name
    return ""


def exercise_rows(logbook: Logbook) -> tuple[list[ExerciseRow], list[str]]:
    """All installed exercises with their state in `logbook`, and a sentence a broken topic."""
    rows, troubles = [], []
    for topic in registry.topics():
        try:
            items = registry.exercises(topic)
        except (ValueError, TypeError) as error:
            troubles.append(str(error))
            continue
        for item in items:
            record = logbook.exercise(item.id)
            rows.append(
                ExerciseRow(
                    item.id,
                    item.title,
                    item.points,
                    item.minutes,
                    item.difficulty,
                    LOOKS[record.outcome].word,
                    record.hint_rung,
                )
            )
    return rows, troubles

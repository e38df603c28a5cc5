"""What the rooms of grading hand to each other.

collect -> Submission -> Request -> sandbox -> Transcript -> judging -> Grade -> reports. Every
record is frozen, and checks its fields when it is made: a wrong one is found where it arises.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from slmlab.checking import Case, Execution
from slmlab.grading.fields import integer, number, one_of, text, tuple_of

CellStatus = Literal["ran", "raised", "timeout"]
Ended = Literal["finished", "exited", "time", "cpu", "memory", "output", "protocol"]
GradeOutcome = Literal["unattempted", "error", "wrong", "passed", "missing", "not returned"]
GradeStatus = Literal["graded", "stopped", "unreadable", "error"]


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    cell_seconds         wall time of one cell; then it is skipped and the next one runs
    submission_seconds   wall time of the whole submission
    cpu_seconds          CPU time of all its processes together
    memory_mb            MiB, all its processes together, beyond what the imported torch takes
    processes            processes and threads at one time
    open_files           file descriptors of one process
    tmp_mb               MiB in its private /tmp
    output_mb            MiB that it may send back

    Raises TypeError or ValueError where a field is no positive number (the last five: no integer).
    """

    cell_seconds: float = 10
    submission_seconds: float = 60
    cpu_seconds: float = 60
    memory_mb: int = 2048
    processes: int = 32
    open_files: int = 128
    tmp_mb: int = 64
    output_mb: int = 32

    def __post_init__(self) -> None:
        for name in ("cell_seconds", "submission_seconds", "cpu_seconds"):
            number("Limits", name, getattr(self, name), above=0)
        smallest = {"memory_mb": 1, "processes": 1, "open_files": 16, "tmp_mb": 1, "output_mb": 1}
        for name, least in smallest.items():
            integer("Limits", name, getattr(self, name), least)

    def scaled(self, multiplier: float) -> Limits:
        """The same limits with the three times stretched, for a learner with an accommodation.

        Raises ValueError where the multiplier is not a number above 0.
        """
        number("Limits.scaled", "multiplier", multiplier, above=0)
        return dataclasses.replace(
            self,
            cell_seconds=self.cell_seconds * multiplier,
            submission_seconds=self.submission_seconds * multiplier,
            cpu_seconds=self.cpu_seconds * multiplier,
        )

    def to_json(self) -> dict[str, float]:
        """The limits as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Cell:
    """One code cell: the notebook's name, its place among all cells there from 0, and its text."""

    notebook: str
    number: int
    source: str

    def __post_init__(self) -> None:
        text("Cell", "notebook", self.notebook)
        integer("Cell", "number", self.number, 0)
        text("Cell", "source", self.source)


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    source    path as it was found, relative to the folder of submissions
    cells     the code cells, in order; empty where `problem` says why nothing can be run
    sha256    of the submitted bytes, as 64 hexadecimal digits ("" where they could not be read)
    """

    student: str
    source: str
    cells: tuple[Cell, ...]
    sha256: str
    flags: tuple[str, ...] = ()
    problem: str | None = None

    def __post_init__(self) -> None:
        for name in ("student", "source", "sha256"):
            text("Submission", name, getattr(self, name))
        if not self.student:
            raise ValueError("Submission: student is empty; give the folder's or the file's name.")
        tuple_of("Submission", "cells", self.cells, Cell)
        tuple_of("Submission", "flags", self.flags, str)
        if self.problem is not None:
            text("Submission", "problem", self.problem)
            if self.cells:
                raise ValueError("Submission: one with a problem has no cells; pass cells=().")


@dataclass(frozen=True)
class Request:
    """What the sandbox is given: sources of the cells, inputs by exercise id, the seed.

    It holds no expected value.
    """

    cells: tuple[str, ...]
    cases: dict[str, tuple[Case, ...]]
    seed: int

    def __post_init__(self) -> None:
        tuple_of("Request", "cells", self.cells, str)
        integer("Request", "seed", self.seed, 0)
        if not isinstance(self.cases, dict):
            raise TypeError("Request: cases must be a dict from exercise id to a tuple of cases.")
        for name, cases in self.cases.items():
            text("Request", "cases", name)
            tuple_of("Request", f"cases[{name!r}]", cases, Case)


@dataclass(frozen=True)
class Answered:
    """What one definition of an exercise returned: the cell it stands in, one execution a case.

    There are fewer executions than cases where the process ended half-way.
    """

    cell: int
    executions: tuple[Execution, ...]

    def __post_init__(self) -> None:
        integer("Answered", "cell", self.cell, 0)
        tuple_of("Answered", "executions", self.executions, Execution)


@dataclass(frozen=True)
class CellRun:
    """How one cell went; message is the exception in one line, printed the first characters."""

    cell: int
    status: CellStatus
    message: str = ""
    printed: str = ""
    seconds: float = 0

    def __post_init__(self) -> None:
        integer("CellRun", "cell", self.cell, 0)
        one_of("CellRun", "status", self.status, CellStatus)
        text("CellRun", "message", self.message)
        text("CellRun", "printed", self.printed)
        number("CellRun", "seconds", self.seconds)


@dataclass(frozen=True)
class Transcript:
    """What came back from one run in the sandbox.

    answers   exercise id -> every definition of it, in order (a duplicated cell gives two)
    cells     the cells that ran, in order
    ended     "finished", or what ended the run before its last cell
    reason    one sentence for the report; "" where the run finished
    seconds, cpu_seconds   of the whole run, with a second run where a cell had to be left out
    peak_mb   MiB, the most that its processes were seen to hold together
    """

    answers: dict[str, tuple[Answered, ...]]
    cells: tuple[CellRun, ...]
    ended: Ended = "finished"
    reason: str = ""
    seconds: float = 0
    cpu_seconds: float = 0
    peak_mb: float = 0

    def __post_init__(self) -> None:
        if not isinstance(self.answers, dict):
            raise TypeError("Transcript: answers must be a dict from exercise id to a tuple.")
        for name, answers in self.answers.items():
            text("Transcript", "answers", name)
            tuple_of("Transcript", f"answers[{name!r}]", answers, Answered)
        tuple_of("Transcript", "cells", self.cells, CellRun)
        one_of("Transcript", "ended", self.ended, Ended)
        text("Transcript", "reason", self.reason)
        if (self.ended == "finished") != (self.reason == ""):
            raise ValueError("Transcript: give a reason exactly where ended is not 'finished'.")
        for name in ("seconds", "cpu_seconds", "peak_mb"):
            number("Transcript", name, getattr(self, name))


@dataclass(frozen=True)
class ExerciseGrade:
    """The grade of one exercise: points earned, and the diagnosis that the notebook would give."""

    exercise_id: str
    title: str
    points: float
    max_points: float
    outcome: GradeOutcome
    credit: float
    passed: int
    total: int
    sentence: str
    mistake: str = ""
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("exercise_id", "title", "sentence", "mistake"):
            text("ExerciseGrade", name, getattr(self, name))
        one_of("ExerciseGrade", "outcome", self.outcome, GradeOutcome)
        number("ExerciseGrade", "points", self.points)
        number("ExerciseGrade", "max_points", self.max_points)
        number("ExerciseGrade", "credit", self.credit)
        if self.credit > 1:
            raise ValueError("ExerciseGrade: credit is a share of the cases, 0 to 1.")
        integer("ExerciseGrade", "passed", self.passed, 0)
        integer("ExerciseGrade", "total", self.total, self.passed)
        tuple_of("ExerciseGrade", "flags", self.flags, str)


@dataclass(frozen=True)
class Grade:
    """The grade of one submission, with what an audit needs.

    status   "graded"; "stopped" where a limit ended it (what had come back counts); "unreadable";
             "error" where the grader failed, not the student
    audit    plain data: versions, seed, limits, sandbox, timings, cells
    """

    student: str
    source: str
    sha256: str
    exercises: tuple[ExerciseGrade, ...]
    total: float
    max_total: float
    status: GradeStatus
    reason: str = ""
    flags: tuple[str, ...] = ()
    audit: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("student", "source", "sha256", "reason"):
            text("Grade", name, getattr(self, name))
        tuple_of("Grade", "exercises", self.exercises, ExerciseGrade)
        number("Grade", "total", self.total)
        number("Grade", "max_total", self.max_total)
        one_of("Grade", "status", self.status, GradeStatus)
        tuple_of("Grade", "flags", self.flags, str)
        if not isinstance(self.audit, dict):
            raise TypeError("Grade: audit must be a dict of plain data.")

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` turns back into an equal Grade.

        Raises ValueError where the audit is not plain data: a tuple would come back as a list.
        """
        content = dataclasses.asdict(self) | {"audit": self.audit}
        try:
            stored = json.dumps(content, allow_nan=False, indent=1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Grade: audit must be JSON data: {error}.") from None
        if json.loads(stored)["audit"] != self.audit:
            raise ValueError(
                "Grade: audit must be made of dicts with text keys, lists and scalars."
            )
        return stored

    @classmethod
    def from_json(cls, stored: str) -> Grade:
        """The Grade that :meth:`to_json` wrote; ValueError where the text is not one."""
        try:
            content = json.loads(stored)
            exercises = tuple(
                ExerciseGrade(**(item | {"flags": tuple(item["flags"])}))
                for item in content.pop("exercises")
            )
            flags = tuple(content.pop("flags"))
            return cls(**content, exercises=exercises, flags=flags)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Grade.from_json: this text is not a stored grade: {error}."
            ) from None

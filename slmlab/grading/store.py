"""A folder of results: one grade a submission, written whole or not at all.

::

    DIR/run.json                          what was asked for: the plan, the folder of submissions
    DIR/submissions/NAME/grade.json       one grade with its audit
    DIR/submissions/NAME/feedback.html    the same for the student
    DIR/overrides.csv                     the instructor's; never written again once it is there
    DIR/grades.csv, class.html, grades.json    made from the files above

grade.json is the record that a submission is finished. Everything else is made from it, so a killed
run loses only what was being graded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slmlab.grading.plan import Plan
from slmlab.grading.records import Grade, Submission
from slmlab.grading.stored import fits, grade_of, stored_text

RUN, GRADE, FEEDBACK, SUBMISSIONS = "run.json", "grade.json", "feedback.html", "submissions"
LOCK = ".grading.lock"
REGRADED = "regraded"  # in the audit of a grade that `slmlab regrade` made


class Store:
    """The folder of one grading run. Hold :meth:`locked` while writing."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @contextlib.contextmanager
    def locked(self) -> Any:
        """Makes the folder; ValueError where another process grades into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.folder} is in use by another run of the grader: wait for it, or give "
                "another --out."
            ) from None
        try:
            self._sweep()
            yield self
        finally:
            lock.release()

    def is_started(self) -> bool:
        """Whether there is a grade here."""
        return any((self.folder / SUBMISSIONS).glob(f"*/{GRADE}"))

    def has_run(self) -> bool:
        """Whether it is written down what was asked for here."""
        return (self.folder / RUN).exists()

    def read_run(self) -> dict[str, Any]:
        """What run.json holds; ValueError where there is none or it cannot be read."""
        path = self.folder / RUN
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            Plan.from_json(content["plan"])
            _check_run(content)
        except FileNotFoundError:
            raise ValueError(
                f"{self.folder} holds no grading run: `slmlab grade SUBMISSIONS --out "
                f"{self.folder}` makes one."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}): grade into a new folder with --out."
            ) from None
        return dict(content)

    def write_run(self, content: dict[str, Any]) -> None:
        """Writes run.json."""
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        write_atomic(self.folder / RUN, text)

    def place(self, student: str) -> Path:
        """The folder of one student."""
        return self.folder / SUBMISSIONS / safe_name(student)

    def finished(self, submission: Submission, plan: Plan) -> Grade | None:
        """The stored grade, where it is of these bytes and was made by an equal plan.

        What `regrade` made counts for the same bytes whatever the plan says: it was asked for.
        A row whose grader failed never counts.
        """
        grade = self.grade(submission.student, plan)
        if grade is None or grade.status == "error" or grade.sha256 != submission.sha256:
            return None
        if grade.audit.get(REGRADED):
            same = tuple(item.exercise_id for item in grade.exercises) == plan.exercises
            return grade if same else None
        return grade if grade.audit.get("fingerprint") == plan.fingerprint(submission) else None

    def grade(self, student: str, plan: Plan | None = None) -> Grade | None:
        """The stored grade of a student; None where there is none, or it is damaged, or its
        exercises are not those of the plan."""
        try:
            text = (self.place(student) / GRADE).read_text(encoding="utf-8")
            grade = grade_of(text)
        except (OSError, ValueError, RecursionError):
            return None
        if grade.student != student or (plan is not None and not fits(grade, plan)):
            return None
        return grade

    def check_grades(self, students: Iterable[str], plan: Plan) -> None:
        """Raises ValueError where a grade is stored and damaged: a report would lose its row."""
        for student in students:
            path = self.place(student) / GRADE
            if path.exists() and self.grade(student, plan) is None:
                raise ValueError(
                    f"{path} is damaged, or of other exercises than this run: `slmlab grade "
                    f"SUBMISSIONS --out {self.folder} --resume` grades it again."
                )

    def write_grade(self, grade: Grade) -> None:
        """Writes one grade; on return it is on the disk."""
        place = self.place(grade.student)
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / GRADE, stored_text(grade))

    def write_feedback(self, student: str, html: str) -> None:
        """Writes a student's page where it differs from the one that is there."""
        place = self.place(student)
        place.mkdir(parents=True, exist_ok=True)
        write_if_different(place / FEEDBACK, html)

    def _sweep(self) -> None:
        """Removes what a killed run left half-written."""
        for folder in (self.folder, *(self.folder / SUBMISSIONS).glob("*")):
            for path in folder.glob(".*.partial"):
                with contextlib.suppress(OSError):
                    path.unlink()


def _check_run(content: dict[str, Any]) -> None:
    """Raises ValueError where run.json lacks what is read from it besides the plan."""
    students = content.get("students")
    if not isinstance(students, list) or not all(isinstance(n, str) and n for n in students):
        raise ValueError("students must be a list of names")
    if len(set(students)) < len(students):
        raise ValueError("students names one twice")
    if not isinstance(content.get("submissions"), str):
        raise ValueError("submissions must be the path of a folder")


def safe_name(student: str) -> str:
    """A file name for a student: the same one every time, different for different students, on
    file systems that ignore case too, and never a path.

    Other names than short plain ones in lower case get eight digits of their hash.
    """
    plain = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", student)
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", student)
    if plain and not device and not re.search(r"-[0-9a-f]{8}$", student):
        return student
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    text = unicodedata.normalize("NFC", student)
    # At most 60 characters: of four bytes each they still fit a file name of 255 bytes.
    words = re.sub(r"[^\w-]+", "-", text.encode("utf-8", "ignore").decode())[:48].strip("-_")
    return f"{words or 'student'}-{digest}"


def write_atomic(path: Path, text: str) -> None:
    """Writes a text so that a reader, or a kill at any moment, meets the old file or the new one.

    A lone surrogate, which a file name may hold, is written as its escape.
    """
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_if_different(path: Path, text: str) -> None:
    """:func:`write_atomic` where the file does not hold this text already."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    write_atomic(path, text)

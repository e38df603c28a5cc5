"""A folder of anything -> one Submission a student."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from slmlab.grading.collect.archive import ArchiveError, list_archive
from slmlab.grading.collect.entries import Entry
from slmlab.grading.collect.folder import list_folder, unread
from slmlab.grading.collect.layout import Item, items_of
from slmlab.grading.collect.student import read_student
from slmlab.grading.records import Submission

MEND = "put a folder, a zip or a notebook per student there"


def collect(folder: str | Path, exercises: Iterable[str] | None = None) -> list[Submission]:
    """Read what students handed in, in the order of their names.

    folder      a folder with a folder, a zip or a notebook per student, as downloaded from Canvas,
                Moodle or GitHub Classroom, or all of that in one zip
    exercises   ids that are graded: notebooks of a student that name none of them are left out
                where others do

    Nothing is executed, unpickled or unpacked to disk, and no link is followed. What cannot be read
    is a Submission with a problem. The student is named as layout.py says.

    sha256 is that of the notebook's bytes. Of several notebooks it is the hash of the lines
    "HASH  NAME" that sha256sum prints for them.

    Raises ValueError where the folder does not exist, cannot be listed or holds no submission.
    """
    if isinstance(exercises, str):
        raise TypeError("exercises must be a sequence of exercise ids: write [id] for one.")
    wanted = None if exercises is None else frozenset(exercises)
    root = Path(folder)
    with ExitStack() as open_files:
        entries, parent = _entries(root, open_files)
        students: dict[str, list[Item]] = {}
        for item in items_of(entries, parent):
            students.setdefault(item.student, []).append(item)
        if not students:
            raise ValueError(f"SUBMISSIONS {root} holds no submission: {MEND}.")
        names = sorted(students, key=lambda name: (name.casefold(), name))
        return [_one(name, students[name], wanted) for name in names]


def _one(student: str, items: list[Item], wanted: frozenset[str] | None) -> Submission:
    try:
        return read_student(student, items, wanted)
    except Exception as error:  # one student's file must not cost the others their grades
        problem = f"{items[0].top} could not be read ({type(error).__name__})."
        return Submission(student, items[0].top, (), "", problem=problem)


def _entries(root: Path, open_files: ExitStack) -> tuple[list[Entry], str]:
    """All files, and the name of the folder that they lie in."""
    where = f"SUBMISSIONS {root}"
    try:
        if root.is_dir():
            return list_folder(root), root.resolve().name
        if not root.exists():
            raise ValueError(f"{where} does not exist: name the folder of what was handed in.")
        if not root.is_file() or root.suffix.lower() != ".zip":
            raise ValueError(f"{where} is neither a folder nor a zip: {MEND}.")
        file = open_files.enter_context(root.open("rb"))
        entries = list_archive(file, (), root.stat().st_mtime)
    except OSError as error:
        raise ValueError(f"{where} {unread(error)}: name a folder that you may read.") from None
    except ArchiveError as error:
        raise ValueError(f"{where} {error}: download it again, or unpack it.") from None
    return _unwrapped(entries, root.stem)


def _unwrapped(entries: list[Entry], stem: str) -> tuple[list[Entry], str]:
    """A zip of the folder `class` holds class/ alone: the students are one step further down."""
    tops = {entry.parts[0] for entry in entries}
    top = tops.pop() if len(tops) == 1 else ""
    wraps = top == stem or top.endswith("submissions")
    if not wraps or any(len(entry.parts) == 1 for entry in entries if not entry.is_folder):
        return entries, stem
    inner = [
        dataclasses.replace(entry, parts=entry.parts[1:])
        for entry in entries
        if len(entry.parts) > 1
    ]
    return inner, top

"""Whose file is it? The rules of the places that submissions are downloaded from.

plain              a folder, a zip or a notebook a student: its name without the suffix
Canvas             name_[LATE_]USER_FILE_original.ipynb, all in one folder; FILE grows with time
Moodle             "Full Name_NUMBER_assignsubmission_file_/", or the same before a file's name
GitHub Classroom   assignment-username/ in assignment-submissions/, each a git repository

Sources: canvas.instructure.com, "How do I download all student submissions for an assignment?";
docs.moodle.org, "Assignment activity", "Download all submissions"; cli.github.com,
`gh classroom clone student-repos`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from slmlab.grading.collect.entries import Entry

_CANVAS = re.compile(
    r"(?P<name>[^_]+)_(?P<late>LATE_)?(?P<user>\d+)_(?:(?P<file>\d+)_(?P<original>.+)|text\.html)"
)
_MOODLE = re.compile(r"(?P<student>.+_\d+)_assignsubmission_(?:file|onlinetext)_?(?P<original>.*)")
_RESUBMITTED = re.compile(r"-\d+$")

# Beside the students' things at the top of a folder, these are the instructor's or the system's.
_NOT_HANDED_IN = frozenset({"desktop.ini", "thumbs.db", "assignment.json", "readme", "license"})
_NOT_HANDED_IN_SUFFIXES = frozenset({".csv", ".md", ".log", ".yml", ".yaml", ".toml"})


@dataclass(frozen=True)
class Item:
    """One thing at the top of the folder of submissions: a student's folder, or one file.

    file      what tells this file from others of the same student; "" where one replaces the other
    order     the later of two is the larger
    """

    student: str
    file: str
    order: tuple[float, ...]
    entries: tuple[Entry, ...]
    late: bool = False

    @property
    def may_hold_work(self) -> bool:
        """A notebook or a zip is among its files."""
        return any(
            entry.suffix in (".ipynb", ".zip") and entry.open is not None for entry in self.entries
        )

    @property
    def top(self) -> str:
        """Its name in the folder of submissions."""
        return self.entries[0].parts[0]


def items_of(entries: Iterable[Entry], parent: str) -> list[Item]:
    """Group the files below the folder of submissions, whose own name is `parent`."""
    tops: dict[str, list[Entry]] = {}
    for entry in entries:
        tops.setdefault(entry.parts[0], []).append(entry)
    items = []
    for name, group in tops.items():
        loose = len(group) == 1 and len(group[0].parts) == 1 and not group[0].is_folder
        if loose and _is_instructors(group[0]):
            continue
        group.sort(key=lambda entry: entry.parts)
        items.append(_loose(group[0]) if loose else _folder(name, group, parent))
    return items


def _is_instructors(entry: Entry) -> bool:
    return entry.name.lower() in _NOT_HANDED_IN or entry.suffix in _NOT_HANDED_IN_SUFFIXES


def _loose(entry: Entry) -> Item:
    match = _CANVAS.fullmatch(entry.name)
    if match:
        original = _RESUBMITTED.sub("", (match["original"] or "text").rsplit(".", 1)[0])
        order = (float(match["file"] or 0), entry.time)
        student = f"{match['name']}_{match['user']}"
        return Item(student, original, order, (entry,), bool(match["late"]))
    match = _MOODLE.fullmatch(entry.name)
    if match:
        return Item(match["student"], match["original"], (entry.time,), (entry,))
    # a link to a folder has no suffix, only perhaps a dot in the student's name
    cut = not entry.trouble or entry.suffix in (".ipynb", ".zip")
    return Item(entry.stem if cut else entry.name, "", (entry.time,), (entry,))


def _folder(name: str, entries: list[Entry], parent: str) -> Item:
    match = _MOODLE.fullmatch(name)
    student = match["student"] if match else name
    assignment, found, rest = parent.rpartition("-submissions")
    if found and not rest and name.startswith(f"{assignment}-") and len(name) > len(assignment) + 1:
        student = name[len(assignment) + 1 :]
    times = [entry.time for entry in entries if entry.suffix in (".ipynb", ".zip")]
    return Item(student, "", (max(times, default=0.0),), tuple(entries))

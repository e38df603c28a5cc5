"""`slmlab release`: a handout of chosen exercises with a due date."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import slmlab
from slmlab.checking import registry
from slmlab.checking.spec import Exercise
from slmlab.grading.pack.cutting import cut
from slmlab.grading.pack.due import due_words
from slmlab.grading.pack.found import Pack, handouts_of, offering
from slmlab.grading.pack.handout import KERNEL, Handout, read_handout

ASSIGNMENT = "assignment.json"
FORMAT = 1
HAND_IN = "Save this notebook and hand in the file where your course collects it."


@dataclass(frozen=True)
class Release:
    """What was written: the exercises in the order of the handout, and the files."""

    exercises: tuple[Exercise, ...]
    files: tuple[Path, ...]

    @property
    def points(self) -> int:
        """The most that can be earned."""
        return sum(item.points for item in self.exercises)


def release(
    wanted: Sequence[str],
    out: str | Path,
    due: datetime,
    *,
    workbook: Sequence[Path],
    packs: Sequence[Pack] = (),
    title: str | None = None,
    hand_in: str = HAND_IN,
    overwrite: bool = False,
) -> Release:
    """Write one notebook for each source that a chosen exercise comes from, and assignment.json.

    wanted     ids and topics
    workbook   the workbook's exercise notebooks
    packs      open packs (open_pack) that are not installed; installed ones are found by topic

    Cell ids and nbgrader's metadata stay as they are, and every exercise is blank.

    Raises ValueError where an id is unknown or no handout has its cell, a cell is not blank, or a
    file would be overwritten without `overwrite`.
    """
    chosen = _chosen(wanted)
    sources = _sources(chosen, workbook, packs)
    order: list[Exercise] = []
    notebooks: dict[str, bytes] = {}
    listed = []
    for handout, own in sources:
        places = handout.places()
        own.sort(key=lambda item: places[item.id])
        order += own
        name = f"{_stem(handout.path, own)}.ipynb"
        if name in notebooks:
            raise ValueError(f"Two handouts are named {name}: rename one of them ({handout.path}).")
        heading = title if title and len(sources) == 1 else _title(title, own)
        first = _first_cell(heading, own, due, hand_in)
        hidden = handout.path not in workbook
        cells = cut(handout, [item.id for item in own], first, hidden)
        notebooks[name] = _notebook(cells, heading, due, handout.path.name)
        listed += [_entry(item, name) for item in own]
    content = {
        "slmlab_assignment": FORMAT,
        "title": title or _title(None, order),
        "due": due.isoformat(timespec="minutes"),
        "points": sum(item.points for item in order),
        "minutes": sum(item.minutes for item in order),
        "exercises": listed,
        "notebooks": {name: hashlib.sha256(data).hexdigest() for name, data in notebooks.items()},
        "versions": _versions(order, packs),
    }
    data = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    files = _write(Path(out).expanduser(), notebooks | {ASSIGNMENT: data}, overwrite)
    return Release(tuple(order), files)


def _chosen(wanted: Sequence[str]) -> dict[str, Exercise]:
    found: dict[str, Exercise] = {}
    for word in wanted:
        items: Iterable[Exercise]
        items = registry.exercises(word) if word in registry.topics() else [registry.get(word)]
        found |= {item.id: item for item in items}
    if not found:
        raise ValueError("IDS is empty: name at least one exercise or topic.")
    return found


def _sources(
    chosen: dict[str, Exercise], workbook: Sequence[Path], packs: Sequence[Pack]
) -> list[tuple[Handout, list[Exercise]]]:
    """(handout, its chosen exercises): the workbook's by lesson number, then the packs'."""
    paths = [
        *sorted(workbook, key=lambda path: path.name),
        *(path for pack in packs for path in pack.handouts),
    ]
    for topic in dict.fromkeys(item.topic for item in chosen.values()):
        owner = offering(topic)
        if owner is not None and owner.name != "slmlab":
            paths += [path for path in handouts_of(owner) if path not in paths]
    left = dict(chosen)
    found = []
    for path in paths:
        if not left:
            break
        handout = read_handout(path)
        own = [left.pop(name) for name in handout.places() if name in left]
        if own:
            found.append((handout, own))
    if left:
        raise ValueError(
            f"No handout has a cell for {', '.join(left)}: an exercise of the workbook stands in "
            "exercises/, one of a pack in its handout.py or handout.ipynb (see --pack)."
        )
    return found


def _stem(path: Path, own: Sequence[Exercise]) -> str:
    """A pack's handout is called handout.py: in a student's folder the topic says more."""
    return own[0].topic if path.stem == "handout" else path.stem


def _title(title: str | None, own: Sequence[Exercise]) -> str:
    topics = ", ".join(dict.fromkeys(item.topic for item in own))
    return f"{title or 'Exercises'}: {topics}"


def _first_cell(title: str, own: Sequence[Exercise], due: datetime, hand_in: str) -> str:
    points = sum(item.points for item in own)
    rows = [f"| `{item.id}` | {item.title} | {item.points} | {item.minutes} |" for item in own]
    return "\n".join(
        [
            f"# {title}",
            f"**Due: {due_words(due)}.** {points} {'point' if points == 1 else 'points'}, about "
            f"{sum(item.minutes for item in own)} minutes.",
            "",
            "| exercise | | points | minutes |",
            "|---|---|---|---|",
            *rows,
            "",
            "Replace the line that raises `NotImplementedError`, and run the cell. Keep the line "
            "with `@exercise` and the function's name and parameters: your answer is found by "
            "them. Add cells where you need them. Points are given for each case that your "
            "function answers, with other inputs than those you see here.",
            "",
            hand_in,
        ]
    )


def _notebook(cells: list[dict[str, Any]], title: str, due: datetime, source: str) -> bytes:
    about = {"assignment": title, "due": due.isoformat(timespec="minutes"), "source": source}
    content = {
        "cells": [cell | {"source": cell["source"].splitlines(True)} for cell in cells],
        "metadata": KERNEL | {"slmlab": about},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _entry(item: Exercise, notebook: str) -> dict[str, Any]:
    return {
        "id": item.id,
        "title": item.title,
        "points": item.points,
        "minutes": item.minutes,
        "notebook": notebook,
    }


def _versions(order: Sequence[Exercise], packs: Sequence[Pack]) -> dict[str, str]:
    found = {"slmlab": slmlab.__version__}
    for topic in dict.fromkeys(item.topic for item in order):
        opened = [pack for pack in packs if topic in pack.topics]
        owner = opened[0] if opened else offering(topic)
        if owner is not None and owner.name != "slmlab":
            found[owner.name] = owner.version
    return found


def _write(out: Path, files: dict[str, bytes], overwrite: bool) -> tuple[Path, ...]:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder.")
    taken = [name for name in files if (out / name).exists()]
    if taken and not overwrite:
        raise ValueError(
            f"--out {out} holds {', '.join(taken)} already: choose another folder, or add "
            "--overwrite."
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        handle, temporary = tempfile.mkstemp(dir=out, prefix=".slmlab-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out / name)
    return tuple(out / name for name in files)

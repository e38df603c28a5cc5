"""One notebook file into code cells. Nothing in it is run, and only JSON is read.

Format: nbformat 4 (nbformat.readthedocs.io, "The Notebook file format") keeps cells at the top with
"source"; nbformat 3 keeps them in worksheets with "input".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from slmlab.grading.collect.archive import ArchiveError
from slmlab.grading.collect.entries import Entry
from slmlab.grading.collect.folder import unread
from slmlab.grading.collect.named import ids_named
from slmlab.grading.collect.trimming import TooLarge, Trimmed, without_outputs
from slmlab.grading.records import Cell

SAVE_AGAIN = "open it in JupyterLab, save it, and hand in the file again"


@dataclass(frozen=True)
class Notebook:
    """What one file gave. problem is a clause without subject, None where cells were read."""

    entry: Entry
    cells: tuple[Cell, ...] = ()
    sha256: str = ""
    flags: tuple[str, ...] = ()
    problem: str | None = None
    size: int = 0

    @property
    def ids(self) -> frozenset[str]:
        """The exercises that its cells name."""
        return frozenset(ids_named(self.cells))


def read_notebook(entry: Entry, limit: int) -> Notebook:
    """Read at most `limit` bytes of `entry`. Raises nothing.

    The cells' notebook is its path inside what the student handed in.
    """
    if entry.open is None:
        return Notebook(entry, problem=entry.trouble)
    try:
        with entry.open() as stream:
            trimmed = without_outputs(stream, limit)
    except OSError as error:
        return Notebook(entry, problem=unread(error))
    except TooLarge as error:
        return Notebook(
            entry, problem=f"{error}: clear its outputs and hand it in again", size=limit
        )
    except ArchiveError as error:
        return Notebook(entry, problem=str(error))
    read = Notebook(entry, sha256=trimmed.sha256, size=trimmed.size)
    content, problem = _parse(trimmed)
    if problem is not None:
        return replace(read, problem=problem)
    kind, cells, problem = _cells_of(content)
    if problem is not None:
        return replace(read, problem=problem)
    name = "/".join(entry.parts[1:]) or entry.name
    code, odd = _code_cells(cells, name)
    flags = [kind] if kind else []
    if odd:
        flags.append(f"{odd} malformed {'cell' if odd == 1 else 'cells'} left out")
    problem = None if code else "holds no code cell"
    return replace(read, cells=code, flags=tuple(flags), problem=problem)


def _parse(trimmed: Trimmed) -> tuple[Any, str | None]:
    if not trimmed.size:
        return None, "is an empty file"
    try:
        # json finds out by itself whether bytes are UTF-8, UTF-16 or UTF-32
        return json.loads(trimmed.data), None
    except RecursionError:
        return None, f"is nested too deeply to be a notebook: {SAVE_AGAIN}"
    except ValueError:  # JSONDecodeError, UnicodeDecodeError, a number of 5,000 digits
        return None, f"is not JSON, so no notebook: {SAVE_AGAIN}"


def _cells_of(content: Any) -> tuple[str, list[Any], str | None]:
    """A flag ("" for none), the cells, and the problem."""
    if not isinstance(content, dict):
        return "", [], f"is JSON but no notebook: {SAVE_AGAIN}"
    version = content.get("nbformat")
    version = version if type(version) is int else None
    if version is not None and version >= 5:
        return "", [], f"has nbformat {version}, which is not known yet: save it as nbformat 4"
    if version is not None and version < 3:
        return "", [], f"has nbformat {version}, from before 2013: {SAVE_AGAIN}"
    cells = content.get("cells")
    if isinstance(cells, list) and version != 3:
        return ("" if version == 4 else "no nbformat, read as 4"), cells, None
    sheets = content.get("worksheets")
    if isinstance(sheets, list) and version == 3:
        found: list[Any] = []
        for sheet in sheets:
            inner = sheet.get("cells") if isinstance(sheet, dict) else None
            found += inner if isinstance(inner, list) else []
        return "nbformat 3", found, None
    return "", [], f"is JSON but no notebook (it has no list of cells): {SAVE_AGAIN}"


def _code_cells(cells: list[Any], name: str) -> tuple[tuple[Cell, ...], int]:
    found, odd = [], 0
    for number, cell in enumerate(cells):
        if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
            odd += 1
        elif cell["cell_type"] == "code":
            source = _text(cell.get("source", cell.get("input")))
            if source is None:
                odd += 1
            else:
                found.append(Cell(name, number, source))
    return tuple(found), odd


def _text(source: Any) -> str | None:
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return None
    # Half a UTF-16 pair, which JSON can spell, has no UTF-8 to be sent to the sandbox as.
    return "".join(_whole(source)) if not source.isascii() else source


def _whole(source: str) -> Iterator[str]:
    for letter in source:
        yield "\N{REPLACEMENT CHARACTER}" if "\ud800" <= letter <= "\udfff" else letter

"""What one student handed in -> a Submission."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO

from slmlab.grading.collect.archive import ArchiveError, list_archive
from slmlab.grading.collect.attempts import Reading, choose, latest
from slmlab.grading.collect.entries import Entry, natural
from slmlab.grading.collect.folder import unread
from slmlab.grading.collect.layout import Item
from slmlab.grading.collect.notebook import Notebook, read_notebook
from slmlab.grading.collect.trimming import MAX_READ
from slmlab.grading.records import Submission

MAX_NOTEBOOKS = 100
MAX_ARCHIVES = 10
MAX_ARCHIVE_BYTES = 256 << 20  # of a zip inside a zip, which is copied to a temporary file
MAX_CODE = 2 << 20  # letters of all cells together
MAX_CELLS = 5_000  # code cells
MAX_FLAGS = 12

_OTHER_ARCHIVES = frozenset({".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})


@dataclass
class _Pile:
    """All that a student's items hold. troubles are clauses with their subject."""

    notebooks: list[tuple[Notebook, Item]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)
    archives: int = 0
    bytes_read: int = 0


def read_student(student: str, items: Sequence[Item], wanted: frozenset[str] | None) -> Submission:
    """The submission that `items`, all of one student, make. wanted: the graded ids, None for all."""
    chosen, flags = latest(items)
    pile = _Pile()
    with ExitStack() as open_files:
        for item in chosen:
            for entry in item.entries:
                _add(pile, entry, item, open_files)
    readings = []
    for notebook, item in pile.notebooks:
        if notebook.problem is not None:
            pile.troubles.append(f"{notebook.entry.path} {notebook.problem}")
        else:
            ids = notebook.ids if wanted is None else notebook.ids & wanted
            readings.append(Reading(notebook, item.order, ids))
    kept, more = choose(readings)
    taken = [reading.notebook for reading in kept]
    taken.sort(key=lambda notebook: (natural(notebook.entry.name), notebook.entry.parts))
    flags += more
    if not taken:
        return _unreadable(student, chosen[0].top, pile, flags)
    for notebook in taken:
        end = f" ({notebook.entry.path})" if len(taken) > 1 else ""
        flags += [flag + end for flag in notebook.flags]
    flags += pile.troubles
    cells = tuple(cell for notebook in taken for cell in notebook.cells)
    source = taken[0].entry.path if len(taken) == 1 else chosen[0].top
    problem = None
    if sum(len(cell.source) for cell in cells) > MAX_CODE:
        problem = (
            f"{source} holds more than {MAX_CODE >> 20} MB of code: hand in the exercises alone."
        )
        cells = ()
    elif len(cells) > MAX_CELLS:
        problem = (
            f"{source} holds {len(cells):,} code cells, more than {MAX_CELLS:,}: hand in the "
            "exercises alone."
        )
        cells = ()
    return Submission(student, source, cells, _sha256(taken), _few(flags), problem)


def _add(pile: _Pile, entry: Entry, item: Item, open_files: ExitStack) -> None:
    """Put `entry` on the pile. A zip is opened; one inside it is not."""
    if entry.trouble:
        pile.troubles.append(f"{entry.path} {entry.trouble}")
    elif entry.is_folder:
        return
    elif entry.suffix == ".ipynb":
        if len(pile.notebooks) >= MAX_NOTEBOOKS:
            pile.troubles.append(f"{entry.path} is not read: {MAX_NOTEBOOKS} notebooks are enough")
            return
        notebook = read_notebook(entry, MAX_READ - pile.bytes_read)
        pile.bytes_read += notebook.size
        pile.notebooks.append((notebook, item))
    elif entry.suffix != ".zip":
        pile.others.append(entry)
    elif entry.zipped_in:
        pile.troubles.append(f"{entry.path} is a zip inside a zip, which is not opened")
    elif pile.archives >= MAX_ARCHIVES:
        pile.troubles.append(f"{entry.path} is not opened: {MAX_ARCHIVES} zips are enough")
    else:
        pile.archives += 1
        try:
            members = list_archive(_seekable(entry, open_files), entry.parts, entry.time)
        except OSError as error:
            pile.troubles.append(f"{entry.path} {unread(error)}")
        except ArchiveError as error:
            pile.troubles.append(f"{entry.path} {error}")
        else:
            for member in members:
                _add(pile, member, item, open_files)


def _seekable(entry: Entry, open_files: ExitStack) -> IO[bytes]:
    assert entry.open is not None  # an entry without it has a trouble
    stream = open_files.enter_context(entry.open())
    if stream.seekable():
        return stream
    copy = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115 - closed by the stack
    open_files.enter_context(copy)
    while piece := stream.read(1 << 20):
        copy.write(piece)
        if copy.tell() > MAX_ARCHIVE_BYTES:
            raise ArchiveError(f"is larger than {MAX_ARCHIVE_BYTES >> 20} MB")
    return copy


def _unreadable(student: str, top: str, pile: _Pile, flags: list[str]) -> Submission:
    """No notebook gave a cell: say what was found instead, the most telling thing first."""
    hashes = [notebook.sha256 for notebook, _ in pile.notebooks if notebook.sha256]
    rest = pile.troubles[1:]
    if pile.troubles:
        reason = pile.troubles[0]
    elif pile.others:
        other = min(
            pile.others, key=lambda entry: (entry.suffix not in _OTHER_ARCHIVES, entry.parts)
        )
        reason = f"{other.path} is no notebook: hand in the .ipynb file"
        if other.suffix in _OTHER_ARCHIVES:
            reason = f"{other.path} is not opened: hand in the .ipynb file, or a .zip of it"
    else:
        reason = f"{top} is empty: hand in the .ipynb file"
    sha256 = hashes[0] if len(hashes) == 1 else ""
    return Submission(student, top, (), sha256, _few([*flags, *rest]), f"{reason}.")


def _sha256(notebooks: Sequence[Notebook]) -> str:
    if len(notebooks) == 1:
        return notebooks[0].sha256
    lines = [f"{notebook.sha256}  {notebook.entry.path}\n" for notebook in notebooks]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _few(flags: Iterable[str]) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(flags))
    if len(distinct) <= MAX_FLAGS:
        return tuple(distinct)
    return (*distinct[: MAX_FLAGS - 1], f"and {len(distinct) - MAX_FLAGS + 1} more")

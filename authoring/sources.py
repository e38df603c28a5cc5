"""Find the hand-written sources and read each into a notebook with fixed ids and metadata.

A source is a jupytext py:percent file. Nothing about cells is written by hand: ids follow the
order (`01-007` in a lesson, `01-x007` in exercises), and a code cell of exercises.py that carries
`@exercise("topic.name")` over a function with a solution region becomes nbgrader's solution cell.
In markdown, `](exercise:topic.name)` becomes the link to that cell.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from authoring.failure import BuildError

MAX_LESSON_CODE_CELLS = 25
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"

_TOPIC = re.compile(r"(\d\d)_[a-z0-9_]+")
_EXERCISE = re.compile(r"""^@(?:\w+\.)?exercise\(\s*["']([^"']+)["']""", re.MULTILINE)
_EXERCISE_ID = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")
# What nbgrader looks for, anywhere in a line: a region in other words would be cut as well.
_MARK = re.compile("(BEGIN|END) SOLUTION")
_LINK = re.compile(r"\]\(exercise:([^)\s]+)\)")

_NOTEBOOK_METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


@dataclass(frozen=True)
class Source:
    """One hand-written file: `path` on disk, `name` relative to the repository, posix style."""

    path: Path
    name: str
    topic: str
    is_lesson: bool

    @property
    def sha256(self) -> str:
        """Hash of the text; line endings do not count, so that a Windows checkout agrees."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """The file's text; BuildError where it cannot be read or is not UTF-8."""
        try:
            return self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BuildError(
                f"{self.name} is not UTF-8 text (byte {error.start}): save it as UTF-8."
            ) from None
        except OSError as error:
            raise BuildError(f"{self.name} cannot be read ({error.strerror}).") from None

    @property
    def cell_prefix(self) -> str:
        """What every cell id of this file starts with: "01-" or "01-x"."""
        return self.topic[:2] + ("-" if self.is_lesson else "-x")


def find_sources(root: Path) -> list[Source]:
    """Every lesson.py and exercises.py of authoring/NN_topic/, in reading order.

    Raises BuildError where two topics share a number: their cell ids would collide.
    """
    sources: list[Source] = []
    numbers: dict[str, str] = {}
    for folder in sorted((root / "authoring").iterdir()):
        match = _TOPIC.fullmatch(folder.name)
        if not match or not folder.is_dir():
            continue
        other = numbers.setdefault(match[1], folder.name)
        if other != folder.name:
            raise BuildError(f"authoring/{other} and authoring/{folder.name} share a number")
        for file, is_lesson in (("lesson.py", True), ("exercises.py", False)):
            if (folder / file).is_file():
                name = f"authoring/{folder.name}/{file}"
                sources.append(Source(folder / file, name, folder.name, is_lesson))
    return sources


def read_source(source: Source) -> NotebookNode:
    """The notebook of `source` with ids, metadata and exercise marks, without outputs.

    Links to exercises are still in their short form; see link_exercises.
    """
    try:
        notebook = jupytext.reads(source.text(), fmt="py:percent")
    except BuildError:
        raise
    except Exception as error:  # a cell's metadata is parsed by several libraries
        raise BuildError(f"{source.name} is not a py:percent notebook: {error}") from None
    notebook.metadata = NotebookNode(_NOTEBOOK_METADATA)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"{source.cell_prefix}{number:03d}"
        cell.metadata.pop("lines_to_next_cell", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.cell_type == "code" or not source.is_lesson:
            _mark_exercise(cell, source)
    _check(notebook, source)
    return notebook


def exercise_cells(notebook: NotebookNode) -> dict[str, str]:
    """Exercise id -> cell id, in the order of the notebook."""
    marked = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("slmlab", {})]
    return {cell.metadata.slmlab.exercise: cell.id for cell in marked}


def link_exercises(notebook: NotebookNode, places: dict[str, str], source: Source) -> None:
    """Replace `](exercise:ID)` in markdown by `places[ID]`; an unknown id raises BuildError."""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for identifier in _LINK.findall(cell.source):
            if identifier not in places:
                raise BuildError(
                    f"{source.name}, cell {cell.id}: no exercises.py has the exercise "
                    f"'{identifier}'; write one of {', '.join(sorted(places)) or '(none yet)'}."
                )
        cell.source = _LINK.sub(lambda match: f"]({places[match[1]]})", cell.source)


def _mark_exercise(cell: NotebookNode, source: Source) -> None:
    where = f"{source.name}, cell {cell.id}"
    ids = _EXERCISE.findall(cell.source) if cell.cell_type == "code" else []
    marks = [line.strip() for line in cell.source.split("\n") if _MARK.search(line)]
    has_solution = bool(marks)
    if source.is_lesson:
        if ids or has_solution:
            raise BuildError(f"{where}: a lesson holds no blank; move it to exercises.py.")
        return
    if not ids and not has_solution:
        return
    if len(ids) != 1 or marks != [BEGIN_SOLUTION, END_SOLUTION]:
        raise BuildError(
            f'{where}: an exercise cell has one @exercise("topic.name") and one region between '
            f"'{BEGIN_SOLUTION}' and '{END_SOLUTION}', each on a line of its own."
        )
    if not _EXERCISE_ID.fullmatch(ids[0]):
        raise BuildError(f"{where}: exercise id '{ids[0]}' must look like 'topic.name'.")
    # nbgrader admits no dot in a grade id.
    grade_id = ids[0].replace(".", "-")
    written = cell.metadata.get("nbgrader", {}).get("grade_id", grade_id)
    if written != grade_id:
        raise BuildError(f"{where}: grade_id '{written}' must be '{grade_id}', or left out.")
    cell.metadata["nbgrader"] = NotebookNode(
        grade=False,
        grade_id=grade_id,
        locked=False,
        schema_version=3,
        solution=True,
        task=False,
    )
    cell.metadata["slmlab"] = NotebookNode(exercise=ids[0])


def _check(notebook: NotebookNode, source: Source) -> None:
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if source.is_lesson and len(code_cells) > MAX_LESSON_CODE_CELLS:
        raise BuildError(
            f"{source.name}: {len(code_cells)} code cells; a lesson has at most "
            f"{MAX_LESSON_CODE_CELLS}: join or drop some."
        )
    if source.is_lesson:
        return
    seen: set[str] = set()
    for cell in code_cells:
        identifier = cell.metadata.get("slmlab", {}).get("exercise")
        if identifier in seen:
            raise BuildError(f"{source.name}, cell {cell.id}: '{identifier}' stands here twice.")
        if identifier:
            seen.add(identifier)
    if not seen:
        raise BuildError(f"{source.name}: no exercise cell in it; add one or delete the file.")

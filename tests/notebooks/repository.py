"""The notebooks of this repository, as the tests of this folder list them."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent.parent
EXERCISES = sorted((ROOT / "exercises").glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> NotebookNode:
    """The notebook at `path`."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Cell id -> code cell, in order."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def exercise_cells(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Exercise id -> the cell in which it is filled in."""
    cells = code_cells(notebook).values()
    marked = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    return {cell.metadata.slmlab.exercise: cell for cell in marked}

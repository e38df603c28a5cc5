"""A handout's source: the notebook that `slmlab release` cuts the chosen exercises from.

It is a notebook or jupytext's py:percent, with solutions between ``### BEGIN SOLUTION`` and
``### END SOLUTION``, which nbgrader's preprocessors clear, or already blank.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.grading.collect.named import ids_in

BLANK_BODY = 'raise NotImplementedError("your code here")'
_MARK = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS)")
_NEEDED = "is needed to clear solutions: pip install jupytext nbgrader"

Cells = list[dict[str, Any]]
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


@dataclass(frozen=True)
class Handout:
    """One notebook of exercises. Cells are dicts as in nbformat 4, with "source" as one text.

    solved   as written; without solutions where the author keeps none in it
    blank    the same with every solution cleared
    """

    path: Path
    solved: Cells
    blank: Cells

    @property
    def has_solutions(self) -> bool:
        """Solutions are marked in it."""
        return any(_MARK.search(cell["source"]) for cell in self.solved)

    def places(self) -> dict[str, int]:
        """Exercise id -> place of its cell; of an id that stands twice the first one."""
        found: dict[str, int] = {}
        for place, cell in enumerate(self.blank):
            for name in ids_of(cell):
                found.setdefault(name, place)
        return found


def ids_of(cell: dict[str, Any]) -> list[str]:
    """The exercises that a code cell names."""
    return ids_in(cell["source"]) if cell["cell_type"] == "code" else []


def read_handout(path: Path) -> Handout:
    """The handout at `path`, a .ipynb or a .py file.

    Raises ValueError, naming the file and the mend, where it cannot be read or nbgrader refuses it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): save it as UTF-8.") from None
    cells = _from_script(path, text) if path.suffix == ".py" else _from_notebook(path, text)
    _check_once(path, cells)
    _mark_exercises(cells)
    solved = copy.deepcopy(cells)
    if any(_MARK.search(cell["source"]) for cell in cells):
        cells = _cleared(path, cells)
    return Handout(path, solved, cells)


def _from_notebook(path: Path, text: str) -> Cells:
    try:
        content = json.loads(text)
        if content["nbformat"] != 4:
            raise ValueError(f"nbformat {content['nbformat']}")
        cells = content["cells"]
        for cell in cells:
            source = cell["source"]
            cell["source"] = source if isinstance(source, str) else "".join(source)
            cell.setdefault("metadata", {})
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no notebook of nbformat 4 ({error}): open it in JupyterLab and save it."
        ) from None
    return list(cells)


def _from_script(path: Path, text: str) -> Cells:
    try:
        import jupytext
    except ImportError:
        raise ValueError(f"{path}: jupytext {_NEEDED}") from None
    try:
        cells = jupytext.reads(text, fmt="py:percent").cells
    except Exception as error:  # several libraries parse a cell's metadata
        raise ValueError(f"{path} is no py:percent notebook: {error}") from None
    found = []
    for number, cell in enumerate(cells, start=1):
        plain = dict(cell) | {"id": f"{path.stem}-x{number:03d}", "metadata": dict(cell.metadata)}
        plain["metadata"].pop("lines_to_next_cell", None)
        if cell.cell_type == "code":
            plain["outputs"], plain["execution_count"] = [], None
        found.append(plain)
    return found


def _check_once(path: Path, cells: Cells) -> None:
    seen: set[str] = set()
    for name in (name for cell in cells for name in ids_of(cell)):
        if name in seen:
            raise ValueError(f"{path}: two cells name {name}; an exercise has one.")
        seen.add(name)


def _mark_exercises(cells: Cells) -> None:
    """Give a cell that names an exercise nbgrader's metadata, where it has none."""
    for cell in cells:
        names = ids_of(cell)
        if len(names) == 1 and "nbgrader" not in cell["metadata"]:
            cell["metadata"]["nbgrader"] = {
                "grade": False,
                "grade_id": names[0].replace(".", "-"),  # nbgrader admits no dot
                "locked": False,
                "schema_version": 3,
                "solution": True,
                "task": False,
            }
            cell["metadata"].setdefault("slmlab", {"exercise": names[0]})


def _cleared(path: Path, cells: Cells) -> Cells:
    try:
        from nbformat import from_dict
        from nbgrader.preprocessors import (
            CheckCellMetadata,
            ClearHiddenTests,
            ClearSolutions,
            LockCells,
        )
    except ImportError:
        raise ValueError(f"{path}: nbgrader {_NEEDED}") from None
    notebook = from_dict(
        {"cells": copy.deepcopy(cells), "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    )
    resources = {"metadata": {"path": "."}}
    for step in (
        CheckCellMetadata(),
        LockCells(),
        ClearSolutions(code_stub={"python": BLANK_BODY}),
        ClearHiddenTests(),
    ):
        try:
            notebook, resources = step.preprocess(notebook, resources)
        except Exception as error:  # of nbgrader and of jsonschema
            raise ValueError(f"{path}: nbgrader refuses it: {error}") from None
    blank = [json.loads(json.dumps(cell)) for cell in notebook.cells]
    for cell, before in zip(blank, cells):
        # nbgrader empties a cell without marks, decorator and all; whoever forgot them must see it
        if not _MARK.search(before["source"]):
            cell["source"] = before["source"]
    return blank

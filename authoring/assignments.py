"""The two notebooks of one exercises.py: the blank that learners fill in, and the solved one."""

import copy

from nbformat import NotebookNode
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearSolutions,
    LockCells,
)

from authoring.failure import BuildError
from authoring.sources import BEGIN_SOLUTION, END_SOLUTION

BLANK_BODY = 'raise NotImplementedError("your code here")'


def blank(notebook: NotebookNode) -> NotebookNode:
    """A copy in which every solution region is one line that raises NotImplementedError."""
    return _preprocess(
        notebook,
        CheckCellMetadata(),
        LockCells(),
        ClearSolutions(code_stub={"python": BLANK_BODY}),
        ClearHiddenTests(),
    )


def solved(notebook: NotebookNode) -> NotebookNode:
    """A copy with the solutions kept and the lines that mark them removed."""
    copied = _preprocess(notebook, ClearHiddenTests())
    for cell in copied.cells:
        if cell.cell_type == "code":
            lines = cell.source.split("\n")
            cell.source = "\n".join(
                line for line in lines if line.strip() not in (BEGIN_SOLUTION, END_SOLUTION)
            )
    return copied


def _preprocess(notebook: NotebookNode, *preprocessors: object) -> NotebookNode:
    # nbgrader's preprocessors change cells in place.
    copied = copy.deepcopy(notebook)
    resources = {"metadata": {"path": "."}}
    for preprocessor in preprocessors:
        try:
            copied, resources = preprocessor.preprocess(  # type: ignore[attr-defined]
                copied, resources
            )
        except (RuntimeError, ValueError) as error:
            raise BuildError(f"nbgrader refuses it: {error}") from None
    return copied

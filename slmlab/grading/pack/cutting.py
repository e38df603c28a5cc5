"""Cuts the chosen exercises out of a handout.

A handout is: cells before the first exercise's heading, then for each exercise the cells that lead
up to it and its own, then cells for hints and progress. An exercise takes along all that stands
between it and the one before.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from slmlab.grading.pack.handout import Cells, Handout, ids_of

_HEADING = re.compile(r"^##? ", re.MULTILINE)

# In the sandbox slmlab has no rooms, so this leaves its `exercise` alone there.
_WITHOUT_CHECKS = """\
try:
    from slmlab.checking import topics
except ImportError:
    topics = None
if topics is not None and not set({topics!r}) <= set(topics()):

    def exercise(id):  # The checks of this handout are not installed here: it is graded later.
        return lambda function: function"""


def cut(handout: Handout, wanted: Sequence[str], first: str, may_lack_checks: bool) -> Cells:
    """The cells of the released notebook.

    first             text of a new first cell, in place of the handout's own title and its count
    may_lack_checks   learners may not have the pack: then a cell lets them run their functions

    Raises ValueError where the cell of a chosen exercise is not blank.
    """
    cells = handout.blank
    places = [place for place, cell in enumerate(cells) if ids_of(cell)]
    start = _first_block(cells, places[0])
    found = [_markdown("assignment", first), *_preamble(cells[:start])]
    if may_lack_checks:
        topics = sorted({name.split(".", 1)[0] for name in wanted})
        found.append(_code("without-checks", _WITHOUT_CHECKS.format(topics=topics)))
    begin = start
    for place in places:
        if set(ids_of(cells[place])) & set(wanted):
            _require_blank(handout, cells[place])
            found += cells[begin : place + 1]
        begin = place + 1
    found += cells[begin:]
    return _with_distinct_ids(copy.deepcopy(found))


def _first_block(cells: Cells, exercise: int) -> int:
    """Where the first exercise begins: at the last heading before it, if one is there."""
    for place in range(exercise, 0, -1):
        cell = cells[place]
        if cell["cell_type"] == "markdown" and _HEADING.search(cell["source"]):
            return place
    return exercise


def _preamble(cells: Cells) -> Cells:
    """Without the title and the paragraph under it, which count all exercises of the lesson."""
    if not cells or cells[0]["cell_type"] != "markdown":
        return cells
    paragraphs = cells[0]["source"].split("\n\n")
    if not paragraphs[0].startswith("# "):
        return cells
    # jupytext keeps the title and its paragraph together where no empty line parts them
    rest = paragraphs[1:] if "\n" in paragraphs[0] else paragraphs[2:]
    kept = [cells[0] | {"source": "\n\n".join(rest)}] if rest else []
    return [*kept, *cells[1:]]


def _require_blank(handout: Handout, cell: dict[str, Any]) -> None:
    if "NotImplementedError" not in cell["source"]:
        raise ValueError(
            f"{handout.path}: the cell of {ids_of(cell)[0]} is not blank; put its solution between "
            "### BEGIN SOLUTION and ### END SOLUTION."
        )


def _markdown(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _code(name: str, source: str) -> dict[str, Any]:
    return _markdown(name, source) | {
        "cell_type": "code",
        "execution_count": None,
        "outputs": [],
    }


def _with_distinct_ids(cells: Cells) -> Cells:
    """nbformat 4.5 wants an id for every cell, none of them twice."""
    seen: set[str] = set()
    for number, cell in enumerate(cells):
        name = str(cell.get("id") or f"cell-{number:03d}")
        while name in seen:
            name += "x"
        cell["id"] = name
        seen.add(name)
    return cells

"""A class that hands in lesson 02: right, wrong and hostile answers, drawn from a seed."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._grading_hostile import HOSTILE, TARGET

LESSON = Path(__file__).parents[1] / "solutions" / "02_quantization.ipynb"
EXERCISE = re.compile(r'@exercise\("([\w.]+)"\)')
BLANK = '    raise NotImplementedError("your code here")'
# One change that makes each published solution wrong.
WRONG = {
    "quantization.absmax_int8": ("amax / 127", "amax / 128"),
    "quantization.affine_int8": ("(high - low) / 255", "(high - low) / 256"),
    "quantization.pack_int4": ("low + 16 * high", "16 * low + high"),
    "quantization.file_size": ("4 + (16 + 4) / 16", "4"),
    "quantization.nf4_levels": ("tail = 0.9677083", "tail = 0.99"),
    "quantization.nf4_codes": ("groups.abs().max(dim=2)", "groups.max(dim=2)"),
    "quantization.unpack_repair": ("codes[codes > 7] -= 16", "codes[codes > 8] -= 16"),
    "quantization.choose_group": ("rows * groups * 2 > budget", "rows * groups * 4 > budget"),
}


@dataclass(frozen=True)
class Handed:
    """One submission: its code cells, and for each exercise whether it must pass.

    kind             right, wrong or hostile
    repeats_tests    where a grader has test cells in the notebook, they stand there twice
    """

    name: str
    kind: str
    cells: tuple[str, ...]
    passes: dict[str, bool]
    repeats_tests: bool = False


def lesson_cells() -> tuple[str, ...]:
    """The code cells of the solved notebook."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    return tuple("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def exercise_of(cell: str) -> str | None:
    """The id of the exercise that a cell defines."""
    found = EXERCISE.search(cell)
    return found.group(1) if found else None


def function_of(cell: str) -> str:
    """The name of the function that a cell defines."""
    found = re.search(r"^def (\w+)", cell, re.MULTILINE)
    assert found is not None
    return found.group(1)


def blanked(cell: str) -> str:
    """The cell with the body of its function not written."""
    head = cell[: cell.index('"""', cell.index('"""') + 3) + 3]
    return f"{head}\n{BLANK}"


def spoiled(cell: str) -> str:
    """The cell with the change of WRONG."""
    old, new = WRONG[exercise_of(cell) or ""]
    assert cell.count(old) == 1
    return cell.replace(old, new)


def bare(cell: str) -> str:
    """The cell without slmlab: a peer runs the function alone, and no check of ours."""
    lines = cell.splitlines()
    if any(line.startswith(("progress()", "stuck_at")) for line in lines):
        return "pass"
    kept = [line for line in lines if not line.startswith(("@exercise(", "from slmlab import"))]
    return "\n".join(kept)


def draw_class(size: int, hostile: int, seed: int) -> list[Handed]:
    """`size` submissions, `hostile` of them hostile (in turn, at most as many as there are kinds).

    Of the others half have everything right; the rest have two wrong cells and one blank.
    """
    draw = random.Random(seed)
    solved = lesson_cells()
    ids = [name for cell in solved if (name := exercise_of(cell))]
    handed = []
    for number in range(size - hostile):
        wrong = set(draw.sample(ids, 2)) if number % 2 else set()
        blank = {draw.choice([name for name in ids if name not in wrong])} if wrong else set()
        cells = tuple(
            spoiled(cell)
            if exercise_of(cell) in wrong
            else blanked(cell)
            if exercise_of(cell) in blank
            else cell
            for cell in solved
        )
        passes = {name: name not in wrong | blank for name in ids}
        kind = "wrong" if wrong else "right"
        handed.append(Handed(f"s{number:03}_{kind}", kind, cells, passes))
    for attack in list(HOSTILE)[:hostile]:
        mine = HOSTILE[attack]
        at = next(i for i, cell in enumerate(solved) if exercise_of(cell) == TARGET)
        cells = (*solved[:at], *(mine.cells or (solved[at],)), *solved[at + 1 :])
        place = ids.index(TARGET)
        lost = ids[place + 1 :] if mine.ends_the_run else []
        passes = {name: name not in lost and (name != TARGET or mine.passes) for name in ids}
        name = f"s9_{attack}"
        handed.append(Handed(name, "hostile", cells, passes, mine.repeats_tests))
    draw.shuffle(handed)
    return handed


def notebook_of(cells: tuple[str, ...] | list[str], metadata: dict[int, Any] | None = None) -> str:
    """An .ipynb with these code cells; metadata by place."""
    made = [
        {
            "cell_type": "code",
            "id": f"c{place}",
            "metadata": (metadata or {}).get(place, {}),
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for place, text in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    notebook = {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": language},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook)

"""One hostile submission: what it hands in, and the score that is right for it.

Each stands as a small function in a file of its kind (endless.py, processes.py, ...). The function's
docstring says what it tries and which score is right; it returns the hostile cell, all cells, or
whole files. Around a single cell stand an honest exercise before it and an honest one after it, and
the scores are those of the three, as a share of their points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.grading.class_of import SOLUTIONS, code_cells

BEFORE, TARGET, AFTER = EXERCISES = (
    "quantization.absmax_int8",
    "quantization.pack_int4",
    "quantization.unpack_repair",
)
ALL_RIGHT = (1, 1, 1)
CASES = 7  # of the target, in the middle
_SOLVED = code_cells(SOLUTIONS / "02_quantization.ipynb")


@dataclass(frozen=True)
class Link:
    """A symbolic link in a submission's folder."""

    to: str


class Pipe:
    """A named pipe in a submission's folder: who opens it waits for ever."""


Handed = str | list[str] | dict[str, "str | bytes | Link | Pipe"]


@dataclass(frozen=True)
class Attack:
    """What is handed in, and what is right.

    scores   share of the points for BEFORE, TARGET and AFTER; a callable gets the seed
    status   of the grade
    reason   words of the grade's reason ("" for none)
    cell     how the hostile cell must have ended: "ran", "raised", "timeout"; None for either
    finds    what the hostile cell must have printed, as JSON: what it found when it looked
    says     words of the target's diagnosis
    flags    words that the grade's flags must hold
    hurried  waits for the end of its time: in the short run it is given little
    """

    name: str
    tries: str
    build: Callable[[], Handed]
    scores: Any
    status: str = "graded"
    reason: str = ""
    cell: str | None = None
    finds: Any = None
    says: str = ""
    flags: str = ""
    hurried: bool = False


ATTACKS: dict[str, Attack] = {}


def hostile(scores: Any, **right: Any) -> Callable[[Callable[[], Handed]], Callable[[], Handed]]:
    """Registers a builder; a reason without a status means "stopped"."""
    if right.get("reason") and "status" not in right:
        right["status"] = "stopped"

    def register(build: Callable[[], Handed]) -> Callable[[], Handed]:
        assert build.__name__ not in ATTACKS and build.__doc__
        attack = Attack(build.__name__, build.__doc__, build, scores, **right)
        ATTACKS[attack.name] = attack
        return build

    return register


def solved(exercise_id: str) -> str:
    """The published solution's cell."""
    return next(cell for cell in _SOLVED if cell.startswith(f'@exercise("{exercise_id}")'))


HEAD = _SOLVED[0]
PACK = textwrap.dedent(
    """
    rows, columns = codes.shape
    nibbles = torch.zeros(rows, columns + columns % 2, dtype=torch.uint8)
    nibbles[:, :columns] = codes.remainder(16).to(torch.uint8)
    return nibbles[:, 0::2] + 16 * nibbles[:, 1::2]
    """
).strip()


def code(text: str) -> str:
    """A block of source without its indentation."""
    return textwrap.dedent(text).strip("\n")


def target(body: str, *, first: str = "", last: str = "") -> str:
    """A cell that defines the exercise in the middle; `codes` is its argument."""
    function = "def pack_int4(codes):\n" + textwrap.indent(code(body), "    ")
    parts = [code(first), f'@exercise("{TARGET}")\n{function}', code(last)]
    return "\n".join(part for part in parts if part)


def honest(first: str = "", last: str = "") -> str:
    """The same with the right body: what is tried around it must gain nothing and lose nothing."""
    return target(PACK, first=first, last=last)


def around(hostile_cell: str) -> list[str]:
    """All cells: the head, an honest exercise, the hostile cell, an honest exercise."""
    return [HEAD, solved(BEFORE), hostile_cell, solved(AFTER)]

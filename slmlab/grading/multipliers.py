"""More time for some students: one factor for all, or a CSV file of student,multiplier."""

from __future__ import annotations

from pathlib import Path

from slmlab.grading.tables_in import bare, number, rows

COLUMNS = ("student", "multiplier")
LARGEST = 100.0


def read_multipliers(given: str | None) -> tuple[float, dict[str, float]]:
    """(factor for everybody, factors by student) from "1.5" or the name of a file.

    Raises ValueError where it is neither, or a factor does not lie above 0 and at most 100.
    """
    if given is None:
        return 1.0, {}
    try:
        everybody = float(given)
    except ValueError:
        return 1.0, _read(Path(given))
    _check(everybody, f"--time-multiplier {given}")
    return everybody, {}


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise ValueError(
            f"--time-multiplier {path}: give a number such as 1.5, or a CSV file with the columns "
            "student,multiplier."
        )
    found: dict[str, float] = {}
    for line, row in rows(path, COLUMNS):
        student = bare(row["student"])
        if not student:
            raise ValueError(f"{path}, line {line}: student is empty; write the folder's name.")
        if student in found:
            raise ValueError(f"{path}, line {line}: {student!r} stands twice; keep one line.")
        value = number(path, line, "multiplier", row["multiplier"])
        _check(value, f"{path}, line {line}: multiplier {row['multiplier']}")
        found[student] = value
    return found


def _check(value: float, where: str) -> None:
    if not 0 < value <= LARGEST:
        raise ValueError(f"{where}: give a number above 0 and at most {LARGEST:g}.")

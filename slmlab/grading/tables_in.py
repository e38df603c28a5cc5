"""The small tables that an instructor writes: overrides.csv and time multipliers.

A spreadsheet saves them with a byte order mark or semicolons, and both are read.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path

from slmlab.checking.render import visible

MAX_BYTES = 4 * 2**20


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of every row that is not empty.

    Raises ValueError naming the file, the line and the mend where a column is missing, a row is too
    long, or the file is no text.
    """
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as CSV UTF-8.") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: is it the right file?")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header: list[str] | None = None
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            header = [cell.lower() for cell in cells]
            missing = [name for name in columns if name not in header]
            if missing:
                raise ValueError(
                    f"{path}, line {reader.line_num}: the column {missing[0]!r} is missing; the "
                    f"first line must be {','.join(columns)}."
                )
            continue
        if len(cells) > len(header):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns; "
                "put a text that holds a comma into quotes."
            )
        found = dict.fromkeys(columns, "") | dict(zip(header, cells))
        yield reader.line_num, {name: found[name] for name in columns}


def number(path: Path, line: int, name: str, text: str) -> float:
    """A finite number of a row; ValueError naming the place."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {line}: {name} is {text!r}; write a number.")
    return value


# What a spreadsheet may take for the start of a formula, with the full-width forms.
_STARTS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
# At the start of a cell, after blanks too, or after what some spreadsheet takes for a separator.
_FORMULA = re.compile(rf"(?P<before>\A\s*|[;|]\s*)(?=[{_STARTS}])")
_GUARDED = re.compile(rf"(?P<before>\A|[;|]\s*)'(?=\s*[{_STARTS}])")


def guarded(text: str) -> str:
    """Text for one cell: on one line, control characters visible, never a formula.

    An apostrophe stands before what would be one. See OWASP, "CSV Injection".
    """

    def put(found: re.Match[str]) -> str:
        before = found["before"]
        return before + "'" if before[:1] in (";", "|") else "'" + before

    line = visible(text).translate({ord(c): " " for c in "\n\t"})
    return _FORMULA.sub(put, line)


def bare(name: str) -> str:
    """A student's name as it was before grades.csv guarded it against formulas."""
    found = _GUARDED.sub(lambda match: match["before"], name)
    return found if guarded(found) == name else name

"""What `make prove` measured, for lessons to quote: results/NAME.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
# Beside the package in a checkout, inside it in a wheel (hatch_build.py).
_PLACES = (_PACKAGE.parent / "results", _PACKAGE / "_workbook" / "results")


def load_result(name: str, folder: str | Path | None = None) -> dict[str, Any] | None:
    """The record of one benchmark; None where it was never measured.

    name: of the benchmark, such as "decoder_race". folder: where results lie, by default those of
    this installation. Returns commit, seed, machine and "measured", what the benchmark reported.
    Raises ValueError for a file that is damaged or of another benchmark.
    """
    places = _PLACES if folder is None else (Path(folder),)
    file = next((p for place in places if (p := place / f"{name}.json").is_file()), None)
    if file is None:
        return None
    mend = f"make it anew with `python -m authoring.prove {name}`"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): {mend}") from None
    if (
        not isinstance(record, dict)
        or record.get("benchmark") != name
        or not isinstance(record.get("measured"), dict)
    ):
        raise ValueError(f"{file} is not a record of the benchmark {name}: {mend}")
    return record

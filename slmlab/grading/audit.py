"""What an audit needs to repeat a grade: the versions, and how each cell of a submission went."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import slmlab
from slmlab.grading.records import Cell, Transcript

MAX_CELLS = 500


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version()), ("slmlab", slmlab.__version__)]
    for name in ("torch", "numpy"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "absent"))
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of python, slmlab, torch and numpy on this side; imports none of them.

    The sandbox reports its own (bubblewrap's).
    """
    return dict(_versions())


def timings(transcript: Transcript, judging_seconds: float) -> dict[str, float]:
    """Seconds and MiB of one submission. They vary from run to run, so no table holds them."""
    return {
        "seconds": round(transcript.seconds, 3),
        "cpu_seconds": round(transcript.cpu_seconds, 3),
        "peak_mb": round(transcript.peak_mb, 1),
        "judging_seconds": round(judging_seconds, 3),
    }


def cell_records(cells: tuple[Cell, ...], transcript: Transcript) -> list[dict[str, Any]]:
    """How each cell that ran went, with the notebook and the place it came from."""
    records = []
    for run in transcript.cells[:MAX_CELLS]:
        if run.cell >= len(cells):
            continue
        cell = cells[run.cell]
        records.append(
            {
                "notebook": cell.notebook,
                "cell": cell.number,
                "status": run.status,
                "message": run.message,
                "printed": run.printed,
                "seconds": round(run.seconds, 3),
            }
        )
    return records

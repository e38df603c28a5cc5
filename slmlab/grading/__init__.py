"""Floor 7: grading strangers' notebooks.

A submission's cells run in a sandbox that holds no expected value: seeded inputs go in, outputs come
back as data, and :func:`slmlab.checking.judge` compares them on this side.

    records.py   what the rooms hand to each other
    collect/     a folder of anything -> submissions
    sandbox/     the trusted side of the sandbox: ``open_sandbox``
    inside/      what is bound into the sandbox; imports nothing of slmlab
    judging.py, driver.py, reports/, pack/

Names load on first use, so that importing this package needs no torch and no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_RECORDS = (
    "Answered",
    "Cell",
    "CellRun",
    "ExerciseGrade",
    "Grade",
    "Limits",
    "Request",
    "Submission",
    "Transcript",
)
_NAMES = {
    **dict.fromkeys(_RECORDS, "slmlab.grading.records"),
    "SandboxUnavailable": "slmlab.grading.sandbox",
    "open_sandbox": "slmlab.grading.sandbox",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'slmlab.grading' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Submissions and plans as JSON lines: what the driver, its job processes and a cluster exchange."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from slmlab.grading.records import Cell, Submission


def line(content: dict[str, Any]) -> bytes:
    """One JSON object as one line of ASCII."""
    return json.dumps(content).encode("ascii") + b"\n"


def submission_to_json(submission: Submission) -> dict[str, Any]:
    """A submission as plain data."""
    return asdict(submission)


def submission_from_json(content: dict[str, Any]) -> Submission:
    """The submission that :func:`submission_to_json` gave."""
    return Submission(
        student=content["student"],
        source=content["source"],
        cells=tuple(Cell(**cell) for cell in content["cells"]),
        sha256=content["sha256"],
        flags=tuple(content["flags"]),
        problem=content["problem"],
    )

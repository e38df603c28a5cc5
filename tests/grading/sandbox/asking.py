"""Runs learner's code in a sandbox and gives what it printed."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from slmlab.checking import Case
from slmlab.grading.records import Limits, Request, Transcript
from slmlab.grading.sandbox import Sandbox


def run(
    sandbox: Sandbox,
    *cells: str,
    cases: dict[str, tuple[Case, ...]] | None = None,
    limits: Limits | None = None,
) -> Transcript:
    """A transcript of these cells."""
    request = Request(tuple(textwrap.dedent(cell) for cell in cells), cases or {}, seed=7)
    return sandbox.run(request, limits)


def ask(sandbox: Sandbox, code: str, limits: Limits | None = None) -> Any:
    """The JSON that a cell printed; what it raised fails the test."""
    transcript = run(sandbox, "import errno, json, os, sys", code, limits=limits)
    assert transcript.ended == "finished", transcript
    assert [cell.status for cell in transcript.cells] == ["ran", "ran"], transcript.cells
    return json.loads(transcript.cells[1].printed)

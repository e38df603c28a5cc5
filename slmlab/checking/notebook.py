"""What a notebook calls: the exercise decorator and the progress dashboard."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from slmlab.checking import registry
from slmlab.checking.dashboard import dashboard
from slmlab.checking.lesson_progress import LessonProgress
from slmlab.checking.render import Shown, message, report_panel
from slmlab.checking.report import Report, check

F = TypeVar("F", bound=Callable[..., object])
STRICT = "SLMLAB_STRICT"


class CheckFailed(AssertionError):
    """Under SLMLAB_STRICT=1 an exercise had another outcome than passed."""


def exercise(id: str) -> Callable[[F], F]:
    """Decorator: checks the function when its cell runs, shows the outcome, stores progress.

    The function comes back unchanged. Raises ValueError for an unknown id (with close matches),
    TypeError where there is no id or where it stands over a class, and CheckFailed under
    SLMLAB_STRICT=1 for any outcome but passed.
    """
    if not isinstance(id, str):
        raise TypeError(
            'Write @exercise("topic.name") over the function: the id in quotes and in parentheses '
            f"is missing (got {type(id).__name__})."
        )
    spec = registry.get(id)

    def decorate(function: F) -> F:
        if not callable(function) or inspect.isclass(function):
            what = "a class" if inspect.isclass(function) else type(function).__name__
            raise TypeError(f"@exercise({id!r}) goes over a function, not over {what}.")
        report = _stored(check(spec, function))
        panel = report_panel(report)
        panel.show()
        if is_strict() and report.outcome != "passed":
            raise CheckFailed(panel.text)
        return function

    return decorate


def is_strict() -> bool:
    """True where SLMLAB_STRICT is set to anything but 0, false or nothing."""
    return os.environ.get(STRICT, "").strip().lower() not in ("", "0", "false", "no")


def progress() -> Shown:
    """Shows the dashboard of all installed topics, and trouble with the progress file above it."""
    store = LessonProgress()
    panel = dashboard(store.read())
    if store.trouble:
        panel = message(store.trouble).above(panel)
    panel.show()
    return panel.quiet()


def _stored(report: Report) -> Report:
    """Records the outcome. Trouble with the file becomes a note: the learner's result comes first."""
    store = LessonProgress()
    store.record_outcome(report.exercise_id, report.outcome, report.credit)
    return replace(report, notes=(*report.notes, store.trouble)) if store.trouble else report

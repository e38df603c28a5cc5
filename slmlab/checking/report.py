"""Everything that a check has to say, as data: notebook, terminal and grader render the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slmlab.checking.diagnosis import Diagnosis, diagnose
from slmlab.checking.runner import Outcome, Run, run
from slmlab.checking.spec import Exercise


@dataclass(frozen=True)
class Report:
    """Outcome of one check. `credit` is the share of cases passed, `notes` are remarks that do not
    change the outcome, `printed` is the beginning of what the learner's code printed."""

    exercise_id: str
    title: str
    outcome: Outcome
    credit: float
    passed: int
    total: int
    diagnosis: Diagnosis | None
    notes: tuple[str, ...] = ()
    printed: str = ""


def check(exercise: Exercise, implementation: Callable[..., Any], seed: int = 0) -> Report:
    """Runs an implementation on the cases of one seed and says what is wrong with it."""
    result = run(exercise, implementation, seed)
    return Report(
        exercise_id=exercise.id,
        title=exercise.title,
        outcome=result.outcome,
        credit=result.credit,
        passed=result.passed,
        total=len(result.results),
        diagnosis=diagnose(exercise, result),
        notes=_notes(result),
        printed=next((r.execution.printed for r in result.results if r.execution.printed), ""),
    )


def _notes(result: Run) -> tuple[str, ...]:
    changed = sorted({name for item in result.results for name in item.execution.changed})
    if not changed:
        return ()
    names = " and ".join(f"`{name}`" for name in changed)
    return (f"Your function edits {names} in place: whoever calls it loses the original.",)

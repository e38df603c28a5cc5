"""Proves a spec before a learner meets it: what CI runs on every registered exercise.

Each function returns a list of complaints, empty where the spec holds. An author of a private pack
runs audit() on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slmlab.checking.comparison import Exact
from slmlab.checking.diagnosis import diagnose, matching_mistakes
from slmlab.checking.portable import case_problem
from slmlab.checking.runner import Run, execute, make_cases, run
from slmlab.checking.spec import Exercise
from slmlab.checking.values import count_numbers, plain

SEEDS = (0, 1, 2, 3)
POINTS, MINUTES = (1, 10), (3, 15)


def audit(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> list[str]:
    """All complaints about one exercise."""
    return [
        *fields(exercise),
        *cases(exercise, seeds),
        *blank(exercise, seeds),
        *right_answers(exercise, seeds),
        *mistakes(exercise, seeds),
    ]


def fields(exercise: Exercise) -> list[str]:
    """Ranges and texts that the class itself leaves open."""
    found = []
    for name, (low, high) in (("points", POINTS), ("minutes", MINUTES)):
        if not low <= getattr(exercise, name) <= high:
            found.append(f"{name} is {getattr(exercise, name)}, wanted {low}..{high}")
    if not 1 <= exercise.difficulty <= 3:
        found.append(f"difficulty is {exercise.difficulty}, wanted 1..3")
    if not 3 <= len(exercise.mistakes) <= 6:
        found.append(f"{len(exercise.mistakes)} mistakes, wanted 3..6")
    if len(exercise.hints) != 3:
        found.append(f"{len(exercise.hints)} hints, wanted 3")
    if len({hint.strip() for hint in exercise.hints}) < len(exercise.hints):
        found.append("two hints are the same")
    found += [
        f"the sentence of mistake {mistake.name!r} is too short to teach"
        for mistake in exercise.mistakes
        if len(mistake.sentence.split()) < 5
    ]
    return found


def cases(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> list[str]:
    """The inputs are plain data, the same seed gives the same cases, the smallest comes first, the
    reference edits nothing."""
    found = []
    for seed in seeds:
        first, again = make_cases(exercise, seed), make_cases(exercise, seed)
        unfit = case_problem(first)
        if unfit is not None:
            # The grader would refuse it: its sandbox is handed plain data only.
            return [f"seed {seed}, {unfit}"]
        left = [plain(case.arguments) for case in first]
        if Exact().difference(left, [plain(case.arguments) for case in again]) is not None:
            found.append(f"seed {seed}: cases differ from one call to the next")
        sizes = [count_numbers(arguments) for arguments in left]
        if sizes[0] > min(sizes):
            found.append(f"seed {seed}: the first case is not the smallest")
        changed = {name for done in execute(exercise.reference, first) for name in done.changed}
        if changed:
            found.append(f"seed {seed}: the reference edits {sorted(changed)} in place")
    return found


def blank(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> list[str]:
    """A body that raises NotImplementedError reports unattempted."""

    def not_written(**arguments: Any) -> Any:
        raise NotImplementedError

    outcomes = {run(exercise, not_written, seed).outcome for seed in seeds}
    return [] if outcomes == {"unattempted"} else [f"the blank reports {sorted(outcomes)}"]


def right_answers(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> list[str]:
    """The reference and every alternative pass."""
    answers: list[tuple[str, Callable[..., Any]]] = [("the reference", exercise.reference)]
    answers += [
        (f"alternative {getattr(function, '__name__', index)!r}", function)
        for index, function in enumerate(exercise.alternatives)
    ]
    found = []
    if any(alternative is exercise.reference for alternative in exercise.alternatives):
        found.append("an alternative is the reference itself: write one differently")
    for name, function in answers:
        for seed in seeds:
            result = run(exercise, function, seed)
            if result.outcome != "passed":
                found.append(f"seed {seed}: {name} does not pass: {result.failing[0].problem}")
    return found


def mistakes(exercise: Exercise, seeds: Sequence[int] = SEEDS) -> list[str]:
    """Every variant of a mistake fails, and is diagnosed with its own sentence and no other."""
    found = []
    for mistake in exercise.mistakes:
        for place, implementation in enumerate(mistake.implementations):
            name = f"mistake {mistake.name!r}" + (f", variant {place}," if place else "")
            for seed in seeds:
                result = run(exercise, implementation, seed)
                problem = _misdiagnosed(exercise, mistake.name, result)
                if problem is not None:
                    found.append(f"seed {seed}: {name} {problem}")
    return found


def _misdiagnosed(exercise: Exercise, name: str, result: Run) -> str | None:
    if result.outcome in ("passed", "unattempted"):
        return f"does not fail: it reports {result.outcome}"
    matched = [mistake.name for mistake in matching_mistakes(exercise, result)]
    if matched != [name]:
        return f"cannot be told apart: its outputs match {matched}"
    diagnosis = diagnose(exercise, result)
    if diagnosis is None or diagnosis.mistake is None or diagnosis.mistake.name != name:
        return "is not diagnosed as itself"
    return None

"""Names what is wrong with an answer: a known mistake first, then patterns, then the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slmlab.checking import patterns
from slmlab.checking.comparison import Comparison, Invariant, none_sentence
from slmlab.checking.counterexample import Counterexample, build, smallest
from slmlab.checking.runner import CaseResult, Execution, Run, execute
from slmlab.checking.spec import Exercise, Mistake


@dataclass(frozen=True)
class Diagnosis:
    """`sentence` is what to think about, `mistake` the named one that it came from, if any."""

    sentence: str
    mistake: Mistake | None = None
    counterexample: Counterexample | None = None


def diagnose(exercise: Exercise, run: Run) -> Diagnosis | None:
    """The diagnosis of a run, None where it passed."""
    if run.outcome == "passed":
        return None
    if run.outcome == "unattempted":
        return Diagnosis(
            "Not started: the body still raises NotImplementedError. "
            f"First hint: hint({exercise.id!r})."
        )
    case = smallest(run)
    assert case is not None
    found = matching_mistakes(exercise, run)
    example = build(exercise, case)
    if found:
        return Diagnosis(_named(exercise, found[0], case), found[0], example)
    return Diagnosis(_sentence(exercise, run), _loosely_matching(exercise, run), example)


def matching_mistakes(
    exercise: Exercise, run: Run, rule: Comparison | None = None
) -> tuple[Mistake, ...]:
    """The mistakes whose outputs equal the run's in every case; empty for a run that passed.

    One implementation of a mistake has to agree throughout. Two executions that raise the same type
    of exception count as equal.
    """
    if run.outcome in ("passed", "unattempted"):
        return ()
    rule = rule or exercise.compare
    cases = [result.case for result in run.results]

    def agrees(implementation: Callable[..., Any]) -> bool:
        theirs = execute(implementation, cases)
        return all(
            _same(result.execution, their, rule)
            for result, their in zip(run.results, theirs, strict=True)
        )

    return tuple(
        mistake for mistake in exercise.mistakes if any(map(agrees, mistake.implementations))
    )


def _same(mine: Execution, theirs: Execution, rule: Comparison) -> bool:
    if mine.unattempted or theirs.unattempted:
        return mine.unattempted and theirs.unattempted
    if mine.failure is not None or theirs.failure is not None:
        return (
            mine.failure is not None
            and theirs.failure is not None
            and mine.failure.type_name == theirs.failure.type_name
        )
    return rule.difference(theirs.output, mine.output) is None


def _loosely_matching(exercise: Exercise, run: Run) -> Mistake | None:
    """A mistake made in another dtype too, where the numbers alone are wrong already."""
    if run.outcome != "wrong" or isinstance(exercise.compare, Invariant):
        return None
    loose = exercise.compare.ignoring_dtype()
    wrong = any(
        loose.difference(result.wanted, result.execution.output) is not None
        for result in run.failing
    )
    found = matching_mistakes(exercise, run, loose) if wrong else ()
    return found[0] if len(found) == 1 else None


def _sentence(exercise: Exercise, run: Run) -> str:
    case = smallest(run)
    assert case is not None
    if case.outcome == "unattempted":
        return "Part of it is not written: some inputs still reach raise NotImplementedError."
    if case.execution.failure is not None:
        return case.execution.failure.sentence
    wrong = tuple(result for result in run.failing if result.outcome == "wrong")
    if all(result.execution.output is None for result in wrong):
        return none_sentence(result.wanted for result in run.results)
    if isinstance(exercise.compare, Invariant):
        return _stop(case.problem or "The answer is not right.")
    loose = _loosely_matching(exercise, run)
    if loose is not None:
        return f"{_stop(loose.sentence)} The dtype of the answer differs as well."
    ordered = (case, *(result for result in wrong if result is not case))
    return patterns.describe(ordered, exercise.compare, run.passed > 0)


def _named(exercise: Exercise, mistake: Mistake, case: CaseResult) -> str:
    """A mistake's sentence; an invariant has computed what it breaks, and that follows it."""
    sentence = _stop(mistake.sentence)
    if not isinstance(exercise.compare, Invariant) or case.outcome != "wrong" or not case.problem:
        return sentence
    problem = _stop(case.problem)
    return sentence if problem == sentence else f"{sentence} {problem}"


def _stop(sentence: str) -> str:
    text = sentence.strip()
    return text if text.endswith((".", "?", "!", ":")) else f"{text}."

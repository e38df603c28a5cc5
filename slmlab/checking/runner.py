"""Runs one implementation on cases, and judges what came out.

The two halves stand apart on purpose: execute() (in execution.py) needs the function, judge() only
its outputs, so a grader executes in a sandbox and judges on the trusted side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slmlab.checking.comparison import RETURNED_NONE, none_sentence
from slmlab.checking.execution import MAX_PRINTED, Case, Execution, execute
from slmlab.checking.spec import Exercise

__all__ = [
    "MAX_PRINTED",
    "OUTCOMES",
    "Case",
    "CaseResult",
    "Execution",
    "Outcome",
    "Run",
    "execute",
    "expected",
    "judge",
    "make_cases",
    "run",
]

Outcome = Literal["unattempted", "error", "wrong", "passed"]
OUTCOMES: tuple[Outcome, ...] = ("unattempted", "error", "wrong", "passed")  # worst to best


@dataclass(frozen=True)
class CaseResult:
    """One case with its execution, its outcome and, where it is wrong, the problem."""

    case: Case
    wanted: Any
    execution: Execution
    outcome: Outcome
    problem: str | None = None


@dataclass(frozen=True)
class Run:
    """The results of all cases of one exercise."""

    results: tuple[CaseResult, ...]

    @property
    def passed(self) -> int:
        """Number of cases that passed."""
        return sum(result.outcome == "passed" for result in self.results)

    @property
    def credit(self) -> float:
        """Share of cases passed, 0 to 1."""
        return self.passed / len(self.results)

    @property
    def outcome(self) -> Outcome:
        """passed or unattempted where every case is; else error where any case failed to run.

        A NotImplementedError in some cases and an answer in others is an error: started, not done.
        """
        seen = {result.outcome for result in self.results}
        if len(seen) == 1:
            return seen.pop()
        return "error" if seen & {"error", "unattempted"} else "wrong"

    @property
    def failing(self) -> tuple[CaseResult, ...]:
        """The results that did not pass, in order."""
        return tuple(result for result in self.results if result.outcome != "passed")


def make_cases(exercise: Exercise, seed: int) -> tuple[Case, ...]:
    """The exercise's cases for one seed.

    Raises ValueError where the author gives none: a check of nothing would pass.
    """
    cases = tuple(exercise.cases(seed))
    if not cases:
        raise ValueError(f"Exercise {exercise.id!r}: cases({seed}) is empty; give at least one.")
    return cases


def expected(exercise: Exercise, cases: Sequence[Case]) -> tuple[Any, ...]:
    """The reference's plain outputs.

    Raises RuntimeError where the reference fails: the exercise is broken, not the learner.
    """
    executions = execute(exercise.reference, cases)
    for execution in executions:
        if execution.failure is not None or execution.unattempted:
            reason = execution.failure.sentence if execution.failure else "it is not implemented."
            raise RuntimeError(f"The reference of {exercise.id!r} fails: {reason}")
    return tuple(execution.output for execution in executions)


def judge(
    exercise: Exercise,
    cases: Sequence[Case],
    executions: Sequence[Execution],
    answers: Sequence[Any] | None = None,
) -> Run:
    """Compares executions with the reference.

    answers: what expected() gave for these cases, where it is known already.
    Raises ValueError where there is not one execution, or one answer, per case.
    """
    if len(cases) != len(executions) or not cases:
        raise ValueError(
            f"executions: {len(executions)} for {len(cases)} cases; give one for each case."
        )
    results = []
    if answers is None:
        answers = expected(exercise, cases)
    if len(answers) != len(cases):
        raise ValueError(f"answers: {len(answers)} for {len(cases)} cases; give one for each case.")
    for case, wanted, execution in zip(cases, answers, executions, strict=True):
        problem = None
        outcome: Outcome = "passed"
        if execution.unattempted:
            outcome = "unattempted"
        elif execution.failure is not None:
            outcome, problem = "error", execution.failure.sentence
        else:
            problem = exercise.compare.problem(case.arguments, wanted, execution.output)
            if problem == RETURNED_NONE:
                problem = none_sentence(answers)
            outcome = "passed" if problem is None else "wrong"
        results.append(CaseResult(case, wanted, execution, outcome, problem))
    return Run(tuple(results))


def run(exercise: Exercise, implementation: Callable[..., Any], seed: int = 0) -> Run:
    """Executes and judges an implementation on the cases of one seed."""
    cases = make_cases(exercise, seed)
    return judge(exercise, cases, execute(implementation, cases))

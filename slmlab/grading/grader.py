"""One submission -> its grade: the request, the sandbox, judging, the audit. It never raises for
what a submission holds or does."""

from __future__ import annotations

import time
from typing import Any, Protocol

from slmlab.checking import Case, Exercise, make_cases
from slmlab.checking.portable import case_problem
from slmlab.checking.runner import expected
from slmlab.checking.values import Opaque
from slmlab.grading.audit import cell_records, timings, versions
from slmlab.grading.bounds import bounded_sentence
from slmlab.grading.choose import specs
from slmlab.grading.inside.codec import Codec
from slmlab.grading.judging import Evidence, Judged, judge_exercise, moved, ungraded
from slmlab.grading.plan import Plan
from slmlab.grading.records import (
    ExerciseGrade,
    Grade,
    GradeOutcome,
    GradeStatus,
    Limits,
    Request,
    Submission,
    Transcript,
)
from slmlab.grading.sandbox.errors import SandboxUnavailable

MAX_FLAGS = 50


class Sandbox(Protocol):
    """What :func:`slmlab.grading.sandbox.open_sandbox` gives."""

    @property
    def description(self) -> dict[str, Any]:
        """For the audit: {"kind": "bubblewrap" or "none", ...}."""
        ...

    def run(self, request: Request, limits: Limits | None = None) -> Transcript:
        """Run one submission."""
        ...


class Grader:
    """Grades submissions one after another with one sandbox; cases and the reference's answers are
    made once for all of them.

    Raises ValueError where an exercise of the plan is not registered, its cases cannot be made or
    sent to a sandbox, or its reference fails: no submission could be graded.
    """

    def __init__(self, plan: Plan, sandbox: Sandbox) -> None:
        self.plan = plan
        self.sandbox = sandbox
        self.exercises: tuple[Exercise, ...] = specs(plan.exercises)
        self.cases: dict[str, tuple[Case, ...]] = {}
        self.answers: dict[str, tuple[Any, ...]] = {}
        for item in self.exercises:
            self.cases[item.id], self.answers[item.id] = prepared(item, plan.seed)

    def grade(self, submission: Submission) -> Grade:
        """The grade; status "error" where this side failed, with the reason.

        Raises SandboxUnavailable where no submission can be run here.
        """
        if submission.problem is not None:
            return blank_grade(self.plan, submission, "unreadable", submission.problem)
        try:
            return self._graded(submission)
        except SandboxUnavailable:
            raise
        except Exception as error:
            return blank_grade(self.plan, submission, "error", own_failure(error))

    def _graded(self, submission: Submission) -> Grade:
        request = Request(
            tuple(cell.source for cell in submission.cells), self.cases, self.plan.seed
        )
        transcript = self.sandbox.run(request, self.plan.limits_for(submission.student))
        start = time.perf_counter()
        evidence = Evidence.of(submission.cells, transcript)
        elsewhere = moved(self.plan.exercises, transcript)
        judged = [self._judged(item, evidence, item.id in elsewhere) for item in self.exercises]
        seconds = time.perf_counter() - start
        failed = any(item.grade.flags == (JUDGING_FAILED,) for item in judged)
        status, reason = _status(transcript, [item.grade for item in judged], failed)
        audit = {
            "fingerprint": self.plan.fingerprint(submission),
            "seed": self.plan.seed,
            "limits": self.plan.limits_for(submission.student).to_json(),
            "versions": versions(),
            "sandbox": dict(self.sandbox.description),
            "ended": transcript.ended,
            "timings": timings(transcript, seconds),
            "cells": cell_records(submission.cells, transcript),
            "details": {item.grade.exercise_id: item.detail() for item in judged},
        }
        return summed(submission, tuple(item.grade for item in judged), status, reason, audit)

    def _judged(self, exercise: Exercise, evidence: Evidence, elsewhere: bool) -> Judged:
        cases = self.cases[exercise.id]
        try:
            return judge_exercise(exercise, cases, evidence, elsewhere, self.answers[exercise.id])
        except (Exception, SystemExit) as error:
            # The other exercises of this submission are judged all the same.
            grade = ungraded(exercise, len(cases), "error", own_failure(error), (JUDGING_FAILED,))
            return Judged(grade)


def prepared(exercise: Exercise, seed: int) -> tuple[tuple[Case, ...], tuple[Any, ...]]:
    """The cases of one seed and the reference's answers.

    Raises ValueError naming the exercise, what is wrong with it and the mend.
    """
    name = f"Exercise {exercise.id}"
    try:
        cases = make_cases(exercise, seed)
        problem = case_problem(cases)
    except Exception as error:
        raise ValueError(_broken(name, "its cases cannot be made", error)) from None
    if problem is not None:
        raise ValueError(f"{name}, {problem}.")
    try:
        codec = Codec(Opaque)
        for case in cases:
            codec.encode(case.arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(_broken(name, "a case cannot be sent to a sandbox", error)) from None
    try:
        return cases, expected(exercise, cases)
    except Exception as error:
        raise ValueError(_broken(name, "its reference fails", error)) from None


def _broken(name: str, what: str, error: Exception) -> str:
    text = f"{name}: {what} ({type(error).__name__}: {error}); `slmlab check-pack` says where."
    return bounded_sentence(text)


JUDGING_FAILED = "judging failed"


def own_failure(error: BaseException) -> str:
    """The reason for a row where the grader itself failed."""
    return bounded_sentence(f"The grader failed: {type(error).__name__}: {error}")


def blank_grade(plan: Plan, submission: Submission, status: GradeStatus, reason: str) -> Grade:
    """A grade of no points: nothing of the submission was run, or judging it failed."""
    outcome: GradeOutcome = "not returned" if status == "error" else "missing"
    exercises = tuple(
        ungraded(item, len(make_cases(item, plan.seed)), outcome, reason)
        for item in specs(plan.exercises)
    )
    audit = {
        "fingerprint": plan.fingerprint(submission),
        "seed": plan.seed,
        "limits": plan.limits_for(submission.student).to_json(),
        "versions": versions(),
        "sandbox": {"kind": "none"} if plan.unsafe else {},
    }
    return summed(submission, exercises, status, bounded_sentence(reason), audit)


def summed(
    submission: Submission,
    exercises: tuple[ExerciseGrade, ...],
    status: GradeStatus,
    reason: str,
    audit: dict[str, Any],
) -> Grade:
    """The Grade with totals, and with the flags of its exercises written out."""
    flags = [*submission.flags]
    flags += [
        f"{item.exercise_id} is {flag}" if flag != JUDGING_FAILED else f"{item.exercise_id}: {flag}"
        for item in exercises
        for flag in item.flags
    ]
    return Grade(
        student=submission.student,
        source=submission.source,
        sha256=submission.sha256,
        exercises=exercises,
        total=round(sum(item.points for item in exercises), 2),
        max_total=sum(item.max_points for item in exercises),
        status=status,
        reason=reason,
        flags=tuple(flags[:MAX_FLAGS]),
        audit=audit,
    )


def _status(
    transcript: Transcript, exercises: list[ExerciseGrade], failed: bool
) -> tuple[GradeStatus, str]:
    if failed:
        return "error", next(e.sentence for e in exercises if e.flags == (JUDGING_FAILED,))
    if transcript.ended != "finished":
        return "stopped", bounded_sentence(transcript.reason)
    if all(item.outcome == "missing" for item in exercises):
        return "graded", "None of the exercises stands in it."
    return "graded", ""

"""Grades again: everything, one student or one exercise, with the same seed unless told otherwise."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from slmlab.grading.driver import Pool, Tell, closable
from slmlab.grading.grader import summed
from slmlab.grading.judging import MOVED
from slmlab.grading.plan import Plan
from slmlab.grading.publish import publish, stored_results
from slmlab.grading.records import ExerciseGrade, Grade, Submission
from slmlab.grading.reports import Results
from slmlab.grading.store import REGRADED, Store


def rebuild(store: Store) -> Results:
    """Makes the reports again, with overrides.csv as it is now; runs nothing."""
    run = store.read_run()
    plan = Plan.from_json(run["plan"])
    with store.locked():
        store.check_grades(run["students"], plan)
        results = stored_results(store, plan, run["students"])
        publish(store, results)
    return results


def regrade(
    submissions: Sequence[Submission],
    store: Store,
    pool: Pool,
    *,
    student: str | None = None,
    exercise: str | None = None,
    seed: int | None = None,
    unsafe: bool = False,
    started: Callable[[int, int], None] = lambda resumed, total: None,
    finished: Tell = lambda grade: None,
) -> Results:
    """Runs submissions of a graded folder again and makes its reports anew.

    With an exercise, the whole notebook runs and only that exercise's grade is replaced. Decisions
    in overrides.csv stay. Raises ValueError for a student or exercise that the run does not have,
    and where a submission has changed since it was graded and only one exercise is asked for.
    """
    run = store.read_run()
    plan = Plan.from_json(run["plan"])
    ids = plan.exercises if exercise is None else (_known(exercise, plan.exercises, "exercise"),)
    used = replace(plan, exercises=ids, seed=plan.seed if seed is None else seed, unsafe=unsafe)
    by_name = {item.student: item for item in submissions}
    wanted = run["students"] if student is None else [_known(student, run["students"], "student")]
    gone = [name for name in wanted if name not in by_name]
    if gone:
        raise ValueError(
            f"The submission of {gone[0]!r} is not in the folder any more: put it back, or name "
            "another folder with --submissions."
        )
    with store.locked():
        store.check_grades(set(run["students"]) - set(wanted), plan)
        before = {name: store.grade(name, plan) for name in wanted}
        if exercise is not None:
            _check_unchanged(before, by_name)
        if student is None and exercise is None:
            plan = used
            store.write_run(run | {"plan": plan.to_json()})
        started(0, len(wanted))
        with contextlib.closing(closable(pool(used, [by_name[name] for name in wanted]))) as new:
            for grade in new:
                finished(grade)
                if plan is not used:
                    grade = _marked(grade, used, ids)
                old = before[grade.student]
                if exercise is not None and old is not None:
                    grade = merged(old, grade, by_name[grade.student])
                store.write_grade(grade)
        results = stored_results(store, plan, run["students"])
        publish(store, results)
    return results


def _known(name: str, known: Sequence[str], what: str) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"--{what} {name!r}: this run has no such {what}.{hint}")


def _check_unchanged(before: dict[str, Grade | None], by_name: dict[str, Submission]) -> None:
    for name, old in before.items():
        if old is None or old.sha256 != by_name[name].sha256:
            raise ValueError(
                f"The submission of {name!r} has changed since it was graded, or its grade is "
                "missing: regrade it without --exercise, so that all its grades are of one file."
            )


def _marked(grade: Grade, plan: Plan, ids: Sequence[str]) -> Grade:
    mark = [{"exercises": list(ids), "seed": plan.seed, "unsafe": plan.unsafe}]
    return replace(grade, audit=grade.audit | {REGRADED: mark})


def merged(old: Grade, new: Grade, submission: Submission) -> Grade:
    """The old grade with the exercises of the new one in their places.

    Whether a cell was moved is known from the whole, so that flag stays as it was.
    """
    replacing = {item.exercise_id: item for item in new.exercises}

    def one(item: ExerciseGrade) -> ExerciseGrade:
        fresh = replacing.get(item.exercise_id)
        if fresh is None:
            return item
        moved = (MOVED,) * (MOVED in item.flags)
        return replace(fresh, flags=tuple(dict.fromkeys((*fresh.flags, *moved))))

    if new.status == "error":
        return old
    marks = [*old.audit.get(REGRADED, []), *new.audit[REGRADED]]
    details = old.audit.get("details", {}) | new.audit.get("details", {})
    audit = new.audit | {
        "fingerprint": old.audit.get("fingerprint"),
        "seed": old.audit.get("seed"),
        "details": details,
        REGRADED: marks,
    }
    exercises = tuple(one(item) for item in old.exercises)
    return summed(submission, exercises, new.status, new.reason, audit)

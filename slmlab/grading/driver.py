"""Grades a folder of submissions into a folder of results, and goes on where a run was killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.grading.overrides import Overrides
from slmlab.grading.plan import Plan
from slmlab.grading.publish import publish, read_overrides, stored_results
from slmlab.grading.records import Grade, Submission
from slmlab.grading.reports import Results, feedback_html
from slmlab.grading.store import Store

FORMAT = 1
REFRESH_SECONDS = 5.0

Pool = Callable[[Plan, Sequence[Submission]], Iterator[Grade]]
Tell = Callable[[Grade], None]


@dataclass(frozen=True)
class Outcome:
    """What a run did: the results, and how many grades were taken from an earlier run."""

    results: Results
    resumed: int


def check_fresh(store: Store, resume: bool) -> None:
    """Raises ValueError where the folder holds results and they were not asked for."""
    if store.is_started() and not resume:
        raise ValueError(
            f"{store.folder} holds results already: add --resume to go on with them, or give "
            "another --out."
        )


def grade(
    submissions: Sequence[Submission],
    store: Store,
    plan: Plan,
    pool: Pool,
    *,
    source: Path,
    resume: bool = False,
    started: Callable[[int, int], None] = lambda resumed, total: None,
    finished: Tell = lambda grade: None,
) -> Outcome:
    """Grades what is not graded yet, writes each grade at once, and the reports as they come.

    started(resumed, total) and finished(grade) tell of the progress. Whatever ends this early, an
    exception or a kill, leaves every finished grade; the reports are then made from those.
    Raises ValueError where the folder holds results and resume is False, and where nothing can be
    graded here.
    """
    check_fresh(store, resume)
    by_name = {item.student: item for item in submissions}
    students = sorted(by_name)
    with store.locked():
        # Read once, so that an edit in the middle of the run cannot stop it; the end reads again.
        decided = read_overrides(store, plan, students)
        store.write_run(_run(plan, source, students))
        done = {name: found for name in students if (found := store.finished(by_name[name], plan))}
        waiting = [by_name[name] for name in students if name not in done]
        started(len(done), len(students))
        _grade_all(waiting, store, plan, pool, done, decided, finished)
        results = stored_results(store, plan, students)
        publish(store, results)
    return Outcome(results, len(students) - len(waiting))


def _grade_all(
    waiting: list[Submission],
    store: Store,
    plan: Plan,
    pool: Pool,
    done: dict[str, Grade],
    decided: Overrides,
    finished: Tell,
) -> None:
    refreshed = time.monotonic()
    try:
        # Closing the pool's iterator ends its processes, whatever happens here.
        with contextlib.closing(closable(pool(plan, waiting))) as grades:
            for one in grades:
                store.write_grade(one)
                done[one.student] = one
                finished(one)
                so_far = Results(plan, tuple(done.values()), decided)
                store.write_feedback(one.student, feedback_html(one, so_far))
                if time.monotonic() - refreshed > REFRESH_SECONDS:
                    publish(store, so_far, pages=False)
                    refreshed = time.monotonic()
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError, OSError):
            publish(store, Results(plan, tuple(done.values()), decided))
        raise


def closable(grades: Iterator[Grade]) -> Generator[Grade, None, None]:
    """A generator, which can be closed, around any iterator."""
    yield from grades


def _run(plan: Plan, source: Path, students: list[str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "submissions": str(source.absolute()),
        "plan": plan.to_json(),
        "students": students,
    }

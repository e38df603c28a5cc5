"""The same jobs on a Dask cluster (`slmlab grade --dask ADDRESS`).

A worker holds job processes of its own, as the local pool does, so sandbox, deadlines and judging
are the same code. The driver writes each grade when its future is done: a worker that is killed
loses what it was grading, and Dask runs that again elsewhere. Grading a submission twice gives the
same grade.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from slmlab.grading.grader import blank_grade
from slmlab.grading.job import GradingRefused, Job
from slmlab.grading.plan import Plan
from slmlab.grading.records import Grade, Submission
from slmlab.grading.wire import submission_from_json, submission_to_json

CONNECT_SECONDS = 30
RETRIES = 3

# By thread of the worker: the plan it was started for, and its job.
_jobs: dict[int, tuple[str, Job]] = {}


def dask_grades(plan: Plan, submissions: Sequence[Submission], address: str) -> Iterator[Grade]:
    """The grades in the order in which they are ready.

    The workers need this version of slmlab, the exercise packs and bubblewrap. Raises ValueError
    where dask.distributed is not installed or no scheduler answers, and GradingRefused where a
    worker cannot grade.
    """
    if not submissions:
        return
    client = _connect(address)
    futures: dict[Any, Submission] = {}
    try:
        text = json.dumps(plan.to_json(), sort_keys=True)
        for submission in submissions:
            content = json.dumps(submission_to_json(submission))
            # Impure: a grade is asked for again, not taken from what a cluster remembers.
            future = client.submit(grade_here, text, content, pure=False, retries=RETRIES)
            futures[future] = submission
        yield from _collected(plan, futures)
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(futures), force=True)
            client.run(close_here, wait=False)
        client.close()


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "--dask needs dask.distributed: install it with pip install 'slmlab[cluster]'."
        ) from None
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--dask {address}: no Dask scheduler answers there ({error or 'time ran out'}); give "
            "the address that `dask scheduler` prints, for example tcp://127.0.0.1:8786."
        ) from None


def _collected(plan: Plan, futures: dict[Any, Submission]) -> Iterator[Grade]:
    from distributed import as_completed

    finished = as_completed(list(futures))
    for future in finished:
        submission = futures[future]
        if future.cancelled() or future.status == "lost":
            raise ValueError(
                "The Dask cluster went away. What it had graded is kept: start it again, and add "
                "--resume."
            )
        if future.status != "finished":
            error = future.exception()
            if isinstance(error, GradingRefused):
                raise error
            reason = f"The grader failed: the cluster gave no grade ({type(error).__name__})."
            yield blank_grade(plan, submission, "error", reason)
        else:
            yield Grade.from_json(future.result())
        # The cluster need not keep what is on the disk here.
        future.release()


def grade_here(plan_text: str, submission_text: str) -> str:
    """One task: grades one submission with the job process of this thread of the worker."""
    here = threading.get_ident()
    known, job = _jobs.get(here, ("", None))
    if job is None or known != plan_text:
        if job is not None:
            job.close()
        job = Job(Plan.from_json(json.loads(plan_text)))
        _jobs[here] = (plan_text, job)
    submission = submission_from_json(json.loads(submission_text))
    grade: Grade = job.grade(submission)
    return grade.to_json()


def close_here() -> None:
    """Ends all job processes of this worker; a later task starts new ones."""
    while _jobs:
        _, (_, job) = _jobs.popitem()
        job.close()


atexit.register(close_here)

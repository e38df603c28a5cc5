"""Many submissions at a time on this machine: one thread and one job process each."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable

from slmlab.grading.job import Grading, Job
from slmlab.grading.plan import Plan
from slmlab.grading.records import Grade, Limits, Submission

JOB_MB = 700  # a job process and its fork server, both with torch
MIB = 2**20


def default_jobs(limits: Limits) -> int:
    """As many as there are cores for this process, and memory for that many at their limit."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        import psutil

        room = psutil.virtual_memory().available // MIB // (JOB_MB + limits.memory_mb)
    except (ImportError, OSError):
        room = 1
    return max(1, min(cores, int(room)))


def local_grades(
    plan: Plan,
    submissions: Iterable[Submission],
    jobs: int,
    make_job: Callable[[Plan], Grading] = Job,
) -> Generator[Grade, None, None]:
    """The grades in the order in which they are ready.

    Closing the iterator, or an exception in the caller, ends every job process at once; what was
    being graded is lost. Raises GradingRefused (a ValueError) where nothing can be graded.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int):
        raise TypeError(f"jobs must be an int, not {type(jobs).__name__}.")
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: give at least 1.")
    waiting: queue.SimpleQueue[Submission] = queue.SimpleQueue()
    count = 0
    for submission in submissions:
        waiting.put(submission)
        count += 1
    finished: queue.SimpleQueue[Grade | BaseException] = queue.SimpleQueue()
    workers = [make_job(plan) for _ in range(min(jobs, count))]
    threads = [
        threading.Thread(target=_work, args=(job, waiting, finished), daemon=True)
        for job in workers
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in range(count):
            result = finished.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        _drain(waiting)
        for job in workers:
            job.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _work(
    job: Grading,
    waiting: queue.SimpleQueue[Submission],
    finished: queue.SimpleQueue[Grade | BaseException],
) -> None:
    while True:
        try:
            submission = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            finished.put(job.grade(submission))
        except BaseException as error:
            finished.put(error)
            return


def _drain(waiting: queue.SimpleQueue[Submission]) -> None:
    while True:
        try:
            waiting.get_nowait()
        except queue.Empty:
            return

"""The grader's handle on a job process: starts it, keeps a deadline over it, replaces it.

Judging happens in the job process, so that even an answer which crashes or stalls the comparison
costs one row and not the batch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Protocol

from slmlab.grading.grader import blank_grade
from slmlab.grading.judging import JUDGING_SECONDS, JUDGING_WALL_SECONDS
from slmlab.grading.plan import Plan
from slmlab.grading.records import Grade, Submission
from slmlab.grading.wire import line, submission_to_json

START_SECONDS = 120.0
SPARE_SECONDS = 60.0
ATTEMPTS = 2


class GradingRefused(ValueError):
    """No submission can be graded here: no sandbox, or an exercise that is broken."""


class Grading(Protocol):
    """What a pool asks of a job."""

    def grade(self, submission: Submission) -> Grade:
        """The grade of one submission; raises GradingRefused where none can be given."""
        ...

    def close(self) -> None:
        """Ends the job at once; may be called from another thread, and more than once."""
        ...


class _Died(Exception):
    """The job process ended or missed its deadline; the text says which."""


class Job:
    """One job process, started on first use."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._was_ready = self._has_graded = False

    def grade(self, submission: Submission) -> Grade:
        """The grade of one submission, with a second process where the first one died on it."""
        reason = refused = ""
        for _ in range(ATTEMPTS):
            try:
                process = self._started()
                answer = self._ask(
                    process, line(submission_to_json(submission)), self._deadline(submission)
                )
                if "refused" in answer:
                    refused = answer["refused"]
                    raise _Died(f"could not run it: {refused}")
                grade = Grade.from_json(answer["grade"])
                self._has_graded = True
                return grade
            except GradingRefused:
                raise
            except (_Died, ValueError, KeyError) as error:
                reason = str(error)
                self._kill()
                if self._closed:
                    raise
        if refused and not self._has_graded:
            raise GradingRefused(refused)
        text = f"The grader failed: its job process {reason} ({ATTEMPTS} attempts)."
        return blank_grade(self.plan, submission, "error", text)

    def close(self) -> None:
        """Ends the process and everything in its sandbox."""
        self._closed = True
        self._kill()

    def _deadline(self, submission: Submission) -> float:
        limits = self.plan.limits_for(submission.student)
        # Comparing, the right answer after one that was too much work, and diagnosing; and room for
        # a busy machine, on which seconds of CPU take longer.
        judging = 3 * JUDGING_SECONDS * len(self.plan.exercises) + JUDGING_WALL_SECONDS
        return limits.submission_seconds + judging + SPARE_SECONDS

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise _Died("was closed")
            if self._process is not None:
                return self._process
            process = self._process = _start()
        try:
            answer = self._ask(process, line(self.plan.to_json()), START_SECONDS)
        except _Died as error:
            self._kill()
            # One that worked before has bad luck now, for example no memory left: one row, no more.
            if self._closed or self._was_ready:
                raise
            raise GradingRefused(
                f"A job process of the grader {error} while it started: try `slmlab doctor`, and "
                "`python -m slmlab.grading.job_process` to see its messages."
            ) from None
        if "refused" in answer:
            self._kill()
            raise GradingRefused(answer["refused"])
        self._was_ready = True
        return process

    def _ask(self, process: subprocess.Popen[bytes], text: bytes, seconds: float) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(text)
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = b""
        finally:
            timer.cancel()
        if late.is_set():
            raise _Died(f"did not answer within {seconds:g} s")
        if not answer.endswith(b"\n"):
            raise _Died(f"ended with status {process.wait()}")
        content = json.loads(answer)
        if not isinstance(content, dict):
            raise _Died("gave no answer")
        return content

    def _kill(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _end(process)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _start() -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C goes to the driver alone, and one signal ends all of the job.
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    return subprocess.Popen(
        [sys.executable, "-m", "slmlab.grading.job_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()

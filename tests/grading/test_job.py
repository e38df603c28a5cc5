"""A job process that dies or stalls costs one row, and one that cannot start stops the run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slmlab.grading import job as job_module
from slmlab.grading.grader import blank_grade
from slmlab.grading.job import GradingRefused, Job
from slmlab.grading.plan import Plan
from slmlab.grading.pool import local_grades
from tests.grading.class_of import submission

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")

SCRIPT = """
import json, os, sys, time
json.loads(sys.stdin.readline())
print(json.dumps(READY), flush=True)
for text in sys.stdin:
    student = json.loads(text)["student"]
    if student == "dies":
        os._exit(3)
    if student == "stalls":
        time.sleep(600)
    if student == "chatters":
        print("not an answer", flush=True)
    print(json.dumps({"grade": GRADE}), flush=True)
"""


def _plan() -> Plan:
    from slmlab.checking import registry

    return Plan((registry.exercises("start")[0].id,), 1)


@pytest.fixture
def script(monkeypatch):
    """Puts a small process in the place of the real one."""

    def use(ready: str = "{'ready': {}}") -> None:
        honest = submission("honest", ["x = 1"])
        stored = blank_grade(_plan(), honest, "graded", "").to_json()
        text = SCRIPT.replace("READY", ready).replace("GRADE", repr(stored))
        monkeypatch.setattr(
            job_module,
            "_start",
            lambda: subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            ),
        )
        monkeypatch.setattr(Job, "_deadline", lambda self, one: 1.0)

    return use


@pytest.mark.parametrize(
    ("student", "said"),
    [("dies", "status 3"), ("stalls", "within 1 s"), ("chatters", "grader failed")],
)
def test_a_row_with_the_reason_and_the_batch_goes_on(script, student, said):
    script()
    batch = [submission(name, ["x = 1"]) for name in ("honest", student, "honest")]
    grades = list(local_grades(_plan(), batch, 1))
    assert [grade.status for grade in grades] == ["graded", "error", "graded"]
    assert grades[1].student == student and said in grades[1].reason


def test_a_job_that_cannot_start_stops_the_run_with_its_reason(script):
    script("{'refused': 'bubblewrap is missing: install it.'}")
    with pytest.raises(GradingRefused, match="bubblewrap is missing"):
        list(local_grades(_plan(), [submission("a", ["x = 1"])], 1))

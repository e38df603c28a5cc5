"""`slmlab grade` as a process: killed, interrupted, resumed, on a cluster that loses a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slmlab.grading import dask_pool, driver
from slmlab.grading.collect import collect
from slmlab.grading.dask_pool import dask_grades
from slmlab.grading.plan import Plan
from slmlab.grading.pool import local_grades
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox
from slmlab.grading.store import Store
from tests.grading.class_of import hand_in, submission

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")

PATIENCE = 120.0
QUIET = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    try:
        open_sandbox().__enter__().close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def _exercise_id() -> str:
    from slmlab.checking import registry

    return registry.exercises("start")[0].id


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory) -> Path:
    """Five students; most answers take a while, so that a kill meets one half-way."""
    folder = tmp_path_factory.mktemp("class")
    name = _exercise_id()
    head = f"import os, time\nfrom slmlab import exercise\n@exercise({name!r})\ndef f(**given):\n"
    hand_in(folder, "ann", [f"{head}    return 1"])
    hand_in(folder, "=bob", ["time = 0", f"{head}    time.sleep(0.2)\n    raise ValueError('no')"])
    hand_in(folder, "cy", [f"{head}    os._exit(1)"])
    hand_in(folder, "dee", ["import time; time.sleep(2)", f"{head}    return None"])
    hand_in(folder, "eve", ["while"])
    return folder


def _command(handed_in: Path, out: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "slmlab.cli", "grade", str(handed_in), "--out", str(out)]
    return [*start, "--exercises", _exercise_id(), "--seed", "5", "--jobs", "1", *more]


def _plan() -> Plan:
    return Plan((_exercise_id(),), 5)


def _one_job(plan, waiting):
    return local_grades(plan, waiting, 1)


def _finish(handed_in: Path, out: Path, pool=_one_job, resume: bool = True) -> int:
    """Grades the rest in this process; how many were graded before."""
    submissions = collect(handed_in, _plan().exercises)
    outcome = driver.grade(submissions, Store(out), _plan(), pool, source=handed_in, resume=resume)
    return outcome.resumed


def _tables(out: Path) -> dict[str, bytes]:
    made = [out / name for name in ("grades.csv", "class.html", "grades.json")]
    pages = sorted((out / "submissions").glob("*/feedback.html"))
    return {str(path.relative_to(out)): path.read_bytes() for path in (*made, *pages)}


@pytest.fixture(scope="module")
def undisturbed(handed_in, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    _finish(handed_in, out, resume=False)
    return _tables(out)


def _until(what, why: str) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"waited in vain: {why}"
        time.sleep(0.01)


def _stop(handed_in: Path, out: Path, number: int, after: int, *more: str) -> subprocess.Popen:
    """Starts a run and sends it a signal once `after` grades are written."""
    process = subprocess.Popen(
        _command(handed_in, out, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    written = out / "submissions"
    _until(lambda: len(list(written.glob("*/grade.json"))) >= after, "no grade was written")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    process.wait(timeout=PATIENCE)
    _until(lambda: not any(map(_lives, children)), "a job outlived the grader")
    return process


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killed_then_interrupted_then_resumed_is_as_undisturbed(handed_in, undisturbed, tmp_path):
    out = tmp_path / "out"
    _stop(handed_in, out, signal.SIGKILL, 1)
    process = _stop(handed_in, out, signal.SIGINT, 3, "--resume")
    assert process.returncode == 130
    assert process.stderr is not None and "--resume" in process.stderr.read()
    assert (out / "grades.csv").exists()
    assert _finish(handed_in, out) >= 3
    assert _tables(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0, 4.0, 5.0, 6.0, 7.0])
def test_killed_at_any_moment(handed_in, undisturbed, tmp_path, seconds):
    out = tmp_path / "out"
    process = subprocess.Popen(_command(handed_in, out))
    time.sleep(seconds)
    process.kill()
    process.wait(timeout=PATIENCE)
    # The jobs of the killed run may live for a moment; nothing they do reaches the folder.
    _finish(handed_in, out)
    assert _tables(out) == undisturbed


def test_the_rows_say_what_happened(undisturbed):
    rows = undisturbed["grades.csv"].decode().splitlines()
    assert [row.split(",")[0].strip('"') for row in rows] == [
        "student",
        "'=bob",
        "ann",
        "cy",
        "dee",
        "eve",
    ]
    assert ',"stopped",' in rows[3]


def test_a_cluster_gives_the_same_tables(handed_in, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", **QUIET
    ) as cluster:
        address = cluster.scheduler_address
        _finish(handed_in, out, lambda plan, waiting: dask_grades(plan, waiting, address))
    assert _tables(out) == undisturbed


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_tables(handed_in, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "out"
    killed: list[int] = []

    def pool(plan, waiting):
        for grade in dask_grades(plan, waiting, cluster.scheduler_address):
            yield grade
            if not killed:
                with distributed.Client(cluster) as client:
                    killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(n_workers=1, processes=True, **QUIET) as cluster:
        _finish(handed_in, out, pool)
    assert len(killed) == 1
    assert _tables(out) == undisturbed


def test_a_wrong_address_is_one_sentence(handed_in, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_pool, "CONNECT_SECONDS", 1)
    with pytest.raises(ValueError, match="no Dask scheduler"):
        list(dask_grades(_plan(), [submission("a", ["1"])], "tcp://127.0.0.1:9"))

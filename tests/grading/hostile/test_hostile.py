"""A class of hostile submissions, graded as one batch: right scores, and nothing found or left."""

from __future__ import annotations

import json
import os
import re
import socket
import sys

import pytest

from slmlab.checking import make_cases, registry
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox
from tests.grading.hostile import (  # noqa: F401 - each registers its submissions
    channel,
    endless,
    escaping,
    looking,
    memory,
    notebooks,
    patches,
    pretenders,
    processes,
)
from tests.grading.hostile.attack import ATTACKS, EXERCISES, TARGET
from tests.grading.hostile.classroom import SEED, Graded, Host, grade_class

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

# Honest cells have four seconds on a busy machine too; those who wait for the end of their time get
# a quarter of that.
HURRY = 0.25
SHORT = Limits(
    cell_seconds=4,
    submission_seconds=24,
    cpu_seconds=24,
    memory_mb=512,
    processes=24,
    tmp_mb=16,
    output_mb=4,
)


@pytest.fixture(
    scope="module", params=[SHORT, pytest.param(Limits(), marks=pytest.mark.slow)], ids=["", "full"]
)
def graded(request, tmp_path_factory) -> Graded:
    """The class after grading: with short limits, and with the default ones in `make prove`."""
    try:
        open_sandbox(preload=False).close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    hurry = HURRY if request.param is SHORT else 1
    return grade_class(tmp_path_factory.mktemp("h"), request.param, hurry)


def test_there_are_enough():
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
def test_score(graded: Graded, name: str) -> None:
    attack, grade = ATTACKS[name], graded.grades[name]
    scores = _guessed() if attack.scores == "guessed" else attack.scores
    found = tuple(item.credit for item in grade.exercises)
    told = [(item.outcome, item.sentence) for item in grade.exercises]
    assert found == pytest.approx(scores), (attack.tries, grade.status, grade.reason, told)
    assert grade.total == pytest.approx(
        sum(3 * score for score in scores), abs=0.01
    )  # shown to two places
    assert grade.status == attack.status, (grade.status, grade.reason)
    assert bool(grade.reason) == bool(attack.reason), grade.reason
    assert re.search(attack.reason, grade.reason), grade.reason
    assert attack.says in grade.exercises[1].sentence, grade.exercises[1].sentence
    assert attack.flags in " ".join(grade.flags), grade.flags
    cells = {item["cell"]: item for item in grade.audit.get("cells", ())}
    if attack.cell is not None:
        assert cells[2]["status"] == attack.cell, cells[2]
    if attack.finds is not None:
        assert cells[2]["status"] == "ran", cells[2]
        assert json.loads(cells[2]["printed"]) == attack.finds


def _guessed() -> tuple[float, float, float]:
    """The share of the graded inputs that the public seed happens to give as well."""
    exercise = registry.get(TARGET)
    public, graded = (
        [str(case.arguments["codes"].tolist()) for case in make_cases(exercise, seed)]
        for seed in (0, SEED)
    )
    share = sum(inputs in public for inputs in graded) / len(graded)
    assert share < 0.5
    return 1, share, 1


def test_the_batch_is_complete(graded: Graded) -> None:
    assert set(graded.grades) == {*ATTACKS, "victim"}
    assert len(graded.table) == 1 + len(ATTACKS) + 1
    assert f"{len(ATTACKS) + 1} submissions" in graded.said
    assert "error" not in {grade.status for grade in graded.grades.values()}
    assert graded.grades["victim"].total == graded.grades["victim"].max_total == 9
    ids = {tuple(e.exercise_id for e in grade.exercises) for grade in graded.grades.values()}
    assert ids == {EXERCISES}


def test_nothing_is_left_behind(graded: Graded) -> None:
    assert graded.host.left_behind() == []


def test_the_host_is_unchanged(graded: Graded) -> None:
    assert graded.host.files() == graded.before
    assert graded.host.canary.read_text(encoding="utf-8") == graded.host.secret
    assert graded.host.secret not in os.environ.values()


def test_no_secret_came_out(graded: Graded) -> None:
    for name, text in graded.texts():
        assert graded.host.secret not in text, name


def test_what_is_kept_of_one_is_small(graded: Graded) -> None:
    for name, text in graded.texts():
        if name in ("grade.json", "feedback.html"):
            assert len(text) < 200_000, name


def test_pages_show_markup_as_text(graded: Graded) -> None:
    pages = [text for name, text in graded.texts() if name.endswith(".html")]
    assert len(pages) > len(ATTACKS)
    assert not any("<script>alert" in page or "<img src=x" in page for page in pages)
    assert any("&lt;script&gt;alert" in page for page in pages)


def test_the_host_would_notice(tmp_path) -> None:
    """What the tests above rely on: a connection, a file and a process of the marker are seen."""
    import contextlib
    import subprocess

    host = Host(tmp_path)
    with contextlib.ExitStack() as stack:
        host.listen(stack)
        assert host.reached() == []
        with socket.create_connection(host.sockets["tcp"].getsockname()):
            assert host.reached() == ["tcp"]
    for folder in (host.submissions, host.canary.parent, host.out):
        folder.mkdir()
    assert host.left_behind() == [] and host.files() == {}
    (host.canary.parent / host.marker).write_text("late")
    assert len(host.left_behind()) == 1 and len(host.files()) == 1
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{host.marker}', 0, 0, 0); print(1, flush=1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(host.left_behind()) == 2
        process.kill()

"""The folder of results: written as it comes, taken up where it stopped, never mixed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from slmlab.grading import driver, regrading
from slmlab.grading.choose import common_exercises
from slmlab.grading.grader import Grader
from slmlab.grading.multipliers import read_multipliers
from slmlab.grading.overrides import HEADER
from slmlab.grading.plan import Plan
from slmlab.grading.pool import local_grades
from slmlab.grading.store import Store
from tests.grading.class_of import FakeSandbox, submission


def _plan(**changes) -> Plan:
    return replace(Plan(_ids(), 11), **changes)


def _ids() -> tuple[str, ...]:
    from slmlab.checking import registry

    return tuple(item.id for item in registry.exercises("anatomy")[:2])


def _source(name: str, body: str) -> str:
    return f'from slmlab import exercise\n@exercise("{name}")\ndef f(**given):\n    {body}\n'


def _class(count: int = 4):
    first, second = _ids()
    bodies = ["return 1", "raise NotImplementedError", "1/0", "return None"]
    return [
        submission(f"s{n}", [_source(first, bodies[n % 4]), _source(second, f"return {n}")])
        for n in range(count)
    ]


class InlineJob:
    """A job in this process, which notes whom it graded."""

    graded: ClassVar[list[str]] = []

    def __init__(self, plan: Plan) -> None:
        self.grader = Grader(plan, FakeSandbox())

    def grade(self, one):
        InlineJob.graded.append(one.student)
        return self.grader.grade(one)

    def close(self) -> None:
        pass


def _pool(plan, waiting):
    InlineJob.graded = []
    return local_grades(plan, waiting, 1, InlineJob)


def _tables(folder: Path) -> dict[str, bytes]:
    made = [folder / name for name in ("grades.csv", "class.html", "grades.json")]
    pages = sorted((folder / "submissions").glob("*/feedback.html"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in (*made, *pages)}


def _run(folder: Path, plan: Plan | None = None, pool=_pool, **more):
    source = Path("handed-in")
    return driver.grade(
        more.pop("submissions", _class()),
        Store(folder),
        plan or _plan(),
        pool,
        source=source,
        **more,
    )


def test_a_run_writes_everything_and_a_second_one_is_refused(tmp_path):
    _run(tmp_path / "out")
    assert len(_tables(tmp_path / "out")) == 3 + 4
    with pytest.raises(ValueError, match="--resume"):
        _run(tmp_path / "out")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_broke_off_ends_as_an_undisturbed_one(tmp_path, after):
    _run(tmp_path / "whole")

    def broken(plan, waiting):
        for count, grade in enumerate(_pool(plan, waiting)):
            if count == after:
                raise KeyboardInterrupt
            yield grade

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "out", pool=broken)
    outcome = _run(tmp_path / "out", resume=True)
    assert outcome.resumed == after
    assert len(InlineJob.graded) == 4 - after
    assert _tables(tmp_path / "out") == _tables(tmp_path / "whole")


def test_resume_takes_only_what_would_come_out_the_same(tmp_path):
    folder = tmp_path / "out"
    _run(folder)
    _run(folder, resume=True)
    assert InlineJob.graded == []
    _run(folder, _plan(seed=12), resume=True)
    assert len(InlineJob.graded) == 4
    _run(folder, _plan(seed=12, multipliers={"s1": 2.0}), resume=True)
    assert InlineJob.graded == ["s1"]
    changed = _class()
    changed[2] = submission("s2", ["x = 1"])
    _run(folder, _plan(seed=12, multipliers={"s1": 2.0}), resume=True, submissions=changed)
    assert InlineJob.graded == ["s2"]


def test_a_half_written_or_foreign_file_is_graded_again(tmp_path):
    folder = tmp_path / "out"
    _run(folder)
    whole = _tables(folder)
    first = folder / "submissions" / "s0" / "grade.json"
    first.write_bytes(first.read_bytes()[:200])
    (folder / "submissions" / "s1" / ".grade.json.partial").write_text("{")
    _run(folder, resume=True)
    assert InlineJob.graded == ["s0"]
    assert _tables(folder) == whole
    assert not list(folder.rglob("*.partial"))


def test_two_runs_cannot_share_a_folder(tmp_path):
    store = Store(tmp_path / "out")
    with store.locked(), pytest.raises(ValueError, match="in use"):
        _run(tmp_path / "out")


def test_unreadable_submissions_get_a_row_with_the_reason(tmp_path):
    unreadable = replace(_class()[0], cells=(), problem="n.ipynb is no JSON.")
    outcome = _run(tmp_path / "out", submissions=[unreadable, *_class()[1:]])
    assert outcome.results.grades[0].status == "unreadable"
    assert "n.ipynb is no JSON" in (tmp_path / "out" / "grades.csv").read_text()


def test_a_failure_of_the_grader_is_a_row_and_is_tried_again(tmp_path, monkeypatch):
    def fails(self, request, limits=None):
        raise RuntimeError("no such luck")

    run = FakeSandbox.run
    monkeypatch.setattr(FakeSandbox, "run", fails)
    outcome = _run(tmp_path / "out")
    assert {grade.status for grade in outcome.results.grades} == {"error"}
    assert "RuntimeError: no such luck" in outcome.results.grades[0].reason
    monkeypatch.setattr(FakeSandbox, "run", run)
    _run(tmp_path / "out", resume=True)
    assert len(InlineJob.graded) == 4


def test_overrides_outlive_resume_and_regrade(tmp_path):
    folder = tmp_path / "out"
    _run(folder)
    first = _ids()[0]
    text = HEADER + f"s0,{first},1,by hand,me\n"
    (folder / "overrides.csv").write_text(text, encoding="utf-8")
    regrading.rebuild(Store(folder))
    decided = _tables(folder)
    assert b"set by hand" in decided["grades.csv"]
    _run(folder, resume=True)
    regrading.regrade(_class(), Store(folder), _pool)
    assert _tables(folder) == decided
    assert (folder / "overrides.csv").read_text(encoding="utf-8") == text


def test_regrading_one_exercise_of_one_student_changes_nothing_else(tmp_path):
    folder = tmp_path / "out"
    _run(folder)
    before = _tables(folder)
    regrading.regrade(_class(), Store(folder), _pool, student="s1", exercise=_ids()[1])
    assert InlineJob.graded == ["s1"]
    assert _tables(folder) == before
    _run(folder, resume=True)
    assert InlineJob.graded == []
    regraded = Store(folder).grade("s1")
    assert regraded is not None
    assert regraded.audit["regraded"][0]["exercises"] == [_ids()[1]]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [({"student": "s9"}, "no such student"), ({"exercise": "x.y"}, "no such exercise")],
)
def test_regrading_what_is_not_there_says_so(tmp_path, wanted, said):
    _run(tmp_path / "out")
    with pytest.raises(ValueError, match=said):
        regrading.regrade(_class(), Store(tmp_path / "out"), _pool, **wanted)


def test_a_stranger_s_cell_adds_no_exercise_for_the_class():
    first, second = _ids()
    many = [submission(f"s{n}", [_source(first, "return 1")]) for n in range(5)]
    many.append(submission("stranger", [_source(second, "return 1"), _source("no.such", "pass")]))
    assert common_exercises(many) == ((first,), {second: 1})
    with pytest.raises(ValueError, match="--exercises"):
        common_exercises([submission("x", ["y = 1"])])


def test_multipliers_are_a_number_or_a_table(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("student,multiplier\nada,1.5\n", encoding="utf-8")
    assert read_multipliers("2") == (2.0, {})
    assert read_multipliers(str(path)) == (1.0, {"ada": 1.5})
    assert _plan(multipliers={"ada": 1.5}).limits_for("ada").cell_seconds == 15
    for bad in ("0", "nan", "missing.csv"):
        with pytest.raises(ValueError, match="number"):
            read_multipliers(bad)


def test_closing_the_pool_early_ends_its_jobs():
    closed = threading.Event()

    class Slow(InlineJob):
        def close(self):
            closed.set()

    grades = local_grades(_plan(), _class(), 2, Slow)
    next(grades)
    grades.close()
    assert closed.is_set()

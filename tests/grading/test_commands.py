"""`slmlab grade` and `slmlab regrade`: wrong use is one sentence with the mend."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from slmlab.checking import registry
from slmlab.cli.main import app
from slmlab.grading import dask_pool, pool
from tests.grading.class_of import hand_in
from tests.grading.test_driver import InlineJob


@pytest.fixture
def inline(monkeypatch):
    """Jobs in this process, without a sandbox."""
    graded = pool.local_grades
    monkeypatch.setattr(pool, "local_grades", lambda plan, w, jobs: graded(plan, w, 1, InlineJob))


def _slmlab(*words) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def _class(folder):
    first = registry.exercises("anatomy")[0].id
    text = f'from slmlab import exercise\n@exercise("{first}")\ndef f(**given):\n    return 1\n'
    for student in ("ada", "=bob"):
        hand_in(folder / "in", student, [text])
    return folder / "in", first


def test_the_exercises_come_from_the_submissions_and_the_seed_is_kept(tmp_path, inline):
    handed_in, first = _class(tmp_path)
    out = tmp_path / "out"
    code, said = _slmlab("grade", handed_in, "--out", out)
    assert (code, f"Exercises: {first}." in said) == (0, True)
    run = json.loads((out / "run.json").read_text())
    code, said = _slmlab("grade", handed_in, "--out", out, "--resume", "--cell-seconds", "10")
    assert (code, "2 of them in an earlier run" in said) == (0, True)
    assert json.loads((out / "run.json").read_text()) == run


def test_results_are_not_overwritten(tmp_path, inline):
    handed_in, _ = _class(tmp_path)
    assert _slmlab("grade", handed_in, "--out", tmp_path / "out")[0] == 0
    code, said = _slmlab("grade", handed_in, "--out", tmp_path / "out")
    assert code == 1 and "--resume" in said and "Traceback" not in said


@pytest.mark.parametrize("other", [("--seed", "5"), ("--exercises", "start")])
def test_a_run_goes_on_with_the_same_questions(tmp_path, inline, other):
    handed_in, first = _class(tmp_path)
    out = tmp_path / "out"
    _slmlab("grade", handed_in, "--out", out, "--exercises", first, "--seed", "4")
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    code, said = _slmlab("grade", handed_in, "--out", out, "--resume", *other)
    assert code == 1 and f"was graded with {other[0]}" in " ".join(said.split())
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before


@pytest.mark.parametrize("place", [".", "grades", "ada/grades"])
def test_grades_among_the_submissions_would_be_a_student(tmp_path, inline, place):
    handed_in, _ = _class(tmp_path)
    code, said = _slmlab("grade", handed_in, "--out", handed_in / place)
    assert code == 2 and "lies in SUBMISSIONS" in " ".join(said.split())
    assert sorted(path.name for path in handed_in.iterdir()) == ["=bob", "ada"]


def test_regrade_finds_the_student_as_the_table_writes_the_name(tmp_path, inline):
    handed_in, _ = _class(tmp_path)
    _slmlab("grade", handed_in, "--out", tmp_path / "out")
    InlineJob.graded.clear()
    code, _ = _slmlab("regrade", tmp_path / "out", "--student", "'=bob")
    assert (code, InlineJob.graded) == (0, ["=bob"])


def test_overrides_are_applied_without_running_anything(tmp_path, inline):
    handed_in, first = _class(tmp_path)
    out = tmp_path / "out"
    _slmlab("grade", handed_in, "--out", out)
    with (out / "overrides.csv").open("a", encoding="utf-8") as file:
        file.write(f"ada,{first},1,fair,me\n")
    InlineJob.graded.clear()
    assert _slmlab("regrade", out, "--tables")[0] == 0
    assert InlineJob.graded == []
    assert f"set by hand: {first}" in (out / "grades.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--exercises", "anatomy.parameter_cuont"], "Did you mean"),
        (["--assignment", "nowhere.json"], "no such file"),
        (["--jobs", "0"], "at least 1"),
        (["--jobs", "2", "--dask", "tcp://x:1"], "not both"),
        (["--seed", "-1"], "seed=-1"),
        (["--memory-mb", "0"], "memory_mb"),
        (["--time-multiplier", "zero"], "a number such as 1.5"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path, words, said):
    handed_in, _ = _class(tmp_path)
    code, output = _slmlab("grade", handed_in, "--out", tmp_path / "out", *words)
    assert code in (1, 2) and said in " ".join(output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_dask_is_an_extra(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "distributed":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"slmlab\[cluster\]"):
        dask_pool._connect("tcp://127.0.0.1:1")

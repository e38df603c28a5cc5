"""Transcript -> grade: the notebook's own verdict where it ran, a reason where it did not."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from slmlab.checking import Case, Close, Execution, Exercise, Invariant, Mistake, check, make_cases
from slmlab.checking.failure import Failure
from slmlab.grading import bounds, judging
from slmlab.grading.judging import Evidence, judge_exercise, moved
from slmlab.grading.records import Answered, Cell, CellRun, Transcript
from tests.grading.class_of import answered


def _mistakes() -> tuple[Mistake, ...]:
    return tuple(
        Mistake(f"plus {n}", f"You added {n} where nothing is added.", lambda x, n=n: 2 * x + n)
        for n in (1, 2, 3)
    )


def _exercise(**changes) -> Exercise:
    fields: dict[str, Any] = {
        "id": "toy.twice",
        "title": "Twice",
        "points": 3,
        "minutes": 3,
        "difficulty": 1,
        "cases": lambda seed: [Case({"x": seed + n}) for n in (1, 2, 3)],
        "reference": lambda x: 2 * x,
        "mistakes": _mistakes(),
        "hints": ("a", "b", "c"),
        "compare": judging_compare(),
        "alternatives": (lambda x: x + x,),
    }
    return Exercise(**(fields | changes))


def judging_compare():
    from slmlab.checking import Exact

    return Exact()


TOY = _exercise()
CASES = make_cases(TOY, 0)
NAMES = '@exercise("toy.twice")\ndef twice(x): ...'


def _judge(
    *definitions: Answered, exercise=TOY, cells=(NAMES,), runs=None, ended="finished", why=""
):
    runs = runs if runs is not None else [CellRun(n, "ran") for n in range(len(cells))]
    transcript = Transcript(
        {exercise.id: tuple(definitions)} if definitions else {}, tuple(runs), ended, why
    )
    parts = tuple(Cell("n.ipynb", n, text) for n, text in enumerate(cells))
    cases = make_cases(exercise, 0)
    return judge_exercise(exercise, cases, Evidence.of(parts, transcript)).grade


def test_a_wrong_answer_gets_the_sentence_of_the_notebook():
    grade = _judge(answered(0, 3, 5, 7))
    report = check(TOY, lambda x: 2 * x + 1)
    assert report.diagnosis is not None
    assert (grade.outcome, grade.sentence, grade.mistake) == (
        "wrong",
        report.diagnosis.sentence,
        "plus 1",
    )
    assert grade.points == 0


def test_credit_is_the_share_of_cases():
    grade = _judge(answered(0, 2, 4, 7))
    assert (grade.passed, grade.total, grade.points) == (2, 3, 2)


def test_the_best_of_several_definitions_counts_and_is_flagged():
    grade = _judge(answered(0, 2, 4, 6), answered(1, 0, 0, 0), cells=(NAMES, NAMES))
    assert (grade.outcome, grade.points, grade.flags) == ("passed", 3, ("duplicated",))


def test_cases_that_did_not_come_back_do_not_count():
    grade = _judge(answered(0, 2), ended="exited", why="The process ended itself.")
    assert (grade.outcome, grade.passed, grade.total) == ("not returned", 1, 3)
    assert "1 of 3 cases" in grade.sentence and "The process ended itself." in grade.sentence


def test_more_outputs_than_cases_gain_nothing():
    grade = _judge(answered(0, 2, 4, 6, 8, 10))
    assert (grade.passed, grade.total, grade.credit) == (3, 3, 1)


@pytest.mark.parametrize(
    ("cells", "runs", "ended", "outcome", "said"),
    [
        (("x = 1",), None, "finished", "missing", "No cell"),
        ((NAMES,), [CellRun(0, "raised", "SyntaxError: x")], "finished", "error", "SyntaxError"),
        ((NAMES,), [CellRun(0, "timeout", "Too long.")], "finished", "not returned", "Too long."),
        (("exit()", NAMES), [CellRun(0, "ran")], "exited", "not returned", "It ended."),
        ((NAMES,), [CellRun(0, "ran")], "finished", "missing", "no function"),
    ],
)
def test_an_absent_answer_says_why(cells, runs, ended, outcome, said):
    grade = _judge(cells=cells, runs=runs, ended=ended, why="It ended." * (ended != "finished"))
    assert grade.outcome == outcome
    assert said in grade.sentence


HOSTILE_OUTPUTS = {
    "nan": math.nan,
    "infinity": math.inf,
    "huge integer": 10**20000,
    "giant text": "x" * 5_000_000,
    "keys": {("a", 1): 1, None: 2, "\u202e": 3},
    "deep": None,
    "nan tensor": torch.full((3,), math.nan),
    "large tensor": torch.zeros(5_000_000),
    "structured": np.zeros(4, dtype=[("a", "f4"), ("b", "i8")]),
    "empty": torch.zeros(0),
    "many items": list(range(500_000)),
}
_deep: list = []
for _ in range(900):
    _deep = [_deep]
HOSTILE_OUTPUTS["deep"] = _deep


@pytest.mark.parametrize("name", HOSTILE_OUTPUTS)
def test_no_output_stalls_or_crashes_the_judge(name):
    grade = _judge(answered(0, *[HOSTILE_OUTPUTS[name]] * 3))
    assert grade.outcome == "wrong"
    assert 0 < len(grade.sentence) <= bounds.MAX_SENTENCE


def test_a_check_that_counts_to_the_answer_is_stopped(monkeypatch):
    monkeypatch.setattr(judging, "JUDGING_SECONDS", 0.1)
    monkeypatch.setattr(bounds, "REPEAT_SECONDS", 0.1)

    def counts(arguments, output):
        total = 0
        while total < output:
            total += 1
        return None

    slow = _exercise(compare=Invariant(counts))
    grade = _judge(answered(0, *[10**15] * 3), exercise=slow)
    assert (grade.outcome, grade.points) == ("wrong", 0)


def test_a_busy_machine_costs_nobody_points(monkeypatch):
    """Seconds of the clock that others used do not count; the limit is CPU time."""
    monkeypatch.setattr(judging, "JUDGING_SECONDS", 0.2)
    waits = _exercise(compare=Invariant(lambda arguments, output: time.sleep(0.15)))
    assert _judge(answered(0, 2, 4, 6), exercise=waits).points == 3


def test_a_check_cannot_take_the_limit_for_an_error_of_its_own(monkeypatch):
    monkeypatch.setattr(judging, "JUDGING_SECONDS", 0.1)
    monkeypatch.setattr(bounds, "REPEAT_SECONDS", 60.0)

    def patient(arguments, output):
        try:
            while output > 10**6:
                pass
        except Exception:
            return None
        return None

    grade = _judge(answered(0, *[10**15] * 3), exercise=_exercise(compare=Invariant(patient)))
    assert (grade.outcome, grade.points) == ("wrong", 0)


def test_where_the_right_answer_is_too_much_work_the_exercise_is_at_fault(monkeypatch):
    monkeypatch.setattr(judging, "JUDGING_SECONDS", 0.1)
    monkeypatch.setattr(bounds, "REPEAT_SECONDS", 0.1)

    def endless(arguments, output):
        while True:
            pass

    with pytest.raises(RuntimeError, match=r"right answer of 'toy\.twice'"):
        _judge(answered(0, 2, 4, 6), exercise=_exercise(compare=Invariant(endless)))


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_diagnosis_that_fails_costs_its_sentence_only(monkeypatch, seconds):
    def fails(exercise, run):
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr(judging, "diagnose", fails)
    monkeypatch.setattr(judging, "JUDGING_SECONDS", 0.2)
    grade = _judge(answered(0, 2, 4, 7))
    assert (grade.outcome, grade.passed, grade.points) == ("wrong", 2, 2)
    assert grade.flags == ("not diagnosed",) and "no diagnosis" in grade.sentence


@pytest.mark.parametrize("size", [1.79e308, -1.79e308, 5e-324])
def test_a_factor_beyond_the_range_of_floats_keeps_the_other_cases(size):
    halves = _exercise(
        cases=lambda seed: [Case({"x": torch.full((2,), 0.1 * n)}) for n in (1, 2, 3)],
        compare=Close(dtype=False),
    )
    right = [2 * case.arguments["x"] for case in make_cases(halves, 0)]
    odd = torch.full((2,), size, dtype=torch.float64)
    grade = _judge(answered(0, *right[:2], odd), exercise=halves)
    assert (grade.outcome, grade.passed, grade.flags) == ("wrong", 2, ())


def test_one_answer_for_everybody_leaves_three_guesses():
    estimate = _exercise(cases=lambda seed: [Case({"x": 1})])
    guesses = [answered(n, value) for n, value in enumerate((2, 5, 6, 7))]
    cells = (NAMES,) * 8
    assert _judge(*guesses, exercise=estimate, cells=cells).points == 0
    assert _judge(*guesses[:3], exercise=estimate, cells=cells).points == 3
    many = _judge(*guesses, *guesses, exercise=estimate, cells=cells)
    assert many.flags == ("duplicated", "there in 8 definitions")


def test_a_check_that_fills_memory_is_stopped():
    def fills(arguments, output):
        return None if bytearray(output) else "empty"

    hungry = _exercise(compare=Invariant(fills))
    assert _judge(answered(0, *[2**36] * 3), exercise=hungry).points == 0


def test_a_forged_failure_is_cut_to_size():
    failure = Failure("E" * 9999, "m" * 9999, "f" * 9999, 10**30, "c" * 9999)
    forged = Answered(0, tuple(Execution(failure=failure, printed="p" * 10**6) for _ in range(3)))
    grade = _judge(forged)
    assert grade.outcome == "error"
    assert len(grade.sentence) <= bounds.MAX_SENTENCE


def test_moved_flags_the_fewest_within_a_topic():
    order = ("a.one", "a.two", "a.three", "b.one")
    places = {"a.one": 5, "a.two": 6, "a.three": 2, "b.one": 0}
    transcript = Transcript({name: (answered(n, 1),) for name, n in places.items()}, ())
    assert moved(order, transcript) == {"a.three"}

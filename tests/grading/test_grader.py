"""An exercise that nobody's submission can be graded with is refused before the first one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slmlab.checking import Case, Exact, Exercise, Mistake, registry
from slmlab.checking.portable import case_problem
from slmlab.checking.proof import cases as proved_cases
from slmlab.grading import job_process
from slmlab.grading.grader import Grader
from slmlab.grading.inside.codec import Codec
from slmlab.grading.plan import Plan
from tests.grading.class_of import FakeSandbox


def _exercise(make: Any, reference: Any = lambda x: 1) -> Exercise:
    return Exercise(
        id="packed.odd",
        title="Odd",
        points=3,
        minutes=3,
        difficulty=1,
        cases=make,
        reference=reference,
        mistakes=tuple(Mistake(f"m{n}", f"You add {n}.", lambda x, n=n: n + 2) for n in range(3)),
        hints=("a", "b", "c"),
        compare=Exact(),
        alternatives=(lambda x: 1,),
    )


def _refused(exercise: Exercise) -> str:
    with (
        registry.registered("packed", (exercise,)),
        pytest.raises(ValueError, match=r"^Exercise packed\.odd\b") as found,
    ):
        Grader(Plan((exercise.id,), 3), FakeSandbox())
    return str(found.value)


UNFIT = {
    "numpy integer": (np.int64(3), "write int(...)"),
    "numpy float": (np.float32(3), "write float(...)"),
    "set": ({1, 2}, "write a sorted list"),
    "set in a list": ([{1}], "x[0] is set"),
    "range": (range(3), "write list(...)"),
    "key": ({np.int64(1): 2}, "a key of x"),
    "parameter": (torch.nn.Parameter(torch.ones(2)), "write .detach()"),
    "gradient": (torch.ones(2, requires_grad=True), "write .detach()"),
    "sparse": (torch.eye(2).to_sparse(), "sparse"),
    "dtype": (torch.float32, "dtype, which is not plain data"),
    "path": (Path("a"), "not plain data"),
    "function": (len, "not plain data"),
    "objects": (np.array([None]), "array of dtype object"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_case_that_cannot_travel_is_named_to_author_and_grader(name):
    value, said = UNFIT[name]
    exercise = _exercise(lambda seed: [Case({"x": 1}), Case({"x": value})])
    sentence = _refused(exercise)
    assert "case 1: " in sentence and said in sentence
    assert any(said in complaint for complaint in proved_cases(exercise, (0,)))


FIT = [
    None, True, 2**200, 1.5, 1j, "text", b"bytes", [1, (2.0, {"a": frozenset({1})})],
    np.zeros((2, 0)), np.array([1 + 2j]), torch.ones(2, dtype=torch.bfloat16), torch.ones(2, 3).T,
]  # fmt: skip


@pytest.mark.parametrize("value", FIT, ids=str)
def test_what_the_rule_lets_through_travels(value):
    assert case_problem([Case({"x": value})]) is None
    Codec(object).encode({"x": value})


def _raises(*_: Any, **__: Any) -> Any:
    raise KeyError("pack")


def test_cases_or_a_reference_that_raise_are_named():
    assert "its cases cannot be made (KeyError: 'pack')" in _refused(_exercise(_raises))
    sentence = _refused(_exercise(lambda seed: [Case({"x": 1})], _raises))
    assert "its reference fails" in sentence and "KeyError" in sentence


def test_every_registered_exercise_is_fit():
    for exercise in registry.all_exercises():
        assert case_problem(tuple(exercise.cases(5))) is None, exercise.id


def test_whatever_a_pack_raises_the_job_process_answers(monkeypatch, tmp_path):
    answers: list[dict[str, Any]] = []

    with open(tmp_path / "in", "wb") as file:
        file.write(b"{}\n")
    monkeypatch.setattr(job_process, "_read", lambda stream, lines: lines.put(b"{}"))
    monkeypatch.setattr(job_process, "_ready", _raises)
    monkeypatch.setattr(job_process, "_answer", lambda stream, content: answers.append(content))
    monkeypatch.setattr(job_process.os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys, "stdin", open(tmp_path / "in"))  # noqa: SIM115
    assert job_process.main() == 1
    assert answers == [{"refused": "'pack'"}]

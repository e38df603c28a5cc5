"""Requests and reports travel whole, and a forged one is a ValueError."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking import (
    Case,
    Execution,
    all_exercises,
    execute,
    execution,
    get,
    judge,
    make_cases,
)
from slmlab.checking.failure import Failure
from slmlab.checking.spec import Exercise
from slmlab.checking.values import Opaque
from slmlab.grading.inside.messages import Messages
from tests.grading.inside.identical import identical
from tests.grading.inside.strategies import executions, plain_data, texts

MESSAGES = Messages(execution)


def answered(done: Execution) -> Execution:
    found: Execution = MESSAGES.read(MESSAGES.answer("a.b", 1, 2, done))["execution"]
    return found


@cache
def cases_of(exercise_id: str, seed: int) -> tuple[Case, ...]:
    return make_cases(get(exercise_id), seed)


@given(executions)
def test_an_execution_comes_back_the_same(done: Execution) -> None:
    assert identical(answered(done), done)


@given(st.lists(texts, max_size=3).map(tuple), st.dictionaries(st.sampled_from("abc"), plain_data))
def test_a_request_comes_back_the_same(cells: tuple[str, ...], arguments: dict[str, Any]) -> None:
    cases = {"x.y": (Case(arguments), Case({})), "x.z": ()}
    work = MESSAGES.read_request(MESSAGES.request(cells, cases, 2**63))
    assert (work.cells, work.seed) == (cells, 2**63)
    assert identical(work.cases, cases)


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda item: item.id)
def test_every_case_of_the_workbook_travels(exercise: Exercise) -> None:
    for seed in range(4):
        cases = {exercise.id: cases_of(exercise.id, seed)}
        assert identical(MESSAGES.read_request(MESSAGES.request((), cases, seed)).cases, cases)


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda item: item.id)
def test_an_answer_that_travelled_is_judged_as_one_that_did_not(exercise: Exercise) -> None:
    cases = cases_of(exercise.id, 0)
    sent = MESSAGES.read_request(MESSAGES.request((), {exercise.id: cases}, 0)).cases[exercise.id]
    wrong = [mistake.implementation for mistake in exercise.mistakes]
    for implementation in (exercise.reference, *wrong):
        here = execute(implementation, cases)
        there = tuple(answered(done) for done in execute(implementation, sent))
        assert identical(there, here)
        assert identical(judge(exercise, cases, there), judge(exercise, cases, here))


def test_what_is_too_large_is_named_and_the_rest_of_the_execution_stays() -> None:
    done = Execution(output=torch.zeros(1000), changed=("w",), printed="hello")
    small = MESSAGES.read(MESSAGES.answer("a.b", 0, 0, done, most=1000))["execution"]
    assert small == replace(done, output=Opaque("Tensor that is too large"))


def test_long_texts_of_a_failure_are_cut_to_what_is_accepted() -> None:
    done = Execution(failure=Failure("T" * 5000, "m" * 5000, "f", 3, "c" * 5000))
    failure = answered(done).failure
    assert failure is not None and failure.message == "m" * 2000 and failure.line == 3


def test_the_messages_of_a_cell() -> None:
    assert MESSAGES.read(MESSAGES.start(3)) == {"cell": 3, "state": "start"}
    end = {"cell": 3, "state": "raised", "message": "m", "printed": "\ud800", "seconds": 0.5}
    assert MESSAGES.read(MESSAGES.end(3, "raised", "m", "\ud800", 0.5)) == end


END = {"cell": 3, "state": "ran", "message": "", "printed": "", "seconds": 0.5}
ANSWER = {"answer": "a.b", "cell": 0, "case": 0, "execution": (1, None, False, (), "")}
FAILED = ("T", "m", "f", 3, "c")


@pytest.mark.parametrize(
    "forged",
    [
        None,
        [],
        {},
        {"cell": 3},
        {"cell": 3, "state": "ran"},
        {"cell": 3, "state": torch.zeros(2)},
        {"cell": True, "state": "start"},
        {"cell": -1, "state": "start"},
        {"cell": 2**40, "state": "start"},
        {torch.zeros(2): 3, "state": "start"},
        END | {"state": "start"},
        END | {"state": "finished"},
        END | {"state": torch.zeros(2)},
        END | {"message": None},
        END | {"printed": "x" * 2001},
        END | {"seconds": 1},
        END | {"seconds": float("nan")},
        END | {"seconds": -1.0},
        END | {"more": 1},
        ANSWER | {"more": 1},
        ANSWER | {"answer": 3},
        ANSWER | {"case": "0"},
        ANSWER | {"execution": [1, None, False, (), ""]},
        ANSWER | {"execution": (1, None, False, ())},
        ANSWER | {"execution": (1, None, 0, (), "")},
        ANSWER | {"execution": (1, None, False, [], "")},
        ANSWER | {"execution": (1, None, False, ("a",) * 101, "")},
        ANSWER | {"execution": (1, None, False, (np.zeros(2),), "")},
        ANSWER | {"execution": (1, None, False, (), "x" * 2001)},
        ANSWER | {"execution": (1, None, True, (), "")},
        ANSWER | {"execution": (1, FAILED, False, (), "")},
        *(
            ANSWER | {"execution": (None, failure, False, (), "")}
            for failure in (
                "T",
                FAILED[:4],
                (torch.zeros(2), *FAILED[1:]),
                ("T", "m" * 2001, None, None, None),
                ("T", "m", torch.zeros(2), None, None),
                ("T", "m", None, 1.5, None),
                ("T", "m", None, -1, None),
                ("T", "m", None, 2**40, None),
                ("T", "m", None, None, 0),
            )
        ),
    ],
    ids=str,
)
def test_a_forged_message_is_refused(forged: Any) -> None:
    with pytest.raises(ValueError):
        MESSAGES.read(MESSAGES.codec.encode(forged))


@given(plain_data, st.sampled_from(list(ANSWER) + list(END)), st.sampled_from([ANSWER, END]))
def test_any_value_in_any_field_is_a_message_or_a_value_error(
    value: Any, name: str, whole: dict[str, Any]
) -> None:
    try:
        found = MESSAGES.read(MESSAGES.codec.encode(whole | {name: value}))
    except ValueError:
        return
    assert set(found) == set(whole)


def test_an_input_that_is_no_data_is_the_authors_error() -> None:
    with pytest.raises(TypeError, match="plain data"):
        MESSAGES.request((), {"a.b": (Case({"x": object()}),)}, 0)
    bad: Any
    for bad in (None, ((), {}), ((1,), {}, 0), ((), {"a": (1,)}, 0), ((), {"a": ({"-": 1},)}, 0)):
        with pytest.raises(ValueError):
            MESSAGES.read_request(MESSAGES.codec.encode(bad))

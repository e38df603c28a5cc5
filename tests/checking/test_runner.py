"""Outcomes of every kind of learner's function."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking import Case, Close, Exact, execute, judge, run
from slmlab.checking.runner import MAX_PRINTED, make_cases
from tests.checking.fake_topic import EXERCISES, absmax_int8, cache_bytes, make_exercise
from tests.checking.test_values import Liar, LyingInt

INT8 = EXERCISES[0]


def doubled(x: float) -> float:
    return 2.0 * x


SIMPLE = make_exercise(doubled, [{"x": 1.0}, {"x": 2.0}, {"x": 4.0}])


def blank(x: float) -> float:
    raise NotImplementedError


def blank_with_words(x: float) -> float:
    """Doubles."""
    raise NotImplementedError("your turn")


def half_written(x: float) -> float:
    if x > 1:
        raise NotImplementedError
    return 2 * x


def missing_kernel(x: float) -> Any:
    return torch.nn.Module()(x)  # torch raises NotImplementedError in its own code


def missing_kernel_in_c(x: float) -> Any:
    return torch.empty(2, device="meta").to("cpu")  # NotImplementedError without a raise statement


@pytest.mark.parametrize(
    ("function", "outcome", "credit"),
    [
        (doubled, "passed", 1.0),
        (lambda x: x + x, "passed", 1.0),
        (lambda x: int(2 * x), "passed", 1.0),
        (blank, "unattempted", 0.0),
        (blank_with_words, "unattempted", 0.0),
        (half_written, "error", 1 / 3),
        (missing_kernel, "error", 0.0),
        (missing_kernel_in_c, "error", 0.0),
        (lambda x: None, "wrong", 0.0),
        (lambda x: x + 1, "wrong", 1 / 3),
        (lambda x: 1 / 0, "error", 0.0),
        (lambda x: 4.0 if x == 2 else [][1], "error", 1 / 3),
        (lambda: 1.0, "error", 0.0),
        (lambda y: 1.0, "error", 0.0),
        (lambda x: sys.exit(0), "error", 0.0),
        (lambda x: Liar(), "wrong", 0.0),
        (lambda x: LyingInt(5), "wrong", 0.0),
        (lambda x: str(2 * x), "wrong", 0.0),
    ],
)
def test_outcomes(function: Callable[..., Any], outcome: str, credit: float) -> None:
    result = run(SIMPLE, function)
    assert (result.outcome, result.credit) == (outcome, credit)


BEHAVIOURS: dict[str, Callable[[float], Any]] = {
    "passed": doubled,
    "wrong": lambda x: -x,
    "none": lambda x: None,
    "error": lambda x: 1 / 0,
    "unattempted": blank,
}


@given(st.lists(st.sampled_from(sorted(BEHAVIOURS)), min_size=1, max_size=6))
def test_classification(behaviours: list[str]) -> None:
    inputs = [{"x": float(i + 1)} for i in range(len(behaviours))]

    def learner(x: float) -> Any:
        return BEHAVIOURS[behaviours[int(x) - 1]](x)

    result = run(make_exercise(doubled, inputs), learner)
    if all(b == "passed" for b in behaviours):
        wanted = "passed"
    elif all(b == "unattempted" for b in behaviours):
        wanted = "unattempted"
    elif "error" in behaviours or "unattempted" in behaviours:
        wanted = "error"
    else:
        wanted = "wrong"
    assert result.outcome == wanted
    assert result.credit == behaviours.count("passed") / len(behaviours)
    assert (result.outcome == "passed") is (result.failing == ())
    expected = ["wrong" if b == "none" else b for b in behaviours]
    assert [item.outcome for item in result.results] == expected


def test_a_missing_kernel_is_what_torch_calls_not_implemented() -> None:
    for function in (missing_kernel, missing_kernel_in_c):
        with pytest.raises(NotImplementedError):
            function(1.0)


def test_in_place_edits_corrupt_nothing_and_are_noticed() -> None:
    cases = make_cases(INT8, 0)
    before = [case.arguments["w"].clone() for case in cases]

    def edits(w: torch.Tensor) -> torch.Tensor:
        codes = absmax_int8(w)
        w.zero_()
        return codes

    executions = execute(edits, cases)
    assert all(torch.equal(case.arguments["w"], w) for case, w in zip(cases, before, strict=True))
    assert {execution.changed for execution in executions} == {("w",)}
    assert judge(INT8, cases, executions).outcome == "passed"


def test_an_answer_that_aliases_its_input_is_a_snapshot() -> None:
    kept: list[torch.Tensor] = []

    def learner(x: torch.Tensor) -> torch.Tensor:
        for old in kept:
            old.zero_()
        kept.append(x)
        return x

    spec = make_exercise(lambda x: x, [{"x": torch.ones(2)}, {"x": torch.ones(3)}], Exact())
    assert run(spec, learner).outcome == "passed"


def test_nested_inputs_are_copied_too() -> None:
    case = Case({"config": {"layers": [1, 2]}})

    def clears(config: dict[str, list[int]]) -> int:
        config["layers"].clear()
        return 0

    assert execute(clears, [case, case])[1].changed == ("config",)
    assert case.arguments == {"config": {"layers": [1, 2]}}


def test_an_endless_print_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(x: float) -> float:
        for _ in range(10_000):
            print("x" * 1000)
        return 2 * x

    result = run(SIMPLE, chatty)
    assert result.outcome == "passed"
    assert all(len(item.execution.printed) == MAX_PRINTED for item in result.results)
    assert capsys.readouterr().out == ""


def test_the_last_line_of_the_learners_own_is_named() -> None:
    def learner(x: float) -> Any:
        return helper(x)

    def helper(x: float) -> Any:
        return torch.ones(2) @ torch.ones(3)

    failure = run(SIMPLE, learner).results[0].execution.failure
    assert failure is not None
    assert failure.function == "helper" and failure.type_name == "RuntimeError"
    assert failure.code == "return torch.ones(2) @ torch.ones(3)"


def test_frames_of_libraries_are_not_shown() -> None:
    def learner(x: float) -> Any:
        return torch.nn.Linear(2, 3)(torch.ones(5))

    failure = run(SIMPLE, learner).results[0].execution.failure
    assert failure is not None and failure.function == "learner"


def test_a_wrong_signature_names_the_parameters() -> None:
    def learner(x: float, scale: float) -> float:
        return x * scale

    failure = run(SIMPLE, learner).results[0].execution.failure
    assert failure is not None
    assert "learner(x=...)" in failure.sentence and "learner(x, scale)" in failure.sentence
    assert "missing" in failure.sentence and "'scale'" in failure.sentence


def test_an_exception_that_cannot_be_printed() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def learner(x: float) -> float:
        raise Rude

    failure = run(SIMPLE, learner).results[0].execution.failure
    assert failure is not None and "cannot be printed" in failure.sentence


def test_endless_recursion_is_an_error() -> None:
    def learner(x: float) -> float:
        return learner(x)

    failure = run(SIMPLE, learner).results[0].execution.failure
    assert failure is not None and "without end" in failure.sentence


def test_an_interrupt_is_not_swallowed() -> None:
    def learner(x: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SIMPLE, learner)


def test_a_check_of_nothing_is_refused() -> None:
    empty = make_exercise(doubled, [])
    with pytest.raises(ValueError, match="at least one"):
        run(empty, doubled)
    with pytest.raises(ValueError, match="executions"):
        judge(SIMPLE, make_cases(SIMPLE, 0), [])


def test_a_broken_reference_is_not_the_learners_fault() -> None:
    broken = make_exercise(lambda x: 1 / 0, [{"x": 1.0}], Close())
    with pytest.raises(RuntimeError, match=r"reference of 'made\.up'"):
        run(broken, doubled)


def test_the_right_numbers_in_the_wrong_dtype_are_wrong() -> None:
    result = run(INT8, lambda w: absmax_int8(w).float())
    assert result.outcome == "wrong"
    assert run(EXERCISES[1], lambda config, tokens: float(cache_bytes(config, tokens))).credit == 0

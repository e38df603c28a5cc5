"""Functions that break what they can reach still end in an outcome."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from slmlab.checking import check, run
from tests.checking.fake_topic import make_exercise


def doubled(x: float) -> float:
    return 2.0 * x


SIMPLE = make_exercise(doubled, [{"x": 1.0}, {"x": 2.0}, {"x": 4.0}])


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, BaseException])
def test_what_is_no_exception_is_an_error_too(kind: type[BaseException]) -> None:
    def learner(x: float) -> float:
        raise kind

    result = run(SIMPLE, learner)
    assert result.outcome == "error"
    failure = result.results[0].execution.failure
    assert failure is not None and failure.type_name == kind.__name__


def test_a_closed_stdout_loses_nothing() -> None:
    def learner(x: float) -> float:
        print("before")
        sys.stdout.close()
        print("after")
        return 2 * x

    result = run(SIMPLE, learner)
    assert result.outcome == "passed"
    assert result.results[0].execution.printed == "before\nafter\n"


def test_a_callable_without_a_readable_signature_is_called() -> None:
    class Odd:
        @property
        def __signature__(self) -> Any:
            raise RuntimeError("no")

        @property
        def __code__(self) -> Any:
            raise RuntimeError("no")

        def __init__(self, answer: Callable[[float], float]) -> None:
            self.answer = answer

        def __call__(self, x: float) -> float:
            return self.answer(x)

    assert run(SIMPLE, Odd(doubled)).outcome == "passed"
    assert run(SIMPLE, Odd(lambda x: 1 / 0)).outcome == "error"


@pytest.mark.parametrize("answer", ["quantized", "nested", "loop", "half complex"])
def test_answers_that_are_no_ordinary_data_are_wrong(answer: str) -> None:
    loop: list[Any] = []
    loop += [loop] * 3
    makers: dict[str, Callable[[], Any]] = {
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        "loop": lambda: loop,
        "half complex": lambda: torch.zeros(2, dtype=torch.complex32),
    }
    for spec in (SIMPLE, make_exercise(lambda x: torch.ones(2), [{"x": 1.0}])):
        report = check(spec, lambda x: makers[answer]())
        assert report.outcome == "wrong" and report.diagnosis is not None
        assert report.diagnosis.counterexample is not None

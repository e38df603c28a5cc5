"""Close, Exact and Invariant, against numpy's own comparison and by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking import Close, Exact, Invariant
from slmlab.checking.values import Opaque, plain

floats = st.floats(width=32)


def right(rule: Any, wanted: Any, yours: Any) -> bool:
    return rule.problem({}, plain(wanted), plain(yours)) is None


@given(wanted=floats, yours=floats)
def test_close_agrees_with_numpy_testing(wanted: float, yours: float) -> None:
    try:
        np.testing.assert_allclose(yours, wanted, rtol=1e-3, atol=1e-5, equal_nan=True)
        expected = True
    except AssertionError:
        expected = False
    rule = Close(rtol=1e-3, atol=1e-5)
    assert right(rule, wanted, yours) is expected
    assert right(rule, torch.tensor([wanted]), torch.tensor([yours])) is expected
    assert right(rule, {"a": [wanted]}, {"a": (yours,)}) is expected


@given(st.lists(floats, min_size=1), st.integers(0, 1000))
def test_exact_sees_any_single_change(values: list[float], place: int) -> None:
    wanted = np.array(values, dtype=np.float32)
    assert right(Exact(), wanted, wanted.copy())
    yours = wanted.copy()
    place %= len(values)
    yours[place] = 0.0 if math.isnan(yours[place]) else np.nextafter(yours[place], np.float32(7.5))
    assert right(Exact(), wanted, yours) is bool(yours[place] == wanted[place])


@pytest.mark.parametrize(
    ("rule", "wanted", "yours", "passes"),
    [
        (Close(), 2.0, 2, True),  # an int where a float is meant
        (Exact(), 2.0, 2, True),
        (Exact(), 2, 2.0, False),
        (Close(), 1.0, True, False),
        (Exact(), True, 1, False),
        (Exact(), True, True, True),
        (Close(), 2.0, "2.0", False),
        (Exact(), "a", "a", True),
        (Exact(), [1, 2], (1, 2), True),
        (Exact(), [1, 2], [1, 2, 3], False),
        (Exact(), {"a": 1}, {"a": 1, "b": 2}, False),
        (Exact(), frozenset({1, 2}), {2, 1}, True),
        (Exact(), None, None, True),
        (Exact(), None, 0, False),
        (Close(), 10**400, 10**400, True),
        (Close(), 10**400, 10**401, False),
        (Exact(), 2**63, 2**63 + 1, False),
        (Close(), math.inf, math.inf, True),
        (Close(), math.inf, 1e308, False),
        (Close(), math.nan, math.nan, True),
        (Close(), 0.0, math.nan, False),
        (Close(), torch.zeros(0), torch.zeros(0), True),
        (Close(), torch.zeros(0), torch.zeros(1), False),
        (Close(), torch.ones(2), np.ones(2, dtype=np.float32), False),
        (Close(), torch.ones(2), [1.0, 1.0], False),
        (Close(), torch.ones(2), torch.ones(2).double(), False),
        (Close(dtype=False), torch.ones(2), torch.ones(2).double(), True),
        (Close(), torch.ones(2, 1), torch.ones(2), False),
        (Close(), 1.0, torch.tensor(1.0), False),
        (Exact(), torch.tensor([True]), torch.tensor([True]), True),
        (Close(), Opaque("thing"), Opaque("thing"), False),
    ],
)
def test_table(rule: Any, wanted: Any, yours: Any, passes: bool) -> None:
    assert right(rule, wanted, yours) is passes


@pytest.mark.parametrize(
    ("wanted", "yours", "words"),
    [
        (torch.ones(2), None, "returned None: is a return missing?"),
        ([1.0, 2.0], [1.0, None], "At [1] your answer holds None"),
        (2, 2.0, "you return the float 2.0, wanted int"),
        (1.0, torch.tensor(1.0), ".item()"),
        (torch.ones(2), [1.0, 1.0], "you return list, wanted torch.Tensor"),
        ([1], (x for x in [1]), "generator"),
        ([1], len, "meant to be called"),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, "missing 'b'; not asked for 'c'"),
        ([1, 2], [1], "1 items, wanted 2"),
        (torch.ones(2, 3), torch.ones(3, 2), "transposed"),
        (torch.ones(2, 1), torch.ones(2), "keepdim"),
        (torch.ones(2), torch.ones(2).double(), "float64, wanted float32"),
    ],
)
def test_sentences(wanted: Any, yours: Any, words: str) -> None:
    problem = Close().problem({}, plain(wanted), plain(yours))
    problem = problem or Exact().problem({}, plain(wanted), plain(yours))
    assert problem is not None and words in problem


def test_a_wrong_number_goes_before_a_dtype() -> None:
    wanted = {"a": torch.ones(1), "b": 1.0}
    problem = Close().problem({}, wanted, {"a": torch.ones(1).double(), "b": 2.0})
    assert problem is not None and "['b']" in problem


def small_enough(arguments: dict[str, Any], output: Any) -> str | None:
    return None if output * 2 <= arguments["budget"] else "Twice the answer exceeds the budget."


def test_invariant_accepts_any_answer_that_keeps_it() -> None:
    rule = Invariant(small_enough)
    assert rule.problem({"budget": 10}, 5, 3) is None
    assert rule.problem({"budget": 10}, 5, 6) == "Twice the answer exceeds the budget."


def test_invariant_never_passes_on_nothing() -> None:
    rule = Invariant(lambda arguments, output: None)
    assert "returned None" in str(rule.problem({}, 5, None))
    assert "object" in str(rule.problem({}, 5, Opaque("object")))


def test_invariant_check_cannot_be_crashed_into_a_pass() -> None:
    problem = Invariant(small_enough).problem({"budget": 10}, 5, {"a": 1})
    assert problem == "you return dict, wanted int."


def test_invariant_check_must_return_none_or_text() -> None:
    with pytest.raises(TypeError, match="None or a sentence"):
        Invariant(lambda arguments, output: True).problem({}, 1, 1)  # type: ignore[arg-type, return-value]


def test_invariant_check_cannot_change_what_the_next_one_sees() -> None:
    def greedy(arguments: dict[str, Any], output: Any) -> None:
        arguments["xs"].clear()
        output.clear()

    arguments, output = {"xs": [1]}, [2]
    Invariant(greedy).problem(arguments, [2], output)
    assert arguments == {"xs": [1]} and output == [2]


@pytest.mark.parametrize("bad", [{"rtol": -1.0}, {"atol": math.nan}, {"rtol": "1"}])
def test_bad_tolerances(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Close(**bad)
